"""Rounding as TensorFlow's Round and Cast do it: halves to the even neighbour, and toward zero. Exact."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from shareflow.nn.rounding import floor
from shareflow.nn.selection import chosen
from shareflow.protocol.compare import non_negative
from shareflow.protocol.operand import private_operand
from shareflow.protocol.tensor import PrivateTensor
from shareflow.share.known import Known


def round_half_even(x: Any) -> PrivateTensor:
    """The nearest whole number, the even one of two; without fractional bits.

    floor(x + 1/2 - u + u o) for a unit u and o = floor(x) mod 2. Rounds: masking x and those of floor, twice.
    """
    x = private_operand(x)
    if isinstance(x.share, Known):
        return x.known_as(tf.round)
    if not x.fractional_bits:
        return x
    x = x.reusable()
    # The bit above the point, of both parities that two shifts give.
    odd = floor(x) - floor(x.moved_point(1)) * 2
    # One fractional bit is the half itself: x + 1/2 - u is x then.
    lowered = x.add_ring(np.asarray((1 << x.fractional_bits >> 1) - 1, np.int64))
    return floor(lowered + odd.moved_point(x.fractional_bits))


def toward_zero(x: Any) -> PrivateTensor:
    """Without what stands behind the point, as TensorFlow's Cast to whole numbers; without fractional bits.

    floor(x) for x >= 0, else -floor(-x). Rounds: masking x, and those of floor and a product.
    """
    x = private_operand(x)
    if isinstance(x.share, Known):
        return x.known_as(lambda value: tf.sign(value) * tf.floor(tf.abs(value)))
    if not x.fractional_bits:
        return x
    x = x.reusable()
    below = ~non_negative(x)
    down, up = floor(x), -floor(-x)
    return down + chosen(below, up - down)
