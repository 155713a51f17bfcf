"""ReLU and its kin, and polynomials: made of operations, so every protocol has them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from shareflow.errors import EncodingError
from shareflow.nn.polynomial_fit import relu_polynomial
from shareflow.protocol import op as ops
from shareflow.protocol.compare import size_bits
from shareflow.protocol.operand import private_operand
from shareflow.protocol.tensor import SIGN_BITS, SPARE_BITS, PrivateTensor
from shareflow.share.known import Known

# Bits of the ring that a truncation can hold, and the size that a polynomial's value may reach.
_VALUE_BITS = 62
_HEADROOM_BITS = 14


def relu(x: Any, truncate: bool = True, bound: float | None = None) -> PrivateTensor:
    """max(x, 0), exactly, at any shape; a product's surplus fractional bits are cut in the same openings.

    With ``truncate=False`` the scale stays as it is. ``bound``: |x| is known to stay below it; comparing then
    costs in proportion to its bits.

    Rounds: masking x, then three. Online 13.125 bytes an element from each server, masking included.
    """
    x = private_operand(x)
    if isinstance(x.share, Known):
        return x.linear(ops.RELU, bits=0, size=SIGN_BITS)
    protocol = x.protocol_of_shares()
    bits = x.surplus_bits if truncate else 0
    with tf.name_scope("relu"):
        share = protocol.apply(ops.RELU, x.share, bits=bits, size=size_bits(x, bound))
    return PrivateTensor(share, x.fractional_bits - bits, protocol)


def relu6(x: Any) -> PrivateTensor:
    """min(max(x, 0), 6) = relu(x) - relu(x - 6): two comparisons from one opening. Rounds: as relu."""
    x = private_operand(x)
    return relu(x) - relu(x - 6)


def clip(x: Any, low: float, high: float) -> PrivateTensor:
    """x within [low, high] = low + relu(x - low) - relu(x - high): two comparisons from one opening."""
    if not low < high:
        raise EncodingError(f"clip needs low < high; got {low} and {high}.")
    x = private_operand(x)
    if not isinstance(x.share, Known):
        # One masking serves both comparisons.
        x = x.reusable()
    return relu(x - low) - relu(x - high) + low


def polynomial(x: Any, coefficients: Sequence[float] | np.ndarray, bound: float = 4.0) -> PrivateTensor:
    """c0 + c1 x + ... + cd x^d for public coefficients, lowest power first.

    The powers are taken of x / 2^s with 2^s >= ``bound``, the size up to which x is expected: so they stay
    small, and keep 4 bits more than the encoding's. Where the ring holds all of them (degree 2 at 16 bits) x is
    opened once; else powers are multiplied in log2(d) steps.

    Error: at most about 2 d units of 2^-f times max |c_k 2^(s k)| for |x| <= 2^s. Values up to 2^13 are right.
    Rounds: the openings of x and of the result, which is truncated; or log2(d) products and truncations.
    """
    c = [float(value) for value in coefficients]
    while len(c) > 1 and c[-1] == 0:
        c.pop()
    if not c or not np.all(np.isfinite(c)):
        raise EncodingError(f"A polynomial has finite coefficients, at least one; got {list(coefficients)}.")
    x = private_operand(x)
    if isinstance(x.share, Known):
        # A constant has the shape of x, too.
        return x.known_as(lambda value: tf.math.polyval([v * tf.ones_like(value) for v in c[::-1]], value))
    if len(c) == 1:
        return x * 0 + c[0]
    with tf.name_scope("polynomial"):
        x = x.ready()
        protocol, degree = x.protocol_of_shares(), len(c) - 1
        point = protocol.fixed_point.fractional_bits
        total = degree * x.fractional_bits + point
        if degree > 1 and total + _HEADROOM_BITS <= _VALUE_BITS:
            ring = tuple(round(value * 2.0 ** (total - k * x.fractional_bits)) for k, value in enumerate(c[1:], 1))
            share = protocol.apply(ops.POWERS, x.share, coefficients=ring)
            constant = protocol.fixed_point.encode_array(np.asarray(c[0]), total)
            return PrivateTensor(share, total, protocol).add_ring(constant).at_scale(point)
        shift = max(0, math.ceil(math.log2(bound)))
        u = x / 2.0**shift
        powers = {1: u.ready()}
        for k in range(2, degree + 1):
            powers[k] = (powers[k // 2] * powers[k - k // 2]).at_scale(point + SPARE_BITS)
        terms = [powers[k] * (c[k] * 2.0 ** (shift * k)) for k in range(1, degree + 1) if c[k]]
        result = terms[0]
        for term in terms[1:]:
            result = result + term
        return result + c[0]


def polynomial_relu(x: Any, degree: int = 2, bound: float = 3.0) -> PrivateTensor:
    """The polynomial that interpolates max(x, 0) on [-bound, bound]: cheap, and far off outside of it.

    Paper: Dahl et al. 2018, section 3. Rounds: those of :func:`polynomial`.
    """
    return polynomial(x, relu_polynomial(degree, bound), bound)
