"""Exponential, logarithm, powers, division and roots: exact scaling by comparisons, then a polynomial.

A value is brought into a small interval by a factor that its comparisons with public knots give (powers of two, or of
e), so that one polynomial serves the whole range. All knots come from one opening.

Errors are in units of 2^-fractional_bits, times max(1, |result|), and tested over the whole range.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from shareflow.errors import EncodingError
from shareflow.nn.approximation import GUARD, fit_to, polynomial_in, working_bits
from shareflow.nn.selection import absolute
from shareflow.protocol import op as ops
from shareflow.protocol.compare import non_negative, stacked_at_least
from shareflow.protocol.operand import as_operand, check_broadcast, meeting_protocol, private_operand
from shareflow.protocol.tensor import PrivateTensor
from shareflow.share.known import Known

_VALUE_BITS = 62


def exp(x: Any, low: float | None = None, high: float | None = None) -> PrivateTensor:
    """e^x, for x up to ln(2^(61 - 2 f)) (20 at 16 fractional bits); below -(f + 2) ln 2 it is 0.

    e^x = 2^(2n) e^r with r within ln 2 of 0: knots at odd multiples of ln 2 give 4^n, a polynomial gives e^r.
    Narrower limits ``low`` and ``high``, which x is known to keep, take fewer knots.
    Error: 3 units times max(1, e^x). Rounds: masking x, a comparison, three products.
    Source: the scaling is classic; the knots from one opening are shareflow's.
    """
    x = private_operand(x)
    if isinstance(x.share, Known):
        return x.known_as(tf.exp)
    bits, f = working_bits(x), x.protocol_of_shares().fixed_point.fractional_bits
    least, most = -(f + 2) * math.log(2), (_VALUE_BITS - 1 - 2 * f) * math.log(2)
    low, high = least if low is None else max(low, least), most if high is None else min(high, most)
    if low >= high:
        raise EncodingError(f"exp needs low < high within {least:.1f} and {most:.1f}; got {low} and {high}.")
    step = 2 * math.log(2)
    first, last = math.floor(low / step + 0.5), math.floor(high / step + 0.5)
    x = x.ready().reusable()
    # The first knot is the lower end itself: below it the result is 0.
    knots = [least if low == least else (first - 0.5) * step, *((n - 0.5) * step for n in range(first + 1, last + 1))]
    reached = stacked_at_least(x, knots)
    scales = np.array([4.0**n for n in range(first, last + 1)])
    rows = np.stack([np.diff(scales, prepend=0.0), np.diff(np.arange(first, last + 1) * step, prepend=0.0)])
    flat = reached.reshape(len(knots), x.size)
    factor = flat.times(rows[:1], f, ops.MATMUL).reshape(x.shape)
    shift = flat.times(rows[1:], bits, ops.MATMUL).reshape(x.shape)
    # Where nothing is reached the factor is 0, and r must only stay small.
    kept = reached.row(0) * x
    r = kept.at_scale(bits) - shift
    u = r.times(1 / math.log(2), GUARD + f).at_scale(bits)
    tolerance = 2.0 ** -(f + 2)
    grown = polynomial_in(u, fit_to(lambda u: np.exp(u * math.log(2)), -1, 1, tolerance))
    return grown.at_scale(f) * factor


@dataclass(frozen=True)
class Normal:
    """x = m 2^e with m from 1/2 to 1, for x > 0. ``u`` = 4 m - 3; ``flat`` holds the bits [x >= 2^j], a row each."""

    u: PrivateTensor
    flat: PrivateTensor
    exponents: range
    shape: tuple[int, ...]

    def by_exponent(self, values: np.ndarray, bits: int) -> PrivateTensor:
        """The value for this exponent out of one for each, with that many fractional bits."""
        steps = np.diff(values, prepend=0.0)
        # A factor may be above what the encoding holds; its ring element is the same with the point further left.
        point = self.flat.protocol_of_shares().fixed_point
        over = max(0, math.ceil(math.log2(np.max(np.abs(steps)) / point.limit))) if np.any(steps) else 0
        scaled = self.flat.times(steps[None] * 2.0**-over, bits + over, ops.MATMUL)
        return scaled.moved_point(-over).reshape(self.shape)


def normalise(x: PrivateTensor, low: float | None = None, high: float | None = None) -> Normal:
    """Brings positive values into [1/2, 1) by the power of two that their leading bit gives.

    Args:
        low, high: the range that x is known to keep; by default all that the encoding holds. Each power of two in it
            is a knot.

    Rounds: masking x, a comparison, a product.
    """
    x = x.ready().reusable()
    point = x.protocol_of_shares().fixed_point
    least = 2.0**-x.fractional_bits
    start, stop = least if low is None else max(low, least), point.limit if high is None else min(high, point.limit)
    if not start < stop or (low is not None and low <= 0):
        raise EncodingError(
            f"A range has low < high, both positive and within what the encoding holds, up to {point.limit:g}; "
            f"got {low} and {high}. Leave out what is not known."
        )
    first, last = math.floor(math.log2(start)), min(math.floor(math.log2(stop)), int(math.log2(point.limit)) - 1)
    powers = range(first, last + 1)
    reached = stacked_at_least(x, [2.0**j for j in powers])
    flat = reached.reshape(len(powers), x.size)
    exponents = range(first + 1, last + 2)
    normal = Normal(x, flat, exponents, x.shape)
    # 2^-e is exact: the largest exponent says how many bits it takes.
    scale = normal.by_exponent(np.array([2.0**-e for e in exponents]), max(last + 1, 0))
    bits = working_bits(x)
    m = x.exactly_times(scale).at_scale(bits)
    return Normal(m * 4 - 3, flat, exponents, x.shape)


def _of_mantissa(u: PrivateTensor, function: Any, tolerance: float) -> PrivateTensor:
    return polynomial_in(u, fit_to(lambda u: function((u + 3) / 4), -1, 1, tolerance))


def divide(
    x: Any, y: Any, low: float | None = None, high: float | None = None, positive: bool = False
) -> PrivateTensor:
    """x / y for a private divisor, over its whole range, of either sign; a public one is as with the operator.

    y = m 2^e: x 2^-e first, exactly, then times 1/m. ``low`` and ``high`` bound |y|; ``positive`` says that y > 0 and
    saves the comparison that finds its sign. x / 0 has no meaning and gives an arbitrary value.
    Error: 2 units times max(1, |x / y|), for |x / y| up to 2^f; with ``high`` up to 2^(62 - f) / high.
    Rounds: (sign of y,) those of :func:`normalise`, a polynomial, two products.
    """
    x, y = as_operand(x), as_operand(y)
    if not isinstance(y, PrivateTensor):
        return private_operand(x) / y
    check_broadcast("divide", x, y)
    if isinstance(y.share, Known) and (
        not isinstance(x, PrivateTensor) or (isinstance(x.share, Known) and x.share.owner == y.share.owner)
    ):
        return y.known_as(
            lambda value: tf.cast(x.plaintext if isinstance(x, PrivateTensor) else x, value.dtype) / value
        )
    if isinstance(y.share, Known):
        return _by_known(x, y)
    protocol = y.protocol_of_shares()
    f = protocol.fixed_point.fractional_bits
    sign: PrivateTensor | None = None
    if not positive:
        y = y.ready().reusable()
        sign = non_negative(y) * 2 - 1
        y = absolute(y)
    normal = normalise(y, low, high)
    bits, inverse_bits = _quotient_bits(f)
    inverse = _of_mantissa(normal.u, lambda m: 1 / m, 2.0 ** -(f + 2)).at_scale(inverse_bits)
    scale = normal.by_exponent(np.array([2.0**-e for e in normal.exponents]), max(normal.exponents[-1], 0))
    if sign is not None:
        inverse = inverse.exactly_times(sign)
    if isinstance(x, PrivateTensor):
        numerator = x.shared(protocol).ready().exactly_times(scale).at_scale(bits)
    else:
        numerator = scale.times(x, f) if np.any(np.asarray(x) != 1) else scale
        numerator = numerator.at_scale(bits)
    return numerator.exactly_times(inverse)


def _quotient_bits(f: int) -> tuple[int, int]:
    """Fractional bits of x 2^-e and of 1/m: a quotient of up to 2^f must fit with the bits of both."""
    inverse_bits = min(f + GUARD, (_VALUE_BITS - f) // 2 - 1)
    return min(f + GUARD, _VALUE_BITS - f - inverse_bits), inverse_bits


def _by_known(x: PrivateTensor, y: PrivateTensor) -> PrivateTensor:
    """x / y where y's owner splits it into m 2^e in plaintext: one factor 1 / y would lose what a large y leaves."""
    protocol = meeting_protocol(x, y)
    point = protocol.fixed_point
    bits, inverse_bits = _quotient_bits(point.fractional_bits)

    def exponent(value: tf.Tensor) -> tf.Tensor:
        return tf.floor(tf.math.log(tf.abs(tf.cast(value, tf.float64))) / tf.cast(math.log(2), tf.float64))

    scale = y.known_as(lambda value: 2.0 ** -exponent(value))
    inverse = y.known_as(lambda value: 2.0 ** exponent(value) / tf.cast(value, tf.float64))
    scale_bits = int(math.log2(point.limit))
    numerator = x.shared(protocol).ready().exactly_times(scale.shared(protocol, scale_bits)).at_scale(bits)
    return numerator.exactly_times(inverse.shared(protocol, inverse_bits))


def reciprocal(y: Any, low: float | None = None, high: float | None = None, positive: bool = False) -> PrivateTensor:
    """1 / y, as :func:`divide`."""
    return divide(1, y, low, high, positive)


def sqrt(x: Any, low: float | None = None, high: float | None = None) -> PrivateTensor:
    """The square root of x >= 0. Error: 1 unit times max(1, sqrt(x)). Rounds: normalise, polynomial, product."""
    x = private_operand(x)
    if isinstance(x.share, Known):
        return x.known_as(tf.sqrt)
    return _power_of_mantissa(x, 0.5, low, high)


def rsqrt(x: Any, low: float | None = None, high: float | None = None) -> PrivateTensor:
    """1 / sqrt(x) for x > 0. Error: 1 unit times max(1, 1 / sqrt(x)). Rounds: as sqrt."""
    x = private_operand(x)
    if isinstance(x.share, Known):
        return x.known_as(tf.math.rsqrt)
    return _power_of_mantissa(x, -0.5, low, high)


def _power_of_mantissa(x: PrivateTensor, power: float, low: float | None, high: float | None) -> PrivateTensor:
    """x^p = m^p 2^(e p): a polynomial times a value that the exponent chooses."""
    f, bits = x.protocol_of_shares().fixed_point.fractional_bits, working_bits(x)
    normal = normalise(x, low, high)
    mantissa = _of_mantissa(normal.u, lambda m: m**power, 2.0 ** -(f + 2)).at_scale(bits)
    return mantissa * normal.by_exponent(np.array([2.0 ** (e * power) for e in normal.exponents]), bits)


def log(x: Any, low: float | None = None, high: float | None = None) -> PrivateTensor:
    """The natural logarithm of x > 0, log m + e ln 2.

    Error: 1 unit times max(1, |log x|). Rounds: as sqrt less two.
    """
    x = private_operand(x)
    if isinstance(x.share, Known):
        return x.known_as(tf.math.log)
    f, bits = x.protocol_of_shares().fixed_point.fractional_bits, working_bits(x)
    normal = normalise(x, low, high)
    mantissa = _of_mantissa(normal.u, np.log, 2.0 ** -(f + 2))
    return mantissa + normal.by_exponent(np.array([e * math.log(2) for e in normal.exponents]), bits)


def power(x: Any, exponent: float, low: float | None = None, high: float | None = None) -> PrivateTensor:
    """x^exponent for a public exponent: by products where it is a small whole number, else exp(exponent log x), x > 0.

    Error of the latter: 2 |exponent| + 3 units times max(1, result), for results up to e^12: the logarithm's error
    grows with the exponent and with the logarithm.
    """
    x = private_operand(x)
    if isinstance(exponent, (int, np.integer)) and 1 <= exponent <= 64:
        return x ** int(exponent)
    if isinstance(x.share, Known):
        return x.known_as(lambda value: value**exponent)
    if exponent == 0.5:
        return sqrt(x, low, high)
    if exponent == -0.5:
        return rsqrt(x, low, high)
    return exp((log(x, low, high) * float(exponent)).ready())
