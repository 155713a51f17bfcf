"""Choosing between values by private bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from shareflow.errors import EncodingError
from shareflow.protocol.compare import at_least, non_negative
from shareflow.protocol.operand import as_operand, check_broadcast, private_operand
from shareflow.protocol.tensor import PrivateTensor
from shareflow.share.known import Known


def chosen(bits: PrivateTensor, x: Any) -> PrivateTensor:
    """x where the bit is 1, else 0, at x's own scale: a bit has no fractional bits that would add to it."""
    x = as_operand(x)
    if isinstance(x, PrivateTensor) and not isinstance(x.share, Known) and not isinstance(bits.share, Known):
        return bits.exactly_times(x)
    return bits * x


def where(condition: Any, x: Any, y: Any) -> PrivateTensor:
    """x where the bit is 1, else y: y + condition * (x - y). Rounds: masking x - y."""
    x, y, bits = as_operand(x), as_operand(y), private_operand(condition)
    if bits.protocol is not None and bits.fractional_bits:
        raise EncodingError(
            "where chooses by results of comparisons, which are 0 or 1; got a condition with "
            f"{bits.fractional_bits} fractional bits. Compare it first, for example x > 0."
        )
    if not isinstance(x, PrivateTensor) and not isinstance(y, PrivateTensor):
        # Between public values: linear in the bit.
        return bits * (np.asarray(x) - np.asarray(y)) + y
    difference = x - y if isinstance(x, PrivateTensor) else -(y - x)
    check_broadcast("where", bits, difference)
    return chosen(bits, difference) + y


def maximum(x: Any, y: Any, bound: float | None = None) -> PrivateTensor:
    """max(x, y), exactly, for any operands of which one is private; |x - y| < bound. Rounds: as relu."""
    x, y = _both(x, y)
    difference = comparable(x - y)
    return chosen(non_negative(difference, bound), difference) + y


def minimum(x: Any, y: Any, bound: float | None = None) -> PrivateTensor:
    """min(x, y), exactly. Rounds: as relu."""
    x, y = _both(x, y)
    # x + (y - x) where that is negative.
    difference = comparable(y - x)
    return x + chosen(~non_negative(difference, bound), difference)


def sign(x: Any, bound: float | None = None) -> PrivateTensor:
    """-1, 0 or 1. Two thresholds of one opening; the result has no fractional bits. Rounds: as a comparison."""
    x = private_operand(x)
    if isinstance(x.share, Known):
        return x.known_as(tf.sign)
    x = comparable(x)
    unit = 2.0**-x.fractional_bits
    not_below, above = at_least(x, (0.0, unit), bound)
    return above + not_below - 1


def absolute(x: Any, bound: float | None = None) -> PrivateTensor:
    """|x| = x (2 [x >= 0] - 1), exactly. Rounds: as relu."""
    x = private_operand(x)
    if isinstance(x.share, Known):
        return x.known_as(tf.abs)
    x = comparable(x)
    return chosen(non_negative(x, bound), x) * 2 - x


def comparable(x: PrivateTensor) -> PrivateTensor:
    """Masked once, for the comparison and the product that follows."""
    return x if isinstance(x.share, Known) else x.reusable()


def _both(x: Any, y: Any) -> tuple[Any, Any]:
    x, y = as_operand(x), as_operand(y)
    return (x, y) if isinstance(x, PrivateTensor) else (private_operand(y), x)
