"""The sine in whole numbers: the same words on every machine, which floating point does not promise.

Two servers multiply their shares by the sine of a number that both know. If they differed in one unit of it, the result
would be off by a share, which is any number.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import tensorflow as tf
from numpy.polynomial import chebyshev

# Bits of a quarter turn, and of the polynomial's values: a product of two fits 62 bits.
_BITS = 30
_DEGREE = 6


@functools.cache
def _coefficients() -> tuple[int, ...]:
    """Of sin(v pi / 2) / v in v^2, lowest power first, with 30 fractional bits: right to 2^-33."""
    nodes = (chebyshev.chebpts1(_DEGREE + 1) + 1) / 2
    v = np.sqrt(nodes)
    series = np.linalg.solve(np.vander(nodes, increasing=True), np.sin(v * math.pi / 2) / v)
    return tuple(round(c * 2.0**_BITS) for c in series)


def sine(x: tf.Tensor, *, bits: int, result_bits: int) -> tf.Tensor:
    """round(sin(2 pi x / 2^bits) 2^result_bits), to within 5 units of 2^-30, of int64 tensors.

    Args:
        x: angles in parts of a turn; whole turns do not count, and so neither does the ring's wrap.
        bits: a turn is 2^bits; 32 to 64.
        result_bits: of the result; up to 30.
    """
    shift = tf.bitwise.right_shift
    # A turn fills the word, so that its wrap is the sine's; then 2^32 a turn, from -2^31 to 2^31.
    turn = shift(x * (1 << 64 - bits) if bits < 64 else x, tf.constant(64 - 2 - _BITS, tf.int64))
    quarter = tf.constant(1 << _BITS, tf.int64)
    # sin(y) = sin(half a turn - y).
    folded = tf.where(turn > quarter, 2 * quarter - turn, tf.where(turn < -quarter, -2 * quarter - turn, turn))
    by = tf.constant(_BITS, tf.int64)
    square = shift(folded * folded, by)
    *lower, value = _coefficients()
    result = tf.zeros_like(square) + value
    for c in reversed(lower):
        result = shift(result * square, by) + c
    result = shift(result * folded, by)
    if result_bits == _BITS:
        return result
    return shift(result + (1 << _BITS - result_bits >> 1), tf.constant(_BITS - result_bits, tf.int64))
