"""The integers mod 2^64 as int64 tensors: addition and multiplication wrap, as in the ring."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf

from shareflow.ring import kernels


@dataclass(frozen=True)
class Ring:
    """A ring whose elements TensorFlow can hold, with the products that need a kernel of their own.

    Sums, differences, negation and elementwise products are TensorFlow's own operators on ``dtype``.
    """

    bits: int
    dtype: tf.DType
    matmul: Callable[..., tf.Tensor]
    conv2d: Callable[..., tf.Tensor]
    depthwise_conv2d: Callable[..., tf.Tensor]


INT64 = Ring(64, tf.int64, kernels.matmul, kernels.conv2d, kernels.depthwise_conv2d)
