"""Sine and cosine, of any angle, in one round.

A share is of a number that wraps, and a sine does not mind whole turns: with 2^62 parts to a turn the ring's wrap is
four turns. So sin(alpha + a) = sin(alpha) cos(a) + cos(alpha) sin(a) holds for the opened alpha and the mask a
without knowing whether their sum wraps, and the angle need not be brought near 0 by comparisons.

Error: 2 units of 2^-fractional_bits for angles up to a quarter of what the encoding holds (2^28 at 16 bits).
Rounds: masking the angle. The product of the two sines is truncated where that is needed.
Source: the addition theorem; splitting it between an opening and a mask is classic.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tensorflow as tf

from shareflow.nn.approximation import working_bits
from shareflow.nn.elementary import divide
from shareflow.protocol import op as ops
from shareflow.protocol.operand import private_operand
from shareflow.protocol.tensor import PrivateTensor
from shareflow.share.known import Known

_TURN_BITS = 62


def sin(x: Any) -> PrivateTensor:
    """The sine of x in radians."""
    x = private_operand(x)
    if isinstance(x.share, Known):
        return x.known_as(tf.sin)
    return _sine(_turns(x))


def cos(x: Any) -> PrivateTensor:
    """The cosine of x in radians: the sine a quarter of a turn on."""
    x = private_operand(x)
    if isinstance(x.share, Known):
        return x.known_as(tf.cos)
    return _sine(_turns(x).add_ring(np.asarray(1 << _TURN_BITS - 2)))


def tan(x: Any) -> PrivateTensor:
    """sin(x) / cos(x), from one opening of x.

    Error: 4 (1 + tan(x)^2) units times max(1, |tan(x)|). Rounds: masking x, and those of divide.
    """
    x = private_operand(x)
    if isinstance(x.share, Known):
        return x.known_as(tf.tan)
    turns = _turns(x).reusable()
    return divide(_sine(turns), _sine(turns.add_ring(np.asarray(1 << _TURN_BITS - 2))).ready(), high=2.0)


def _turns(x: PrivateTensor) -> PrivateTensor:
    """x / 2 pi with 62 fractional bits, of which whole turns are lost."""
    x = x.ready()
    return x.times(1 / (2 * math.pi), _TURN_BITS - x.fractional_bits)


def _sine(turns: PrivateTensor) -> PrivateTensor:
    bits = working_bits(turns)
    protocol = turns.protocol_of_shares()
    with tf.name_scope("sine"):
        share = protocol.apply(ops.SINE, turns.share, bits=_TURN_BITS, result_bits=bits)
    return PrivateTensor(share, 2 * bits, protocol)
