"""Pooling over windows of images [N, H, W, C]."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from shareflow.errors import ShapeError
from shareflow.nn.geometry import explicit_padding, pair
from shareflow.nn.reduction import max_tree
from shareflow.protocol import op as ops
from shareflow.protocol.tensor import PrivateTensor, PrivateValue
from shareflow.share.known import Known

# Below every value: |x| < 2^61 in the ring, so that a difference of two stays within 63 bits.
_LOWEST = -(1 << 61)


def avg_pool2d(x: PrivateValue, size: Any = 2, strides: Any = None, padding: Any = "VALID") -> PrivateTensor:
    """Mean of each window; with padding, of the elements inside the image, as TensorFlow's.

    Local. Free where the window has a power of two elements; else one multiplication by a public constant,
    whose product is truncated later.
    """
    size, strides, sides = _place(x, size, strides, padding)
    total = x.read().linear(ops.SUM_POOL, size=size, strides=strides, padding=sides)
    count = size[0] * size[1]
    if any(map(any, sides)):
        with tf.init_scope():
            ones = tf.ones([1, x.shape[1], x.shape[2], 1], tf.float64)
            counts = tf.add_n(ops.windows(ones, size=size, strides=strides, padding=sides)).numpy()
        if not np.all(counts == count):
            return total * (1.0 / counts)
    return total / count


def global_avg_pool2d(x: PrivateValue, keepdims: bool = False) -> PrivateTensor:
    """Mean over height and width. Local."""
    return x.mean((1, 2), keepdims)


def max_pool2d(x: PrivateValue, size: Any = 2, strides: Any = None, padding: Any = "VALID") -> PrivateTensor:
    """Maximum of each window, exactly; padding never wins.

    A tree: max(x, y) = y + relu(x - y) on halves of the window's elements. The first level compares values
    that are masked already, without a new opening.
    Rounds: masking x, then ceil(log2(window)) times (masking and) three.
    """
    size, strides, sides = _place(x, size, strides, padding)
    tensor = x.read()
    if isinstance(tensor.share, Known):
        with tensor.share.owner:
            pads = [(0, 0), *sides, (0, 0)]
            lowest = tensor.share.value.dtype.min
            value = tf.pad(tensor.share.value, pads, constant_values=lowest)
            return PrivateTensor(Known(tensor.share.owner, tf.nn.max_pool2d(value, size, strides, "VALID")))
    with tf.name_scope("max_pool"):
        tensor = tensor.reusable()
        if any(map(any, sides)):
            outside = np.pad(np.zeros((1, *x.shape[1:3], 1)), [(0, 0), *sides, (0, 0)], constant_values=1)
            padded = tensor.linear(ops.PAD, paddings=[(0, 0), *sides, (0, 0)])
            tensor = padded.add_ring(np.where(outside, _LOWEST, 0))
        views = tensor.linear(ops.WINDOWS, size=size, strides=strides, padding=((0, 0), (0, 0)))
        return max_tree(views)[0]


def _place(x: PrivateValue, size: Any, strides: Any, padding: Any) -> tuple[Any, Any, Any]:
    window = pair(size, "the window")
    steps = window if strides is None else pair(strides, "strides")
    sides = explicit_padding(padding, x.shape, window, steps)
    if any(side >= reach for pair_, reach in zip(sides, window, strict=True) for side in pair_):
        raise ShapeError(
            f"Padding is smaller than the window, so that each window holds an element of the image; got {sides} for "
            f"a window of {window}. Use less padding, or pad the values themselves first."
        )
    return window, steps, sides
