"""Private tensors: what a user computes with. Operators choose scales and call the protocol's rules."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from shareflow.errors import (
    EncodingError,
    MissingRuleError,
    MixedProtocolsError,
    NotRevealedError,
    PlacementError,
    ShapeError,
)
from shareflow.party.party import Party, as_party
from shareflow.party.send import Kind, send
from shareflow.protocol import op as ops
from shareflow.protocol.bound import bounds_are_checked, check_zero
from shareflow.protocol.default import current_protocol
from shareflow.protocol.op import Op
from shareflow.protocol.protocol import Protocol
from shareflow.ring.fixed_point import FixedPoint
from shareflow.share.known import Known
from shareflow.share.masked import Masked
from shareflow.share.public import Public
from shareflow.share.share import Share, linear

# A product's operands may carry this many bits beyond the encoding's own before they are truncated, so that
# dividing by a window of 2 x 2 or 4 x 4 costs nothing.
SPARE_BITS = 4
_CHECKER = Party("insecure-bound-checker")
# Bits of a ring value below its sign.
SIGN_BITS = 63


class PrivateValue(abc.ABC):
    """Operators of private tensors and private variables.

    Broadcasting is NumPy's. Operands that are not private (numbers, arrays, TensorFlow tensors) are public:
    all parties know them. Results carry the fractional bits that fall out (a product has the sum of its
    operands'); they are cut back when an operation needs it.
    """

    # NumPy leaves `array * private` to us.
    __array_priority__ = 1000
    __array_ufunc__ = None

    @abc.abstractmethod
    def read(self) -> PrivateTensor:
        """The value, as a tensor."""

    # --- arithmetic

    def __add__(self, other: Any) -> PrivateTensor:
        return _sum(ops.ADD, self.read(), other)

    def __radd__(self, other: Any) -> PrivateTensor:
        return _sum(ops.ADD, self.read(), other)

    def __sub__(self, other: Any) -> PrivateTensor:
        return _sum(ops.SUBTRACT, self.read(), other)

    def __rsub__(self, other: Any) -> PrivateTensor:
        return _sum(ops.ADD, -self.read(), other)

    def __neg__(self) -> PrivateTensor:
        return self.read().linear(ops.NEGATE)

    def __pos__(self) -> PrivateTensor:
        return self.read()

    def __mul__(self, other: Any) -> PrivateTensor:
        return _product(ops.MULTIPLY, self.read(), other)

    def __rmul__(self, other: Any) -> PrivateTensor:
        return _product(ops.MULTIPLY, self.read(), other)

    def __truediv__(self, other: Any) -> PrivateTensor:
        return _divide(self.read(), other)

    def __rtruediv__(self, other: Any) -> PrivateTensor:
        raise MissingRuleError(
            "Division is by public values so far; the divisor given is private. Multiply by a reciprocal that its "
            "owner computes in plaintext, for example in a local_computation."
        )

    def __matmul__(self, other: Any) -> PrivateTensor:
        return matmul(self, other)

    def __rmatmul__(self, other: Any) -> PrivateTensor:
        return matmul(other, self)

    def __pow__(self, exponent: Any) -> PrivateTensor:
        if not isinstance(exponent, (int, np.integer)) or exponent < 1:
            raise MissingRuleError(
                f"A power's exponent is a whole number of at least 1; got {exponent!r}. "
                "Use shareflow.nn.polynomial for an approximation of another function."
            )
        base, result = self.read(), None
        while True:
            if exponent & 1:
                result = base if result is None else result * base
            exponent >>= 1
            if not exponent:
                return result  # type: ignore[return-value]
            base = base * base

    # --- comparison: 1 where it holds, else 0

    def __ge__(self, other: Any) -> PrivateTensor:
        return non_negative(self.read() - other)

    def __le__(self, other: Any) -> PrivateTensor:
        return non_negative(other - self.read())

    def __lt__(self, other: Any) -> PrivateTensor:
        return ~(self >= other)

    def __gt__(self, other: Any) -> PrivateTensor:
        return ~(self <= other)

    def __eq__(self, other: Any) -> PrivateTensor:  # type: ignore[override]
        # x = 0 where x >= 0 and not x >= 1 unit: two thresholds of one opening.
        difference = self.read() - other
        if isinstance(difference.share, Known):
            return difference.known_as(lambda value: tf.cast(value == 0, value.dtype))
        not_below, above = _reached(difference, (0, 1), SIGN_BITS)
        return not_below ^ above

    def __ne__(self, other: Any) -> PrivateTensor:  # type: ignore[override]
        return ~(self == other)

    # --- logic on results of comparisons

    def __invert__(self) -> PrivateTensor:
        return _logic(ops.NOT, self.read())

    def __and__(self, other: Any) -> PrivateTensor:
        return _logic(ops.AND, self.read(), other)

    def __or__(self, other: Any) -> PrivateTensor:
        return ~(~self & ~as_operand(other))

    def __xor__(self, other: Any) -> PrivateTensor:
        return _logic(ops.XOR, self.read(), other)

    __hash__ = object.__hash__

    # --- structure

    @property
    @abc.abstractmethod
    def shape(self) -> tuple[int, ...]:
        """The shape, which is public."""

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    def __len__(self) -> int:
        if not self.shape:
            raise ShapeError("A private scalar has no length; its shape is ().")
        return self.shape[0]

    def __getitem__(self, key: Any) -> PrivateTensor:
        return self.read().linear(ops.SLICE, key=_static_key(key, self.shape))

    def __iter__(self) -> Any:
        return (self[i] for i in range(len(self)))

    def reshape(self, *shape: Any) -> PrivateTensor:
        """The same elements in another shape; one entry may be -1."""
        wanted = tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
        known = math.prod(n for n in wanted if n != -1)
        holes = sum(n == -1 for n in wanted)
        if any(not _is_index(n) or n < -1 for n in wanted):
            raise ShapeError(f"A shape is made of whole numbers, at most one of them -1; got {wanted}.")
        if holes > 1 or (not holes and known != self.size) or (holes and (known == 0 or self.size % known)):
            raise ShapeError(f"Reshape keeps the number of elements: {self.shape} does not go into {wanted}.")
        return self.read().linear(ops.RESHAPE, shape=list(wanted))

    def transpose(self, *axes: Any) -> PrivateTensor:
        """Axes in the given order; reversed without one."""
        given = axes[0] if len(axes) == 1 and isinstance(axes[0], (tuple, list)) else axes
        order = [axis + self.ndim if axis < 0 else axis for axis in given] or list(range(self.ndim))[::-1]
        if sorted(order) != list(range(self.ndim)):
            raise ShapeError(f"A transpose names each of the {self.ndim} axes once; got {tuple(given)}.")
        return self.read().linear(ops.TRANSPOSE, perm=order)

    @property
    def T(self) -> PrivateTensor:  # noqa: N802 - NumPy's name
        """All axes reversed."""
        return self.transpose()

    def sum(self, axis: Any = None, keepdims: bool = False) -> PrivateTensor:
        """Sum over one axis, several, or all. Local."""
        return self.read().linear(ops.SUM, axis=axes_of(axis, self.ndim), keepdims=keepdims)

    def mean(self, axis: Any = None, keepdims: bool = False) -> PrivateTensor:
        """Mean over one axis, several, or all. Local; free where the count is a power of two."""
        axes = axes_of(axis, self.ndim)
        count = math.prod(self.shape[i] for i in axes)
        if not count:
            raise ShapeError(f"The mean of no elements is not defined; the shape is {self.shape}, the axes {axes}.")
        return self.sum(axes, keepdims) / count

    def take(self, indices: Any, axis: int = 0) -> PrivateTensor:
        """The entries at public places along an axis, as numpy.take. Local."""
        (along,) = axes_of(axis, self.ndim)
        places = np.asarray(indices)
        if (places.size and places.dtype.kind not in "iu") or np.any(places < 0) or np.any(places >= self.shape[along]):
            raise ShapeError(
                f"Places along axis {axis} of shape {self.shape} are whole numbers from 0 to {self.shape[along] - 1}; "
                f"got {indices!r}."
            )
        return self.read().linear(ops.GATHER, indices=places.astype(np.int64), axis=along)

    def row(self, number: int) -> PrivateTensor:
        """One entry of the first axis. As ``x[number]``, and bits stay bits."""
        return self.read().linear(ops.ROW, number=number)

    def pad(self, paddings: Any) -> PrivateTensor:
        """Zeros before and after along each axis: one pair of counts an axis. Local."""
        try:
            pairs = [(int(before), int(after)) for before, after in paddings]
        except (TypeError, ValueError):
            pairs = []
        if len(pairs) != self.ndim or any(n < 0 for pair in pairs for n in pair):
            raise ShapeError(f"Padding is one pair of counts for each of {self.ndim} axes; got {paddings}.")
        return self.read().linear(ops.PAD, paddings=pairs)

    def broadcast_to(self, shape: Sequence[int]) -> PrivateTensor:
        """The same elements repeated to a wider shape. Local."""
        try:
            fits = np.broadcast_shapes(self.shape, tuple(shape)) == tuple(shape)
        except ValueError:
            fits = False
        if not fits:
            raise ShapeError(f"Shape {self.shape} does not broadcast to {tuple(shape)}.")
        return self.read().linear(ops.BROADCAST, shape=list(shape))

    # --- reading

    def reveal(self, receiver: Party | str) -> PrivateTensor:
        """The value in plaintext at one named party, and nowhere else; float64. One round.

        Raises:
            PlacementError: the receiver is no party.
        """
        if receiver is None:
            raise PlacementError("A result is revealed to a named party; got None. Write reveal('client').")
        return _reveal(self.read(), as_party(receiver))

    def numpy(self) -> np.ndarray:
        """The plaintext of a value that one party knows.

        Raises:
            NotRevealedError: the value is private, or a function that holds it is still being traced.
        """
        x = self.read()
        if not isinstance(x.share, Known):
            raise NotRevealedError(
                "Only a value that one party knows can be read; this one is shared between "
                f"{', '.join(dict.fromkeys(map(str, x.share.parties)))}. Reveal it to a receiver first: "
                "x.reveal('client').numpy()."
            )
        if not tf.executing_eagerly() or not hasattr(x.share.value, "numpy"):
            raise NotRevealedError(
                "A function that is being traced has no values yet. Return the tensor, and read it outside."
            )
        return x.share.value.numpy()

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray:
        raise NotRevealedError(
            "A private value does not become a NumPy array by itself. Reveal it: x.reveal('client').numpy()."
        )

    def __bool__(self) -> bool:
        raise NotRevealedError(
            "A private value decides no branch: that would reveal it. Compute both sides and select with a product, "
            "or reveal it first."
        )


class PrivateTensor(PrivateValue):
    """A tensor as the parties hold it: a share of a kind, a scale, and the protocol it lives in.

    A value that one party knows in plaintext (``share`` is :class:`Known`) belongs to no protocol yet; it is
    encoded and shared where it first meets a value of another party.
    """

    def __init__(self, share: Share, fractional_bits: int = 0, protocol: Protocol | None = None) -> None:
        self.share = share
        self.fractional_bits = fractional_bits
        self.protocol = protocol

    def read(self) -> PrivateTensor:
        return self

    @property
    def shape(self) -> tuple[int, ...]:
        return self.share.shape

    @property
    def plaintext(self) -> tf.Tensor:
        """The tensor at the one party that knows this value, while a computation is built.

        Raises:
            NotRevealedError: the value is shared.
        """
        if not isinstance(self.share, Known):
            raise NotRevealedError("A shared value has no plaintext; reveal it to a party first.")
        return self.share.value

    def linear(self, op: Op, **attributes: Any) -> PrivateTensor:
        """A linear operation: local at each party, the scale stays."""
        if self.protocol is None:
            return PrivateTensor(linear(lambda value: op.real(value, **attributes), self.share))
        return self._with(self.protocol.apply(op, self.share, **attributes))

    def known_as(self, compute: Callable[[tf.Tensor], tf.Tensor]) -> PrivateTensor:
        """A function of a value that one party knows, computed there in plaintext."""
        value = self.plaintext
        with self.share.parties[0]:
            return PrivateTensor(Known(self.share.parties[0], compute(value)))

    def at_scale(self, fractional_bits: int) -> PrivateTensor:
        """The same value with more fractional bits (local), or fewer (a truncation)."""
        protocol, more = self.protocol_of_shares(), fractional_bits - self.fractional_bits
        if more == 0:
            return self
        if more > 0:
            share = protocol.apply(ops.SHIFT_LEFT, self.share, bits=more)
        else:
            share = protocol.apply(ops.TRUNCATE, self.share, bits=-more)
        return PrivateTensor(share, fractional_bits, protocol)

    def shared(self, protocol: Protocol, fractional_bits: int | None = None) -> PrivateTensor:
        """This value as shares of the protocol. A plaintext value is encoded; once at a scale, then kept.

        Raises:
            MixedProtocolsError: it is shared in another protocol.
        """
        if isinstance(self.share, Known):
            bits = protocol.fixed_point.fractional_bits if fractional_bits is None else fractional_bits
            return _share_known(self.share, protocol, bits)
        if self.protocol != protocol:
            raise MixedProtocolsError(
                f"The operands of one operation live in one protocol; got {self.protocol} and {protocol}. "
                "Reveal one of them to a party, which can then share it anew."
            )
        return self

    def ready(self) -> PrivateTensor:
        """At a scale at which it can be multiplied: truncated if it has many more bits than the encoding's."""
        return self.at_scale(self.ready_bits)

    @property
    def surplus_bits(self) -> int:
        """Fractional bits beyond the encoding's own that :meth:`ready` would cut."""
        return self.fractional_bits - self.ready_bits

    @property
    def ready_bits(self) -> int:
        """The scale of :meth:`ready`."""
        usual = self.protocol_of_shares().fixed_point.fractional_bits
        return usual if self.fractional_bits > usual + SPARE_BITS else self.fractional_bits

    def reusable(self) -> PrivateTensor:
        """In the form that serves many uses with no more communication: masked, in SPDZ."""
        protocol = self.protocol_of_shares()
        return self._with(protocol.reusable(self.share))

    def times(self, value: Any, fractional_bits: int, op: Op = ops.MULTIPLY) -> PrivateTensor:
        """``value op self`` for a public array encoded with so many bits, where the caller chooses the scale."""
        protocol = self.protocol_of_shares()
        words = _public_ring(protocol, np.asarray(value, np.float64), fractional_bits)
        return PrivateTensor(protocol.apply(op, words, self.share), self.fractional_bits + fractional_bits, protocol)

    def exactly_times(self, other: PrivateTensor) -> PrivateTensor:
        """The product with all fractional bits of both: for scales that the caller has chosen to fit."""
        protocol = self.protocol_of_shares()
        bits = self.fractional_bits + other.fractional_bits
        return PrivateTensor(protocol.apply(ops.MULTIPLY, self.share, other.shared(protocol).share), bits, protocol)

    def moved_point(self, bits: int) -> PrivateTensor:
        """The value divided by 2^bits: the same ring elements, the point further left. Free."""
        return PrivateTensor(self.share, self.fractional_bits + bits, self.protocol)

    def add_ring(self, words: np.ndarray) -> PrivateTensor:
        """Plus a public array of ring elements, at this tensor's own scale."""
        return self._with(self.protocol_of_shares().apply(ops.ADD, self.share, Public(tf.constant(words))))

    def protocol_of_shares(self) -> Protocol:
        """The protocol that the shares live in; a plaintext value has none yet."""
        if self.protocol is None:
            raise MixedProtocolsError("A plaintext value has no protocol yet; share it first: x.shared(protocol).")
        return self.protocol

    def _with(self, share: Share) -> PrivateTensor:
        return PrivateTensor(share, self.fractional_bits, self.protocol)

    def __repr__(self) -> str:
        holders = ", ".join(dict.fromkeys(map(str, self.share.parties)))
        if isinstance(self.share, Known):
            return f"<PrivateTensor shape={self.shape} known to {holders}>"
        return (
            f"<PrivateTensor shape={self.shape} {type(self.share).__name__.lower()} at {holders}, "
            f"{self.fractional_bits} fractional bits>"
        )


# --- how operands meet --------------------------------------------------------------------------------------


def _share_known(known: Known, protocol: Protocol, fractional_bits: int) -> PrivateTensor:
    # At the scale that products use, the shared form is kept: sharing, and then masking, happen once.
    usual = fractional_bits == protocol.fixed_point.fractional_bits
    kept = known.lifted(_Shared) if usual else None
    if kept is not None and kept.protocol == protocol:
        return kept.tensor
    tensor = PrivateTensor(protocol.share(known, fractional_bits), fractional_bits, protocol)
    if usual:
        known.keep(_Shared(tensor))
    return tensor


class _Shared(Known):
    """Remembers the shared form of a plaintext value, beside the value."""

    def __init__(self, tensor: PrivateTensor) -> None:
        Share.__init__(self)
        self.tensor = tensor
        self.protocol = tensor.protocol


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


def _owner_of_both(x: PrivateTensor, y: Any) -> Party | None:
    """The party that can compute with both operands in plaintext, if one can."""
    if not isinstance(x.share, Known):
        return None
    if not isinstance(y, PrivateTensor):
        return x.share.owner
    return x.share.owner if isinstance(y.share, Known) and y.share.owner == x.share.owner else None


def _real(op: Op, owner: Party, x: Any, y: Any, **attributes: Any) -> PrivateTensor:
    """The operation in plaintext at its operands' owner."""
    values = [v.plaintext if isinstance(v, PrivateTensor) else v for v in (x, y)]
    types = [v.plaintext.dtype for v in (x, y) if isinstance(v, PrivateTensor)]
    common = types[0] if types[0].is_floating and len(set(types)) == 1 else tf.float64
    with owner:
        return PrivateTensor(Known(owner, op.real(*(tf.cast(v, common) for v in values), **attributes)))


def _meeting_protocol(*operands: Any) -> Protocol:
    for operand in operands:
        if isinstance(operand, PrivateTensor) and operand.protocol is not None:
            return operand.protocol
    return current_protocol()


def _check_broadcast(name: str, x: Any, y: Any) -> None:
    try:
        np.broadcast_shapes(tuple(x.shape), tuple(y.shape))
    except ValueError:
        raise ShapeError(
            f"{name} broadcasts as NumPy: trailing axes are equal or 1. Got shapes {tuple(x.shape)} and "
            f"{tuple(y.shape)}. Reshape one, or add axes of length 1."
        ) from None


def _public_ring(protocol: Protocol, value: np.ndarray | tf.Tensor, fractional_bits: int) -> Public:
    point = protocol.fixed_point
    if isinstance(value, np.ndarray):
        return Public(tf.constant(point.encode_array(value, fractional_bits)))
    return Public(point.encode(value, fractional_bits))


def _sum(op: Op, x: PrivateTensor, other: Any) -> PrivateTensor:
    """x + y or x - y at the finer of the two scales."""
    y = as_operand(other)
    _check_broadcast(op.name, x, y)
    owner = _owner_of_both(x, y)
    if owner is not None:
        return _real(op, owner, x, y)
    protocol = _meeting_protocol(x, y)
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
        return PrivateTensor(protocol.apply(op, left.share, _public_ring(protocol, y, bits)), bits, protocol)
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


def _product(op: Op, x: PrivateTensor, other: Any, swapped: bool = False, **attributes: Any) -> PrivateTensor:
    """A bilinear operation on x and another operand; ``swapped`` puts the other first."""
    y = as_operand(other)
    if op is ops.MULTIPLY:
        _check_broadcast(op.name, x, y)
    owner = _owner_of_both(x, y)
    if owner is not None:
        return _real(op, owner, *((y, x) if swapped else (x, y)), **attributes)
    protocol = _meeting_protocol(x, y)
    left = x.shared(protocol).ready()
    if isinstance(y, PrivateTensor):
        # A square: truncated and masked once.
        right = left if y is x else y.shared(protocol).ready()
        right_share: Share = right.share
        bits = left.fractional_bits + right.fractional_bits
    else:
        extra = multiplier_bits(y, protocol.fixed_point)
        right_share = _public_ring(protocol, y, extra)
        bits = left.fractional_bits + extra
    shares = (right_share, left.share) if swapped else (left.share, right_share)
    return PrivateTensor(protocol.apply(op, *shares, **attributes), bits, protocol)


def _divide(x: PrivateTensor, other: Any) -> PrivateTensor:
    y = as_operand(other)
    owner = _owner_of_both(x, y)
    if owner is not None:
        _check_broadcast("divide", x, y)
        divide = Op("divide", ops.BILINEAR, tf.divide, tf.divide)
        return _real(divide, owner, x, y)
    if isinstance(y, PrivateTensor):
        return y.__rtruediv__(x)
    if isinstance(y, np.ndarray):
        if not np.all(y):
            raise EncodingError("A divisor is not 0; one or more of the given ones are. Mask them out first.")
        exponent = _power_of_two(y)
        protocol = _meeting_protocol(x)
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
        ShapeError: the inner dimensions differ.
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
    flags = {"transpose_a": transpose_a and not row, "transpose_b": transpose_b and not column}
    result = product(ops.MATMUL, left, right, **flags)
    if row:
        result = result[..., 0, :]
    return result[..., 0] if column else result


def product(op: Op, left: Any, right: Any, **attributes: Any) -> PrivateTensor:
    """A bilinear operation of which at least one operand is private."""
    left, right = as_operand(left), as_operand(right)
    if isinstance(left, PrivateTensor):
        return _product(op, left, right, **attributes)
    if isinstance(right, PrivateTensor):
        return _product(op, right, left, swapped=True, **attributes)
    raise PlacementError(f"{op.name}: neither operand is private. Use TensorFlow's own operation.")


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
    return _reached(x, [ring_threshold(x, t) for t in thresholds], size_bits(x, bound, thresholds))


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


def _reached(x: PrivateTensor, words: Sequence[int], size: int) -> list[PrivateTensor]:
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
    if not 0 < bound < math.inf:
        raise EncodingError(f"A bound is a positive number that no value reaches in size; got {bound!r}.")
    if bounds_are_checked():
        above, below = x - (min(thresholds) + bound), x - (max(thresholds) - bound)
        beyond = non_negative(above).sum() + (~non_negative(below)).sum()
        check_zero(
            beyond.reveal(_CHECKER).plaintext,
            f"A value lies beyond its declared bound of {bound:g}: comparing it would give a wrong bit. "
            "Declare a larger bound, or none.",
        )
    return min(max(math.ceil(math.log2(bound)) + x.fractional_bits, 1), SIGN_BITS)


def _logic(op: Op, x: PrivateTensor, *others: Any) -> PrivateTensor:
    """NOT, AND, XOR of values that are 0 or 1."""
    operands = [as_operand(other) for other in others]
    for operand in (x, *operands):
        if isinstance(operand, PrivateTensor) and operand.protocol is not None and operand.fractional_bits:
            raise EncodingError(
                "~, &, | and ^ take results of comparisons, which are 0 or 1; got a tensor with "
                f"{operand.fractional_bits} fractional bits. Compare it first, for example x > 0."
            )
    for operand in operands:
        _check_broadcast(op.name, x, operand)
    if not operands:
        return x.linear(op)
    y = operands[0]
    owner = _owner_of_both(x, y)
    if owner is not None:
        return _real(op, owner, x, y)
    if not isinstance(y, PrivateTensor):
        # A public bit: linear in x.
        bits = np.asarray(y, np.int64) if isinstance(y, np.ndarray) else tf.cast(y, tf.float64)
        return x * bits if op is ops.AND else x + bits - x * (2 * bits)
    protocol = _meeting_protocol(x, y)
    left, right = x.shared(protocol, 0), y.shared(protocol, 0)
    return PrivateTensor(protocol.apply(op, left.share, right.share), 0, protocol)


def public_beside(x: PrivateTensor, value: np.ndarray, fractional_bits: int = 0) -> PrivateTensor:
    """A public array as a tensor that meets x's: every rule for public operands applies to it."""
    if isinstance(x.share, Known):
        with x.share.owner:
            return PrivateTensor(Known(x.share.owner, tf.constant(value, x.share.value.dtype)))
    protocol = x.protocol_of_shares()
    return PrivateTensor(_public_ring(protocol, np.asarray(value), fractional_bits), fractional_bits, protocol)


def private_operand(x: Any) -> PrivateTensor:
    """An argument that must be private.

    Raises:
        PlacementError: it is public.
    """
    operand = as_operand(x)
    if not isinstance(operand, PrivateTensor):
        raise PlacementError("This function takes a private tensor; for public values use TensorFlow's own.")
    return operand


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
    protocol = _meeting_protocol(*private)
    bits = max(
        [v.fractional_bits for v in private if v.protocol is not None]
        + [protocol.fixed_point.fractional_bits] * (len(private) < len(operands) or len(owners) > 0)
    )
    shares = [
        v.shared(protocol, bits).at_scale(bits).share
        if isinstance(v, PrivateTensor)
        else _public_ring(protocol, v, bits)
        for v in operands
    ]
    return PrivateTensor(protocol.apply(op, *shares, axis=axis), bits, protocol)


def _reveal(x: PrivateTensor, receiver: Party) -> PrivateTensor:
    if isinstance(x.share, Known):
        return PrivateTensor(Known(receiver, send(x.share.value, x.share.owner, receiver, Kind.PLAINTEXT)))
    protocol = x.protocol_of_shares()
    with tf.name_scope("reveal"):
        words = protocol.reveal(x.share, receiver)
        with receiver:
            return PrivateTensor(Known(receiver, protocol.fixed_point.decode(words, x.fractional_bits)))


def richest(share: Share) -> Share:
    """The masked form of a share if it was masked already, else the share: what is masked is not masked again."""
    return share.lifted(Masked) or share


def axes_of(axis: Any, rank: int) -> list[int]:
    """The axes meant by None (all), a number or several, each from 0 to rank - 1.

    Raises:
        ShapeError: there is no such axis.
    """
    axes = range(rank) if axis is None else axis if isinstance(axis, (tuple, list)) else [axis]
    if any(not _is_index(i) or not -rank <= i < rank for i in axes) or len({i % rank for i in axes}) != len(axes):
        raise ShapeError(f"Axes of a tensor with {rank} axes are -{rank} .. {rank - 1}, each once; got {axis}.")
    return [int(i) % rank for i in axes]


def _is_index(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _static_key(key: Any, shape: tuple[int, ...]) -> tuple[Any, ...]:
    parts = key if isinstance(key, tuple) else (key,)
    for part in parts:
        if not (part is None or part is Ellipsis or isinstance(part, slice) or _is_index(part)):
            raise ShapeError(
                f"An index is made of whole numbers, slices, None and ...; got {type(part).__name__}. "
                "Indexing by arrays or by private values is not there yet."
            )
    indexed = [part for part in parts if part is not None and part is not Ellipsis]
    if len(indexed) > len(shape):
        raise ShapeError(f"{len(indexed)} indices are too many for shape {shape}.")
    if sum(part is Ellipsis for part in parts) > 1:
        raise ShapeError("An index has one ... at most; got several. Write the axes between them as slices.")
    axis = 0
    for part in parts:
        if part is Ellipsis:
            axis += len(shape) - len(indexed)
        elif part is not None:
            if isinstance(part, (int, np.integer)) and not -shape[axis] <= part < shape[axis]:
                raise ShapeError(f"Index {part} is out of range for axis {axis} of shape {shape}.")
            axis += 1
    return parts
