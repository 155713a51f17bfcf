"""Sums, products and joins of private tensors: which scale each operand takes, and which rule is called."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from shareflow.errors import (
    EncodingError,
    PlacementError,
    ShapeError,
)
from shareflow.protocol import op as ops
from shareflow.protocol.op import Op
from shareflow.protocol.operand import as_operand, check_broadcast, meeting_protocol, owner_of_both, public_ring, real
from shareflow.protocol.tensor import SPARE_BITS, PrivateTensor
from shareflow.ring.fixed_point import FixedPoint
from shareflow.share.known import Known
from shareflow.share.share import Share


def add(op: Op, x: PrivateTensor, other: Any) -> PrivateTensor:
    """x + y or x - y at the finer of the two scales."""
    y = as_operand(other)
    check_broadcast(op.name, x, y)
    owner = owner_of_both(x, y)
    if owner is not None:
        return real(op, owner, x, y)
    protocol = meeting_protocol(x, y)
    scales = [v.fractional_bits for v in (x, y) if isinstance(v, PrivateTensor) and v.protocol is not None]
    usual = protocol.fixed_point.fractional_bits
    bits = max(scales, default=usual)
    # A tiny multiplier leaves a scale at which the other operand might not fit: such a product is cut back first.
    bits = min(bits, 2 * (usual + SPARE_BITS))
    if not isinstance(y, PrivateTensor):
        # A whole number of bits stays whole: 1 - (x > 0) needs no scale.
        if bits < usual and not (bits == 0 and _is_whole(y)):
            bits = usual
        left = x.shared(protocol, bits).at_scale(bits)
        return PrivateTensor(protocol.apply(op, left.share, public_ring(protocol, y, bits)), bits, protocol)
    if len(scales) == 1:
        bits = max(bits, usual)
    left, right = (v.shared(protocol, bits).at_scale(bits) for v in (x, y))
    return PrivateTensor(protocol.apply(op, left.share, right.share), bits, protocol)


def _is_whole(value: np.ndarray | tf.Tensor) -> bool:
    return isinstance(value, np.ndarray) and bool(np.all(value == np.rint(value)))


def multiplier_bits(value: np.ndarray | tf.Tensor, point: FixedPoint) -> int:
    """Fractional bits for a public multiplier: none for small whole numbers, more for small fractions.

    A multiplier below 1 gets as many bits more as it has leading zeros, so that its own rounding does not
    limit the result.
    """
    bits = point.fractional_bits
    if not isinstance(value, np.ndarray) or not value.size:
        return bits
    largest = float(np.max(np.abs(value)))
    if _is_whole(value) and largest < 2.0**bits:
        return 0
    if not 0 < largest < 1:
        return bits
    return bits + min(bits, -math.frexp(largest)[1])


def exact_bits(value: np.ndarray, most: int = 62) -> int:
    """The fewest fractional bits with which a public array is exact; more than ``most`` where there are none.

    0.75 takes two bits: for a product with it the usual ones would only have to be truncated again.
    """
    scaled = np.asarray(value, np.float64)
    for bits in range(most + 1):
        if np.all(scaled == np.rint(scaled)):
            return bits
        scaled = scaled * 2
    return most + 1


def bilinear(op: Op, x: PrivateTensor, other: Any, swapped: bool = False, **attributes: Any) -> PrivateTensor:
    """A bilinear operation on x and another operand; ``swapped`` puts the other first."""
    y = as_operand(other)
    if op is ops.MULTIPLY:
        check_broadcast(op.name, x, y)
    owner = owner_of_both(x, y)
    if owner is not None:
        return real(op, owner, *((y, x) if swapped else (x, y)), **attributes)
    protocol = meeting_protocol(x, y)
    left = x.shared(protocol).ready()
    if isinstance(y, PrivateTensor):
        # A square: truncated and masked once.
        right = left if y is x else y.shared(protocol).ready()
        right_share: Share = right.share
        bits = left.fractional_bits + right.fractional_bits
    else:
        extra = multiplier_bits(y, protocol.fixed_point)
        right_share = public_ring(protocol, y, extra)
        bits = left.fractional_bits + extra
    shares = (right_share, left.share) if swapped else (left.share, right_share)
    return PrivateTensor(protocol.apply(op, *shares, **attributes), bits, protocol)


def divide(x: PrivateTensor, other: Any) -> PrivateTensor:
    """x divided by a public value: a power of two moves the point, others multiply."""
    y = as_operand(other)
    owner = owner_of_both(x, y)
    if owner is not None:
        check_broadcast("divide", x, y)
        divide = Op("divide", ops.BILINEAR, tf.divide, tf.divide)
        return real(divide, owner, x, y)
    if isinstance(y, PrivateTensor):
        return y.__rtruediv__(x)
    if isinstance(y, np.ndarray):
        if not np.all(y):
            raise EncodingError("A divisor is not 0; one or more of the given ones are. Mask them out first.")
        exponent = _power_of_two(y)
        protocol = meeting_protocol(x)
        shared = x.shared(protocol)
        # A power of two moves the point, as long as the scale stays one that later operations can cut back.
        bits = shared.fractional_bits + (exponent or 0)
        if exponent is not None and 0 <= bits <= 3 * protocol.fixed_point.fractional_bits:
            return PrivateTensor(shared.share, bits, protocol)
        return shared * (1.0 / y.astype(np.float64))
    return x * (1.0 / tf.cast(y, tf.float64))


def _power_of_two(y: np.ndarray) -> int | None:
    if y.size != 1 or y.ndim:
        return None
    mantissa, exponent = math.frexp(float(y))
    return exponent - 1 if mantissa == 0.5 else None


def matmul(x: Any, y: Any, transpose_a: bool = False, transpose_b: bool = False) -> PrivateTensor:
    """Matrix product over the last two axes, batched as TensorFlow's; a vector counts as a row or column.

    Rounds: the masking of each private operand that is not masked yet.

    Raises:
        ShapeError: the inner dimensions differ, or the batch axes do not broadcast.
    """
    left, right = as_operand(x), as_operand(y)
    row, column = len(left.shape) == 1, len(right.shape) == 1
    if not len(left.shape) or not len(right.shape):
        raise ShapeError("A matrix product takes vectors or matrices; got a scalar. Use * instead.")
    left = left[None, :] if row else left
    right = right[:, None] if column else right
    inner = (left.shape[-2 if transpose_a and not row else -1], right.shape[-1 if transpose_b and not column else -2])
    if inner[0] != inner[1]:
        raise ShapeError(
            f"A matrix product needs equal inner dimensions; got {tuple(left.shape)} and {tuple(right.shape)}"
            f"{' with transposes' if transpose_a or transpose_b else ''}: {inner[0]} against {inner[1]}."
        )
    try:
        np.broadcast_shapes(tuple(left.shape[:-2]), tuple(right.shape[:-2]))
    except ValueError:
        raise ShapeError(
            f"A matrix product takes batch axes that broadcast: equal, or 1. Got {list(left.shape)} and "
            f"{list(right.shape)}. Reshape one, or transpose its batch axes."
        ) from None
    flags = {"transpose_a": transpose_a and not row, "transpose_b": transpose_b and not column}
    result = product(ops.MATMUL, left, right, **flags)
    if row:
        result = result[..., 0, :]
    return result[..., 0] if column else result


def product(op: Op, left: Any, right: Any, **attributes: Any) -> PrivateTensor:
    """A bilinear operation of which at least one operand is private."""
    left, right = as_operand(left), as_operand(right)
    if isinstance(left, PrivateTensor):
        return bilinear(op, left, right, **attributes)
    if isinstance(right, PrivateTensor):
        return bilinear(op, right, left, swapped=True, **attributes)
    raise PlacementError(f"{op.name}: neither operand is private. Use TensorFlow's own operation.")


def concat(values: Sequence[Any], axis: int) -> PrivateTensor:
    """The values one after another along an axis. Local."""
    return _join(ops.CONCAT, values, axis)


def stack(values: Sequence[Any], axis: int = 0) -> PrivateTensor:
    """The values along a new axis. Local."""
    return _join(ops.STACK, values, axis)


def _join(op: Op, given: Sequence[Any], axis: int) -> PrivateTensor:
    operands = [as_operand(value) for value in given]
    private = [v for v in operands if isinstance(v, PrivateTensor)]
    if not private:
        raise PlacementError(f"{op.name}: no operand is private. Use TensorFlow's own operation.")
    rank = len(operands[0].shape)
    shapes = [tuple(v.shape) for v in operands]
    axes = rank + (op is ops.STACK)
    if not -axes <= axis < axes:
        raise ShapeError(f"{op.name}: axis {axis} is not one of the result's {axes} axes; the shapes are {shapes}.")
    along = axis % axes
    fixed = {s if op is ops.STACK else (*s[:along], *s[along + 1 :]) for s in shapes}
    if len(fixed) != 1 or len({len(s) for s in shapes}) != 1:
        raise ShapeError(f"{op.name} along axis {axis} needs shapes equal elsewhere; got {shapes}.")
    owners = [v.share.owner for v in private if isinstance(v.share, Known)]
    if len(owners) == len(private) and len(set(owners)) == 1:
        with owners[0]:
            values = [tf.cast(v.plaintext if isinstance(v, PrivateTensor) else v, tf.float64) for v in operands]
            return PrivateTensor(Known(owners[0], op.real(*values, axis=axis)))
    protocol = meeting_protocol(*private)
    bits = max(
        [v.fractional_bits for v in private if v.protocol is not None]
        + [protocol.fixed_point.fractional_bits] * (len(private) < len(operands) or len(owners) > 0)
    )
    shares = [
        v.shared(protocol, bits).at_scale(bits).share
        if isinstance(v, PrivateTensor)
        else public_ring(protocol, v, bits)
        for v in operands
    ]
    return PrivateTensor(protocol.apply(op, *shares, axis=axis), bits, protocol)
