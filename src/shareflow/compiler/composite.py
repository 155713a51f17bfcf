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
