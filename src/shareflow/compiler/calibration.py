"""What a model's values are on samples: ranges of every result, and how much of the ring they take.

Ranges follow from the owner's weights and samples: they are the owner's, as weights are, and part of no plan.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shareflow.compiler.evaluate import evaluate
from shareflow.compiler.graph import CONSTANT, INPUT, Output
from shareflow.compiler.overflow import excess_bits, overflow_text
from shareflow.compiler.private_graph import PrivateGraph
from shareflow.compiler.progress import bar
from shareflow.compiler.samples import Samples
from shareflow.compiler.scales import PRODUCTS, STRUCTURE, SUMS
from shareflow.compiler.step_by_step import insecure_steps, shared_parameters
from shareflow.compiler.watch import Watched
from shareflow.errors import DataError, EncodingError
from shareflow.protocol.placement import private_tensor
from shareflow.protocol.tensor import PrivateTensor
from shareflow.ring.fixed_point import FixedPoint

if TYPE_CHECKING:
    from shareflow.compiler.model import Model

# What an encoding can have, and the bound of a search where none is given.
LEAST_BITS, USUAL_BITS, MOST_BITS = 8, 16, 24
_FORMAT = "shareflow calibration 1"
# A scale grows by this many bits at most where the encoding gets one more: so a search never leaps over what fits.
_STEEPEST = 3
# Weights of fewer bits than these would be noise themselves.
_LEAST_WEIGHT_BITS = 4


@dataclass(frozen=True)
class Range:
    """One result of one step.

    Args:
        layer: that made it.
        op: TensorFlow's op type.
        low, high, mean_size: smallest, largest and mean absolute value over all samples.
        elements: of one batch.
        fractional_bits: of its ring elements, before they are truncated.
        inside_bits: log2 of the largest ring value that its step makes on the way, on the first samples; 62 are too
            many.
        failures: how many elements optimistic truncation gets wrong in this step, expected for one batch.
    """

    layer: str
    op: str
    low: float
    high: float
    mean_size: float
    elements: int
    fractional_bits: int = 0
    inside_bits: float = 0.0
    failures: float = 0.0

    @property
    def size(self) -> float:
        """The largest absolute value."""
        return max(abs(self.low), abs(self.high))

    @property
    def bits(self) -> float:
        """log2 of its largest ring element before truncation."""
        return math.log2(self.size) + self.fractional_bits if self.size else 0.0

    @property
    def used_bits(self) -> float:
        """What the step takes of the ring's 62 bits, on the way or at its end."""
        return max(self.bits, self.inside_bits)


@dataclass(frozen=True)
class Calibration:
    """Ranges of a model's results, for one encoding.

    Args:
        fractional_bits: of the encoding.
        batch: how many samples went together.
        samples: how many there were.
        parameter_bits: fractional bits of parameters that are kept with fewer than the encoding's, by name.
        ranges: by :func:`result_keys`, in the order in which they are computed.
    """

    fractional_bits: int
    batch: int
    samples: int
    ranges: Mapping[str, Range]
    parameter_bits: Mapping[str, int] = field(default_factory=dict)

    @property
    def point(self) -> FixedPoint:
        """The encoding."""
        return FixedPoint(self.fractional_bits)

    @property
    def failures(self) -> float:
        """How many elements optimistic truncation is expected to get wrong in one prediction of a batch."""
        return sum(found.failures for found in self.ranges.values())

    def to_json(self) -> dict[str, Any]:
        """For a file; it holds ranges, and no weight or sample."""
        return {"format": _FORMAT, **asdict(self)}

    def save(self, path: str | Path) -> None:
        """Writes it as JSON."""
        Path(path).write_text(json.dumps(self.to_json(), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Reads what :meth:`save` wrote.

        Raises:
            DataError: the file cannot be read, or is none of these.
        """
        try:
            found = json.loads(Path(path).read_text(encoding="utf-8"))
            if found.pop("format") != _FORMAT:
                raise ValueError("another format")
            ranges = {name: Range(**values) for name, values in found.pop("ranges").items()}
            calibration = cls(ranges=ranges, **found)
            FixedPoint(calibration.fractional_bits)
            return calibration
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(
                f"'{path}' is no calibration: {type(error).__name__}: {error}. Make one with Calibration.save, or with "
                "shareflow check --save."
            ) from None


def calibrate(
    model: Any,
    samples: Any,
    batch: int = 8,
    *,
    fractional_bits: int | None = None,
    most: int = USUAL_BITS,
    per_layer: bool = False,
    progress: bool = False,
) -> Calibration:
    """Runs samples through the compiled graph, in floating point, and finds the encoding that fits them.

    The most fractional bits are taken, up to ``most``, with which no step overflows, two bits left for values that the
    samples did not show. What steps make on the way (in a softmax, say) is watched in fixed point on
    the first batch alone, and must fit without a margin.

    Args:
        model: what compile_model takes; or a Model, in whatever encoding.
        samples: arrays by input name, or one array: [n, ...].
        batch: how many go together; the last batch is filled up with the first samples.
        fractional_bits: these, whether they fit or not: see :func:`shareflow.compiler.overflow.require_fit`.
        most: the bound of the search.
        per_layer: where a layer overflows, its weights get fewer bits, before the whole model does.
        progress: shows a bar.

    Raises:
        ShapeError, EncodingError: samples of another shape, NaN or infinite; a layer gives such values in floating
            point; nothing fits.
    """
    model = _as_model(model)
    given = samples if isinstance(samples, Samples) else Samples.of(model.source.inputs, samples)
    batch = batch if model.source.batched else 1
    seen = _ranges(model.compiled(batch), given, batch, progress)
    first = next(given.batches(batch))[1]
    if fractional_bits is not None:
        at = model.at(FixedPoint(fractional_bits))
        return _probed(at, first, batch, given.count, seen)
    bits = most
    narrowed: dict[str, int] = {}
    while True:
        at = model.at(FixedPoint(bits), narrowed)
        try:
            found = _probed(at, first, batch, given.count, seen)
        except EncodingError:
            # A sample or a weight is beyond what can be encoded at all.
            if bits == LEAST_BITS:
                raise
            bits, narrowed = bits - 1, {}
            continue
        beyond = {name: excess_bits(one) for name, one in found.ranges.items() if excess_bits(one) > 0}
        if not beyond:
            return found
        if per_layer:
            more = _narrower(at.compiled(batch), found, beyond)
            if more is not None:
                narrowed = more
                continue
        if bits == LEAST_BITS:
            name = next(iter(beyond))
            raise EncodingError(
                f"No encoding fits the samples: with {LEAST_BITS} fractional bits, the fewest, "
                f"{overflow_text(found.ranges[name])} Rescale the layer's weights or what it takes."
            )
        bits, narrowed = max(bits - max(math.ceil(max(beyond.values()) / _STEEPEST), 1), LEAST_BITS), {}


def _as_model(given: Any) -> Model:
    # Here, as a model is compiled by a calibration, too.
    from shareflow.compiler.model import Model, source_of

    if isinstance(given, Model):
        return given
    return Model(source_of(given), "model-owner", "client", FixedPoint())


def result_keys(compiled: PrivateGraph) -> dict[Output, str]:
    """A name for each result of each step: its layer, its op, and a number where there are several.

    Unlike names of nodes, which TensorFlow numbers through the process, they are those of the model alone.
    """
    counts: Counter[str] = Counter()
    keys = {}
    for node in compiled.steps:
        if node.op == CONSTANT:
            continue
        name = node.attributes["name"] if node.op == INPUT else f"{node.layer}/{node.op}".strip("/")
        counts[name] += 1
        unique = name if counts[name] == 1 else f"{name} {counts[name]}"
        for output in node.outputs:
            keys[output] = f"{unique}:{output.index}" if output.index else unique
    return keys


def require_same_model(compiled: PrivateGraph, calibration: Calibration) -> None:
    """Refuses a calibration of another model.

    At another batch size the graph may be another one, but the layers are the same.

    Raises:
        EncodingError: a layer has no range.
    """
    layers = {found.layer for found in calibration.ranges.values()}
    for output in result_keys(compiled):
        if output.node.layer not in layers:
            raise EncodingError(
                f"The calibration has no range of layer '{output.node.layer}' ({output.node.op}): it is of another "
                "model, or made before this one was changed. Calibrate again."
            )


def ranges_of(compiled: PrivateGraph, calibration: Calibration) -> dict[Output, Range]:
    """The range of each result of a graph.

    Raises:
        EncodingError: the calibration is of another graph.
    """
    keys = result_keys(compiled)
    if set(keys.values()) != set(calibration.ranges):
        differing = sorted(set(keys.values()) ^ set(calibration.ranges))[0]
        raise EncodingError(
            f"The calibration is of another graph: they differ in '{differing}'. At some batch sizes a model has a "
            f"graph of its own; this calibration is for batches of {calibration.batch}. Calibrate for the same one."
        )
    return {output: calibration.ranges[key] for output, key in keys.items()}


def _narrower(compiled: PrivateGraph, found: Calibration, beyond: Mapping[str, float]) -> dict[str, int] | None:
    """Fewer bits for the weights whose products overflow; None where that cannot help."""
    names = {parameter.output: name for name, parameter in compiled.parameters.items()}
    outputs = {key: output for output, key in result_keys(compiled).items()}
    less: dict[str, int] = {}
    for name, excess in beyond.items():
        # What has none behind it takes what other steps make, and fits when they do.
        for weight in _weights_behind(outputs[name], names):
            less[weight] = max(less.get(weight, 0), math.ceil(excess))
    bits = {name: compiled.parameters[name].fractional_bits - by for name, by in less.items()}
    if not bits or min(bits.values()) < _LEAST_WEIGHT_BITS:
        return None
    return {**found.parameter_bits, **bits}


def _weights_behind(output: Output, names: Mapping[Output, str]) -> set[str]:
    """The parameters of the products whose sums, moved about, are this result, or what it takes."""
    found: set[str] = set()
    waiting, seen = [output.node], set()
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        if node.op in PRODUCTS:
            found |= {names[value] for value in node.inputs if value in names}
        elif node is output.node or node.op in (*SUMS, *STRUCTURE, "AvgPool", "AvgPool3D", "Mean"):
            waiting += [value.node for value in node.inputs if value not in names]
    return found


@dataclass
class _Seen:
    low: float
    high: float
    total: float
    count: int


def _ranges(compiled: PrivateGraph, samples: Samples, batch: int, progress: bool) -> dict[str, Range]:
    """Ranges in floating point, over all samples."""
    keys = result_keys(compiled)
    seen: dict[Output, _Seen] = {}

    def observe(output: Output, value: np.ndarray) -> None:
        if output not in keys or value.dtype.kind not in "fiub":
            return
        if not value.size:
            seen[output] = _Seen(0.0, 0.0, 0.0, 1)
            return
        reals = value.astype(np.float64)
        low, high = float(reals.min()), float(reals.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise EncodingError(
                f"{output.node.op} of layer '{output.node.layer}' gives NaN or infinite values on the samples, in "
                "floating point already; fixed point has none. Mend the model, or give samples as it was trained on."
            )
        found = seen.setdefault(output, _Seen(low, high, 0.0, 0))
        found.low, found.high = min(found.low, low), max(found.high, high)
        found.total, found.count = found.total + float(np.abs(reals).sum()), found.count + value.size

    batches = samples.number_of_batches(batch)
    with bar(progress and batches > 1) as shown:
        task = shown.add_task("calibrating", total=batches)
        for _, inputs in samples.batches(batch):
            evaluate(compiled.graph, inputs, observe=observe)
            shown.advance(task)
    return {
        keys[output]: Range(
            output.node.layer, output.node.op, one.low, one.high, one.total / one.count, math.prod(output.shape)
        )
        for output, one in seen.items()
    }


def _probed(
    model: Model, inputs: Mapping[str, np.ndarray], batch: int, samples: int, seen: Mapping[str, Range]
) -> Calibration:
    """The ranges, with what one batch in watched fixed point says of scales, sizes on the way, and failures.

    Raises:
        EncodingError: a sample or a weight cannot be encoded.
    """
    compiled, protocol = model.compiled(batch), Watched(fixed_point=model.point)
    values = model.parameters(batch)
    _check_parameters(compiled, values, model.point)
    parameters = shared_parameters(compiled, values, model.owner, protocol)
    keys = result_keys(compiled)
    given = {name: private_tensor(value, model.parties[name]) for name, value in inputs.items()}
    ranges = {name: found for name, found in seen.items() if found.op == INPUT}
    for node, results in insecure_steps(compiled, given, parameters, protocol):
        sizes = protocol.watch.taken()
        for output, value in zip(node.outputs, results, strict=True):
            found = seen[keys[output]]
            bits = value.fractional_bits if isinstance(value, PrivateTensor) and value.protocol is not None else 0
            ranges[keys[output]] = Range(
                found.layer, found.op, found.low, found.high, found.mean_size, found.elements,
                fractional_bits=bits,
                inside_bits=sizes.bits,
                failures=sizes.truncated_sum * 2.0**-64 if output.index == 0 else 0.0,
            )  # fmt: skip
    return Calibration(model.point.fractional_bits, batch, samples, ranges, dict(model.parameter_bits))


def _check_parameters(compiled: PrivateGraph, values: Mapping[str, np.ndarray], point: FixedPoint) -> None:
    """Raises an EncodingError that names the parameter that cannot be encoded."""
    for name, parameter in compiled.parameters.items():
        try:
            point.encode_array(values[name], parameter.fractional_bits)
        except EncodingError as error:
            raise EncodingError(f"Parameter '{name}': {error}") from None
