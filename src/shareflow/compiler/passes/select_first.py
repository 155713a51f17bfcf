"""What is not used is not computed: taking a part of a result moves toward the source.

A network that goes on with every second pixel (a 1 x 1 convolution with stride 2), or with the first token alone,
computes the others for nothing; on shares each costs its comparisons.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np

from shareflow.compiler.graph import Graph, Node, Output, Replacement
from shareflow.compiler.passes.pool_before_relu import RISING
from shareflow.compiler.passes.simplify import common_subexpressions
from shareflow.compiler.passes.sweep import Sweep, sweep
from shareflow.nn.geometry import window_sides

# (start, step, count) of an axis.
Part = tuple[int, int, int]
Parts = tuple[Part, ...]

UNARY = (
    *RISING,
    *("Erfc", "Rsqrt", "Reciprocal", "Square", "Neg", "Abs", "Sign", "Floor", "Ceil", "Round", "Cast"),
    *("LogicalNot", "Pow", "shareflow.gelu", "shareflow.silu", "shareflow.mish", "shareflow.polynomial"),
)
BINARY = (
    *("AddV2", "Add", "Sub", "Mul", "BiasAdd", "RealDiv", "Maximum", "Minimum", "SquaredDifference", "SelectV2"),
    *("AddN", "Greater", "GreaterEqual", "Less", "LessEqual", "LogicalAnd", "LogicalOr"),
)
_LAST_AXIS = ("Softmax", "LogSoftmax")
_NORMS = ("shareflow.layer_norm", "shareflow.rms_norm", "shareflow.l2_normalize")
_MATRICES = ("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3")

_Push = Callable[[Sweep, Node, Parts], "Output | None"]


def select_first(graph: Graph) -> Graph:
    """Slices, strides and single entries before the operations whose results they are taken of."""
    while True:
        graph, done = sweep(graph, _visit, "select_first")
        if not done:
            return graph
        # Equal parts of one value are one: only then does nothing else use the whole.
        graph = common_subexpressions(graph)


def _visit(node: Node, at: Sweep) -> Replacement:
    if node.op == "Conv2D":
        return _strided_pointwise(node, at)
    if not node.inputs or not at.secret(node.outputs[0]):
        return None
    found = _selection(node)
    if found is None:
        return None
    value, parts = found
    inner = value.node
    if inner in at.replaced or at.alone(value) is None or _elements(parts) >= math.prod(value.shape):
        return None
    push = _pushes.get(inner.op)
    moved = None if push is None else push(at, inner, parts)
    if moved is None:
        return None
    at.did("part taken before its computation")
    return moved if moved.shape == node.shapes[0] else at.build("Reshape", moved, at.shape(node.shapes[0]))


def _elements(parts: Parts) -> int:
    return math.prod(count for _, _, count in parts)


def _selection(node: Node) -> tuple[Output, Parts] | None:
    """(x, the part of each axis), where a node takes a part of x; single entries as parts of length 1."""
    x = node.inputs[0]
    numbers = [value.constant for value in node.inputs[1:]]
    if node.op not in ("Slice", "StridedSlice") or any(number is None for number in numbers):
        return None
    if node.op == "Slice":
        starts = numbers[0].ravel()  # type: ignore[union-attr]
        return x, tuple((int(start), 1, count) for start, count in zip(starts, node.shapes[0], strict=True))
    if node.attributes["ellipsis_mask"] or node.attributes["new_axis_mask"]:
        return None
    begin, end, strides = (number.ravel() for number in numbers)  # type: ignore[union-attr]
    parts: list[Part] = []
    for axis, extent in enumerate(x.shape):
        bit = 1 << axis
        if axis >= len(begin):
            parts.append((0, 1, extent))
            continue
        if node.attributes["shrink_axis_mask"] & bit:
            parts.append((int(begin[axis]) % extent, 1, 1))
            continue
        first = None if node.attributes["begin_mask"] & bit else int(begin[axis])
        last = None if node.attributes["end_mask"] & bit else int(end[axis])
        if strides[axis] < 1:
            return None
        taken = range(extent)[slice(first, last, int(strides[axis]))]
        parts.append((taken.start, taken.step, len(taken)))
    return x, tuple(parts)


def taken(at: Sweep, value: Output, parts: Sequence[Part]) -> Output:
    """A part of a value of the new graph."""
    if all(part == (0, 1, extent) for part, extent in zip(parts, value.shape, strict=True)):
        return value
    begin = [start for start, _, _ in parts]
    end = [start + step * (count - 1) + 1 for start, step, count in parts]
    masks = dict.fromkeys(("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask"), 0)
    steps = [step for _, step, _ in parts]
    return at.compute("StridedSlice", value, at.shape(begin), at.shape(end), at.shape(steps), **masks)


def _whole(extent: int) -> Part:
    return (0, 1, extent)


# --- operations, each with what of its inputs a part of its result takes


_pushes: dict[str, _Push] = {}


def _for(*ops: str) -> Callable[[_Push], _Push]:
    def register(push: _Push) -> _Push:
        for op in ops:
            _pushes[op] = push
        return push

    return register


@_for(*UNARY, *BINARY)
def _element_by_element(at: Sweep, node: Node, parts: Parts) -> Output | None:
    if node.attributes.get("data_format", "NHWC") not in ("NHWC", "NDHWC"):
        return None
    inputs = []
    for value in node.inputs:
        own = parts[len(parts) - len(value.shape) :]
        kept = [_whole(1) if extent == 1 else part for part, extent in zip(own, value.shape, strict=True)]
        inputs.append(taken(at, at(value), kept))
    if "shareflow." in node.op:
        return at.again(node, *inputs)
    return at.build(node.op, *inputs, **node.attributes)


@_for(*_LAST_AXIS, *_NORMS)
def _along_axes(at: Sweep, node: Node, parts: Parts) -> Output | None:
    (x,) = node.inputs
    axes = (
        [len(x.shape) - 1] if node.op in _LAST_AXIS else [int(axis) % len(x.shape) for axis in node.attributes["axes"]]
    )
    if any(parts[axis] != _whole(x.shape[axis]) for axis in axes):
        return None
    return at.again(node, taken(at, at(x), parts))


@_for(*_MATRICES)
def _matrix_product(at: Sweep, node: Node, parts: Parts) -> Output | None:
    x, y = node.inputs
    turned_x = bool(node.attributes.get("transpose_a") or node.attributes.get("adj_x"))
    turned_y = bool(node.attributes.get("transpose_b") or node.attributes.get("adj_y"))
    *batch, rows, columns = parts

    def operand(value: Output, own: Part, turned: bool, first: bool) -> Output:
        inner = _whole(value.shape[-1 if first != turned else -2])
        last = [own, inner] if first != turned else [inner, own]
        outer = value.shape[:-2]
        around = batch[len(batch) - len(outer) :]
        kept = [_whole(1) if extent == 1 else part for part, extent in zip(around, outer, strict=True)]
        return taken(at, at(value), [*kept, *last])

    left, right = operand(x, rows, turned_x, True), operand(y, columns, turned_y, False)
    return at.build(node.op, left, right, **node.attributes)


@_for("Einsum")
def _einsum(at: Sweep, node: Node, parts: Parts) -> Output | None:
    left, arrow, result = str(node.attributes["equation"]).replace(" ", "").partition("->")
    if not arrow or "." in left:
        return None
    by_label = dict(zip(result, parts, strict=True))
    inputs = []
    for labels, value in zip(left.split(","), node.inputs, strict=True):
        kept = [by_label.get(label, _whole(extent)) for label, extent in zip(labels, value.shape, strict=True)]
        if any(extent == 1 and part != _whole(1) for part, extent in zip(kept, value.shape, strict=True)):
            return None
        inputs.append(taken(at, at(value), kept))
    return at.build(node.op, *inputs, **node.attributes)


@_for("Conv2D")
def _convolution(at: Sweep, node: Node, parts: Parts) -> Output | None:
    """Every so many pixels of a convolution is one with larger strides."""
    x, kernel = node.inputs
    attributes = node.attributes
    batch, *pixels, channels = parts
    if attributes["data_format"] != "NHWC" or list(attributes["dilations"]) != [1, 1, 1, 1]:
        return None
    if channels != _whole(node.shapes[0][3]) or any(start for start, _, _ in pixels):
        return None
    steps = [step for _, step, _ in pixels]
    if [count for _, _, count in pixels] != [-(-n // step) for n, step in zip(node.shapes[0][1:3], steps, strict=True)]:
        return None
    strides, sides = attributes["strides"][1:3], _sides(node)
    wider = [stride * step for stride, step in zip(strides, steps, strict=True)]
    padded = any(itertools.chain(*sides))
    changed = {
        **attributes,
        "strides": [1, *wider, 1],
        "padding": "EXPLICIT" if padded else "VALID",
        "explicit_paddings": [0, 0, *itertools.chain(*sides), 0, 0] if padded else [],
    }
    image = taken(at, at(x), [batch, *(_whole(n) for n in x.shape[1:])])
    result = at.again(node, image, at(kernel), attributes=changed)
    return result if result.shape == (batch[2], *(count for _, _, count in pixels), node.shapes[0][3]) else None


def _sides(node: Node) -> tuple[tuple[int, int], ...]:
    """Zeros before and after along height and width."""
    attributes = node.attributes
    if attributes["padding"] == "EXPLICIT":
        sides = attributes["explicit_paddings"]
        return ((sides[2], sides[3]), (sides[4], sides[5]))
    x, kernel = node.inputs
    strides = tuple(attributes["strides"][1:3])
    return tuple(window_sides(attributes["padding"], x.shape[1:3], kernel.shape[:2], strides, (1, 1)))


@_for("Transpose")
def _transpose(at: Sweep, node: Node, parts: Parts) -> Output | None:
    order = node.inputs[1].constant
    if order is None:
        return None
    perm = [int(i) % len(parts) for i in order.ravel()]
    before = [_whole(0)] * len(parts)
    for place, axis in enumerate(perm):
        before[axis] = parts[place]
    return at.build("Transpose", taken(at, at(node.inputs[0]), before), at(node.inputs[1]))


@_for("Reshape", "Squeeze", "ExpandDims")
def _reshape(at: Sweep, node: Node, parts: Parts) -> Output | None:
    x = node.inputs[0]
    before = _before_reshape(x.shape, node.shapes[0], parts)
    if before is None:
        return None
    return at.build("Reshape", taken(at, at(x), before), at.shape(count for _, _, count in parts))


def _before_reshape(before: tuple[int, ...], after: tuple[int, ...], parts: Parts) -> list[Part] | None:
    """The parts of a tensor's axes, where those of its axes in another shape are taken; None where they cut across."""
    found = [_whole(n) for n in before]
    old, new = [i for i, n in enumerate(before) if n != 1], [i for i, n in enumerate(after) if n != 1]
    i = j = 0
    while i < len(old) or j < len(new):
        # The fewest axes on either side that hold the same elements.
        first, second = i, j
        left = right = 1
        while left != right or left == 1:
            if left <= right and i < len(old):
                left, i = left * before[old[i]], i + 1
            elif j < len(new):
                right, j = right * after[new[j]], j + 1
            else:
                return None
        if i - first == 1 and j - second == 1:
            found[old[first]] = parts[new[second]]
        elif any(parts[axis] != _whole(after[axis]) for axis in new[second:j]):
            return None
    return found


@_for("ConcatV2")
def _concat(at: Sweep, node: Node, parts: Parts) -> Output | None:
    *values, axis = node.inputs
    if axis.constant is None:
        return None
    along = int(axis.constant) % len(parts)
    start, step, count = parts[along]
    if parts[along] == _whole(node.shapes[0][along]):
        pieces = [taken(at, at(v), [*parts[:along], _whole(v.shape[along]), *parts[along + 1 :]]) for v in values]
        return at.build("ConcatV2", *pieces, at(axis))
    offset = 0
    for value in values:
        extent = value.shape[along]
        if offset <= start and start + step * (count - 1) < offset + extent:
            return taken(at, at(value), [*parts[:along], (start - offset, step, count), *parts[along + 1 :]])
        offset += extent
    return None


@_for("Pack")
def _pack(at: Sweep, node: Node, parts: Parts) -> Output | None:
    along = node.attributes["axis"] % len(parts)
    start, step, count = parts[along]
    rest = [*parts[:along], *parts[along + 1 :]]
    chosen = [node.inputs[start + i * step] for i in range(count)]
    return at.build("Pack", *(taken(at, at(value), rest) for value in chosen), axis=along)


@_for("Slice", "StridedSlice")
def _part_of_part(at: Sweep, node: Node, parts: Parts) -> Output | None:
    found = _selection(node)
    if found is None or len(node.shapes[0]) != len(found[0].shape):
        return None
    value, inner = found
    joined = [
        (start + step * later, step * stride, count)
        for (start, step, _), (later, stride, count) in zip(inner, parts, strict=True)
    ]
    return taken(at, at(value), joined)


# --- strides that skip


def _strided_pointwise(node: Node, at: Sweep) -> Replacement:
    """A 1 x 1 convolution with strides as one without, of the pixels that it takes, where others take no more."""
    if not _skips(node) or not at.secret(node.inputs[0]):
        return None
    x, kernel = node.inputs
    strides = node.attributes["strides"][1:3]
    users = at.graph.users.get(x, ())
    if x in at.graph.results or x.node in at.replaced:
        return None
    if any(not _skips(user) or user.inputs[0] != x or user.attributes["strides"][1:3] != strides for user in users):
        return None
    counts = [-(-n // stride) for n, stride in zip(x.shape[1:3], strides, strict=True)]
    pixels = [(0, stride, count) for stride, count in zip(strides, counts, strict=True)]
    part = taken(at, at(x), [_whole(x.shape[0]), *pixels, _whole(x.shape[3])])
    attributes = {**node.attributes, "strides": [1, 1, 1, 1], "padding": "VALID", "explicit_paddings": []}
    at.did("strides before a pointwise convolution")
    return at.again(node, part, at(kernel), attributes=attributes)


def _skips(node: Node) -> bool:
    if node.op != "Conv2D" or node.inputs[1].shape[:2] != (1, 1):
        return False
    attributes = node.attributes
    skips = max(attributes["strides"][1:3]) > 1 and attributes["data_format"] == "NHWC"
    return bool(skips and attributes["padding"] in ("VALID", "SAME") and not np.any(attributes["explicit_paddings"]))
