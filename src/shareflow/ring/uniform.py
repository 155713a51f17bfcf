"""Streams of uniform ring elements: AES-128 in counter mode. All randomness of the protocols comes from here."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from shareflow.ring import kernels


def uniform(key: tf.Tensor, execution: tf.Tensor, stream: int, shape: Sequence[int]) -> tf.Tensor:
    """A tensor of uniform int64 values: stream number ``stream`` of an execution under a key.

    Args:
        key: int64[2], the 16 bytes of an AES-128 key.
        execution: int64 scalar; with the stream number it is the nonce, so the pair is used once for a key.
        stream: 0 <= stream < 2^31.
        shape: the static shape to fill.
    """
    # As an array: TensorFlow keeps every tensor that it ever made of a Python number.
    number = tf.constant(np.array(stream, np.int64))
    return kernels.uniform(key, execution, number, tuple(shape))
