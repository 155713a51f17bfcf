"""Softmax and its logarithm out of exponentials; what masks scores out, at a size that the encoding holds."""

from __future__ import annotations

import numpy as np

from shareflow.compiler.graph import Node, Output, Replacement
from shareflow.compiler.passes.matching import axes_of_reduction, closed, product_of, sum_of
from shareflow.compiler.passes.simplify import scalar
from shareflow.compiler.passes.sweep import Sweep

# Scores this far below the others have no weight: e^x is 0 on shares long before. Larger ones would overflow.
NEVER = -(2.0**12)
_MOVES = ("Reshape", "ExpandDims", "Squeeze", "Transpose", "BroadcastTo", "Tile", "Slice", "StridedSlice")


def softmax(node: Node, at: Sweep) -> Replacement:
    """e^x / sum e^x, with or without the maximum taken off before."""
    if node.op != "RealDiv" or not at.secret(node.outputs[0]):
        return None
    raised, total = node.inputs
    if raised.node.op != "Exp" or total.node.op != "Sum" or total.node.inputs[0] != raised:
        return None
    axes = axes_of_reduction(total.node, "Sum")
    if axes is None or len(axes) != 1:
        return None
    x, inner = _shifted(raised.node.inputs[0], axes[0])
    if not closed(at, {raised.node, total.node}, node):
        return None
    if not closed(at, {raised.node, total.node, *inner}, node):
        x = raised.node.inputs[0]
    at.did("softmax")
    return _along(at, "Softmax", at(x), axes[0])


def log_softmax(node: Node, at: Sweep) -> Replacement:
    """log softmax(x), and x - log sum e^x."""
    if not node.inputs or not at.secret(node.outputs[0]):
        return None
    if node.op == "Log" and node.inputs[0].node.op == "Softmax" and at.alone(node.inputs[0]) is not None:
        at.did("logarithm of softmax")
        return at.build("LogSoftmax", at(node.inputs[0].node.inputs[0]))
    if node.op != "Sub" or node.inputs[1].node.op != "Log":
        return None
    x, log = node.inputs
    total = log.node.inputs[0].node
    axes = axes_of_reduction(total, "Sum")
    if axes is None or len(axes) != 1 or total.inputs[0].node.op != "Exp" or total.inputs[0].node.inputs[0] != x:
        return None
    inner = {log.node, total, total.inputs[0].node}
    if not closed(at, inner, node):
        return None
    source, shift = _shifted(x, axes[0])
    if shift and closed(at, inner | shift, node):
        x = source
    at.did("logarithm of softmax")
    return _along(at, "LogSoftmax", at(x), axes[0])


def _shifted(value: Output, axis: int) -> tuple[Output, set[Node]]:
    """(x, nodes) where the value is x less its maximum along the axis; else the value itself."""
    node = value.node
    if node.op == "Sub" and axes_of_reduction(node.inputs[1].node, "Max") == (axis,):
        largest = node.inputs[1].node
        if largest.inputs[0] == node.inputs[0]:
            return node.inputs[0], {node, largest}
    return value, set()


def _along(at: Sweep, op: str, x: Output, axis: int) -> Output:
    """TensorFlow's softmax is along the last axis."""
    rank = len(x.shape)
    if axis == rank - 1:
        return at.build(op, x)
    order = [i for i in range(rank) if i != axis] + [axis]
    back = [order.index(i) for i in range(rank)]
    moved = at.build("Transpose", x, at.shape(order))
    return at.build("Transpose", at.build(op, moved), at.shape(back))


def masks(node: Node, at: Sweep) -> Replacement:
    """softmax(scores + mask) with numbers such as -10^9 in the mask as -2^12: the same weights, and no overflow.

    Public numbers are cut wherever they are added or chosen; a factor of a private mask where that is 0 or 1 for sure.
    """
    if node.op not in ("Softmax", "LogSoftmax") or not at.secret(node.outputs[0]):
        return None
    kept = _kept(at, node.inputs[0])
    if kept is None:
        return None
    at.did("masks at a size that fits")
    return at.build(node.op, kept)


def _kept(at: Sweep, scores: Output) -> Output | None:
    """The scores with smaller masks, or None where there is nothing to do."""
    node = scores.node
    if at.alone(scores) is None or node in at.replaced:
        return None
    if node.op in ("Select", "SelectV2"):
        condition, x, y = node.inputs
        x_kept, y_kept = _cut(at, x), _cut(at, y)
        if x_kept is None and y_kept is None:
            return None
        return at.build(node.op, at(condition), x_kept or at(x), y_kept or at(y))
    if node.op not in ("AddV2", "Add", "Sub"):
        return None
    parts, changed = [], False
    for place, value in enumerate(node.inputs):
        sign = -1.0 if node.op == "Sub" and place == 1 else 1.0
        found = _cut(at, value, sign) or _cut_factor(at, value, sign) or (_kept(at, value) if sign > 0 else None)
        changed |= found is not None
        parts.append(found or at(value))
    return at.build(node.op, *parts) if changed else None


def _cut(at: Sweep, value: Output, sign: float = 1.0) -> Output | None:
    constant = value.constant
    if constant is None or constant.dtype.kind != "f" or not np.any(sign * constant < NEVER):
        return None
    return at.build.constant(sign * np.maximum(sign * constant, constant.dtype.type(NEVER)))


def _cut_factor(at: Sweep, value: Output, sign: float) -> Output | None:
    """mask c, or (1 - mask) c, for a mask of bits and c far below 0."""
    if at.alone(value) is None or value.node.op != "Mul":
        return None
    product = product_of(at, value)
    if len(product.factors) != 1 or sign * product.number >= NEVER or not _is_bit(at, product.factors[0]):
        return None
    return at.build("Mul", at(product.factors[0]), at.build.constant(sign * NEVER, value.dtype))


def _is_bit(at: Sweep, value: Output) -> bool:
    """Whether a value is 0 or 1 for sure: made of truth values, or 1 less such a one."""
    node = value.node
    if value.dtype == "bool":
        return True
    if node.op == "Cast":
        return node.inputs[0].dtype == "bool" or _is_bit(at, node.inputs[0])
    if node.op in _MOVES:
        return _is_bit(at, node.inputs[0])
    if value.constant is not None:
        return bool(np.all((value.constant == 0) | (value.constant == 1)))
    if node.op == "Sub" and scalar(node.inputs[0]) == 1:
        return _is_bit(at, node.inputs[1])
    if node.op in ("Mul", "Maximum", "Minimum"):
        return all(_is_bit(at, part) for part in node.inputs)
    total = sum_of(at, value)
    if total.number == 1 and len(total.terms) == 1 and total.terms[0][0] < 0:
        return _is_bit(at, total.terms[0][1])
    return False
