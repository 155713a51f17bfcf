"""Pooling over windows that move along the axes between batch and channels: [N, L, C], [N, H, W, C], [N, D, H, W, C].

``size`` and ``strides`` are a number, or one for each of these axes; the strides are the size where they are not given.
``padding`` is 'VALID', 'SAME', or a pair (before, after) for each axis. Padding is never part of a result: it wins no
maximum, and a mean is of the elements inside the image, as TensorFlow's.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from shareflow.errors import ShapeError
from shareflow.nn.geometry import Sides, each_direction, window_sides
from shareflow.nn.reduction import max_tree
from shareflow.nn.sliding_maximum import Range, maxima, plan_for, taken
from shareflow.protocol import op as ops
from shareflow.protocol.arithmetic import exact_bits, stack
from shareflow.protocol.operand import private_operand
from shareflow.protocol.tensor import SPARE_BITS, PrivateTensor
from shareflow.share.known import Known

# What decides how a maximum is found, in bytes of all parties: a comparison with its masking and choice, and a level of
# comparisons, whose four rounds count 8 bytes each for every result, as a balanced comparison counts its own.
_COMPARISON_BYTES = 85
_LEVEL_BYTES = 32

_BATCHES = {1: "[N, L, C]", 2: "[N, H, W, C]", 3: "[N, D, H, W, C]"}


def avg_pool1d(
    x: Any, size: Any = 2, strides: Any = None, padding: Any = "VALID", count_padding: bool = False
) -> PrivateTensor:
    """Mean of each window of sequences [N, L, C]; see :func:`avg_pool2d`."""
    return _average(private_operand(x), 1, size, strides, padding, count_padding)


def avg_pool2d(
    x: Any, size: Any = 2, strides: Any = None, padding: Any = "VALID", count_padding: bool = False
) -> PrivateTensor:
    """Mean of each window of images [N, H, W, C]; with padding, of the elements inside the image, as TensorFlow's.

    With ``count_padding`` the zeros of the padding count as elements, as in ONNX.

    Local. Free where windows have 1, 2, 4, 8 or 16 elements; else one multiplication by public constants, whose product
    is truncated later.

    Raises:
        ShapeError: x is no image batch, or windows, strides and padding do not fit it.
    """
    return _average(private_operand(x), 2, size, strides, padding, count_padding)


def avg_pool3d(
    x: Any, size: Any = 2, strides: Any = None, padding: Any = "VALID", count_padding: bool = False
) -> PrivateTensor:
    """Mean of each window of volumes [N, D, H, W, C]; see :func:`avg_pool2d`."""
    return _average(private_operand(x), 3, size, strides, padding, count_padding)


def max_pool1d(
    x: Any, size: Any = 2, strides: Any = None, padding: Any = "VALID", bound: float | None = None
) -> PrivateTensor:
    """Maximum of each window of sequences [N, L, C]; see :func:`max_pool2d`."""
    return _maximum(private_operand(x), 1, size, strides, padding, bound)


def max_pool2d(
    x: Any, size: Any = 2, strides: Any = None, padding: Any = "VALID", bound: float | None = None
) -> PrivateTensor:
    """Maximum of each window of images [N, H, W, C], exactly; padding never wins. ``bound``: as for reduce_max.

    Over one axis after the other, as windows share these maxima: 3 x 3 at stride 2 takes 6 comparisons a window in
    place of 8. Where an axis more takes a level more and saves nothing, all elements of a window in one tree.
    Rounds: ceil(log2(n)) times (masking and) three for each axis of n elements.

    Raises:
        ShapeError: x is no image batch, or windows, strides and padding do not fit it.
    """
    return _maximum(private_operand(x), 2, size, strides, padding, bound)


def max_pool3d(
    x: Any, size: Any = 2, strides: Any = None, padding: Any = "VALID", bound: float | None = None
) -> PrivateTensor:
    """Maximum of each window of volumes [N, D, H, W, C]; see :func:`max_pool2d`."""
    return _maximum(private_operand(x), 3, size, strides, padding, bound)


def global_avg_pool1d(x: Any, keepdims: bool = False) -> PrivateTensor:
    """Mean over the length. Local."""
    return private_operand(x).mean(_between(x, 1), keepdims)


def global_avg_pool2d(x: Any, keepdims: bool = False) -> PrivateTensor:
    """Mean over height and width. Local."""
    return private_operand(x).mean(_between(x, 2), keepdims)


def global_avg_pool3d(x: Any, keepdims: bool = False) -> PrivateTensor:
    """Mean over depth, height and width. Local."""
    return private_operand(x).mean(_between(x, 3), keepdims)


def ceil_padding(extents: Sequence[int], size: Any, strides: Any = None, padding: Any = "VALID") -> Sides:
    """Explicit padding with which a last window that begins inside counts as well, though it is not whole.

    For models from frameworks that round the number of windows up (Caffe, ``ceil_mode`` of PyTorch and ONNX).
    ``extents`` are the lengths of the axes that windows move on.

    Raises:
        ShapeError: windows, strides or padding do not fit.
    """
    axes = len(extents)
    window = each_direction(size, axes, "the window")
    steps = window if strides is None else each_direction(strides, axes, "strides")
    sides = window_sides(padding, extents, window, steps, (1,) * axes)
    widened = []
    for extent, reach, stride, (before, after) in zip(extents, window, steps, sides, strict=True):
        count = -(-(extent + before + after - reach) // stride) + 1
        # A window begins in the image or in the padding before it.
        if (count - 1) * stride >= extent + before:
            count -= 1
        widened.append((before, max(after, (count - 1) * stride + reach - extent - before)))
    return tuple(widened)


def _average(x: PrivateTensor, axes: int, size: Any, strides: Any, padding: Any, count_padding: bool) -> PrivateTensor:
    window, steps, sides = _place(x, axes, size, strides, padding)
    total = x.linear(ops.SUM_POOL, size=window, strides=steps, padding=sides)
    if not count_padding and any(map(any, sides)):
        counts = np.ones((1,) * (axes + 2))
        for axis, ranges in enumerate(_ranges(x, window, steps, sides), 1):
            inside = np.array([stop - start for start, stop in ranges], np.float64)
            counts = counts * inside.reshape([-1 if i == axis else 1 for i in range(axes + 2)])
        if not np.all(counts == counts.flat[0]):
            bits = exact_bits(1 / counts)
            if bits > SPARE_BITS or total.protocol is None:
                return total * (1 / counts)
            return total.times(1 / counts, bits)
        return total / float(counts.flat[0])
    return total / math.prod(window)


def _maximum(x: PrivateTensor, axes: int, size: Any, strides: Any, padding: Any, bound: float | None) -> PrivateTensor:
    window, steps, sides = _place(x, axes, size, strides, padding)
    ranges = _ranges(x, window, steps, sides)
    if isinstance(x.share, Known):
        return x.known_as(lambda value: _plaintext_maximum(value, ranges))
    with tf.name_scope("max_pool"):
        one_by_one, order = _cheapest_order(x.shape, ranges)
        counts = [len(own) for own in ranges]
        results = math.prod((x.shape[0], *counts, x.shape[-1]))
        at_once = results * (
            _COMPARISON_BYTES * (math.prod(window) - 1) + _LEVEL_BYTES * (math.prod(window) - 1).bit_length()
        )
        levels = sum((reach - 1).bit_length() for reach in window)
        if _COMPARISON_BYTES * one_by_one + _LEVEL_BYTES * levels * results <= at_once:
            for axis in order:
                x = maxima(x, ranges[axis - 1], axis, bound)
            return x
        return max_tree(_stacked(x, ranges), None, bound)[0]


def _cheapest_order(shape: tuple[int, ...], ranges: list[tuple[Range, ...]]) -> tuple[int, tuple[int, ...]]:
    """(comparisons, the axes in the order that takes so few)."""

    def comparisons(order: tuple[int, ...]) -> int:
        extents, total = list(shape), 0
        for axis in order:
            lines = math.prod(extents) // max(extents[axis], 1)
            total += lines * plan_for(ranges[axis - 1]).comparisons
            extents[axis] = len(ranges[axis - 1])
        return total

    return min((comparisons(order), order) for order in itertools.permutations(range(1, len(ranges) + 1)))


def _stacked(x: PrivateTensor, ranges: list[tuple[Range, ...]]) -> PrivateTensor:
    """[n, N, ..., C]: every element of each window along a new first axis.

    At an edge the window's last element stands for those outside: more of it do not change a maximum.
    """
    views = [x]
    for axis, own in enumerate(ranges, 1):
        longest = max(stop - start for start, stop in own)
        places = [tuple(min(start + i, stop - 1) for start, stop in own) for i in range(longest)]
        views = [taken(view, place, axis) for view in views for place in places]
    return stack(views)


def _plaintext_maximum(value: tf.Tensor, ranges: list[tuple[Range, ...]]) -> tf.Tensor:
    for axis, own in enumerate(ranges, 1):
        longest = max(stop - start for start, stop in own)
        places = [[min(start + i, stop - 1) for i in range(longest)] for start, stop in own]
        value = tf.reduce_max(tf.gather(value, places, axis=axis), axis + 1)
    return value


def _ranges(x: PrivateTensor, window: tuple[int, ...], steps: tuple[int, ...], sides: Sides) -> list[tuple[Range, ...]]:
    """The part of each window that is inside the image: for each axis (first, behind the last), window by window."""
    found = []
    for extent, reach, stride, (before, after) in zip(x.shape[1:-1], window, steps, sides, strict=True):
        count = (extent + before + after - reach) // stride + 1
        starts = [i * stride - before for i in range(count)]
        found.append(tuple((max(start, 0), min(start + reach, extent)) for start in starts))
    return found


def _between(x: Any, axes: int) -> tuple[int, ...]:
    shape = tuple(private_operand(x).shape)
    if len(shape) != axes + 2:
        raise ShapeError(_not_a_batch(axes, shape))
    return tuple(range(1, axes + 1))


def _not_a_batch(axes: int, shape: tuple[int, ...]) -> str:
    kind = "An image batch" if axes == 2 else "A batch to pool"
    return f"{kind} has the shape {_BATCHES[axes]}; got {shape}. Add the axes that are missing."


def _place(
    x: PrivateTensor, axes: int, size: Any, strides: Any, padding: Any
) -> tuple[tuple[int, ...], tuple[int, ...], Sides]:
    if x.ndim != axes + 2:
        raise ShapeError(_not_a_batch(axes, x.shape))
    window = each_direction(size, axes, "the window")
    steps = window if strides is None else each_direction(strides, axes, "strides")
    sides = window_sides(padding, x.shape[1:-1], window, steps, (1,) * axes)
    if any(side >= reach for pair_, reach in zip(sides, window, strict=True) for side in pair_):
        raise ShapeError(
            f"Padding is smaller than the window, so that each window holds an element of the image; got {sides} for "
            f"a window of {window}. Use less padding, or pad the values themselves first."
        )
    return window, steps, sides
