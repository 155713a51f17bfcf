"""Functions by polynomials: one, or pieces of one degree (a spline) chosen by comparisons with public knots.

Both evaluate in u, the position within an interval scaled to [-1, 1], with ``GUARD`` more fractional bits than the
encoding's, so that what rounding the powers adds is a fraction of a unit.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray

from shareflow.errors import EncodingError
from shareflow.protocol import op as ops
from shareflow.protocol.arithmetic import concat
from shareflow.protocol.compare import stacked_at_least
from shareflow.protocol.tensor import PrivateTensor

Reals = NDArray[np.float64]
RealFunction = Callable[[Reals], Reals]

GUARD = 4
MOST_BITS = 20
# Sample points for the largest error of a fit.
_SAMPLES = 257
_DEGREES = range(1, 12)
_SPLINE_DEGREES = range(1, 8)


def working_bits(x: PrivateTensor) -> int:
    """Fractional bits in which an approximation of x computes.

    Raises:
        EncodingError: the ring cannot hold products of so many bits.
    """
    bits = x.protocol_of_shares().fixed_point.fractional_bits
    if bits > MOST_BITS:
        raise EncodingError(
            f"Non-linear functions other than ReLU and maxima need at most {MOST_BITS} fractional bits, so that "
            f"products of their guarded values fit the ring; the encoding has {bits}. Use a FixedPoint of fewer."
        )
    return bits + GUARD


def fit(function: RealFunction, low: float, high: float, degree: int) -> tuple[Reals, float]:
    """Coefficients in u, lowest power first, of the interpolation at Chebyshev nodes; and its largest error."""
    middle, half = (low + high) / 2, (high - low) / 2
    nodes = chebyshev.chebpts1(degree + 1)
    series = np.linalg.solve(chebyshev.chebvander(nodes, degree), function(middle + half * nodes))
    u = np.linspace(-1, 1, _SAMPLES)
    error = np.max(np.abs(chebyshev.chebval(u, series) - function(middle + half * u)))
    coefficients = np.zeros(degree + 1)
    power_basis = chebyshev.cheb2poly(series)
    coefficients[: len(power_basis)] = power_basis
    return coefficients, float(error)


def fit_to(function: RealFunction, low: float, high: float, tolerance: float) -> Reals:
    """The polynomial of the least degree whose error is within the tolerance.

    Raises:
        EncodingError: none up to degree 7 is.
    """
    for degree in _DEGREES:
        coefficients, error = fit(function, low, high, degree)
        if error <= tolerance:
            return coefficients
    raise EncodingError(
        f"No polynomial up to degree {_DEGREES[-1]} follows the function on [{low}, {high}] within {tolerance:.2g}. "
        "Use a smaller interval or fewer fractional bits."
    )


def powers(u: PrivateTensor, degree: int) -> list[PrivateTensor]:
    """u, u^2, ... u^degree at u's scale. Rounds: ceil(log2(degree)) times a truncation and a masking."""
    made = [u.reusable()]
    while len(made) < degree:
        top = made[-1]
        level = made[: degree - len(made)]
        made += [(top * power).at_scale(u.fractional_bits).reusable() for power in level]
    return made


def polynomial_in(u: PrivateTensor, coefficients: Reals) -> PrivateTensor:
    """c0 + c1 u + ... for |u| <= 1, at twice u's scale. From degree 5 on in blocks of four, by Horner's rule in u^4.

    Source of the blocks: Paterson and Stockmeyer 1973. Rounds: those of :func:`powers`, and for each further block a
    truncation and a masking.
    """
    if len(coefficients) <= 5:
        return _combine(powers(u, len(coefficients) - 1), coefficients)
    made = powers(u, 4)
    blocks = [coefficients[i : i + 4] for i in range(0, len(coefficients), 4)]
    result = _combine(made, blocks.pop())
    while blocks:
        result = _combine(made, blocks.pop()) + made[3] * result.at_scale(u.fractional_bits)
    return result


def _combine(made: list[PrivateTensor], coefficients: Reals) -> PrivateTensor:
    bits = made[0].fractional_bits
    total = made[0].times(coefficients[1] if len(coefficients) > 1 else 0.0, bits)
    for power, c in zip(made[1:], coefficients[2:], strict=False):
        total = total + power.times(c, bits)
    return total + coefficients[0]


@dataclass(frozen=True, eq=False)
class Spline:
    """Pieces of one width, each a polynomial in its own u; straight lines outside of [low, high].

    Piece j covers low + j 2^p to low + (j + 1) 2^p, p = ``log_width``; ``coefficients`` is [pieces, degree + 1].
    Beyond the ends the function goes on with the slopes ``left`` and ``right``.
    """

    low: float
    log_width: int
    coefficients: Reals
    left: float = 0.0
    right: float = 0.0

    @property
    def high(self) -> float:
        """Where the last piece ends."""
        return self.low + len(self.coefficients) * 2.0**self.log_width

    @property
    def cost(self) -> float:
        """Bytes an element, about: a knot takes 31 and a power 72."""
        return 31 * (len(self.coefficients) + 1) + 72 * (self.coefficients.shape[1] - 1)


def fit_spline(
    function: RealFunction, low: float, high: float, tolerance: float, left: float = 0.0, right: float = 0.0
) -> Spline:
    """The cheapest spline within the tolerance on [low, high].

    Raises:
        EncodingError: no width from 1/16 to 8 and degree up to 5 is within it.
    """
    best: Spline | None = None
    for log_width in range(-4, 4):
        width = 2.0**log_width
        pieces = math.ceil((high - low) / width)
        for degree in _SPLINE_DEGREES:
            fits = [fit(function, low + j * width, low + (j + 1) * width, degree) for j in range(pieces)]
            if max(error for _, error in fits) <= tolerance:
                spline = Spline(low, log_width, np.stack([c for c, _ in fits]), left, right)
                if best is None or spline.cost < best.cost:
                    best = spline
                break
    if best is None:
        raise EncodingError(
            f"No spline on [{low}, {high}] is within {tolerance:.2g}. Use a smaller interval or fewer fractional bits."
        )
    return best


def evaluate(spline: Spline, x: PrivateTensor) -> PrivateTensor:
    """The spline at x, of any size.

    One opening of x serves all knots. Which piece x is in enters linearly: each coefficient, and the piece's
    middle, is a public combination of the knots' bits.
    Rounds: masking x, a comparison, and then :func:`powers` and one product.
    """
    bits, degree = working_bits(x), spline.coefficients.shape[1] - 1
    pieces, width = len(spline.coefficients), 2.0**spline.log_width
    x = x.ready().reusable()
    knots = [spline.low + j * width for j in range(pieces + 1)]
    reached = stacked_at_least(x, knots)

    # Piece 0 is the start; each knot that is reached adds the difference to the next piece. In u the middles of
    # neighbours are 2 apart.
    steps = np.zeros((degree + 2, pieces + 1))
    steps[:-1, 1:pieces] = np.diff(spline.coefficients, axis=0).T
    steps[-1, 1:pieces] = 2.0
    start = np.concatenate([spline.coefficients[0], [1.0]]).reshape(-1, *[1] * x.ndim)
    flat = reached.reshape(pieces + 1, x.size).times(steps, bits, ops.MATMUL)
    chosen = flat.reshape(degree + 2, *x.shape) + start

    above_low = reached.row(0) * (x - spline.low)
    above_high = reached.row(pieces) * (x - spline.high)
    inside = above_low - above_high
    u = inside.moved_point(spline.log_width - 1).at_scale(bits) - chosen[degree + 1]
    made = powers(u, degree)
    terms = concat([power[None] for power in made], 0) * chosen[1 : degree + 1]
    result = terms.sum(0) + chosen[0]
    if spline.left or spline.right:
        usual = x.protocol_of_shares().fixed_point.fractional_bits
        result = result.at_scale(usual) + above_high * spline.right + (x - spline.low - above_low) * spline.left
    return result


@functools.cache
def fitted(function: RealFunction, fractional_bits: int, low: float, high: float, left: float, right: float) -> Spline:
    """The spline of a function for an encoding: within half a unit on [low, high]."""
    return fit_spline(function, low, high, 2.0 ** -(fractional_bits + 1), left, right)
