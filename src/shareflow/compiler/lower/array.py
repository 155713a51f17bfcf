"""Ops that move elements: local at each party."""

from __future__ import annotations

import numpy as np

from shareflow.compiler.graph import Node
from shareflow.compiler.lower.handler import Value, lowers, public
from shareflow.nn import rounding, selection
from shareflow.protocol.arithmetic import concat, stack
from shareflow.protocol.tensor import PrivateTensor


@lowers("Reshape", "ExpandDims", "Squeeze")
def _reshape(node: Node, x: PrivateTensor, *unused: Value) -> Value:
    return x.reshape(*node.shapes[0])


@lowers("Transpose")
def _transpose(node: Node, x: PrivateTensor, order: Value) -> Value:
    return x.transpose(*(int(i) for i in public(node, order, "an order of axes"))) if x.ndim else x


@lowers("ConcatV2")
def _concat(node: Node, *values: Value) -> Value:
    *joined, axis = values
    return concat(joined, int(public(node, axis, "an axis")))


@lowers("Pack")
def _pack(node: Node, *values: Value) -> Value:
    return stack(values, node.attributes["axis"])


@lowers("Unpack")
def _unpack(node: Node, x: PrivateTensor) -> tuple[Value, ...]:
    axis = node.attributes["axis"] % x.ndim
    before = (slice(None),) * axis
    return tuple(x[(*before, i)] for i in range(x.shape[axis]))


@lowers("Pad", "PadV2")
def _pad(node: Node, x: PrivateTensor, paddings: Value, *value: Value) -> Value:
    sides = [tuple(int(n) for n in pair) for pair in public(node, paddings, "a padding")]
    padded = x.pad(sides)
    if value and np.any(public(node, value[0], "a padding's value")):
        outside = np.pad(np.zeros(x.shape), sides, constant_values=1.0)
        padded = padded + outside * float(value[0])
    return padded


@lowers("Split", "SplitV")
def _split(node: Node, *values: Value) -> tuple[Value, ...]:
    x, axis = (values[1], values[0]) if node.op == "Split" else (values[0], values[2])
    along = int(public(node, axis, "an axis")) % x.ndim
    pieces, start = [], 0
    for shape in node.shapes:
        pieces.append(x[(*(slice(None),) * along, slice(start, start + shape[along]))])
        start += shape[along]
    return tuple(pieces)


@lowers("Slice")
def _slice(node: Node, x: PrivateTensor, begin: Value, size: Value) -> Value:
    starts = public(node, begin, "a place")
    return x[tuple(slice(int(b), int(b) + n) for b, n in zip(starts, node.shapes[0], strict=True))]


@lowers("Cast")
def _cast(node: Node, x: PrivateTensor) -> Value:
    before, after = _kind(node.inputs[0].dtype), _kind(node.dtypes[0])
    if after == "b" and before != "b":
        return x != 0
    if after == "i" and before == "f":
        # Toward zero, as TensorFlow's.
        return rounding.floor(selection.absolute(x)) * selection.sign(x)
    return x


def _kind(dtype: str) -> str:
    """b, i or f."""
    if dtype == "bool":
        return "b"
    return "i" if "int" in dtype else "f"


@lowers("StridedSlice")
def _strided_slice(node: Node, x: PrivateTensor, begin: Value, end: Value, strides: Value) -> Value:
    return x[_key(node, *(public(node, value, "places") for value in (begin, end, strides)))]


def _key(node: Node, begin: np.ndarray, end: np.ndarray, strides: np.ndarray) -> tuple[object, ...]:
    """The index of Python's notation that TensorFlow's masks encode."""
    mask = {name: node.attributes[f"{name}_mask"] for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")}
    key: list[object] = []
    for i in range(len(begin)):
        bit = 1 << i
        if mask["ellipsis"] & bit:
            key.append(...)
        elif mask["new_axis"] & bit:
            key.append(None)
        elif mask["shrink_axis"] & bit:
            key.append(int(begin[i]))
        else:
            first = None if mask["begin"] & bit else int(begin[i])
            last = None if mask["end"] & bit else int(end[i])
            key.append(slice(first, last, int(strides[i])))
    return tuple(key)
