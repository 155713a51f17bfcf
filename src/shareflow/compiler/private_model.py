"""A private model: layers whose parameters are shared, and predictions on private inputs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from shareflow.audit.cost import Cost
from shareflow.audit.view import Audit
from shareflow.compiler.calibration import Calibration
from shareflow.compiler.compile_model import calibrated
from shareflow.compiler.cost.choose import Choice, choose
from shareflow.compiler.cost.network import Network
from shareflow.compiler.front.source import Argument
from shareflow.compiler.graph import INPUT, Node, Output
from shareflow.compiler.model import Model, source_of
from shareflow.compiler.parameters import check_same_parameters
from shareflow.compiler.private_graph import PrivateGraph, finish
from shareflow.compiler.scope import scope_name
from shareflow.compiler.sharing import shared_inputs
from shareflow.errors import PlacementError, ShapeError
from shareflow.function import Function, function
from shareflow.party.party import Party, as_party
from shareflow.protocol.default import current_protocol
from shareflow.protocol.placement import private_tensor
from shareflow.protocol.protocol import Protocol
from shareflow.protocol.tensor import PrivateTensor, PrivateValue
from shareflow.protocol.variable import PrivateVariable
from shareflow.runtime.local import Timing


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
    """A model whose parameters are private variables, on the shares of a protocol. Made by :func:`private_model`."""

    def __init__(self, model: Model, protocol: Protocol) -> None:
        self.model = model
        self.owner = model.owner
        self.protocol = protocol
        compiled = model.compiled(1)
        self.parameters = {
            name: _shared(name, value, compiled.parameters[name].fractional_bits, self.owner, protocol)
            for name, value in model.parameters().items()
        }
        self._predict: dict[Party, Function[Any]] = {}

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one sample, for a model with one input.

        Raises:
            ShapeError: it has several.
        """
        if len(self.model.source.inputs) != 1:
            raise ShapeError(
                f"The model has several inputs: {', '.join(self.model.source.inputs)}. Give a dict of arrays."
            )
        return next(iter(self.model.source.inputs.values())).shape

    @property
    def layers(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Layers in the order in which they are computed, each with the ops that are computed on shares."""
        return tuple((name, tuple(node.op for node in nodes)) for name, nodes in self.model.compiled(1).layers)

    def __call__(self, x: PrivateValue | Mapping[str, PrivateValue]) -> Any:
        """The scores of a private batch [N, *input_shape], still private; before a final softmax, if there is one.

        Several inputs are given as a dict by name; several results come as one.

        Raises:
            ShapeError: the samples have another shape.
        """
        inputs = self._named(x)
        batch = self._batch({name: tuple(value.shape) for name, value in inputs.items()})
        compiled = self._compiled(batch)
        shared = shared_inputs(compiled.graph, inputs, self.protocol)
        return _alone(compiled.run(shared, self.parameters, self.protocol))

    def predict(
        self,
        x: Any,
        *,
        receiver: Party | str,
        input_owner: Party | str | Mapping[str, Party | str] | None = None,
        batch_size: int = 32,
        progress: bool | None = None,
    ) -> np.ndarray:
        """Predictions for an array [n, *input_shape], as the receiver sees them: float32 [n, ...].

        Args:
            x: the samples, in plaintext at their owner.
            receiver: who alone learns the result.
            input_owner: whose samples they are, for all or by input name; where not said, the party that the model
                names for an input, or else the receiver.
            batch_size: how many go together at most; the last batch is filled up. On a cluster with several groups of
                workers, fewer, where that gives every group its part.
            progress: shows a bar while more than one batch is computed; where not said, on a terminal.

        Several inputs are given as a dict of arrays by name; several results come as one.

        Raises:
            ShapeError: the samples have another shape or are no numbers.
            EncodingError: NaN, infinite, or values beyond the fixed-point range.
        """
        if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size < 1:
            raise ShapeError(f"batch_size is a whole number of at least 1; got {batch_size!r}.")
        samples = {name: self._samples(name, value) for name, value in self._named(x).items()}
        count = self._count(samples)
        to = as_party(receiver)
        owners = self._owners(input_owner, to)
        predict = self._predictor(to)
        size = min(batch_size, max(math.ceil(count / predict.width), 1)) if self.model.source.batched else 1
        starts = range(0, max(count, 1), size)
        results: list[dict[str, np.ndarray]] = []
        shown = Console(stderr=True).is_terminal if progress is None else progress
        with _bar(len(starts) if shown and len(starts) > 1 else 0) as bar:
            task = bar.add_task("private prediction", total=len(starts))

            def filled(at: int) -> dict[str, PrivateTensor]:
                parts = {name: self._part(name, value, at, size) for name, value in samples.items()}
                return {name: private_tensor(part, owners[name]) for name, part in parts.items()}

            for at, scores in zip(starts, predict.map((filled(at),) for at in starts), strict=True):
                here = {name: np.asarray(value.numpy(), np.float32) for name, value in scores.items()}
                results.append({name: v[: count - at] if self.model.source.batched else v for name, v in here.items()})
                bar.advance(task)
        if not self.model.source.batched:
            return _alone(results[0])
        return _alone({name: np.concatenate([part[name] for part in results]) for name in results[0]})

    def _owners(self, given: Party | str | Mapping[str, Party | str] | None, receiver: Party) -> dict[str, Party]:
        arguments = self.model.source.inputs
        if given is not None and not isinstance(given, Mapping):
            return {name: as_party(given) for name in arguments}
        said = dict(given or {})
        unknown = set(said) - set(arguments)
        if unknown:
            raise ShapeError(f"The model has no input {sorted(unknown)[0]!r}; its inputs are {', '.join(arguments)}.")
        return {name: as_party(said.get(name) or a.party or receiver) for name, a in arguments.items()}

    def cost(self, batch_size: int = 1) -> Cost:
        """Rounds and bytes of one prediction, sharing its input and revealing its result included."""
        return self._predictor(_CLIENT).cost(self._zeros(batch_size))

    def choose(self, network: str | Network = "here", batch_size: int = 1) -> Choice:
        """How a prediction takes the least time on a network, predicted and to be measured (:func:`shareflow.choose`).

        Inside ``with model.choose("wan").choices:`` predictions are computed so.
        """
        with self.protocol:
            return choose(self._predictor(_CLIENT), self._zeros(batch_size), network=network)

    def timed(self, x: Any) -> Timing:
        """Seconds of one prediction for a batch, the dealer's part and the rest one after the other."""
        given = {name: private_tensor(self._samples(name, value), _CLIENT) for name, value in self._named(x).items()}
        return self._predictor(_CLIENT).timed(given)[1]

    def audit(self, batch_size: int = 1) -> Audit:
        """What each party's messages can tell it in one prediction, proved from the graph."""
        return self._predictor(_CLIENT).audit(self._zeros(batch_size))

    def report(self, batch_size: int = 1, repeats: int = 5) -> Report:
        """Runs a batch layer by layer, offline and online part one after the other, and tells what each took.

        The figures are medians; rounds and bytes are counted from the graphs. The total is the whole graph's, which
        joins what the layers do separately here.
        """
        compiled = self._compiled(batch_size)
        rows = []
        row, inputs = _measure("input", function(self._begin), self._zeros(batch_size), repeats)
        rows.append(row)
        values = compiled.begin(inputs, self.parameters)
        brought = {output.name: value for output, value in values.items() if output.node.op == INPUT}
        for name, nodes in compiled.layers:
            step = _Part(compiled, nodes, self.parameters)
            row, results = _measure(name, function(step), {n: brought[n] for n in step.takes}, repeats)
            rows.append(row)
            brought.update(results)
        scores = {name: brought[output.name] for name, output in compiled.graph.outputs.items()}
        row, _ = _measure("reveal", function(_reveal), scores, repeats)
        rows.append(row)
        total, _ = _measure("total", self._predictor(_CLIENT), self._zeros(batch_size), repeats)
        return Report(batch_size, tuple(rows), total)

    def summary(self) -> str:
        """One line a layer: what of it is computed on shares."""
        return "\n".join(f"{name}: {', '.join(ops)}" for name, ops in self.layers)

    def _begin(self, inputs: Mapping[str, PrivateTensor]) -> dict[str, PrivateTensor]:
        return shared_inputs(self.model.compiled(1).graph, inputs, self.protocol)

    def _compiled(self, batch: int) -> PrivateGraph:
        compiled = self.model.compiled(batch)
        check_same_parameters(self.model.compiled(1).parameters, compiled.parameters, batch)
        return compiled

    def _predictor(self, receiver: Party) -> Function[Any]:
        if receiver not in self._predict:

            def predict(inputs: dict[str, PrivateTensor]) -> dict[str, PrivateTensor]:
                batch = self._batch({name: value.shape for name, value in inputs.items()})
                compiled = self._compiled(batch)
                scores = compiled.run(self._begin(inputs), self.parameters, self.protocol)
                return {
                    name: finish(value.reveal(receiver), receiver, compiled.activations.get(name))
                    for name, value in scores.items()
                }

            self._predict[receiver] = function(predict)
        return self._predict[receiver]

    def _named(self, x: Any) -> Mapping[str, Any]:
        names = list(self.model.source.inputs)
        if not isinstance(x, Mapping):
            if len(names) != 1:
                raise ShapeError(f"The model has inputs {', '.join(names)}; give a dict with an array for each.")
            return {names[0]: x}
        if set(x) != set(names):
            raise ShapeError(f"The model has inputs {', '.join(names)}; got {', '.join(map(str, x)) or 'none'}.")
        return x

    def _batch(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        arguments = self.model.source.inputs
        for name, shape in shapes.items():
            argument = arguments[name]
            if (shape[1:] if argument.batched else shape) != argument.shape or (argument.batched and not shape):
                wanted = f"[{', '.join(map(str, ('N', *argument.shape) if argument.batched else argument.shape))}]"
                raise ShapeError(
                    f"The model takes batches of shape {wanted}; got {list(shape)}. Reshape the samples, or add the "
                    "batch axis."
                )
        sizes = {shape[0] for name, shape in shapes.items() if arguments[name].batched}
        if len(sizes) > 1:
            raise ShapeError(f"All inputs have as many samples; got {sorted(sizes)}.")
        return sizes.pop() if sizes else 1

    def _samples(self, name: str, x: Any) -> np.ndarray:
        if isinstance(x, PrivateValue):
            raise PlacementError(
                "predict takes plaintext samples and shares them itself; these are private already. Call the model "
                "on them, and reveal the result: model(x).reveal('client')."
            )
        samples, argument = np.asarray(x), self.model.source.inputs[name]
        if samples.dtype.kind not in "fiub":
            raise ShapeError(f"Samples are numbers; got an array of {samples.dtype}. Convert them to float32.")
        shape = samples.shape[1:] if argument.batched else samples.shape
        if shape != argument.shape or samples.ndim != len(argument.shape) + argument.batched:
            raise ShapeError(
                f"The model takes samples of shape {argument.shape}, batch first; got an array of shape "
                f"{samples.shape}. Reshape it to [n, {', '.join(map(str, argument.shape))}]."
            )
        return samples if samples.dtype.kind == "f" or "int" in argument.dtype else samples.astype(np.float32)

    def _count(self, samples: Mapping[str, np.ndarray]) -> int:
        arguments = self.model.source.inputs
        return self._batch({name: value.shape for name, value in samples.items()}) if any(
            argument.batched for argument in arguments.values()
        ) else 1

    def _part(self, name: str, samples: np.ndarray, start: int, size: int) -> np.ndarray:
        if not self.model.source.inputs[name].batched:
            return samples
        return _filled(samples[start : start + size], size)

    def _zeros(self, batch_size: int) -> dict[str, PrivateTensor]:
        found = {}
        for name, argument in self.model.source.inputs.items():
            kind = np.dtype(argument.dtype) if "int" in argument.dtype else np.dtype(np.float32)
            found[name] = private_tensor(np.zeros(argument.full_shape(batch_size), kind), _CLIENT)
        return found


class _Part:
    """One layer's steps as a function of what earlier layers left: by name, private tensors alone."""

    def __init__(
        self, compiled: PrivateGraph, nodes: tuple[Node, ...], parameters: Mapping[str, PrivateVariable]
    ) -> None:
        own = {output for node in nodes for output in node.outputs}
        known = {p.output: name for name, p in compiled.parameters.items()}
        taken = dict.fromkeys(value for node in nodes for value in node.inputs if value not in own)
        self._compiled, self._nodes, self._parameters = compiled, nodes, parameters
        self._weights = {value: known[value] for value in taken if value in known}
        self._public = [value for value in taken if value.constant is not None]
        self._private = [v for v in taken if v not in self._weights and v.constant is None]
        self.takes = [value.name for value in self._private]

    def __call__(self, given: Mapping[str, PrivateTensor]) -> dict[str, PrivateTensor]:
        values: dict[Output, Any] = {value: value.constant for value in self._public}
        values.update({value: self._parameters[name].read() for value, name in self._weights.items()})
        values.update({value: given[value.name] for value in self._private})
        found = self._compiled.run_part(self._nodes, values)
        results = {output.name: found[output] for node in self._nodes for output in node.outputs}
        return {name: value for name, value in results.items() if isinstance(value, PrivateTensor)}


def _reveal(scores: Mapping[str, PrivateTensor]) -> dict[str, PrivateTensor]:
    return {name: value.reveal(_CLIENT) for name, value in scores.items()}


def _alone(results: Mapping[str, Any]) -> Any:
    return next(iter(results.values())) if len(results) == 1 else dict(results)


# Whom costs are counted and measured for.
_CLIENT = Party("client")


def private_model(
    model: Any,
    *,
    owner: Party | str,
    protocol: Protocol | None = None,
    inputs: Mapping[str, Argument] | None = None,
    signature: str | None = None,
    calibration: Calibration | None = None,
    trust_ranges: float | None = None,
) -> PrivateModel:
    """A model's weights as private variables of their owner, ready for private predictions.

    Batch normalisation is folded at the owner, in plaintext; the weights are encoded, shared and masked once.
    A final softmax is applied by whoever receives the scores.

    Args:
        model: a built Keras 3 model of any topology, a tf.function, or the path of a saved model (docs/models.md).
        owner: the party that knows variables, and floating arrays in the code.
        protocol: where they are shared; the current one by default.
        inputs: shapes, types and parties by name, of a function that has no input signature.
        signature: which function of a SavedModel that has several.
        calibration, trust_ranges: as :func:`shareflow.compile_model` takes them.

    Raises:
        UnsupportedModelError: the model, or an op of it, cannot be made private.
        EncodingError: a weight is NaN, infinite or out of range; or by the calibration a layer overflows.
    """
    meeting = protocol or current_protocol()
    read = Model(source_of(model, inputs, signature), owner, _CLIENT, meeting.fixed_point)
    return PrivateModel(*calibrated(read, meeting, protocol is not None, calibration, trust_ranges))


def _shared(name: str, value: np.ndarray, bits: int, owner: Party, protocol: Protocol) -> PrivateVariable:
    return PrivateVariable(private_tensor(value, owner), protocol, bits, name=scope_name(name))


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

