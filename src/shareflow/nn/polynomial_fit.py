"""Polynomials in place of ReLU, as in the tf-encrypted paper (footnote 2: "polynomials interpolated to fit
ReLU on the interval [-3, 3]").

The one source of the coefficients: the Keras layer that trains with the polynomial and the private operation
that evaluates it both call this function, so that plaintext and private predictions use the same numbers.
Pure NumPy.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray

from shareflow.errors import EncodingError

# Beyond this degree the power basis loses more to rounding than the polynomial gains, in fixed point long
# before in float64.
MAX_DEGREE = 16


def relu_polynomial(degree: int, bound: float) -> NDArray[np.float64]:
    """The polynomial of the given degree that agrees with ReLU at the Chebyshev nodes of [-bound, bound].

    With n = degree + 1 nodes  x_k = bound * cos(pi (2k + 1) / (2n)),  k = 0 .. n-1:

        p(x_k) = max(x_k, 0),    p(x) = c_0 + c_1 x + ... + c_degree x^degree

    Since ReLU(x) = x/2 + |x|/2, the odd coefficients above c_1 = 1/2 are zero: an odd degree
    above 1 gives another polynomial of the even degree below it, so prefer even degrees. Outside
    [-bound, bound] the polynomial leaves ReLU fast; batch normalisation before it keeps almost all inputs
    inside.

    Args:
        degree: 1 to MAX_DEGREE.
        bound: the half width of the interval; positive and finite.

    Returns:
        The coefficients, float64 of shape [degree + 1], lowest power first.

    Raises:
        EncodingError: degree or bound is not in its range.
    """
    if isinstance(degree, bool) or not isinstance(degree, int | np.integer) or not 1 <= degree <= MAX_DEGREE:
        raise EncodingError(
            f"the degree of a ReLU polynomial is a whole number from 1 to {MAX_DEGREE}, got {degree!r}; "
            "degree 2 is usual, 4 follows ReLU more closely"
        )
    if not (math.isfinite(bound) and bound > 0):
        raise EncodingError(
            f"the bound of a ReLU polynomial is a positive finite number, got {bound!r}; "
            "3.0 suits inputs that were batch-normalised"
        )
    # On [-1, 1] first: ReLU(bound * t) = bound * ReLU(t). Interpolating there and scaling the powers
    # afterwards keeps the change of basis well conditioned for every bound.
    nodes = np.cos(np.pi * (2 * np.arange(int(degree) + 1) + 1) / (2 * (int(degree) + 1)))
    in_chebyshev_basis = np.linalg.solve(chebyshev.chebvander(nodes, int(degree)), np.maximum(nodes, 0.0))
    on_unit_interval = chebyshev.cheb2poly(in_chebyshev_basis)
    coefficients = np.zeros(int(degree) + 1, dtype=np.float64)
    coefficients[: len(on_unit_interval)] = on_unit_interval
    # The odd coefficients above the first are zero by symmetry; rounding leaves 1e-17, which would cost a
    # private product.
    coefficients[3::2] = 0.0
    coefficients[1] = 0.5
    return coefficients * float(bound) ** (1.0 - np.arange(int(degree) + 1))
