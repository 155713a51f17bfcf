"""Private variables: values that the parties keep between calls, in masked form."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from shareflow.errors import PlacementError, ShapeError
from shareflow.protocol.default import current_protocol
from shareflow.protocol.protocol import Protocol
from shareflow.protocol.tensor import PrivateTensor, PrivateValue
from shareflow.share.share import template


class PrivateVariable(PrivateValue):
    """A private value that can be assigned. Each party keeps its own components.

    It is kept masked, so that a model's weights are masked once, when they are loaded or assigned, and serve
    every call after. It may be used from any number of shareflow functions.

    Args:
        initial: a private tensor; one that a party knows is shared, in ``protocol`` or the current one.
        fractional_bits: the scale to keep it at; the encoding's own by default. A bias kept at a product's scale
            is added without rounding.

    Rounds: assigning masks the value, one round, unless it is masked already.
    """

    def __init__(
        self,
        initial: PrivateValue,
        protocol: Protocol | None = None,
        fractional_bits: int | None = None,
        name: str | None = None,
    ) -> None:
        if not isinstance(initial, PrivateValue):
            raise ShapeError(
                f"A private variable begins with a private tensor; got {type(initial).__name__}. "
                "Say whose it is: shareflow.private_tensor(value, owner=...)."
            )
        if not tf.executing_eagerly():
            raise PlacementError(
                "A private variable outlives a call, so it is made outside of any function; this one is made while a "
                "function is traced. Make it before, and assign to it inside: variable.assign(value)."
            )
        value = initial.read()
        self.protocol = protocol or value.protocol or current_protocol()
        value = value.shared(self.protocol, fractional_bits)
        value = value.ready() if fractional_bits is None else value.at_scale(fractional_bits)
        self.fractional_bits = value.fractional_bits
        form = self.protocol.reusable(value.share)
        self._parts = tuple(tf.Variable(part, trainable=False, name=name) for part in form.components)
        self._template = template(form)
        self._shape = value.shape

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape

    def read(self) -> PrivateTensor:
        parts = []
        for party, part in zip(self._template.parties, self._parts, strict=True):
            with party:
                parts.append(part.read_value())
        return PrivateTensor(self._template.with_components(parts), self.fractional_bits, self.protocol)

    def assign(self, value: Any) -> PrivateVariable:
        """Keeps a new value of the same shape.

        Raises:
            ShapeError: it is not private, or its shape is another.
        """
        if not isinstance(value, PrivateValue):
            raise ShapeError("A private variable is assigned a private tensor; make the value one first.")
        if value.shape != self.shape:
            raise ShapeError(f"A variable keeps its shape {self.shape}; the value assigned has {value.shape}.")
        tensor = value.read().shared(self.protocol, self.fractional_bits).at_scale(self.fractional_bits)
        form = self.protocol.reusable(tensor.share)
        for party, part, new in zip(form.parties, self._parts, form.components, strict=True):
            with party:
                part.assign(new)
        return self

    def __repr__(self) -> str:
        return f"<PrivateVariable shape={self.shape}, {self.fractional_bits} fractional bits>"
