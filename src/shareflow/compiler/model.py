"""A model on its way to a private program: read, improved and checked, at each batch size that is asked for."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from shareflow.compiler.calibration import Calibration, ranges_of, require_same_model, result_keys
from shareflow.compiler.front.function_source import function_source
from shareflow.compiler.front.keras_source import keras_source
from shareflow.compiler.front.saved import saved_source
from shareflow.compiler.front.source import Argument, Source
from shareflow.compiler.graph import Graph
from shareflow.compiler.overflow import require_fit
from shareflow.compiler.parameters import values_of
from shareflow.compiler.passes import optimize
from shareflow.compiler.passes.polynomial_relu import Polynomial, polynomial_relu
from shareflow.compiler.passes.receiver_softmax import receiver_softmax
from shareflow.compiler.passes.trust_ranges import trust_ranges
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
        parameter_bits: fractional bits of parameters that are kept with others than follow from the encoding, by name.

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
        parameter_bits: Mapping[str, int] | None = None,
    ) -> None:
        self.source = source
        self.owner = as_party(owner)
        self.client = as_party(client)
        self.point = point
        self.parameter_bits = dict(parameter_bits or {})
        unknown = set(parties or {}) - set(source.inputs)
        if unknown:
            raise UnsupportedModelError(
                f"The model has no input {sorted(unknown)[0]!r}; its inputs are {', '.join(source.inputs)}."
            )
        self.parties = {
            name: as_party((parties or {}).get(name) or argument.party or self.client)
            for name, argument in source.inputs.items()
        }
        self._read: dict[int, Graph] = {}
        self._optimized: dict[int, tuple[Graph, dict[str, str]]] = {}
        self._compiled: dict[int, PrivateGraph] = {}
        self._calibration: Calibration | None = None
        self._trust: float | None = None
        self._approximated: tuple[frozenset[str], Polynomial] | None = None

    def read(self, batch: int) -> Graph:
        """The graph as it was read, for a batch size."""
        if batch not in self._read:
            inputs = {name: party.job for name, party in self.parties.items()}
            source = self.source
            # A prediction at a new batch size asks for this while its program is traced: none of it belongs there.
            with tf.init_scope():
                self._read[batch] = read(
                    source.trace(batch),
                    inputs,
                    source.outputs,
                    self.owner.job,
                    source.layer_of,
                    source.arrays_are_public,
                )
        return self._read[batch]

    def compiled(self, batch: int) -> PrivateGraph:
        """The graph after all passes, ready to run, for a batch size."""
        if batch not in self._compiled:
            if batch not in self._optimized:
                with tf.init_scope():
                    self._optimized[batch] = receiver_softmax(optimize(self.read(batch)))
            graph, activations = self._optimized[batch]
            made = PrivateGraph.make(graph, self.owner.job, self.point, activations, self.parameter_bits)
            if self._calibration is not None:
                require_same_model(made, self._calibration)
                if self._trust is not None:
                    graph = trust_ranges(graph, ranges_of(made, self._calibration), self._trust)
                    made = PrivateGraph.make(graph, self.owner.job, self.point, activations, self.parameter_bits)
            if self._approximated is not None:
                keys, polynomial = self._approximated
                names = {output.node.name for output, key in result_keys(made).items() if key in keys}
                graph = polynomial_relu(graph, names, polynomial)
                made = PrivateGraph.make(graph, self.owner.job, self.point, activations, self.parameter_bits)
            self._compiled[batch] = made
        return self._compiled[batch]

    @property
    def calibration(self) -> Calibration | None:
        """The ranges that it was compiled by, if it was."""
        return self._calibration

    def at(self, point: FixedPoint, parameter_bits: Mapping[str, int] | None = None) -> Model:
        """The same model in another encoding; what was read and improved already serves it, too."""
        other = Model(self.source, self.owner, self.client, point, self.parties, parameter_bits)
        other._read, other._optimized = self._read, self._optimized
        other._approximated = self._approximated
        return other

    def calibrated(self, calibration: Calibration, trust: float | None = None) -> Model:
        """The same model in the encoding of a calibration.

        Args:
            calibration: by :func:`shareflow.compiler.calibration.calibrate`.
            trust: comparisons look at so many times the range of the samples alone (1 or more): cheaper, and wrong for
                a value beyond. None: at all that the ring holds.

        Raises:
            EncodingError: a layer overflows; or, when it is compiled, the calibration is of another model.
        """
        require_fit(calibration)
        other = self.at(calibration.point, calibration.parameter_bits)
        other._calibration, other._trust = calibration, trust
        return other

    def approximated(
        self, keys: Collection[str], polynomial: Polynomial, calibration: Calibration | None = None
    ) -> Model:
        """The same model with a polynomial in place of some ReLUs.

        Args:
            keys: of these ReLUs, by :func:`shareflow.compiler.calibration.result_keys`.
            polynomial: in their place.
            calibration: with the ranges that they then have, of a model that has one.
        """
        other = self.at(self.point, self.parameter_bits)
        other._calibration, other._approximated = calibration, (frozenset(keys), polynomial)
        return other

    def parameters(self, batch: int = 1) -> dict[str, np.ndarray]:
        """What the owner shares, by name, computed in plaintext."""
        compiled = self.compiled(batch)
        return values_of(compiled.graph, compiled.parameters)


def source_of(model: Any, inputs: Mapping[str, Argument] | None = None, signature: str | None = None) -> Source:
    """The front end for what is given: a Keras model, a function, or the path of a saved model.

    Args:
        model: a Keras 3 model, a function of tensors, or the path of a .keras, .h5, .onnx or .pb file or a SavedModel.
        inputs: shapes and types by name, where the model does not say them.
        signature: which function of a SavedModel that has several.

    Raises:
        DataError: a file that is not there, or is damaged.
        UnsupportedModelError: no front end takes it.
    """
    if isinstance(model, Source):
        return model
    if isinstance(model, (str, Path)):
        return saved_source(Path(model), inputs, signature)
    if signature is not None:
        raise UnsupportedModelError("A signature is a part of a SavedModel; give its path.")
    if isinstance(model, keras.Model):
        return keras_source(model, inputs)
    if callable(model):
        return function_source(model, inputs)
    raise UnsupportedModelError(
        "A model is a Keras 3 model, a tf.function, or the path of a .keras or .onnx file or a SavedModel; got "
        f"{type(model).__name__}."
    )
