"""Rounding to whole numbers and shifts by public amounts, exactly."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from shareflow.errors import EncodingError
from shareflow.protocol import op as ops
from shareflow.protocol.operand import private_operand
from shareflow.protocol.tensor import PrivateTensor
from shareflow.share.known import Known


def floor(x: Any) -> PrivateTensor:
    """The largest whole number that is not above x; without fractional bits.

    Rounds: masking x, then those of a comparison of ``fractional_bits`` bits.
    """
    x = private_operand(x)
    if isinstance(x.share, Known):
        return x.known_as(tf.floor)
    return _shift(x, x.fractional_bits, 0)


def ceil(x: Any) -> PrivateTensor:
    """The smallest whole number that is not below x."""
    return -floor(-private_operand(x))


def round(x: Any) -> PrivateTensor:
    """The nearest whole number; halves go up."""
    return floor(private_operand(x) + 0.5)


def right_shift(x: Any, bits: int) -> PrivateTensor:
    """floor(x / 2^bits) to x's scale: the fixed-point number shifted, arithmetically and exactly."""
    x, bits = private_operand(x), _amount(bits)
    if isinstance(x.share, Known):
        raise EncodingError("A shift works on fixed point; share the value first: x.shared(protocol).")
    return _shift(x, bits, x.fractional_bits) if bits else x


def left_shift(x: Any, bits: int) -> PrivateTensor:
    """x * 2^bits, at x's scale. Local."""
    x, bits = private_operand(x), _amount(bits)
    if isinstance(x.share, Known):
        return x * 2**bits
    return x.at_scale(x.fractional_bits + bits).moved_point(-bits)


def _shift(x: PrivateTensor, bits: int, fractional_bits: int) -> PrivateTensor:
    protocol = x.protocol_of_shares()
    if not bits:
        return PrivateTensor(x.share, fractional_bits, protocol)
    with tf.name_scope("shift"):
        share = protocol.apply(ops.SHIFT_RIGHT, x.share, bits=bits)
    return PrivateTensor(share, fractional_bits, protocol)


def _amount(bits: int) -> int:
    if not isinstance(bits, int) or isinstance(bits, bool) or not 0 <= bits < 62:
        raise EncodingError(f"A shift is by 0 to 61 bits, public; got {bits!r}.")
    return bits
