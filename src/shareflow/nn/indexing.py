"""Choosing and placing elements: by public indices, which is local, and by private ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from shareflow.errors import PlacementError, ShapeError
from shareflow.nn.reduction import one_axis, one_hot
from shareflow.nn.selection import chosen
from shareflow.protocol import op as ops
from shareflow.protocol.arithmetic import matmul
from shareflow.protocol.operand import as_operand, private_operand
from shareflow.protocol.tensor import PrivateTensor
from shareflow.share.known import Known


def gather(x: Any, indices: Any, axis: int = 0, batch_dims: int = 0) -> PrivateTensor:
    """Entries along an axis at indices of any shape, as tf.gather: the axis is replaced by the indices' own axes.

    Args:
        x: private, or public where the indices are private.
        indices: public whole numbers, or private ones without fractional bits (of argmax, for example).
        axis: of x; not before ``batch_dims``.
        batch_dims: how many first axes x and indices have in common.

    Local for public indices. Private ones become one-hot vectors, and a matrix product: nobody learns what was read.
    Rounds then: those of one_hot, and of the product.

    Raises:
        ShapeError: indices that are no places along the axis, or shapes that do not fit.
    """
    x, indices = as_operand(x), as_operand(indices)
    shape, places = tuple(x.shape), tuple(indices.shape)
    along = one_axis(axis, len(shape))
    if not _is_count(batch_dims) or batch_dims > min(along, len(places)) or shape[:batch_dims] != places[:batch_dims]:
        raise ShapeError(
            f"gather: batch_dims counts first axes that are equal, before the axis {along}; got {batch_dims!r} for "
            f"shapes {shape} and {places}."
        )
    if isinstance(indices, PrivateTensor):
        return _gather_private(x, indices, along, batch_dims)
    array = _places(indices, shape[along], f"along axis {axis} of shape {shape}")
    return private_operand(x).linear(ops.GATHER, indices=array, axis=along, batch_dims=batch_dims)


def _gather_private(x: Any, indices: PrivateTensor, along: int, batch: int) -> PrivateTensor:
    """one_hot [..., indices, n] @ x [..., n, rest]."""
    shape, own = tuple(x.shape), tuple(indices.shape)[batch:]
    rest = [i for i in range(batch, len(shape)) if i != along]
    order = [*range(batch), along, *rest]
    lengths = [shape[i] for i in rest]
    table = x.transpose(order).reshape(*shape[:batch], shape[along], math.prod(lengths))
    hot = one_hot(indices, shape[along]).reshape(*shape[:batch], math.prod(own), shape[along])
    if isinstance(hot.share, Known) and isinstance(table, PrivateTensor) and table.protocol is not None:
        # Without fractional bits the product has none to truncate.
        hot = hot.shared(table.protocol, 0)
    found = matmul(hot, table).reshape(*shape[:batch], *own, *lengths)
    # The indices' axes go where the axis was.
    outer = along - batch
    first = batch + len(own)
    return found.transpose(
        *range(batch), *range(first, first + outer), *range(batch, first), *range(first + outer, first + len(rest))
    )


def gather_nd(x: Any, indices: Any, batch_dims: int = 0) -> PrivateTensor:
    """Elements or slices of x at public index vectors [..., k], as tf.gather_nd. Local.

    Raises:
        ShapeError: the vectors are no places of x.
    """
    x = private_operand(x)
    array = _vectors(indices, x.shape, batch_dims)
    if batch_dims:
        # The batch's own numbers before each vector: the operation that TensorFlow makes of it, too.
        batch = array.shape[:batch_dims]
        grid = np.stack(np.meshgrid(*map(np.arange, batch), indexing="ij"), -1)
        grid = grid.reshape(*batch, *[1] * (array.ndim - 1 - batch_dims), batch_dims)
        array = np.concatenate([np.broadcast_to(grid, (*array.shape[:-1], batch_dims)), array], -1)
    return x.linear(ops.GATHER_ND, indices=array)


def scatter_nd(indices: Any, updates: Any, shape: Sequence[int]) -> PrivateTensor:
    """Zeros of a shape, with updates added at public index vectors [..., k], as tf.scatter_nd. Local.

    Raises:
        ShapeError: the vectors are no places of the shape, or the updates' shape does not fit.
    """
    updates, shape = private_operand(updates), tuple(shape)
    array = _vectors(indices, shape)
    _check_updates(array, tuple(updates.shape), shape)
    return updates.linear(ops.SCATTER_ND, indices=array, shape=list(shape))


def tensor_scatter_update(x: Any, indices: Any, updates: Any) -> PrivateTensor:
    """x with updates in place of what stands at public index vectors [..., k]; either may be private. Local.

    Raises:
        ShapeError: a place is named twice, is none of x, or the updates' shape does not fit.
    """
    x, updates = as_operand(x), as_operand(updates)
    if not isinstance(x, PrivateTensor) and not isinstance(updates, PrivateTensor):
        raise PlacementError("Neither the tensor nor the updates are private. Use TensorFlow's own operation.")
    shape = tuple(x.shape)
    array = _vectors(indices, shape)
    _check_updates(array, tuple(updates.shape), shape)
    rows = array.reshape(-1, array.shape[-1])
    if len(np.unique(rows, axis=0)) != len(rows):
        raise ShapeError("An update names each place once: which of two would count is not defined. Add them up first.")
    outside = np.ones(shape)
    outside[tuple(np.moveaxis(array, -1, 0))] = 0.0
    if isinstance(updates, PrivateTensor):
        return scatter_nd(array, updates, shape) + chosen(outside, x)
    placed = np.zeros(shape)
    placed[tuple(np.moveaxis(array, -1, 0))] = updates
    return chosen(outside, x) + placed


def strided_slice(
    x: Any,
    begin: Sequence[int],
    end: Sequence[int],
    strides: Sequence[int] | None = None,
    begin_mask: int = 0,
    end_mask: int = 0,
    ellipsis_mask: int = 0,
    new_axis_mask: int = 0,
    shrink_axis_mask: int = 0,
) -> PrivateTensor:
    """A slice as TensorFlow's StridedSlice writes it: ``x[key]`` with masks that say what an entry stands for. Local.

    Raises:
        ShapeError: lists of different lengths, a step of 0, or an index out of range.
    """
    x = private_operand(x)
    steps = [1] * len(begin) if strides is None else [int(step) for step in strides]
    if not len(begin) == len(end) == len(steps):
        raise ShapeError(f"A slice has as many begins as ends and strides; got {len(begin)}, {len(end)}, {len(steps)}.")
    key: list[Any] = []
    for i, (first, last, step) in enumerate(zip(begin, end, steps, strict=True)):
        bit = 1 << i
        if ellipsis_mask & bit:
            key.append(Ellipsis)
        elif new_axis_mask & bit:
            key.append(None)
        elif shrink_axis_mask & bit:
            key.append(int(first))
        else:
            key.append(slice(None if begin_mask & bit else int(first), None if end_mask & bit else int(last), step))
    return x[tuple(key)]


def split(x: Any, parts: int | Sequence[int], axis: int = 0) -> list[PrivateTensor]:
    """The tensor cut along an axis, in a number of equal parts or in parts of the given lengths. Local.

    Raises:
        ShapeError: the parts do not add up to the axis.
    """
    x = private_operand(x)
    along = one_axis(axis, x.ndim)
    extent = x.shape[along]
    if _is_count(parts):
        count = int(parts)  # type: ignore[arg-type]
        if not count or extent % count:
            raise ShapeError(f"An axis of {extent} does not split into {count} equal parts. Give their lengths.")
        lengths = [extent // count] * count
    else:
        lengths = [int(n) for n in parts]  # type: ignore[union-attr]
        if lengths.count(-1) == 1:
            lengths[lengths.index(-1)] = extent - sum(lengths) - 1
        if any(n < 0 for n in lengths) or sum(lengths) != extent:
            raise ShapeError(f"Parts of an axis of {extent} add up to it; got {list(parts)}.")  # type: ignore[arg-type]
    stops = np.cumsum(lengths)
    return [x[_only(along, slice(int(stop) - n, int(stop)))] for n, stop in zip(lengths, stops, strict=True)]


def unstack(x: Any, axis: int = 0) -> list[PrivateTensor]:
    """The entries along an axis, without it. Local."""
    x = private_operand(x)
    along = one_axis(axis, x.ndim)
    return [x[_only(along, i)] for i in range(x.shape[along])]


def _only(along: int, part: Any) -> tuple[Any, ...]:
    """The index of a part along one axis."""
    return (*(slice(None),) * along, part)


def _is_count(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and bool(value >= 0)


def _places(indices: Any, extent: int, where: str) -> np.ndarray:
    if not isinstance(indices, np.ndarray):
        raise ShapeError("Public indices are an array, known while the program is written. Pass one.")
    if (indices.size and indices.dtype.kind not in "iu") or np.any(indices < 0) or np.any(indices >= extent):
        raise ShapeError(f"Indices {where} are whole numbers from 0 to {extent - 1}; one or more given ones are not.")
    return indices.astype(np.int64)


def _vectors(indices: Any, shape: tuple[int, ...], batch_dims: int = 0) -> np.ndarray:
    """Index vectors, each a place in the axes that they name."""
    array = as_operand(indices)
    if isinstance(array, PrivateTensor):
        raise PlacementError("gather_nd and scatter_nd take public indices; for private ones use gather along an axis.")
    if not array.shape or array.shape[-1] > len(shape) - batch_dims:
        raise ShapeError(
            f"Index vectors [..., k] name up to {len(shape) - batch_dims} axes of shape {shape}; got indices of shape "
            f"{tuple(array.shape)}."
        )
    if tuple(array.shape[:batch_dims]) != shape[:batch_dims] or array.ndim <= batch_dims:
        raise ShapeError(f"The first {batch_dims} axes of {shape} and of indices {tuple(array.shape)} are equal.")
    parts = [
        _places(array[..., i], shape[batch_dims + i], f"along axis {batch_dims + i} of shape {shape}")
        for i in range(array.shape[-1])
    ]
    return np.stack(parts, -1) if parts else np.zeros(array.shape, np.int64)


def _check_updates(indices: np.ndarray, updates: tuple[int, ...], shape: tuple[int, ...]) -> None:
    wanted = (*indices.shape[:-1], *shape[indices.shape[-1] :])
    if updates != wanted:
        raise ShapeError(
            f"Updates for indices {indices.shape} of shape {shape} have the shape {wanted}; got {updates}."
        )
