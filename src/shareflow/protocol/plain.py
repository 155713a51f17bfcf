"""No secrets at all: the same interface on ring elements in the clear. The oracle of every test.

Setting: one party that knows everything. Shares: :class:`Clear`, the ring value itself.
Cost: none. Scales, encodings and the ring's wrap are those of the real protocols; truncation is to nearest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import tensorflow as tf

from shareflow.party.party import Party
from shareflow.party.send import Kind, send
from shareflow.protocol.op import BILINEAR, INTERACTIVE, LINEAR, Op
from shareflow.protocol.protocol import Protocol
from shareflow.protocol.rules import Rules
from shareflow.ring.fixed_point import FixedPoint
from shareflow.share.known import Known
from shareflow.share.public import Public
from shareflow.share.share import Share, linear

rules = Rules()


class Clear(Share):
    """A ring value in the clear, at one party."""

    def __init__(self, holder: Party, value: tf.Tensor) -> None:
        super().__init__()
        self.holder = holder
        self.value = value

    @property
    def parties(self) -> tuple[Party, ...]:
        return (self.holder,)

    @property
    def components(self) -> tuple[tf.Tensor, ...]:
        return (self.value,)

    def with_components(self, components: Sequence[tf.Tensor]) -> Clear:
        return Clear(self.holder, components[0])


@dataclass(frozen=True)
class Plain(Protocol):
    """Computes at one party, in the clear. For tests and for finding out what fixed point costs."""

    holder: Party = field(default_factory=lambda: Party("plain"))
    fixed_point: FixedPoint = field(default_factory=FixedPoint)

    rules: ClassVar[Rules] = rules

    @property
    def computing_parties(self) -> tuple[Party, ...]:
        return (self.holder,)

    def share(self, known: Known, fractional_bits: int) -> Clear:
        with known.owner:
            value = self.fixed_point.encode(known.value, fractional_bits)
        return Clear(self.holder, send(value, known.owner, self.holder, Kind.PLAINTEXT))

    def reveal(self, share: Share, receiver: Party) -> tf.Tensor:
        value = self.rules.convert(self, share, Clear).value
        return send(value, self.holder, receiver, Kind.PLAINTEXT)

    def reusable(self, share: Share) -> Clear:
        return self.rules.convert(self, share, Clear)


@rules.lift(Public, Clear, cost=1)
def _public(plain: Plain, x: Public) -> Clear:
    return Clear(plain.holder, x.value)


@rules.rule(LINEAR, Clear)
@rules.rule(BILINEAR, Clear, Clear)
@rules.rule(INTERACTIVE, Clear)
def _clear(plain: Plain, op: Op, *shares: Clear, **attributes: Any) -> Clear:
    return linear(lambda *own: op.ring(*own, **attributes), *shares)
