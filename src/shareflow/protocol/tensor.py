"""Private tensors: what a user computes with. Operators choose scales and call the protocol's rules."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from shareflow.errors import (
    MissingRuleError,
    MixedProtocolsError,
    NotRevealedError,
    PlacementError,
    ShapeError,
)
from shareflow.party.party import Party, as_party
from shareflow.party.send import Kind, send
from shareflow.protocol import op as ops
from shareflow.protocol.op import Op
from shareflow.protocol.protocol import Protocol
from shareflow.share.known import Known
from shareflow.share.masked import Masked
from shareflow.share.public import Public
from shareflow.share.share import Share, linear

# A product's operands may carry this many bits beyond the encoding's own before they are truncated, so that
# dividing by a window of 2 x 2 or 4 x 4 costs nothing.
SPARE_BITS = 4
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
        return arithmetic.add(ops.ADD, self.read(), other)

    def __radd__(self, other: Any) -> PrivateTensor:
        return arithmetic.add(ops.ADD, self.read(), other)

    def __sub__(self, other: Any) -> PrivateTensor:
        return arithmetic.add(ops.SUBTRACT, self.read(), other)

    def __rsub__(self, other: Any) -> PrivateTensor:
        return arithmetic.add(ops.ADD, -self.read(), other)

    def __neg__(self) -> PrivateTensor:
        return self.read().linear(ops.NEGATE)

    def __pos__(self) -> PrivateTensor:
        return self.read()

    def __mul__(self, other: Any) -> PrivateTensor:
        return arithmetic.bilinear(ops.MULTIPLY, self.read(), other)

    def __rmul__(self, other: Any) -> PrivateTensor:
        return arithmetic.bilinear(ops.MULTIPLY, self.read(), other)

    def __truediv__(self, other: Any) -> PrivateTensor:
        return arithmetic.divide(self.read(), other)

    def __rtruediv__(self, other: Any) -> PrivateTensor:
        raise MissingRuleError(
            "The operator / divides by public values; the divisor given is private. Use shareflow.nn.divide(x, y), "
            "which takes the range of y for a cheaper division, or a reciprocal that y's owner computes in plaintext."
        )

    def __matmul__(self, other: Any) -> PrivateTensor:
        return arithmetic.matmul(self, other)

    def __rmatmul__(self, other: Any) -> PrivateTensor:
        return arithmetic.matmul(other, self)

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
        return compare.non_negative(self.read() - other)

    def __le__(self, other: Any) -> PrivateTensor:
        return compare.non_negative(other - self.read())

    def __lt__(self, other: Any) -> PrivateTensor:
        return ~(self >= other)

    def __gt__(self, other: Any) -> PrivateTensor:
        return ~(self <= other)

    def __eq__(self, other: Any) -> PrivateTensor:  # type: ignore[override]
        # x = 0 where x >= 0 and not x >= 1 unit: two thresholds of one opening.
        difference = self.read() - other
        if isinstance(difference.share, Known):
            return difference.known_as(lambda value: tf.cast(value == 0, value.dtype))
        not_below, above = compare.reached(difference, (0, 1), SIGN_BITS)
        return not_below ^ above

    def __ne__(self, other: Any) -> PrivateTensor:  # type: ignore[override]
        return ~(self == other)

    # --- logic on results of comparisons

    def __invert__(self) -> PrivateTensor:
        return compare.logic(ops.NOT, self.read())

    def __and__(self, other: Any) -> PrivateTensor:
        return compare.logic(ops.AND, self.read(), other)

    def __or__(self, other: Any) -> PrivateTensor:
        return ~(~self & compare.inverted(other))

    def __xor__(self, other: Any) -> PrivateTensor:
        return compare.logic(ops.XOR, self.read(), other)

    __rand__, __ror__, __rxor__ = __and__, __or__, __xor__

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
        return self.read().linear(ops.SLICE, key=static_key(key, self.shape))

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
        return reveal_to(self.read(), as_party(receiver))

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
        """The same value with more fractional bits (local), or fewer (a truncation). Done once for each scale."""
        protocol, more = self.protocol_of_shares(), fractional_bits - self.fractional_bits
        if more == 0:
            return self
        kept = self.share.lifted(_Shifted)
        if kept is None:
            kept = _Shifted()
            self.share.keep(kept)
        share = kept.shares.get((protocol, more))
        if share is None:
            if more > 0:
                share = protocol.apply(ops.SHIFT_LEFT, self.share, bits=more)
            else:
                share = protocol.apply(ops.TRUNCATE, self.share, bits=-more)
            kept.shares[protocol, more] = share
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
        words = operand.public_ring(protocol, np.asarray(value, np.float64), fractional_bits)
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


class _Shifted(Known):
    """Remembers a share with its point elsewhere: what several operations need truncated is truncated once."""

    def __init__(self) -> None:
        Share.__init__(self)
        self.shares: dict[tuple[Protocol, int], Share] = {}


def reveal_to(x: PrivateTensor, receiver: Party) -> PrivateTensor:
    """The plaintext at the receiver."""
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


def static_key(key: Any, shape: tuple[int, ...]) -> tuple[Any, ...]:
    """An index of whole numbers, slices, None and ..., checked against the shape."""
    parts = key if isinstance(key, tuple) else (key,)
    for part in parts:
        if not (part is None or part is Ellipsis or isinstance(part, slice) or _is_index(part)):
            raise ShapeError(
                f"An index is made of whole numbers, slices, None and ...; got {type(part).__name__}. "
                "Indexing by arrays or by private values is not there yet."
            )
    if any(isinstance(part, slice) and part.step is not None and not part.step for part in parts):
        raise ShapeError("The step of a slice is a whole number other than 0; got 0.")
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


# Last, as these modules are made of the classes above, whose operators call them.
from shareflow.protocol import arithmetic, compare, operand  # noqa: E402
