"""Ops of our own: what several TensorFlow ops mean together, with the meaning in plain TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

Meaning = Callable[..., tf.Tensor]
_meanings: dict[str, Meaning] = {}


def means(op: str) -> Callable[[Meaning], Meaning]:
    """Registers the plain meaning of an op of ours; it takes the inputs, and the attributes by name."""

    def register(meaning: Meaning) -> Meaning:
        _meanings[op] = meaning
        return meaning

    return register


def plain_meaning(op: str) -> Meaning | None:
    """What an op of ours computes; None for one of TensorFlow's."""
    return _meanings.get(op)


@means("shareflow.polynomial")
def _polynomial(x: tf.Tensor, *, coefficients: list[float], **unused: Any) -> tf.Tensor:
    return tf.math.polyval([tf.constant(c, x.dtype) for c in coefficients[::-1]], x)


@means("shareflow.gelu")
def _gelu(x: tf.Tensor, *, approximate: bool, **unused: Any) -> tf.Tensor:
    return tf.nn.gelu(x, approximate=approximate)


@means("shareflow.silu")
def _silu(x: tf.Tensor, **unused: Any) -> tf.Tensor:
    return tf.nn.silu(x)


@means("shareflow.mish")
def _mish(x: tf.Tensor, **unused: Any) -> tf.Tensor:
    return x * tf.tanh(tf.math.softplus(x))


@means("shareflow.clip")
def _clip(x: tf.Tensor, *, low: float, high: float, **unused: Any) -> tf.Tensor:
    return tf.clip_by_value(x, low, high)


@means("shareflow.layer_norm")
def _layer_norm(x: tf.Tensor, *, axes: list[int], epsilon: float, **unused: Any) -> tf.Tensor:
    mean, variance = tf.nn.moments(x, axes, keepdims=True)
    return (x - mean) * tf.math.rsqrt(variance + epsilon)


@means("shareflow.rms_norm")
def _rms_norm(x: tf.Tensor, *, axes: list[int], epsilon: float, **unused: Any) -> tf.Tensor:
    return x * tf.math.rsqrt(tf.reduce_mean(x * x, axes, keepdims=True) + epsilon)


@means("shareflow.l2_normalize")
def _l2_normalize(x: tf.Tensor, *, axes: list[int], epsilon: float, **unused: Any) -> tf.Tensor:
    return tf.math.l2_normalize(x, axes, epsilon)


@means("shareflow.sum_pool")
def _sum_pool(x: tf.Tensor, *, ksize: list[int], strides: list[int], padding: str, **unused: Any) -> tf.Tensor:
    """Sums of windows that lie inside the image."""
    pool = tf.nn.avg_pool2d if len(ksize) == 4 else tf.nn.avg_pool3d
    return pool(x, ksize, strides, padding) * tf.cast(tf.reduce_prod(ksize), x.dtype)
