"""Smooth activation functions, each as one spline: knots from one opening, pieces of one degree.

Error: 2 units of 2^-fractional_bits times max(1, |result|), over all x that the encoding holds.
Rounds: masking x, a comparison, and then powers and a product: 12 or 13 in all at 16 bits. How wide the pieces are and
of which degree is found for the encoding when a function is first used.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from shareflow.nn.activation import relu, relu6
from shareflow.nn.approximation import evaluate, fitted
from shareflow.protocol.operand import private_operand
from shareflow.protocol.tensor import PrivateTensor
from shareflow.share.known import Known

Reals = NDArray[np.float64]

# A piece's ends are multiples of this, so that 0 is a knot where a function has a corner there.
_ALIGNMENT = 8.0


def sigmoid(x: Any) -> PrivateTensor:
    """1 / (1 + e^-x)."""
    return _smooth(x, tf.sigmoid, _sigmoid, lambda f: (f + 2) * math.log(2))


def tanh(x: Any) -> PrivateTensor:
    """Hyperbolic tangent."""
    return _smooth(x, tf.tanh, np.tanh, lambda f: (f + 3) * math.log(2) / 2)


def erf(x: Any) -> PrivateTensor:
    """2 / sqrt(pi) times the integral of e^(-t^2) from 0 to x."""
    return _smooth(x, tf.math.erf, _erf, lambda f: math.sqrt((f + 2) * math.log(2)))


def softplus(x: Any) -> PrivateTensor:
    """log(1 + e^x)."""
    return _smooth(x, tf.math.softplus, _softplus, lambda f: (f + 2) * math.log(2), right=1.0)


def gelu(x: Any, approximate: bool = False) -> PrivateTensor:
    """x (1 + erf(x / sqrt(2))) / 2, or with ``approximate`` TensorFlow's form of it that is made of tanh."""
    real = lambda value: tf.nn.gelu(value, approximate=approximate)  # noqa: E731
    function = _tanh_gelu if approximate else _gelu
    return _smooth(x, real, function, lambda f: math.sqrt(2 * (f + 4) * math.log(2)), right=1.0)


def silu(x: Any) -> PrivateTensor:
    """x sigmoid(x), also called swish."""
    return _smooth(x, tf.nn.silu, _silu, lambda f: (f + 7) * math.log(2), right=1.0)


def mish(x: Any) -> PrivateTensor:
    """x tanh(log(1 + e^x))."""
    real = lambda value: value * tf.tanh(tf.math.softplus(value))  # noqa: E731
    return _smooth(x, real, _mish, lambda f: (f + 7) * math.log(2), right=1.0)


def elu(x: Any, alpha: float = 1.0) -> PrivateTensor:
    """x where x > 0, else alpha (e^x - 1)."""
    x = private_operand(x)
    if isinstance(x.share, Known):
        return x.known_as(lambda value: tf.where(value > 0, value, alpha * tf.math.expm1(value)))
    f = x.protocol_of_shares().fixed_point.fractional_bits
    # 0, where the corner is, must be a knot.
    low = -_ALIGNMENT * math.ceil((f + 2 + math.log2(max(alpha, 1))) * math.log(2) / _ALIGNMENT)
    return evaluate(fitted(_scaled_expm1(alpha), f, low, 0.0, 0.0, 1.0), x)


def leaky_relu(x: Any, slope: float = 0.2) -> PrivateTensor:
    """x where x > 0, else slope x: one comparison. Rounds: as relu.

    For |x| up to ``slope`` times what the encoding holds, as products with small numbers have more bits.
    """
    x = private_operand(x)
    return relu(x) * (1 - slope) + x * slope


def hard_sigmoid(x: Any) -> PrivateTensor:
    """relu6(x + 3) / 6, as Keras has it: two comparisons from one opening. Rounds: as relu."""
    return relu6(private_operand(x) + 3) / 6


def hard_swish(x: Any) -> PrivateTensor:
    """x relu6(x + 3) / 6, for |x| up to an eighth of what the encoding holds. Rounds: as relu, and a product."""
    x = private_operand(x)
    return x * relu6(x + 3) / 6


def _smooth(
    x: Any,
    real: Callable[[tf.Tensor], tf.Tensor],
    function: Callable[[Reals], Reals],
    reach: Callable[[int], float],
    right: float = 0.0,
) -> PrivateTensor:
    """The spline of a function that is straight, within the encoding, beyond ``reach(fractional_bits)``."""
    x = private_operand(x)
    if isinstance(x.share, Known):
        return x.known_as(real)
    f = x.protocol_of_shares().fixed_point.fractional_bits
    end = float(math.ceil(reach(f)))
    return evaluate(fitted(function, f, -end, end, 0.0, right), x)


def _sigmoid(x: Reals) -> Reals:
    # Both forms are needed: each overflows where the other does not.
    return np.where(x >= 0, 1 / (1 + np.exp(-np.abs(x))), np.exp(-np.abs(x)) / (1 + np.exp(-np.abs(x))))


@functools.cache
def _scaled_expm1(alpha: float) -> Callable[[Reals], Reals]:
    return lambda x: alpha * np.expm1(x)


def _softplus(x: Reals) -> Reals:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def _silu(x: Reals) -> Reals:
    return x * _sigmoid(x)


def _erf(x: Reals) -> Reals:
    return np.vectorize(math.erf, otypes=[np.float64])(x)


def _gelu(x: Reals) -> Reals:
    return x * (1 + _erf(x / math.sqrt(2))) / 2


def _tanh_gelu(x: Reals) -> Reals:
    return x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2


def _mish(x: Reals) -> Reals:
    return x * np.tanh(_softplus(x))
