"""A private model: layers whose parameters are shared, and predictions on private inputs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from shareflow.audit.cost import Cost
from shareflow.audit.view import Audit
from shareflow.compiler.keras_chain import chain_of
from shareflow.compiler.keras_layers import Step, convert
from shareflow.compiler.model_steps import finish, kept_bits, scope_name
from shareflow.compiler.pool_before_relu import pool_before_relu
from shareflow.errors import PlacementError, ShapeError
from shareflow.function import Function, function
from shareflow.nn.layer import Layer
from shareflow.party.party import Party, as_party
from shareflow.protocol.default import current_protocol
from shareflow.protocol.placement import private_tensor
from shareflow.protocol.protocol import Protocol
from shareflow.protocol.tensor import PrivateTensor, PrivateValue
from shareflow.protocol.variable import PrivateVariable


@dataclass(frozen=True)
class LayerReport:
    """What one layer took. Bytes are of all parties together; a round is one online step."""

    name: str
    offline_seconds: float
    online_seconds: float
    rounds: int
    online_bytes: int
    offline_bytes: int


@dataclass(frozen=True)
class Report:
    """Where the time of a prediction goes, layer by layer; ``total`` is measured on the whole graph."""

    batch_size: int
    layers: tuple[LayerReport, ...]
    total: LayerReport


class PrivateModel:
    """Layers one after another, owned by a party, on the shares of a protocol. Made by :func:`private_model`."""

    def __init__(
        self,
        layers: tuple[tuple[str, Layer], ...],
        input_shape: tuple[int, ...],
        owner: Party,
        protocol: Protocol,
        receiver_activation: str | None = None,
    ) -> None:
        self.layers = layers
        self.input_shape = input_shape
        self.owner = owner
        self.protocol = protocol
        self.receiver_activation = receiver_activation
        self._predict: dict[Party, Function[Any]] = {}

    def __call__(self, x: PrivateValue) -> PrivateTensor:
        """The scores of a private batch [N, *input_shape], still private; before a final softmax, if there is one.

        Raises:
            ShapeError: the samples have another shape.
        """
        if x.shape[1:] != self.input_shape:
            raise ShapeError(
                f"The model takes batches of shape [N, {', '.join(map(str, self.input_shape))}]; got {list(x.shape)}. "
                "Reshape the samples, or add the batch axis."
            )
        y = x.read().shared(self.protocol)
        for name, layer in self.layers:
            with tf.name_scope(scope_name(name)):
                y = layer(y)
        return y

    def predict(
        self,
        x: Any,
        *,
        receiver: Party | str,
        input_owner: Party | str | None = None,
        batch_size: int = 32,
        progress: bool | None = None,
    ) -> np.ndarray:
        """Predictions for an array [n, *input_shape], as the receiver sees them: float32 [n, ...].

        Args:
            x: the samples, in plaintext at their owner.
            receiver: who alone learns the result.
            input_owner: whose samples they are; the receiver's, if not said.
            batch_size: how many go together at most; the last batch is filled up. On a cluster with several groups of
                workers, fewer, where that gives every group its part.
            progress: shows a bar while more than one batch is computed; where not said, on a terminal.

        Raises:
            ShapeError: the samples have another shape or are no numbers.
            EncodingError: NaN, infinite, or values beyond the fixed-point range.
        """
        samples = self._samples(x)
        if not isinstance(batch_size, int) or batch_size < 1:
            raise ShapeError(f"batch_size is a whole number of at least 1; got {batch_size!r}.")
        to = as_party(receiver)
        source = to if input_owner is None else as_party(input_owner)
        predict = self._predictor(to)
        size = min(batch_size, max(math.ceil(len(samples) / predict.width), 1))
        batches = [samples[start : start + size] for start in range(0, max(len(samples), 1), size)]
        results = []
        shown = Console(stderr=True).is_terminal if progress is None else progress
        with _bar(len(batches) if shown and len(batches) > 1 else 0) as bar:
            task = bar.add_task("private prediction", total=len(batches))
            filled = ((private_tensor(_filled(batch, size), source),) for batch in batches)
            for batch, scores in zip(batches, predict.map(filled), strict=True):
                results.append(scores.numpy()[: len(batch)].astype(np.float32))
                bar.advance(task)
        return np.concatenate(results)

    def cost(self, batch_size: int = 1) -> Cost:
        """Rounds and bytes of one prediction, sharing its input and revealing its result included."""
        return self._predictor(_CLIENT).cost(self._zeros(batch_size))

    def audit(self, batch_size: int = 1) -> Audit:
        """What each party's messages can tell it in one prediction, proved from the graph."""
        return self._predictor(_CLIENT).audit(self._zeros(batch_size))

    def report(self, batch_size: int = 1, repeats: int = 5) -> Report:
        """Runs a batch layer by layer, offline and online part one after the other, and tells what each took.

        The figures are medians; rounds and bytes are counted from the graphs. The total is the whole graph's, which
        joins what the layers do separately here.
        """
        x = self._zeros(batch_size)
        steps: list[tuple[str, Any]] = [("input", lambda value: value.shared(self.protocol)), *self.layers]
        steps.append(("reveal", lambda value: value.reveal(_CLIENT)))
        rows, value = [], x
        for name, step in steps:
            row, value = _measure(name, function(step), value, repeats)
            rows.append(row)
        total, _ = _measure("total", self._predictor(_CLIENT), x, repeats)
        return Report(batch_size, tuple(rows), total)

    def summary(self) -> str:
        """One line a layer."""
        return "\n".join(f"{name}: {type(layer).__name__}" for name, layer in self.layers)

    def _predictor(self, receiver: Party) -> Function[Any]:
        if receiver not in self._predict:

            def predict(x: PrivateTensor) -> PrivateTensor:
                return finish(self(x).reveal(receiver), receiver, self.receiver_activation)

            self._predict[receiver] = function(predict)
        return self._predict[receiver]

    def _samples(self, x: Any) -> np.ndarray:
        if isinstance(x, PrivateValue):
            raise PlacementError(
                "predict takes plaintext samples and shares them itself; these are private already. Call the model "
                "on them, and reveal the result: model(x).reveal('client')."
            )
        samples = np.asarray(x)
        if samples.dtype.kind not in "fiub":
            raise ShapeError(f"Samples are numbers; got an array of {samples.dtype}. Convert them to float32.")
        if samples.shape[1:] != self.input_shape or samples.ndim != len(self.input_shape) + 1:
            raise ShapeError(
                f"The model takes samples of shape {self.input_shape}, batch first; got an array of shape "
                f"{samples.shape}. Reshape it to [n, {', '.join(map(str, self.input_shape))}]."
            )
        return samples if samples.dtype.kind == "f" else samples.astype(np.float32)

    def _zeros(self, batch_size: int) -> PrivateTensor:
        return private_tensor(np.zeros((batch_size, *self.input_shape), np.float32), _CLIENT)


# Whom costs are counted and measured for.
_CLIENT = Party("client")


def private_model(model: keras.Model, *, owner: Party | str, protocol: Protocol | None = None) -> PrivateModel:
    """A Keras model's weights as private variables of their owner, ready for private predictions.

    Batch normalisation is folded at the owner, in plaintext; the weights are encoded, shared and masked once.
    A final softmax is applied by whoever receives the scores.

    Args:
        model: a built Sequential or linear functional Keras 3 model.
        owner: the party that knows the weights.
        protocol: where they are shared; the current one by default.

    Raises:
        UnsupportedModelError: the model, or one of its layers, cannot be made private.
        EncodingError: a weight is NaN, infinite or out of range.
    """
    party, meeting = as_party(owner), protocol or current_protocol()
    shape, links = chain_of(model)
    steps, final = convert(links)
    layers = pool_before_relu(tuple((step.name, _share_parameters(step, party, meeting)) for step in steps))
    return PrivateModel(layers, shape, party, meeting, final)


def _share_parameters(step: Step, owner: Party, protocol: Protocol) -> Layer:
    bits = protocol.fixed_point.fractional_bits
    variables = {}
    for name, value in step.parameters.items():
        scale = kept_bits(name, bits)
        variables[name] = PrivateVariable(private_tensor(value, owner), protocol, scale, name=f"{step.name}/{name}")
    return step.make(**variables)


def _filled(batch: np.ndarray, size: int) -> np.ndarray:
    return np.concatenate([batch, np.zeros((size - len(batch), *batch.shape[1:]), batch.dtype)])


def _measure(name: str, step: Function[Any], value: Any, repeats: int) -> tuple[LayerReport, Any]:
    result, _ = step.timed(value)
    times = [step.timed(value)[1] for _ in range(repeats)]
    cost = step.cost(value)
    row = LayerReport(
        name,
        float(np.median([t.offline for t in times])),
        float(np.median([t.online for t in times])),
        cost.rounds,
        cost.online_bytes,
        cost.offline_bytes,
    )
    return row, result


def _bar(total: int) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not total,
    )

