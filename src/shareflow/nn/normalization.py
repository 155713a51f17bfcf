"""Softmax, and statistics that normalise."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from shareflow.nn.approximation import working_bits
from shareflow.nn.elementary import divide, exp, log, rsqrt, sqrt
from shareflow.nn.reduction import one_axis, reduce_max
from shareflow.protocol.operand import private_operand
from shareflow.protocol.tensor import PrivateTensor
from shareflow.share.known import Known

# Fractional bits of a product whose factors are given as many as fit. Squares, and their sums, up to 2^18; a value
# divided by a root of its kind is at most the root of their number: up to 2^8.
_SQUARE_BITS = 44
_RATIO_BITS = 54
# A sum of terms of which one is 1, as far as that is not rounded down.
_LEAST_SUM = 0.5


def softmax(x: Any, axis: int = -1) -> PrivateTensor:
    """e^x_i / sum_j e^x_j, stable for any x: the maximum is taken off first.

    Error: 2 units. Rounds: those of reduce_max, exp and divide.
    """
    x = private_operand(x)
    if isinstance(x.share, Known):
        return x.known_as(lambda value: tf.nn.softmax(value, axis))
    raised, total, count = _exponentials(x, axis)
    # One of the terms is 1: the sum lies between 1 and their number, but for rounding.
    return divide(raised, total, low=_LEAST_SUM, high=float(count + 1), positive=True)


def log_softmax(x: Any, axis: int = -1) -> PrivateTensor:
    """x_i - max - log sum_j e^(x_j - max).

    Error: 3 units times max(1, |result|). Rounds: those of reduce_max, exp and log.
    """
    x = private_operand(x)
    if isinstance(x.share, Known):
        return x.known_as(lambda value: tf.nn.log_softmax(value, axis))
    x, axis = x.ready(), one_axis(axis, x.ndim)
    largest = reduce_max(x, axis, keepdims=True)
    shifted = (x - largest).reusable()
    terms = exp(shifted, high=0.0)
    count = x.shape[axis]
    return shifted - log(terms.sum(axis, keepdims=True), low=_LEAST_SUM, high=float(count + 1))


def _exponentials(x: PrivateTensor, axis: int) -> tuple[PrivateTensor, PrivateTensor, int]:
    x, axis = x.ready(), one_axis(axis, x.ndim)
    raised = exp(x - reduce_max(x, axis, keepdims=True), high=0.0)
    # Summed before truncation: the roundings of many terms would add up.
    return raised.ready(), raised.sum(axis, keepdims=True), x.shape[axis]


def variance(x: Any, axis: Any = None, keepdims: bool = False) -> PrivateTensor:
    """Mean of the squared deviations from the mean.

    Right while their sum stays below 2^18, or 2^(62 - 2 f) where that is less. Rounds: masking, a product.
    """
    x = private_operand(x)
    deviation = x - x.mean(axis, keepdims=True)
    if deviation.protocol is not None:
        deviation = deviation.ready()
        if 2 * deviation.fractional_bits > _SQUARE_BITS:
            deviation = deviation.at_scale(deviation.protocol.fixed_point.fractional_bits)
    return (deviation * deviation).mean(axis, keepdims)


def layer_norm(x: Any, scale: Any = None, offset: Any = None, axis: Any = -1, epsilon: float = 1e-3) -> PrivateTensor:
    """(x - mean) / sqrt(variance + epsilon) * scale + offset over the given axes.

    Error: 3 units times max(1, |result|), before scale and offset, and times 1 / sqrt(variance + epsilon) where that is
    above 1: it magnifies the rounding of x itself. Rounds: a product, those of rsqrt, a product.
    """
    x = private_operand(x)
    centred = x - x.mean(axis, keepdims=True)
    result = _over_root(centred, variance(x, axis, keepdims=True), epsilon)
    if scale is not None:
        result = result * scale
    return result if offset is None else result + offset


def rms_norm(x: Any, scale: Any = None, axis: Any = -1, epsilon: float = 1e-6) -> PrivateTensor:
    """x / sqrt(mean x^2 + epsilon) * scale over the given axes. Error: as layer_norm; rounds too."""
    x = private_operand(x)
    result = _over_root(x, (x * x).mean(axis, keepdims=True), epsilon)
    return result if scale is None else result * scale


def l2_normalize(x: Any, axis: Any = -1, epsilon: float = 1e-3) -> PrivateTensor:
    """x / sqrt(sum x^2 + epsilon). Error: 4 units, else as layer_norm; rounds too."""
    x = private_operand(x)
    return _over_root(x, (x * x).sum(axis, keepdims=True), epsilon)


def _over_root(x: PrivateTensor, squares: PrivateTensor, epsilon: float) -> PrivateTensor:
    """x / sqrt(squares + epsilon). The root keeps more bits than the encoding: a large x would magnify its rounding."""
    if isinstance(x.share, Known):
        return x * rsqrt(squares + epsilon)
    x, squares = x.ready(), _guarded(squares)
    root = rsqrt(squares + epsilon, low=epsilon or None)
    return x.exactly_times(root.at_scale(min(root.fractional_bits, _RATIO_BITS - x.fractional_bits)))


def _guarded(squares: PrivateTensor) -> PrivateTensor:
    """Squares with more bits than the encoding: a root magnifies the rounding of small ones."""
    return squares.at_scale(min(squares.fractional_bits, working_bits(squares)))


def standard_deviation(x: Any, axis: Any = None, keepdims: bool = False) -> PrivateTensor:
    """Square root of the variance.

    Error: 2 units times max(1, result); near 0, where a root magnifies the rounding of the variance, 1 / result times.
    """
    squares = variance(x, axis, keepdims)
    return sqrt(squares if squares.protocol is None else _guarded(squares))
