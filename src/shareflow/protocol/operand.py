"""What meets a private tensor: its kinds of operands, and where and in which protocol they meet."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from shareflow.errors import (
    PlacementError,
    ShapeError,
)
from shareflow.party.party import Party
from shareflow.protocol.default import current_protocol
from shareflow.protocol.op import Op
from shareflow.protocol.protocol import Protocol
from shareflow.protocol.tensor import PrivateTensor, PrivateValue
from shareflow.share.known import Known
from shareflow.share.public import Public


def as_operand(value: Any) -> PrivateTensor | np.ndarray | tf.Tensor:
    """A private tensor as it is; anything else as the public array or tensor that it stands for.

    Raises:
        ShapeError: it is no number or array of numbers.
    """
    if isinstance(value, PrivateValue):
        return value.read()
    if isinstance(value, (tf.Tensor, tf.Variable)):
        tensor = tf.convert_to_tensor(value)
        if not (tensor.dtype.is_floating or tensor.dtype.is_integer or tensor.dtype.is_bool):
            raise ShapeError(f"Operands are real numbers; got a tensor of {tensor.dtype.name}. Cast it first.")
        return tensor.numpy() if hasattr(tensor, "numpy") and tf.executing_eagerly() else tensor
    try:
        array = np.asarray(value)
    except ValueError:
        raise ShapeError("Operands are arrays; got a list whose rows have different lengths. Pad them first.") from None
    if array.dtype.kind not in "fiub":
        raise ShapeError(
            f"Operands are real numbers, arrays of them or private tensors; got {type(value).__name__} of "
            f"{array.dtype}. Convert it to float32 or an integer type first."
        )
    return array


def private_operand(x: Any) -> PrivateTensor:
    """An argument that must be private.

    Raises:
        PlacementError: it is public.
    """
    operand = as_operand(x)
    if not isinstance(operand, PrivateTensor):
        raise PlacementError("This function takes a private tensor; for public values use TensorFlow's own.")
    return operand


def public_beside(x: PrivateTensor, value: np.ndarray, fractional_bits: int = 0) -> PrivateTensor:
    """A public array as a tensor that meets x's: every rule for public operands applies to it."""
    if isinstance(x.share, Known):
        with x.share.owner:
            return PrivateTensor(Known(x.share.owner, tf.constant(value, x.share.value.dtype)))
    protocol = x.protocol_of_shares()
    return PrivateTensor(public_ring(protocol, np.asarray(value), fractional_bits), fractional_bits, protocol)


def public_ring(protocol: Protocol, value: np.ndarray | tf.Tensor, fractional_bits: int) -> Public:
    """A public value, encoded."""
    point = protocol.fixed_point
    if isinstance(value, np.ndarray):
        return Public(tf.constant(point.encode_array(value, fractional_bits)))
    return Public(point.encode(value, fractional_bits))


def meeting_protocol(*operands: Any) -> Protocol:
    """The protocol of the operands that have one, else the current one."""
    for operand in operands:
        if isinstance(operand, PrivateTensor) and operand.protocol is not None:
            return operand.protocol
    return current_protocol()


def owner_of_both(x: PrivateTensor, y: Any) -> Party | None:
    """The party that can compute with both operands in plaintext, if one can."""
    if not isinstance(x.share, Known):
        return None
    if not isinstance(y, PrivateTensor):
        return x.share.owner
    return x.share.owner if isinstance(y.share, Known) and y.share.owner == x.share.owner else None


def real(op: Op, owner: Party, x: Any, y: Any, **attributes: Any) -> PrivateTensor:
    """The operation in plaintext at its operands' owner."""
    values = [v.plaintext if isinstance(v, PrivateTensor) else v for v in (x, y)]
    types = [v.plaintext.dtype for v in (x, y) if isinstance(v, PrivateTensor)]
    common = types[0] if types[0].is_floating and len(set(types)) == 1 else tf.float64
    with owner:
        return PrivateTensor(Known(owner, op.real(*(tf.cast(v, common) for v in values), **attributes)))


def check_broadcast(name: str, x: Any, y: Any) -> None:
    """Raises a ShapeError where the shapes do not broadcast as NumPy's."""
    try:
        np.broadcast_shapes(tuple(x.shape), tuple(y.shape))
    except ValueError:
        raise ShapeError(
            f"{name} broadcasts as NumPy: trailing axes are equal or 1. Got shapes {tuple(x.shape)} and "
            f"{tuple(y.shape)}. Reshape one, or add axes of length 1."
        ) from None
