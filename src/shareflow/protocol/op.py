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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from shareflow.ring import kernels

Compute = Callable[..., tf.Tensor]
Padding = tuple[tuple[int, int], tuple[int, int]]


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


def windows(x: tf.Tensor, *, size: tuple[int, int], strides: tuple[int, int], padding: Padding) -> list[tf.Tensor]:
    """Views [N, H', W', C], one for each place of a window, of x [N, H, W, C] padded with zeros."""
    (top, bottom), (left, right) = padding
    if any((top, bottom, left, right)):
        x = tf.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))
    _, height, width, _ = x.shape
    rows = (height - size[0]) // strides[0] + 1
    columns = (width - size[1]) // strides[1] + 1
    return [
        x[:, i : i + (rows - 1) * strides[0] + 1 : strides[0], j : j + (columns - 1) * strides[1] + 1 : strides[1], :]
        for i in range(size[0])
        for j in range(size[1])
    ]


def _sum_pool(x: tf.Tensor, **window: Any) -> tf.Tensor:
    return tf.add_n(windows(x, **window))


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


# One entry of the first axis, such as one threshold's bits.
ROW = _same("row", lambda x, number: x[number])
ADD = _same("add", lambda x, y: x + y)
SUBTRACT = _same("subtract", lambda x, y: x - y)
NEGATE = _same("negate", lambda x: -x)
RESHAPE = _same("reshape", tf.reshape)
TRANSPOSE = _same("transpose", tf.transpose)
SLICE = _same("slice", lambda x, key: x[key])
BROADCAST = _same("broadcast_to", tf.broadcast_to)
EXPAND_DIMS = _same("expand_dims", tf.expand_dims)
SQUEEZE = _same("squeeze", tf.squeeze)
CONCAT = _same("concat", lambda *xs, axis: tf.concat(xs, axis))
STACK = _same("stack", lambda *xs, axis: tf.stack(xs, axis))
GATHER = _same("gather", tf.gather)
PAD = _same("pad", tf.pad)
SUM = _same("sum", tf.reduce_sum)
SUM_POOL = _same("sum_pool", _sum_pool)
WINDOWS = _same("windows", _stack_windows)
SHIFT_LEFT = Op("shift_left", LINEAR, lambda x, bits: x * (1 << bits), lambda x, bits: x * 2.0**bits)

MULTIPLY = Op("multiply", BILINEAR, lambda x, y: x * y, lambda x, y: x * y)
MATMUL = Op("matmul", BILINEAR, kernels.matmul, tf.matmul)
CONV2D = Op("conv2d", BILINEAR, kernels.conv2d, _real_conv2d)
DEPTHWISE_CONV2D = Op("depthwise_conv2d", BILINEAR, kernels.depthwise_conv2d, _real_depthwise)


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
# On values that are 0 or 1.
NOT = _both("not", lambda x: 1 - x)
AND = _both("and", lambda x, y: x * y)
XOR = _both("xor", lambda x, y: x + y - 2 * x * y)
