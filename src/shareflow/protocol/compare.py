"""Comparisons of private tensors, with declared bounds, and logic on their results."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from shareflow.errors import (
    EncodingError,
)
from shareflow.party.party import Party
from shareflow.protocol import op as ops
from shareflow.protocol.bound import bounds_are_checked, check_zero
from shareflow.protocol.op import Op
from shareflow.protocol.operand import (
    as_operand,
    check_broadcast,
    meeting_protocol,
    owner_of_both,
    private_operand,
    real,
)
from shareflow.protocol.tensor import SIGN_BITS, PrivateTensor
from shareflow.share.known import Known

_CHECKER = Party("insecure-bound-checker")


def non_negative(x: PrivateTensor, bound: float | None = None) -> PrivateTensor:
    """1 where x >= 0, else 0. Rounds: masking x, then three.

    Args:
        bound: |x| is known to be below it; the cost is in proportion to its bits.
    """
    if isinstance(x.share, Known):
        return x.linear(ops.NON_NEGATIVE, size=SIGN_BITS)
    with tf.name_scope("compare"):
        share = x.protocol_of_shares().apply(ops.NON_NEGATIVE, x.share, size=size_bits(x, bound))
    return PrivateTensor(share, 0, x.protocol)


def at_least(x: Any, thresholds: Sequence[float], bound: float | None = None) -> list[PrivateTensor]:
    """[x >= t] as 0 or 1 for each of many public thresholds, from one opening of x.

    Args:
        thresholds: real numbers; they are rounded to x's scale.
        bound: |x - t| is known to be below it for every t.

    Rounds: masking x, then three, however many thresholds there are.
    """
    x = private_operand(x)
    if isinstance(x.share, Known):
        return [x.known_as(lambda value, t=t: tf.cast(value >= t, value.dtype)) for t in thresholds]
    return reached(x, [ring_threshold(x, t) for t in thresholds], size_bits(x, bound, thresholds))


def stacked_at_least(x: PrivateTensor, thresholds: Sequence[float], bound: float | None = None) -> PrivateTensor:
    """The same as one tensor, thresholds along a new first axis."""
    words = tuple(ring_threshold(x, t) for t in thresholds)
    with tf.name_scope("compare"):
        share = x.protocol_of_shares().apply(
            ops.AT_LEAST, x.share, thresholds=words, size=size_bits(x, bound, thresholds)
        )
    return PrivateTensor(share, 0, x.protocol)


def ring_threshold(x: PrivateTensor, threshold: float) -> int:
    """A public threshold at x's scale."""
    return int(x.protocol_of_shares().fixed_point.encode_array(np.asarray(threshold), x.fractional_bits))


def reached(x: PrivateTensor, words: Sequence[int], size: int) -> list[PrivateTensor]:
    """[x >= t] for ring values t, one tensor each."""
    protocol = x.protocol_of_shares()
    with tf.name_scope("compare"):
        share = protocol.apply(ops.AT_LEAST, x.share, thresholds=tuple(words), size=size)
        rows = [protocol.apply(ops.ROW, share, number=i) for i in range(len(words))]
    return [PrivateTensor(row, 0, protocol) for row in rows]


def size_bits(x: PrivateTensor, bound: float | None, thresholds: Sequence[float] = (0.0,)) -> int:
    """Bits below the sign of ring values whose real values are below ``bound`` in size; all 63 without one.

    The values are x minus each threshold. Where bounds are checked, one beyond is an EncodingError.
    """
    if bound is None:
        return SIGN_BITS
    bits = bound_bits(x.fractional_bits, bound)
    if bounds_are_checked():
        above, below = x - (min(thresholds) + bound), x - (max(thresholds) - bound)
        beyond = non_negative(above).sum() + (~non_negative(below)).sum()
        check_zero(
            beyond.reveal(_CHECKER).plaintext,
            f"A value lies beyond its declared bound of {bound:g}: comparing it would give a wrong bit. "
            "Declare a larger bound, or none.",
        )
    return bits


def bound_bits(fractional_bits: int, bound: float | None) -> int:
    """The same of a scale alone, where nothing is checked but the bound itself."""
    if bound is None:
        return SIGN_BITS
    if not 0 < bound < math.inf:
        raise EncodingError(f"A bound is a positive number that no value reaches in size; got {bound!r}.")
    return min(max(math.ceil(math.log2(bound)) + fractional_bits, 1), SIGN_BITS)


def inverted(value: Any) -> Any:
    """1 - value, private or public, for values that are 0 or 1."""
    value = as_operand(value)
    if isinstance(value, PrivateTensor):
        return ~value
    return 1 - (tf.cast(value, tf.float64) if isinstance(value, tf.Tensor) else np.asarray(value, np.float64))


def logic(op: Op, x: PrivateTensor, *others: Any) -> PrivateTensor:
    """NOT, AND, XOR of values that are 0 or 1."""
    operands = [as_operand(other) for other in others]
    for operand in (x, *operands):
        if isinstance(operand, PrivateTensor) and operand.protocol is not None and operand.fractional_bits:
            raise EncodingError(
                "~, &, | and ^ take results of comparisons, which are 0 or 1; got a tensor with "
                f"{operand.fractional_bits} fractional bits. Compare it first, for example x > 0."
            )
    for operand in operands:
        check_broadcast(op.name, x, operand)
    if not operands:
        return x.linear(op)
    y = operands[0]
    owner = owner_of_both(x, y)
    if owner is not None:
        return real(op, owner, x, y)
    if not isinstance(y, PrivateTensor):
        # A public bit: linear in x.
        if isinstance(y, np.ndarray) and not np.all((y == 0) | (y == 1)):
            raise EncodingError(
                "~, &, | and ^ take values that are 0 or 1; a public one given is neither. Compare it first."
            )
        bits = np.asarray(y, np.int64) if isinstance(y, np.ndarray) else tf.cast(y, tf.float64)
        return x * bits if op is ops.AND else x + bits - x * (2 * bits)
    protocol = meeting_protocol(x, y)
    left, right = x.shared(protocol, 0), y.shared(protocol, 0)
    return PrivateTensor(protocol.apply(op, left.share, right.share), 0, protocol)
