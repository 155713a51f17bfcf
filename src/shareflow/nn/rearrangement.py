"""Moving, repeating and adding up elements: all local, as each party does it with its own shares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from shareflow.errors import ShapeError
from shareflow.nn.geometry import pair, window_sides
from shareflow.nn.reduction import one_axis
from shareflow.protocol import op as ops
from shareflow.protocol.operand import private_operand
from shareflow.protocol.tensor import PrivateTensor, axes_of


def tile(x: Any, multiples: Sequence[int]) -> PrivateTensor:
    """The whole of x so many times along each axis. Local."""
    x = private_operand(x)
    counts = _whole(multiples, "Multiples of a tile")
    if len(counts) != x.ndim or any(n < 0 for n in counts):
        raise ShapeError(f"A tile has a multiple of at least 0 for each of {x.ndim} axes; got {multiples}.")
    return x.linear(ops.TILE, multiples=counts)


def repeat(x: Any, repeats: Any, axis: int | None = None) -> PrivateTensor:
    """Each entry along an axis so many times, one after another; without an axis, of all elements. Local.

    ``repeats`` is one count, or one for each entry.
    """
    x = private_operand(x)
    if axis is None:
        x, axis = x.reshape(-1), 0
    along = one_axis(axis, x.ndim)
    counts = np.asarray(repeats)
    if counts.dtype.kind not in "iu" or counts.shape not in ((), (1,), (x.shape[along],)) or np.any(counts < 0):
        raise ShapeError(f"repeat takes a count of at least 0, or one for each of {x.shape[along]}; got {repeats!r}.")
    return x.take(np.repeat(np.arange(x.shape[along]), counts), along)


def reverse(x: Any, axis: Any) -> PrivateTensor:
    """The other way round along one axis or several. Local."""
    x = private_operand(x)
    return x.linear(ops.REVERSE, axis=axes_of(axis, x.ndim))


def roll(x: Any, shift: Any, axis: Any) -> PrivateTensor:
    """Moved on by ``shift`` places along an axis, what leaves at the end coming in at the start. Local."""
    x = private_operand(x)
    axes = [one_axis(a, x.ndim) for a in (axis if isinstance(axis, (tuple, list)) else [axis])]
    shifts = _whole(shift if isinstance(shift, (tuple, list, np.ndarray)) else [shift], "Shifts of a roll")
    if len(shifts) != len(axes):
        raise ShapeError(f"A roll has one shift for each axis; got {shift} for {axis}.")
    return x.linear(ops.ROLL, shift=shifts, axis=axes)


def cumsum(x: Any, axis: int = 0, exclusive: bool = False, reverse: bool = False) -> PrivateTensor:
    """Sums of all entries up to each, along an axis; ``exclusive`` without its own, ``reverse`` from the end. Local."""
    x = private_operand(x)
    return x.linear(ops.CUMSUM, axis=one_axis(axis, x.ndim), exclusive=bool(exclusive), reverse=bool(reverse))


def matrix_diag(x: Any, k: int = 0) -> PrivateTensor:
    """Square matrices with x [..., n] on the k-th diagonal above the main one, else 0. Local."""
    x = private_operand(x)
    if not x.ndim:
        raise ShapeError("matrix_diag takes vectors [..., n]; got a scalar.")
    return x.linear(ops.DIAGONAL, k=_whole([k], "A diagonal")[0])


def matrix_diag_part(x: Any, k: int = 0) -> PrivateTensor:
    """The k-th diagonal above the main one of matrices [..., n, m]. Local."""
    x = private_operand(x)
    (number,) = _whole([k], "A diagonal")
    if x.ndim < 2 or not -x.shape[-2] < number < x.shape[-1]:
        raise ShapeError(f"Matrices of shape {x.shape} have no diagonal {k}.")
    return x.linear(ops.DIAGONAL_PART, k=number)


def band_part(x: Any, lower: int, upper: int) -> PrivateTensor:
    """Matrices [..., n, m] with 0 outside of ``lower`` diagonals below the main one and ``upper`` above it. Local.

    -1 stands for all: band_part(x, -1, 0) is the lower triangle.
    """
    x = private_operand(x)
    if x.ndim < 2:
        raise ShapeError(f"band_part takes matrices [..., n, m]; got shape {x.shape}.")
    below, above = _whole([lower, upper], "Numbers of diagonals")
    # TensorFlow counts at most as many as there are.
    below, above = (-1 if n < 0 else min(n, side) for n, side in ((below, x.shape[-2]), (above, x.shape[-1])))
    return x.linear(ops.BAND_PART, num_lower=below, num_upper=above)


def space_to_depth(x: Any, block: int) -> PrivateTensor:
    """Blocks of images [N, H, W, C] as channels: [N, H / block, W / block, C block^2]. Local."""
    x = _images(x, "space_to_depth")
    number = _block(block)
    if x.shape[1] % number or x.shape[2] % number:
        raise ShapeError(f"Images of shape {x.shape} do not divide into blocks of {number}. Pad them first.")
    return x if number == 1 else x.linear(ops.SPACE_TO_DEPTH, block_size=number)


def depth_to_space(x: Any, block: int) -> PrivateTensor:
    """Channels of images [N, H, W, C] as blocks: [N, H block, W block, C / block^2]. Local."""
    x = _images(x, "depth_to_space")
    number = _block(block)
    if x.shape[3] % number**2:
        raise ShapeError(f"{x.shape[3]} channels do not divide into blocks of {number} x {number}.")
    return x if number == 1 else x.linear(ops.DEPTH_TO_SPACE, block_size=number)


def space_to_batch_nd(x: Any, block_shape: Sequence[int], paddings: Any) -> PrivateTensor:
    """Places within blocks as batches, after padding with zeros, as tf.space_to_batch. Local."""
    x = private_operand(x)
    blocks, pairs = _blocks(x, block_shape, paddings)
    for extent, number, (before, after) in zip(x.shape[1:], blocks, pairs, strict=False):
        if (extent + before + after) % number:
            raise ShapeError(
                f"An axis of {extent}, padded by {before}, {after}, does not divide into blocks of {number}."
            )
    return x.linear(ops.SPACE_TO_BATCH, block_shape=blocks, paddings=pairs)


def batch_to_space_nd(x: Any, block_shape: Sequence[int], crops: Any) -> PrivateTensor:
    """Batches as places within blocks, then cropped, as tf.batch_to_space. Local."""
    x = private_operand(x)
    blocks, pairs = _blocks(x, block_shape, crops)
    if x.shape[0] % int(np.prod(blocks)):
        raise ShapeError(f"A batch of {x.shape[0]} does not divide into blocks of {blocks}.")
    for extent, number, (before, after) in zip(x.shape[1:], blocks, pairs, strict=False):
        if before + after > extent * number:
            raise ShapeError(f"Crops of {before}, {after} are more than the axis of {extent * number}.")
    return x.linear(ops.BATCH_TO_SPACE, block_shape=blocks, crops=pairs)


def extract_patches(x: Any, size: Any, strides: Any = 1, padding: Any = "VALID", dilations: Any = 1) -> PrivateTensor:
    """The elements of each window of images [N, H, W, C] as channels, [N, H', W', h w C], with zeros around. Local.

    As tf.image.extract_patches; ``padding`` is 'VALID', 'SAME' or ((top, bottom), (left, right)).
    """
    x = _images(x, "extract_patches")
    window, steps, holes = pair(size, "the window"), pair(strides, "strides"), pair(dilations, "dilations")
    sides = window_sides(padding, x.shape[1:3], window, steps, holes)
    return x.linear(ops.PATCHES, size=window, strides=steps, padding=sides, dilations=holes)


def _images(x: Any, name: str) -> PrivateTensor:
    tensor = private_operand(x)
    if tensor.ndim != 4:
        raise ShapeError(f"{name} takes images [N, H, W, C]; got shape {tensor.shape}. Add the axes that are missing.")
    return tensor


def _block(block: Any) -> int:
    (number,) = _whole([block], "A block")
    if number < 1:
        raise ShapeError(f"A block is of 1 or more; got {block!r}.")
    return number


def _blocks(x: PrivateTensor, block_shape: Sequence[int], pairs: Any) -> tuple[list[int], list[list[int]]]:
    blocks = [_block(block) for block in np.asarray(block_shape).tolist()]
    edges = np.asarray(pairs)
    if not 0 < len(blocks) < x.ndim or edges.shape != (len(blocks), 2):
        raise ShapeError(
            f"Blocks are for 1 to {max(x.ndim - 1, 1)} axes after the batch, with a pair for each; got blocks "
            f"{blocks} and pairs of shape {edges.shape} for shape {x.shape}."
        )
    if edges.dtype.kind not in "iu" or np.any(edges < 0):
        raise ShapeError(f"Paddings and crops are whole numbers of at least 0; got {pairs}.")
    return blocks, edges.tolist()


def _whole(values: Any, name: str) -> list[int]:
    array = np.asarray(values)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ShapeError(f"{name} are whole numbers; got {values}.")
    return [int(n) for n in array]
