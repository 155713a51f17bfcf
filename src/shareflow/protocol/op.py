"""Operations as values: what an operation is, apart from any protocol.

An operation's class says how it acts on secret values:

* LINEAR: on shares of one kind each party applies it to its own components; free.
* BILINEAR: linear in each of two operands; with one operand public it is linear.
* INTERACTIVE: the parties must talk; every protocol brings its own rule.

``ring`` is its plain meaning on int64 tensors that wrap, ``real`` its meaning on ordinary TensorFlow tensors,
used where a value is known to one party.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import tensorflow as tf

from shareflow.protocol import contraction, convolution
from shareflow.ring import kernels
from shareflow.ring.sine import sine

Compute = Callable[..., tf.Tensor]
Padding = tuple[tuple[int, int], tuple[int, int]]
Sides = Sequence[tuple[int, int]]


class OpClass(enum.Enum):
    """How an operation acts on secret values."""

    LINEAR = "linear"
    BILINEAR = "bilinear"
    INTERACTIVE = "interactive"


LINEAR, BILINEAR, INTERACTIVE = OpClass.LINEAR, OpClass.BILINEAR, OpClass.INTERACTIVE


@dataclass(frozen=True, eq=False)
class Op:
    """An operation; tables hold rules by the object itself."""

    name: str
    kind: OpClass
    ring: Compute
    real: Compute

    def __repr__(self) -> str:
        return self.name


def _same(name: str, compute: Compute) -> Op:
    """A linear operation that moves or adds elements: the same on ring elements and on reals."""
    return Op(name, LINEAR, compute, compute)


def windows(x: tf.Tensor, *, size: Sequence[int], strides: Sequence[int], padding: Sides) -> list[tf.Tensor]:
    """Views [N, ..., C], one for each place in a window, of x [N, ..., C] padded with zeros along the axes between."""
    x = _padded(x, padding)
    views = [x]
    for axis, (window, stride) in enumerate(zip(size, strides, strict=True), 1):
        count = (x.shape[axis] - window) // stride + 1
        views = [convolution.every(view, start, count, stride, axis) for view in views for start in range(window)]
    return views


def _padded(x: tf.Tensor, padding: Sides) -> tf.Tensor:
    return tf.pad(x, ((0, 0), *padding, (0, 0))) if any(map(any, padding)) else x


def _slice(x: tf.Tensor, key: tuple[Any, ...]) -> tf.Tensor:
    # Whatever has a step is gathered afterwards, along its axis of the result.
    named = sum(part is not None and part is not Ellipsis for part in key)
    axis = along = 0
    plain, stepped = [], []
    for part in key:
        if part is Ellipsis:
            axis, along = axis + x.shape.rank - named, along + x.shape.rank - named
        elif part is None:
            along += 1
        elif isinstance(part, slice):
            if part.step not in (None, 1):
                stepped.append((along, range(*part.indices(x.shape[axis]))))
                part = slice(None)
            axis, along = axis + 1, along + 1
        else:
            axis += 1
        plain.append(part)
    x = x[tuple(plain)]
    for along, places in stepped:
        x = tf.gather(x, tf.constant(list(places), tf.int32), axis=along)
    return x


def _patches(
    x: tf.Tensor, *, size: Sequence[int], strides: Sequence[int], padding: Sides, dilations: Sequence[int]
) -> tf.Tensor:
    around = ([1, *numbers, 1] for numbers in (size, strides, dilations))
    return tf.image.extract_patches(_padded(x, padding), *around, "VALID")


def _sum_pool(x: tf.Tensor, *, size: Sequence[int], strides: Sequence[int], padding: Sides) -> tf.Tensor:
    # Axis by axis: a window of 7 x 7 takes 14 terms in place of 49.
    x = _padded(x, padding)
    for axis, (window, stride) in enumerate(zip(size, strides, strict=True), 1):
        count = (x.shape[axis] - window) // stride + 1
        x = tf.add_n([convolution.every(x, start, count, stride, axis) for start in range(window)])
    return x


def _stack_windows(x: tf.Tensor, **window: Any) -> tf.Tensor:
    return tf.stack(windows(x, **window))


def _real_conv2d(
    x: tf.Tensor, filters: tf.Tensor, *, strides: Sequence[int], padding: Padding, dilations: Sequence[int], groups: int
) -> tf.Tensor:
    # TensorFlow finds the groups from the filters' shape.
    del groups
    pads = [(0, 0), *padding, (0, 0)]
    return tf.nn.conv2d(x, filters, strides=list(strides), padding=pads, dilations=list(dilations))


def _real_depthwise(
    x: tf.Tensor, filters: tf.Tensor, *, strides: Sequence[int], padding: Padding, dilations: Sequence[int]
) -> tf.Tensor:
    padded = tf.pad(x, [(0, 0), *padding, (0, 0)])
    if strides[0] == strides[1] and tuple(dilations) == (1, 1):
        return tf.nn.depthwise_conv2d(padded, filters, [1, *strides, 1], "VALID")
    # TensorFlow takes no two different strides, and gives wrong results for strides together with dilations.
    every = tf.nn.depthwise_conv2d(padded, filters, [1, 1, 1, 1], "VALID", dilations=list(dilations))
    return every[:, :: strides[0], :: strides[1]]


def _einsum(x: tf.Tensor, *, labels: str, result: str) -> tf.Tensor:
    return contraction.arrange(*contraction.reduce(x, labels, result), result)


# One entry of the first axis, such as one threshold's bits.
ROW = _same("row", lambda x, number: x[number])
ADD = _same("add", lambda x, y: x + y)
SUBTRACT = _same("subtract", lambda x, y: x - y)
NEGATE = _same("negate", lambda x: -x)
RESHAPE = _same("reshape", tf.reshape)
TRANSPOSE = _same("transpose", tf.transpose)
SLICE = _same("slice", _slice)
BROADCAST = _same("broadcast_to", tf.broadcast_to)
EXPAND_DIMS = _same("expand_dims", tf.expand_dims)
SQUEEZE = _same("squeeze", tf.squeeze)
CONCAT = _same("concat", lambda *xs, axis: tf.concat(xs, axis))
STACK = _same("stack", lambda *xs, axis: tf.stack(xs, axis))
GATHER = _same("gather", tf.gather)
GATHER_ND = _same("gather_nd", tf.gather_nd)
# Entries of the same place add up.
SCATTER_ND = _same("scatter_nd", lambda x, indices, shape: tf.scatter_nd(indices, x, shape))
PAD = _same("pad", tf.pad)
TILE = _same("tile", tf.tile)
REVERSE = _same("reverse", tf.reverse)
ROLL = _same("roll", tf.roll)
CUMSUM = _same("cumsum", tf.cumsum)
DIAGONAL = _same("diagonal", tf.linalg.diag)
DIAGONAL_PART = _same("diagonal_part", tf.linalg.diag_part)
BAND_PART = _same("band_part", tf.linalg.band_part)
SPACE_TO_DEPTH = _same("space_to_depth", tf.nn.space_to_depth)
DEPTH_TO_SPACE = _same("depth_to_space", tf.nn.depth_to_space)
SPACE_TO_BATCH = _same("space_to_batch", tf.space_to_batch)
BATCH_TO_SPACE = _same("batch_to_space", tf.batch_to_space)
PATCHES = _same("patches", _patches)
SUM = _same("sum", tf.reduce_sum)
SUM_POOL = _same("sum_pool", _sum_pool)
WINDOWS = _same("windows", _stack_windows)
# Diagonals, sums and transposes of one tensor, by labels of its axes.
REARRANGE = _same("einsum", _einsum)
SHIFT_LEFT = Op("shift_left", LINEAR, lambda x, bits: x * (1 << bits), lambda x, bits: x * 2.0**bits)

MULTIPLY = Op("multiply", BILINEAR, lambda x, y: x * y, lambda x, y: x * y)
MATMUL = Op("matmul", BILINEAR, kernels.matmul, tf.matmul)
CONV2D = Op("conv2d", BILINEAR, kernels.conv2d, _real_conv2d)
DEPTHWISE_CONV2D = Op("depthwise_conv2d", BILINEAR, kernels.depthwise_conv2d, _real_depthwise)


def _of_conv2d(name: str, compute: Compute) -> Op:
    """A bilinear operation that is made of two-dimensional convolutions."""
    return Op(name, BILINEAR, partial(compute, kernels.conv2d), partial(compute, _real_conv2d))


CONV1D = _of_conv2d("conv1d", convolution.convolve)
CONV3D = _of_conv2d("conv3d", convolution.convolve)
# The convolutions as linear maps of images, transposed: of what a convolution gave, and its filter.
CONV1D_TRANSPOSE = _of_conv2d("conv1d_transpose", convolution.transpose)
CONV2D_TRANSPOSE = _of_conv2d("conv2d_transpose", convolution.transpose)
CONV3D_TRANSPOSE = _of_conv2d("conv3d_transpose", convolution.transpose)
# Sums of products of elements of two tensors, by labels of their axes.
CONTRACT = Op(
    "einsum", BILINEAR, partial(contraction.contract, kernels.matmul), partial(contraction.contract, tf.matmul)
)


def _ring_truncate(x: tf.Tensor, *, bits: int) -> tf.Tensor:
    # To nearest; TensorFlow's shift of int64 is arithmetic.
    return tf.bitwise.right_shift(x + (1 << bits >> 1), tf.constant(bits, tf.int64))


def _ring_relu(x: tf.Tensor, *, bits: int, size: int) -> tf.Tensor:
    return tf.maximum(_ring_truncate(x, bits=bits) if bits else x, tf.constant(0, x.dtype))


def _at_least(x: tf.Tensor, *, thresholds: tuple[float, ...], size: int) -> tf.Tensor:
    return tf.stack([tf.cast(x >= tf.constant(t, x.dtype), x.dtype) for t in thresholds])


def _polynomial(x: tf.Tensor, *, coefficients: tuple[float, ...]) -> tf.Tensor:
    return tf.add_n([c * x**k for k, c in enumerate(coefficients, 1)])


def _both(name: str, compute: Compute) -> Op:
    """An interactive operation that means the same on ring elements and on reals."""
    return Op(name, INTERACTIVE, compute, compute)


TRUNCATE = Op("truncate", INTERACTIVE, _ring_truncate, lambda x, *, bits: x * 2.0**-bits)
# floor(x / 2^bits), exactly.
SHIFT_RIGHT = Op(
    "shift_right",
    INTERACTIVE,
    lambda x, *, bits: tf.bitwise.right_shift(x, tf.constant(bits, tf.int64)),
    lambda x, *, bits: tf.floor(x * 2.0**-bits),
)
# max(x, 0) / 2^bits: the truncation rides in the comparison's openings. |x| < 2^size in the ring.
RELU = Op("relu", INTERACTIVE, _ring_relu, lambda x, *, bits, size: tf.nn.relu(x) * 2.0**-bits)
NON_NEGATIVE = _both("non_negative", lambda x, *, size: tf.cast(x >= 0, x.dtype))
# [x >= t] for each t, along a new first axis. |x - t| < 2^size.
AT_LEAST = _both("at_least", _at_least)
# c1 x + c2 x^2 + ... in the ring.
POWERS = _both("polynomial", _polynomial)
# The sine of angles in turns, with ``bits`` fractional bits, at twice ``result_bits``.
SINE = Op(
    "sine",
    INTERACTIVE,
    lambda x, *, bits, result_bits: sine(x, bits=bits, result_bits=result_bits) * (1 << result_bits),
    lambda x, *, bits, result_bits: tf.sin(x * (2 * math.pi)),
)
# On values that are 0 or 1.
NOT = _both("not", lambda x: 1 - x)
AND = _both("and", lambda x, y: x * y)
XOR = _both("xor", lambda x, y: x + y - 2 * x * y)
