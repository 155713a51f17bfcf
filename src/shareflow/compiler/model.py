"""A model on its way to a private program: read, improved and checked, at each batch size that is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from shareflow.compiler.front.function_source import function_source, saved_model_source
from shareflow.compiler.front.keras_source import keras_source
from shareflow.compiler.front.source import Argument, Source
from shareflow.compiler.graph import Graph
from shareflow.compiler.parameters import values_of
from shareflow.compiler.passes import optimize
from shareflow.compiler.passes.receiver_softmax import receiver_softmax
from shareflow.compiler.private_graph import PrivateGraph
from shareflow.compiler.read import read
from shareflow.errors import UnsupportedModelError
from shareflow.party.party import Party, as_party
from shareflow.ring.fixed_point import FixedPoint


class Model:
    """A source with parties.

    Args:
        source: of a front end.
        owner: who knows variables and weights.
        client: who brings the inputs that no one else is named for.
        point: the encoding.
        parties: who brings which input, by name.

    Raises:
        UnsupportedModelError: an input that there is not is given a party.
    """

    def __init__(
        self,
        source: Source,
        owner: Party | str,
        client: Party | str,
        point: FixedPoint,
        parties: Mapping[str, Party | str] | None = None,
    ) -> None:
        self.source = source
        self.owner = as_party(owner)
        self.client = as_party(client)
        self.point = point
        unknown = set(parties or {}) - set(source.inputs)
        if unknown:
            raise UnsupportedModelError(
                f"The model has no input {sorted(unknown)[0]!r}; its inputs are {', '.join(source.inputs)}."
            )
        self.parties = {name: as_party((parties or {}).get(name, self.client)) for name in source.inputs}
        self._read: dict[int, Graph] = {}
        self._compiled: dict[int, PrivateGraph] = {}

    def read(self, batch: int) -> Graph:
        """The graph as it was read, for a batch size."""
        if batch not in self._read:
            inputs = {name: party.job for name, party in self.parties.items()}
            source = self.source
            self._read[batch] = read(
                source.trace(batch), inputs, source.outputs, self.owner.job, source.layer_of, source.arrays_are_public
            )
        return self._read[batch]

    def compiled(self, batch: int) -> PrivateGraph:
        """The graph after all passes, ready to run, for a batch size."""
        if batch not in self._compiled:
            graph, activations = receiver_softmax(optimize(self.read(batch)))
            self._compiled[batch] = PrivateGraph.make(graph, self.owner.job, self.point, activations)
        return self._compiled[batch]

    def parameters(self, batch: int = 1) -> dict[str, np.ndarray]:
        """What the owner shares, by name, computed in plaintext."""
        compiled = self.compiled(batch)
        return values_of(compiled.graph, compiled.parameters)


def source_of(model: Any, inputs: Mapping[str, Argument] | None = None) -> Source:
    """The front end for what is given: a Keras model, a function, or the path of a saved one.

    Raises:
        UnsupportedModelError: no front end takes it.
    """
    if isinstance(model, Source):
        return model
    if isinstance(model, keras.Model):
        return keras_source(model)
    if isinstance(model, (str, Path)):
        path = Path(model)
        if path.is_dir():
            return saved_model_source(path)
        return keras_source(keras.saving.load_model(path, compile=False))
    if callable(model):
        return function_source(model, inputs)
    raise UnsupportedModelError(
        f"A model is a Keras 3 model, a tf.function, or the path of a .keras file or a SavedModel; got "
        f"{type(model).__name__}."
    )
