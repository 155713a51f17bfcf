"""Choosing between values by private bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from shareflow.errors import EncodingError, PlacementError, ShapeError
from shareflow.nn.activation import relu
from shareflow.party.party import Party
from shareflow.protocol.compare import at_least, non_negative
from shareflow.protocol.operand import as_operand, private_operand
from shareflow.protocol.tensor import PrivateTensor
from shareflow.share.known import Known


def chosen(bits: PrivateTensor | np.ndarray, x: Any) -> PrivateTensor:
    """x where the bit is 1, else 0, at x's own scale: a bit has no fractional bits that would add to it."""
    x = as_operand(x)
    if isinstance(bits, np.ndarray):
        return x.times(bits, 0) if isinstance(x, PrivateTensor) and x.protocol is not None else bits * x
    if isinstance(x, PrivateTensor) and not isinstance(x.share, Known) and not isinstance(bits.share, Known):
        return bits.exactly_times(x)
    return bits * x


def where(condition: Any, x: Any, y: Any) -> PrivateTensor:
    """x where the bit is 1, else y: y + condition * (x - y). Rounds: masking x - y; none where the condition is public.

    A public condition is 0 or 1, or True or False. All three broadcast.

    Raises:
        EncodingError: the condition is neither a result of a comparison nor public bits.
        PlacementError: none of the three is private.
    """
    x, y, bits = as_operand(x), as_operand(y), as_operand(condition)
    if not isinstance(bits, PrivateTensor):
        return _where_public(bits, x, y)
    if bits.protocol is not None and bits.fractional_bits:
        raise EncodingError(
            "where chooses by results of comparisons, which are 0 or 1; got a condition with "
            f"{bits.fractional_bits} fractional bits. Compare it first, for example x > 0."
        )
    _check_shapes("where", bits, x, y)
    owner = _only_owner(bits, x, y)
    if owner is not None:
        return _at_owner(lambda bits, x, y: tf.where(bits != 0, x, y), owner, bits, x, y)
    if not isinstance(x, PrivateTensor) and not isinstance(y, PrivateTensor):
        # Between public values: linear in the bit.
        return bits * (np.asarray(x) - np.asarray(y)) + y
    difference = x - y if isinstance(x, PrivateTensor) else -(y - x)
    return chosen(bits, difference) + y


def _where_public(condition: np.ndarray | tf.Tensor, x: Any, y: Any) -> PrivateTensor:
    """Local: each side times the bits for it."""
    if not isinstance(x, PrivateTensor) and not isinstance(y, PrivateTensor):
        raise PlacementError("where takes a private tensor, as condition or to choose from; for public values use tf.")
    if not isinstance(condition, np.ndarray):
        raise EncodingError("A public condition of where is an array, known while the program is written. Pass one.")
    if not np.all((condition == 0) | (condition == 1)):
        raise EncodingError("where chooses by values that are 0 or 1; a public one given is neither. Compare it first.")
    _check_shapes("where", condition, x, y)
    owner = _only_owner(x, y)
    if owner is not None:
        return _at_owner(lambda x, y: tf.where(condition != 0, x, y), owner, x, y)
    bits = condition.astype(np.float64)
    return chosen(bits, x) + chosen(1 - bits, y)


def maximum(x: Any, y: Any, bound: float | None = None) -> PrivateTensor:
    """max(x, y), exactly, for any operands of which one is private; |x - y| < bound. Rounds: as relu."""
    x, y = _both(x, y)
    owner = _only_owner(x, y)
    if owner is not None:
        _check_shapes("maximum", x, y)
        return _at_owner(tf.maximum, owner, x, y)
    difference = comparable(x - y)
    return chosen(non_negative(difference, bound), difference) + y


def minimum(x: Any, y: Any, bound: float | None = None) -> PrivateTensor:
    """min(x, y), exactly. Rounds: as relu."""
    x, y = _both(x, y)
    owner = _only_owner(x, y)
    if owner is not None:
        _check_shapes("minimum", x, y)
        return _at_owner(tf.minimum, owner, x, y)
    # x + (y - x) where that is negative.
    difference = comparable(y - x)
    return x + chosen(~non_negative(difference, bound), difference)


def clip_by_value(x: Any, low: Any, high: Any) -> PrivateTensor:
    """x within [low, high], exactly, for limits of any kind that broadcast: numbers, arrays, or private values.

    Public limits need low <= high, and are compared with one masking of x: low + relu(x - low) - relu(x - high).
    Rounds: as relu; with a private limit twice that. Where private limits cross, the result is ``high``.

    Raises:
        EncodingError: a public limit is not a number, or low > high somewhere.
    """
    x, low, high = private_operand(x), as_operand(low), as_operand(high)
    _check_shapes("clip_by_value", x, low, high)
    if isinstance(low, np.ndarray) and isinstance(high, np.ndarray):
        if not np.all(low <= high):
            raise EncodingError("clip_by_value needs low <= high everywhere; they cross, or are NaN. Exchange them.")
        if not isinstance(x.share, Known):
            # One masking serves both comparisons.
            x = x.reusable()
            return relu(x - low, truncate=False) - relu(x - high, truncate=False) + low
    return minimum(maximum(x, low), high)


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


def _check_shapes(name: str, *operands: Any) -> None:
    """Raises a ShapeError where the operands do not broadcast together."""
    shapes = [tuple(operand.shape) for operand in operands]
    try:
        np.broadcast_shapes(*shapes)
    except ValueError:
        given = " and ".join(map(str, dict.fromkeys(shapes)))
        raise ShapeError(
            f"{name} broadcasts as NumPy: trailing axes are equal or 1. Got shapes {given}. "
            "Reshape one, or add axes of length 1."
        ) from None


def _only_owner(*operands: Any) -> Party | None:
    """The party that knows all that is private among the operands, if one does."""
    private = [operand for operand in operands if isinstance(operand, PrivateTensor)]
    owners = {value.share.owner if isinstance(value.share, Known) else None for value in private}
    return owners.pop() if len(owners) == 1 else None


def _at_owner(compute: Callable[..., tf.Tensor], owner: Party, *operands: Any) -> PrivateTensor:
    """A function of values that one party knows, in plaintext: no rounding by x + (y - x)."""
    types = {value.plaintext.dtype for value in operands if isinstance(value, PrivateTensor)}
    common = types.pop() if len(types) == 1 else tf.float64
    with owner:
        values = [tf.cast(value.plaintext if isinstance(value, PrivateTensor) else value, common) for value in operands]
        return PrivateTensor(Known(owner, compute(*values)))
