"""Operations that make, cut and move elements."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from shareflow_client.manifest import TENSOR_LIMIT
from shareflow_client.operations.operation import MANY, NotComputedError, Operation, ValueRefusedError, binary, unary


def _sizes(shape: Any, itemsize: int = 8) -> tuple[int, ...]:
    """A shape that an operation is told to fill, not larger than any tensor of a plan."""
    sizes = tuple(int(size) for size in shape)
    if any(size < 0 for size in sizes) or math.prod(sizes) * itemsize > TENSOR_LIMIT:
        raise NotComputedError(f"the shape {list(sizes)} is none, or too large")
    return sizes


def _numbers(array: np.ndarray) -> list[int]:
    return [int(number) for number in array.reshape(-1)]


def _in_range(indices: np.ndarray, size: int) -> None:
    if np.any((indices < 0) | (indices >= size)):
        raise ValueRefusedError(f"an index is not in 0 ... {size - 1}")


def _bitcast(x: np.ndarray, type: str) -> np.ndarray:
    if np.dtype(type).itemsize != x.dtype.itemsize:
        raise NotComputedError(f"only types of one size are taken as another; {x.dtype} is not as wide as {type}")
    return np.ascontiguousarray(x).view(type).reshape(x.shape)


def _one_hot(indices: np.ndarray, depth: np.ndarray, on: np.ndarray, off: np.ndarray, axis: int) -> np.ndarray:
    place = axis if axis >= 0 else indices.ndim
    _sizes((*indices.shape, int(depth)))
    hot = np.expand_dims(indices, place) == np.arange(int(depth)).reshape(
        [-1 if i == place else 1 for i in range(indices.ndim + 1)]
    )
    return np.where(hot, on, off)


def _gather(x: np.ndarray, indices: np.ndarray, axis: np.ndarray, batch_dims: int) -> np.ndarray:
    along = int(axis) % x.ndim
    batch = batch_dims % (indices.ndim + 1)
    _in_range(indices, x.shape[along])
    if batch == 0:
        return np.take(x, indices, axis=along)
    rows = _sizes(x.shape[:batch])
    gathered = [np.take(x[row], indices[row], axis=along - batch) for row in np.ndindex(*rows)]
    inner = (*x.shape[batch:along], *indices.shape[batch:], *x.shape[along + 1 :])
    return np.array(gathered, x.dtype).reshape(*rows, *inner)


def _gather_nd(x: np.ndarray, indices: np.ndarray) -> np.ndarray:
    depth = indices.shape[-1]
    for axis in range(depth):
        _in_range(indices[..., axis], x.shape[axis])
    return x[tuple(np.moveaxis(indices, -1, 0))] if depth else np.broadcast_to(x, (*indices.shape[:-1], *x.shape))


def _slice(x: np.ndarray, begin: np.ndarray, size: np.ndarray) -> np.ndarray:
    ends = [
        b + s if s >= 0 else whole for b, s, whole in zip(_numbers(begin), _numbers(size), x.shape, strict=True)
    ]
    if any(not 0 <= b <= e <= whole for b, e, whole in zip(_numbers(begin), ends, x.shape, strict=True)):
        raise ValueRefusedError(f"the slice lies outside of the shape {list(x.shape)}")
    return x[tuple(slice(b, e) for b, e in zip(_numbers(begin), ends, strict=True))]


def _strided_slice(
    x: np.ndarray,
    begin: np.ndarray,
    end: np.ndarray,
    strides: np.ndarray,
    begin_mask: int,
    end_mask: int,
    ellipsis_mask: int,
    new_axis_mask: int,
    shrink_axis_mask: int,
) -> np.ndarray:
    index: list[Any] = []
    for i, (first, last, step) in enumerate(zip(_numbers(begin), _numbers(end), _numbers(strides), strict=True)):
        bit = 1 << i
        if ellipsis_mask & bit:
            index.append(Ellipsis)
        elif new_axis_mask & bit:
            index.append(np.newaxis)
        elif shrink_axis_mask & bit:
            index.append(first)
        else:
            index.append(slice(None if begin_mask & bit else first, None if end_mask & bit else last, step))
    try:
        return x[tuple(index)]
    except IndexError:
        raise ValueRefusedError(f"an index is not in the shape {list(x.shape)}") from None


def _pad(x: np.ndarray, paddings: np.ndarray, value: np.ndarray | None = None) -> np.ndarray:
    _sizes([size + sum(_numbers(pair)) for size, pair in zip(x.shape, paddings, strict=True)])
    return np.pad(x, paddings.tolist(), constant_values=x.dtype.type(0) if value is None else value)


def _mirror_pad(x: np.ndarray, paddings: np.ndarray, mode: str) -> np.ndarray:
    inner = 1 if mode == "REFLECT" else 0
    if any(max(_numbers(pair)) > size - inner for size, pair in zip(x.shape, paddings, strict=True)):
        raise NotComputedError("a mirrored border is not wider than what it mirrors")
    modes: dict[str, Any] = {"REFLECT": "reflect", "SYMMETRIC": "symmetric"}
    return np.pad(x, paddings.tolist(), mode=modes[mode])


def _tile(x: np.ndarray, multiples: np.ndarray) -> np.ndarray:
    _sizes([size * times for size, times in zip(x.shape, _numbers(multiples), strict=True)])
    return np.tile(x, _numbers(multiples))


def _roll(x: np.ndarray, shift: np.ndarray, axis: np.ndarray) -> np.ndarray:
    return np.roll(x, tuple(_numbers(shift)), tuple(_numbers(axis)))


def _range(start: np.ndarray, limit: np.ndarray, delta: np.ndarray) -> np.ndarray:
    if delta == 0:
        raise ValueRefusedError("a range has a step that is not zero")
    count = max(math.ceil((limit.item() - start.item()) / delta.item()), 0)
    _sizes([count])
    return start + np.arange(count).astype(start.dtype) * delta


def _split(axis: np.ndarray, x: np.ndarray, num_split: int) -> tuple[np.ndarray, ...]:
    return tuple(np.split(x, num_split, axis=int(axis)))


def _split_sizes(x: np.ndarray, sizes: np.ndarray, axis: np.ndarray) -> tuple[np.ndarray, ...]:
    known = sum(size for size in _numbers(sizes) if size >= 0)
    parts = [size if size >= 0 else x.shape[int(axis)] - known for size in _numbers(sizes)]
    if sum(parts) != x.shape[int(axis)] or min(parts) < 0:
        raise NotComputedError("the sizes of the parts are those of the whole")
    return tuple(np.split(x, np.cumsum(parts)[:-1], axis=int(axis)))


def _unpack(x: np.ndarray, num: int, axis: int) -> tuple[np.ndarray, ...]:
    parts = tuple(np.moveaxis(x, axis, 0))
    if len(parts) != num:
        raise NotComputedError(f"there are {len(parts)} parts, not {num}")
    return parts


def _squeeze(x: np.ndarray, squeeze_dims: Sequence[int]) -> np.ndarray:
    return np.squeeze(x, axis=tuple(squeeze_dims) or None)


def _ensure_shape(x: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    if x.ndim != len(shape) or any(want not in (-1, have) for want, have in zip(shape, x.shape, strict=True)):
        raise NotComputedError(f"the shape is {list(x.shape)}, not {list(shape)}")
    return x


def _cast(x: np.ndarray, DstT: str) -> np.ndarray:  # noqa: N803 - TensorFlow's name of the attribute
    return x.astype(DstT)


_MASKS = ("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask")

OPERATIONS: dict[str, Operation] = {
    "Identity": unary(lambda x: x),
    "IdentityN": Operation(lambda *arrays: arrays, (1, MANY)),
    "StopGradient": unary(lambda x: x),
    "PreventGradient": unary(lambda x: x),
    "Snapshot": unary(lambda x: x),
    "EnsureShape": unary(_ensure_shape, shape="ints"),
    "Cast": Operation(_cast, (1, 1), MappingProxyType({"DstT": "dtype"}), MappingProxyType({"Truncate": False})),
    "Bitcast": unary(_bitcast, type="dtype"),
    "Shape": unary(lambda x, out_type: np.array(x.shape, out_type), out_type="dtype"),
    "Size": unary(lambda x, out_type: np.array(x.size, out_type), out_type="dtype"),
    "Rank": unary(lambda x: np.array(x.ndim, np.int32)),
    "ZerosLike": unary(np.zeros_like),
    "OnesLike": unary(np.ones_like),
    "Fill": binary(lambda shape, value: np.full(_sizes(shape), value, value.dtype)),
    "Range": Operation(_range, (3, 3)),
    "OneHot": Operation(_one_hot, (4, 4), MappingProxyType({"axis": "int"})),
    "Reshape": binary(lambda x, shape: np.reshape(x, tuple(_numbers(shape)))),
    "ExpandDims": binary(lambda x, axis: np.expand_dims(x, int(axis.reshape(())))),
    "Squeeze": unary(_squeeze, squeeze_dims="ints"),
    "Transpose": binary(lambda x, order: np.transpose(x, _numbers(order))),
    "ReverseV2": binary(lambda x, axes: np.flip(x, tuple(_numbers(axes)))),
    "Roll": Operation(_roll, (3, 3)),
    "BroadcastTo": binary(lambda x, shape: np.broadcast_to(x, _sizes(shape))),
    "Tile": binary(_tile),
    "Pad": binary(_pad),
    "PadV2": Operation(_pad, (3, 3)),
    "MirrorPad": binary(_mirror_pad, mode="text"),
    "ConcatV2": Operation(lambda *arrays: np.concatenate(arrays[:-1], axis=int(arrays[-1])), (2, MANY)),
    "Pack": Operation(lambda *arrays, axis: np.stack(arrays, axis=axis), (1, MANY), MappingProxyType({"axis": "int"})),
    "Unpack": unary(_unpack, num="int", axis="int"),
    "Split": binary(_split, num_split="int"),
    "SplitV": Operation(_split_sizes, (3, 3)),
    "Slice": Operation(_slice, (3, 3)),
    "StridedSlice": Operation(_strided_slice, (4, 4), MappingProxyType(dict.fromkeys(_MASKS, "int"))),
    "GatherV2": Operation(_gather, (3, 3), MappingProxyType({"batch_dims": "int"})),
    "GatherNd": binary(_gather_nd),
}
