"""A model three times on the same samples: in floating point, in fixed point in the clear, and privately.

All three compute the same graph, step by step, so that a difference shows in the layer where it begins. The private one
runs in this process and shows every step (:mod:`shareflow.compiler.step_by_step`): for the owner's own samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from shareflow.compiler.calibration import Calibration, ranges_of
from shareflow.compiler.evaluate import evaluate
from shareflow.compiler.graph import Node, Output
from shareflow.compiler.overflow import excess_bits
from shareflow.compiler.private_graph import PrivateGraph
from shareflow.compiler.progress import bar
from shareflow.compiler.samples import Samples
from shareflow.compiler.step_by_step import insecure_steps, insecure_value, shared_parameters
from shareflow.protocol.placement import private_tensor
from shareflow.protocol.plain import Plain
from shareflow.protocol.protocol import Protocol

if TYPE_CHECKING:
    from shareflow.compiler.model import Model

PLAIN, PRIVATE = "plain", "private"
# A layer drifts where its error is so many times that of what it takes; less is how errors add up.
_JUMP = 10.0


@dataclass
class Error:
    """Differences from floating point: the largest, and the mean of all."""

    largest: float = 0.0
    total: float = 0.0
    count: int = 0

    @property
    def mean(self) -> float:
        """Over all elements."""
        return self.total / self.count if self.count else 0.0

    def add(self, wanted: np.ndarray, got: np.ndarray) -> None:
        """More values."""
        difference = np.abs(np.asarray(wanted, np.float64) - np.asarray(got, np.float64))
        if difference.size:
            self.largest = max(self.largest, float(difference.max()))
            self.total, self.count = self.total + float(difference.sum()), self.count + difference.size

    def to_json(self) -> dict[str, float]:
        """For scripts."""
        return {"max": self.largest, "mean": self.mean}


@dataclass(frozen=True)
class LayerCheck:
    """One layer's last result.

    Args:
        name: of the layer.
        op: of its last step.
        size: its largest absolute value in floating point.
        used_bits: of the 62 that there are, by any of its steps.
        overflows: whether a step of it is beyond what is allowed.
        errors: from floating point, for ``plain`` and ``private``.
        own: the same of the step of this layer that is worst, as a share of that step's largest value.
        before: the largest such share among what the layer takes from others.
    """

    name: str
    op: str
    size: float
    used_bits: float
    overflows: bool
    errors: Mapping[str, Error]
    own: Mapping[str, float]
    before: Mapping[str, float]


@dataclass(frozen=True)
class ResultCheck:
    """One of the model's results, as its receiver gets it.

    Args:
        name: of the result.
        errors: from floating point.
        size: its largest absolute value.
        agreeing: samples with the same largest score (or the same whole numbers) as in floating point; empty where a
            result has no scores to compare.
    """

    name: str
    errors: Mapping[str, Error]
    size: float
    agreeing: Mapping[str, int]


@dataclass(frozen=True)
class Check:
    """What :func:`check` found.

    Args:
        samples: how many.
        calibration: ranges and encoding.
        tolerance: what a result's error may be, times max(1, its largest value).
        layers, results: in order.
    """

    samples: int
    calibration: Calibration
    tolerance: float
    layers: Sequence[LayerCheck]
    results: Sequence[ResultCheck]

    @property
    def compared(self) -> tuple[str, ...]:
        """What was compared with floating point."""
        return tuple(self.results[0].errors)

    @property
    def drift(self) -> tuple[str, LayerCheck] | None:
        """Where a failed check begins to fail, and in which of the two.

        The first layer whose error, as a share of its largest value, is beyond the tolerance; one that took what was
        many times better goes before one where errors only added up.
        """
        if self.passed:
            return None
        for which in self.compared:
            beyond = [layer for layer in self.layers if layer.own[which] > self.tolerance]
            jumps = [layer for layer in beyond if layer.own[which] > _JUMP * layer.before[which]]
            if beyond:
                return which, (jumps or beyond)[0]
        return None

    @property
    def disagreements(self) -> dict[str, int]:
        """Samples whose largest score is another, over all results."""
        return {
            which: sum(self.samples - one.agreeing[which] for one in self.results if one.agreeing)
            for which in self.compared
        }

    @property
    def worst(self) -> dict[str, float]:
        """The largest error of a result as a share of max(1, its largest value)."""
        return {
            which: max(_share(one.errors[which].largest, one.size) for one in self.results) for which in self.compared
        }

    @property
    def passed(self) -> bool:
        """Every largest score is the same, every result's error within the tolerance, and no layer overflows."""
        same = not any(self.disagreements.values())
        return same and not self.overflowing and all(error <= self.tolerance for error in self.worst.values())

    @property
    def overflowing(self) -> list[LayerCheck]:
        """Layers beyond what is allowed, whether the samples already came out wrong or not."""
        return [layer for layer in self.layers if layer.overflows]

    def to_json(self) -> dict[str, Any]:
        """For scripts; docs/accuracy.md tells the fields."""
        drift = self.drift
        return {
            "passed": self.passed,
            "samples": self.samples,
            "fractional_bits": self.calibration.fractional_bits,
            "parameter_bits": dict(self.calibration.parameter_bits),
            "tolerance": self.tolerance,
            "optimistic_failures": self.calibration.failures / self.calibration.batch,
            "drift": None if drift is None else {"in": drift[0], "layer": drift[1].name, "op": drift[1].op},
            "results": [
                {
                    "name": one.name,
                    "size": one.size,
                    "errors": {which: error.to_json() for which, error in one.errors.items()},
                    "agreeing": dict(one.agreeing),
                }
                for one in self.results
            ],
            "layers": [
                {
                    **{k: v for k, v in asdict(layer).items() if k not in ("errors", "own", "before")},
                    "errors": {which: error.to_json() for which, error in layer.errors.items()},
                }
                for layer in self.layers
            ],
        }


def check(
    model: Model,
    samples: Any,
    calibration: Calibration,
    *,
    private: Protocol | None = None,
    batch: int = 8,
    tolerance: float = 0.01,
    progress: bool = False,
    exact: Model | None = None,
) -> Check:
    """Runs samples in floating point, in fixed point in the clear, and in a private protocol.

    Args:
        model: in the encoding of the calibration.
        samples: as for calibrate, or a :class:`Samples`.
        calibration: of these samples, for the batch size given here.
        private: the protocol of the private run; without one there is none.
        batch: how many go together.
        tolerance: of results, times max(1, their largest value).
        progress: shows a bar.
        exact: the model whose results in floating point are right, where ``model`` has polynomials in place of ReLUs.

    Raises:
        EncodingError: a sample or a weight cannot be encoded at all.
        PlacementError: called inside a traced function, or where calls run on a cluster.
    """
    given = samples if isinstance(samples, Samples) else Samples.of(model.source.inputs, samples)
    batch = batch if model.source.batched else 1
    compiled = model.compiled(batch)
    protocols: dict[str, Protocol] = {PLAIN: Plain(fixed_point=model.point)}
    if private is not None:
        protocols[PRIVATE] = private
    values = model.parameters(batch)
    parameters = {
        which: shared_parameters(compiled, values, model.owner, protocol) for which, protocol in protocols.items()
    }
    seen = _Seen(compiled, tuple(protocols), 2.0**-model.point.fractional_bits)
    with bar(progress) as shown:
        task = shown.add_task("checking", total=given.number_of_batches(batch) * (1 + len(protocols)))
        for new, inputs in given.batches(batch):
            floats = _floats(compiled, inputs)
            shown.advance(task)
            seen.see_floats(floats)
            seen.see_results(_results(compiled if exact is None else exact.compiled(batch), inputs, floats))
            for which, protocol in protocols.items():
                private_inputs = {n: private_tensor(value, model.parties[n]) for n, value in inputs.items()}
                found = insecure_steps(compiled, private_inputs, parameters[which], protocol)
                seen.see(which, ((node, [insecure_value(v) for v in results]) for node, results in found), floats, new)
                shown.advance(task)
    return Check(given.count, calibration, tolerance, seen.layers(calibration), seen.results())


def _floats(compiled: PrivateGraph, inputs: Mapping[str, np.ndarray]) -> dict[Output, np.ndarray]:
    wanted = set(compiled.steps)
    values: dict[Output, np.ndarray] = {}

    def observe(output: Output, value: np.ndarray) -> None:
        if output.node in wanted:
            values[output] = value

    evaluate(compiled.graph, inputs, observe=observe)
    return values


def _results(
    right: PrivateGraph, inputs: Mapping[str, np.ndarray], floats: Mapping[Output, np.ndarray]
) -> dict[str, np.ndarray]:
    known = all(output in floats for output in right.graph.outputs.values())
    values = floats if known else evaluate(right.graph, inputs)
    return {name: values[output] for name, output in right.graph.outputs.items()}


def _share(error: float, size: float) -> float:
    return error / max(1.0, size)


@dataclass
class _Seen:
    """Errors as they come in."""

    compiled: PrivateGraph
    compared: tuple[str, ...]
    unit: float
    errors: dict[tuple[str, Output], Error] = field(default_factory=dict)
    sizes: dict[Output, float] = field(default_factory=dict)
    result_errors: dict[tuple[str, str], Error] = field(default_factory=dict)
    result_sizes: dict[str, float] = field(default_factory=dict)
    agreeing: dict[tuple[str, str], int] = field(default_factory=dict)
    right: dict[str, np.ndarray] = field(default_factory=dict)

    def see_floats(self, floats: Mapping[Output, np.ndarray]) -> None:
        """What steps compute in floating point, of one batch."""
        for output, value in floats.items():
            if value.size and value.dtype.kind in "fiub":
                self.sizes[output] = max(self.sizes.get(output, 0.0), float(np.max(np.abs(value.astype(np.float64)))))

    def see_results(self, right: dict[str, np.ndarray]) -> None:
        """What is right, of one batch, by the results' names."""
        self.right = right
        for name, value in right.items():
            wanted = self._received(name, value)
            self.result_sizes[name] = max(self.result_sizes.get(name, 0.0), float(np.max(np.abs(wanted), initial=0.0)))

    def see(
        self,
        which: str,
        steps: Iterator[tuple[Node, list[np.ndarray]]],
        floats: Mapping[Output, np.ndarray],
        new: int,
    ) -> None:
        """One batch in one of the protocols."""
        outputs = {output: name for name, output in self.compiled.graph.outputs.items()}
        for node, results in steps:
            for output, got in zip(node.outputs, results, strict=True):
                self.errors.setdefault((which, output), Error()).add(floats[output], got)
                if output in outputs:
                    self._see_result(which, outputs[output], self.right[outputs[output]], got, new)

    def _see_result(self, which: str, name: str, wanted: np.ndarray, got: np.ndarray, new: int) -> None:
        scores, received = self._received(name, wanted), self._received(name, got)
        self.result_errors.setdefault((which, name), Error()).add(scores, received)
        if not scores.ndim:
            return
        if scores.dtype.kind == "f" and scores.ndim > 1 and scores.shape[-1] > 1:
            same = scores[:new].argmax(-1) == received[:new].argmax(-1)
        elif scores.dtype.kind in "iub":
            same = scores[:new] == np.rint(received[:new])
        else:
            return
        right = int(same.reshape(len(same), -1).all(1).sum())
        self.agreeing[which, name] = self.agreeing.get((which, name), 0) + right

    def _received(self, name: str, value: np.ndarray) -> np.ndarray:
        """With what the receiver still applies."""
        if self.compiled.activations.get(name) is None:
            return value
        return tf.nn.softmax(value).numpy()

    def layers(self, calibration: Calibration) -> list[LayerCheck]:
        """Layers in order."""
        found = []
        known = ranges_of(self.compiled, calibration)
        for name, nodes in self.compiled.layers:
            last = Output(nodes[-1])
            inside = {output for node in nodes for output in node.outputs}
            taken = {value for node in nodes for value in node.inputs} - inside
            ranges = [known[output] for output in inside]
            found.append(
                LayerCheck(
                    name,
                    nodes[-1].op,
                    self.sizes.get(last, 0.0),
                    max((one.used_bits for one in ranges), default=0.0),
                    any(excess_bits(one) > 0 for one in ranges),
                    {which: self.errors.get((which, last), Error()) for which in self.compared},
                    {which: self._largest_share(which, inside) for which in self.compared},
                    {which: self._largest_share(which, taken) for which in self.compared},
                )
            )
        return found

    def _largest_share(self, which: str, outputs: set[Output]) -> float:
        # A bit that is flipped where two values tie is no drift.
        numbers = [output for output in outputs if output.dtype != "bool" and (which, output) in self.errors]
        return max(
            (self.errors[which, o].largest / max(self.sizes.get(o, 0.0), self.unit) for o in numbers), default=0.0
        )

    def results(self) -> list[ResultCheck]:
        """Results in order."""
        return [
            ResultCheck(
                name,
                {which: self.result_errors.get((which, name), Error()) for which in self.compared},
                self.result_sizes.get(name, 0.0),
                {which: self.agreeing[which, name] for which in self.compared if (which, name) in self.agreeing},
            )
            for name in self.compiled.graph.outputs
        ]
