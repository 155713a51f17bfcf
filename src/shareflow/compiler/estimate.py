"""What a graph costs on shares, without tracing all of it: the linear part by its rules, functions by a sample of each.

The state of each value is followed as the protocol has it: its scale, whether it is masked, truncated or both already.
A function is traced once on a few elements, and its bytes are taken for all: they are in proportion.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from shareflow.compiler.graph import Builder, Graph, Node, Output
from shareflow.compiler.lower.handler import lower
from shareflow.compiler.masking import AtSource, masked_at_source
from shareflow.compiler.passes.simplify import frozen
from shareflow.compiler.scales import PRODUCTS, STRUCTURE, SUMS
from shareflow.errors import ShareflowError
from shareflow.function import function
from shareflow.party.send import Kind
from shareflow.protocol.arithmetic import multiplier_bits
from shareflow.protocol.placement import private_tensor
from shareflow.protocol.spdz import SPDZ
from shareflow.protocol.tensor import SPARE_BITS, PrivateTensor
from shareflow.ring.fixed_point import FixedPoint

# Bytes an element, of both servers or of the dealer.
_MASK, _CORRECTION, _TRUNCATION, _INPUT, _RESULT = 16, 8, 16, 8, 16
# Elements of a sample: enough for bits to fill their words.
_SAMPLE = 256
_FREE = (*STRUCTURE, "shareflow.sum_pool", "Cast", "Cumsum", "Roll", "MatrixBandPart")
_MEANS = ("Mean", "AvgPool", "AvgPool3D")
_QUOTIENTS = ("RealDiv", "Div")


@dataclass(frozen=True)
class Estimate:
    """What one prediction costs.

    Args:
        rounds: sequential steps of communication, sharing inputs and revealing results included.
        online_bytes: of all parties.
        offline_bytes: the dealer's.
        products: multiplications of the linear layers and products, in the clear.
        truncated: elements that are cut back to the usual scale by themselves, beside what functions do inside.
        compared: elements that functions other than linear ones are computed of.
        operations: that meet private values.
        unknown: ops that could not be measured and count nothing.
    """

    rounds: int = 0
    online_bytes: int = 0
    offline_bytes: int = 0
    products: int = 0
    truncated: int = 0
    compared: int = 0
    operations: int = 0
    unknown: tuple[str, ...] = ()


def estimate(graph: Graph, point: FixedPoint | None = None) -> Estimate:
    """The cost of a graph under SPDZ with its usual parts; weights are shared and masked before."""
    walk = _Walk(graph, point or FixedPoint())
    for node in graph.nodes:
        walk.visit(node)
    return walk.total()


@dataclass(eq=False)
class _Form:
    """A shared value: when it is there, at which scale, and when it was masked, if it was."""

    size: int
    bits: int
    ready: int
    masked: int | None = None
    cut: _Form | None = None


@dataclass
class _Walk:
    graph: Graph
    point: FixedPoint
    forms: dict[Output, _Form] = field(default_factory=dict)
    counts: Estimate = field(default_factory=Estimate)

    def __post_init__(self) -> None:
        self.usual = self.point.fractional_bits
        self.sources = masked_at_source(self.graph)
        brought = {value for node in self.graph.nodes if node.op == "Input" for value in node.outputs}
        for node in self.graph.nodes:
            if any(value in brought for value in node.inputs):
                brought.update(node.outputs)
        self.brought = brought

    def add(self, **more: int) -> None:
        self.counts = replace(self.counts, **{name: getattr(self.counts, name) + n for name, n in more.items()})

    def total(self) -> Estimate:
        last = 0
        for value in self.graph.outputs.values():
            form = self.forms.get(value)
            if form is not None:
                self.add(online_bytes=_RESULT * form.size)
                last = max(last, form.ready + 1)
        return replace(self.counts, rounds=last)

    def visit(self, node: Node) -> None:
        if not node.outputs or not any(self.graph.secret(value) for value in node.outputs):
            return
        self.add(operations=1)
        for value, form in zip(node.outputs, self.results(node), strict=True):
            wanted = self.sources.get(value)
            if wanted is not None:
                form = self.usable(form) if wanted is AtSource.TRUNCATE_AND_MASK else form
                self.mask(form)
            self.forms[value] = form

    def form(self, value: Output) -> _Form | None:
        """The shared form of a value; None of a public one."""
        if value.constant is not None or not self.graph.knowledge[value]:
            return None
        if value not in self.forms:
            size = math.prod(value.shape)
            if value in self.brought:
                # What one party brought, or computed from it.
                self.add(online_bytes=_INPUT * size)
                self.forms[value] = _Form(size, self.usual, 1)
            else:
                # Weights: kept masked, at the scale at which they are needed.
                self.forms[value] = _Form(size, 0, 0, 0)
        return self.forms[value]

    def mask(self, form: _Form) -> int:
        """The round after which the value is masked."""
        if form.masked is None:
            self.add(online_bytes=_MASK * form.size)
            form.masked = form.ready + 1
        return form.masked

    def usable(self, form: _Form) -> _Form:
        """At a scale at which it can be multiplied."""
        if form.bits <= self.usual + SPARE_BITS:
            return form
        if form.cut is None:
            self.add(offline_bytes=_TRUNCATION * form.size, truncated=form.size)
            form.cut = _Form(form.size, self.usual, self.mask(form))
        return form.cut

    def results(self, node: Node) -> list[_Form]:
        size = [math.prod(shape) for shape in node.shapes]
        given = [self.form(value) for value in node.inputs]
        shared = [form for form in given if form is not None]
        ready = max(form.ready for form in shared)
        bits = max(form.bits for form in shared) or self.usual
        if node.op in SUMS or node.op in _FREE:
            masks = [form.masked for form in shared]
            kept = None if any(mask is None for mask in masks) else max(mask for mask in masks if mask is not None)
            return [_Form(n, bits, ready, kept) for n in size]
        if node.op in PRODUCTS:
            return [self.product(node, given, size[0])]
        if node.op in _MEANS or (node.op in _QUOTIENTS and given[1] is None):
            return [self.quotient(node, shared[0], size[0])]
        return self.function(node, shared, size)

    def product(self, node: Node, given: Sequence[_Form | None], size: int) -> _Form:
        self.add(products=_products(node))
        public = [value.constant for value, form in zip(node.inputs, given, strict=True) if form is None]
        forms = [self.usable(form) for form in given if form is not None]
        bits = sum(form.bits or self.usual for form in forms)
        if public and public[0] is not None and len(forms) == 1:
            return _Form(size, bits + multiplier_bits(public[0], self.point), forms[0].ready)
        ready = max(self.mask(form) for form in forms)
        self.add(offline_bytes=_CORRECTION * size)
        return _Form(size, bits if len(forms) > 1 else 2 * bits, ready)

    def quotient(self, node: Node, form: _Form, size: int) -> _Form:
        x = node.inputs[0]
        if node.op in _QUOTIENTS:
            divisor = node.inputs[1].constant
            count = float(divisor.ravel()[0]) if divisor is not None and divisor.size == 1 else 3.0
        elif node.op == "Mean":
            count = math.prod(x.shape) / max(size, 1)
        else:
            count = math.prod(node.attributes["ksize"])
        power = math.log2(count) if count > 0 else 0.5
        if power == int(power) and form.bits + power <= 3 * self.usual:
            return _Form(size, form.bits + int(power), form.ready, None)
        form = self.usable(_Form(size, form.bits, form.ready))
        return _Form(size, form.bits + multiplier_bits(np.array(1 / count), self.point), form.ready)

    def function(self, node: Node, shared: Sequence[_Form], size: list[int]) -> list[_Form]:
        self.add(compared=max(sum(form.size for form in shared), *size))
        # A comparison's bits have none; beyond what its handler truncates at once, a scale makes no difference.
        bits = tuple(form.bits or self.usual for form in shared)
        sample = _sample(node, bits, self.point, self.graph)
        if sample is None:
            self.counts = replace(self.counts, unknown=tuple(dict.fromkeys((*self.counts.unknown, node.op))))
            return [_Form(n, self.usual, max(form.ready for form in shared)) for n in size]
        times = sum(form.size for form in shared) / sample.size
        online, rounds, start = sample.online_bytes * times, sample.rounds, max(form.ready for form in shared)
        first = shared[0]
        if len(shared) == 1 and first.masked is not None and rounds:
            # Masked already.
            online, rounds = online - _MASK * first.size, rounds - 1
            start = first.masked
        elif len(shared) == 1 and rounds:
            first.masked = first.ready + 1
        self.add(online_bytes=max(round(online), 0), offline_bytes=round(sample.offline_bytes * times))
        return [_Form(n, own, start + rounds) for n, own in zip(size, sample.bits, strict=True)]


def _products(node: Node) -> int:
    """Multiplications of a product in the clear."""
    size = math.prod(node.shapes[0])
    shapes = [value.shape for value in node.inputs]
    if node.op in ("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3"):
        turned = bool(node.attributes.get("transpose_a") or node.attributes.get("adj_x"))
        return size * shapes[0][-2 if turned else -1]
    if node.op in ("Conv2D", "Conv3D"):
        return size * math.prod(shapes[1][:-1])
    if node.op == "DepthwiseConv2dNative":
        return size * math.prod(shapes[1][:2])
    if node.op in ("Conv2DBackpropInput", "Conv3DBackpropInputV2"):
        return math.prod(shapes[2]) * math.prod(shapes[1][:-1])
    if node.op == "Einsum":
        left = str(node.attributes["equation"]).replace(" ", "").partition("->")[0].split(",")
        extents = {
            c: n for labels, shape in zip(left, shapes, strict=False) for c, n in zip(labels, shape, strict=False)
        }
        return math.prod(extents.values())
    return size


# --- samples of functions


@dataclass(frozen=True)
class _Sample:
    """What a function costs on so many elements, and the scales of its results."""

    size: int
    rounds: int
    online_bytes: int
    offline_bytes: int
    bits: tuple[int, ...]


_samples: dict[object, _Sample | None] = {}


def _sample(node: Node, bits: tuple[int, ...], point: FixedPoint, graph: Graph) -> _Sample | None:
    """A function on a few elements or lines of its inputs, counted from its graph; None where it cannot be traced."""
    shared = [i for i, value in enumerate(node.inputs) if value.constant is None and graph.knowledge[value]]
    shapes = _fewer(node, shared)
    public = tuple(frozen(value.constant) for i, value in enumerate(node.inputs) if i not in shared)
    key = (node.op, frozen(node.attributes), tuple(shapes), bits, public, point)
    if key not in _samples:
        try:
            _samples[key] = _traced(node, shared, shapes, bits, point)
        except ShareflowError:
            _samples[key] = None
    return _samples[key]


def _fewer(node: Node, shared: list[int]) -> list[tuple[int, ...]]:
    """Smaller shapes of the shared inputs on which the function is the same, line by line."""
    shapes = [node.inputs[i].shape for i in shared]
    first = shapes[0]
    if node.op in ("Softmax", "LogSoftmax", "TopKV2"):
        return [(_lines(first[-1]), first[-1])] if len(first) == 2 or node.op != "TopKV2" else shapes
    if node.op in ("MaxPool", "MaxPool3D") and node.attributes.get("data_format", "NHWC") in ("NHWC", "NDHWC"):
        return [(1, *first[1:-1], min(first[-1], _lines(math.prod(first[1:-1]))))]
    if len(set(shapes)) == 1 and shapes[0] == node.shapes[0] and all(shape == first for shape in node.shapes):
        if node.op.startswith("shareflow.") and "axes" in node.attributes:
            return [first]
        # Of each element.
        return [(min(math.prod(first), _SAMPLE),)] * len(shapes) if first else shapes
    return shapes


def _lines(length: int) -> int:
    return max(1, -(-_SAMPLE // max(length, 1)))


def _traced(
    node: Node, shared: list[int], shapes: list[tuple[int, ...]], bits: tuple[int, ...], point: FixedPoint
) -> _Sample:
    build, protocol = Builder(), SPDZ(fixed_point=point)
    inputs: list[Output] = []
    for i, value in enumerate(node.inputs):
        if i in shared:
            shape = shapes[shared.index(i)]
            inputs.append(
                Output(build.add(Node("Input", (), {"party": "", "name": ""}, "x", "", (shape,), (value.dtype,))))
            )
        else:
            constant = value.constant
            whole = constant is not None and constant.ndim and constant.shape == node.inputs[shared[0]].shape
            inputs.append(build.constant(constant.ravel()[: math.prod(shapes[0])] if whole else constant))  # type: ignore[union-attr]
    if node.op.startswith("shareflow."):
        small = build.custom(node.op, inputs, inputs[0].shape, node.dtypes[0], node.attributes).node
    else:
        small = build.node(node.op, inputs, node.attributes)
    found: list[PrivateTensor] = []

    @function
    def run(*given: PrivateTensor) -> list[PrivateTensor]:
        # A result of a comparison has no fractional bits, and is one here, too.
        values = [x.shared(protocol, b) for x, b in zip(given, bits, strict=True)]
        private = iter(values)
        arguments = [next(private) if i in shared else inputs[i].constant for i in range(len(inputs))]
        results = [r for r in lower(small, arguments) if isinstance(r, PrivateTensor)]  # type: ignore[arg-type]
        found[:] = results
        return [result.reveal("sample") for result in results]

    brought = [private_tensor(np.zeros(shape), "sample-owner") for shape in shapes]
    cost = run.cost(*brought)
    online = sum(m.bytes for m in cost.messages if not m.offline and m.kind not in (Kind.INPUT, Kind.RESULT))
    sizes = sum(math.prod(shape) for shape in shapes)
    return _Sample(sizes, max(cost.rounds - 2, 0), online, cost.offline_bytes, tuple(r.fractional_bits for r in found))
