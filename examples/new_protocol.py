"""A protocol in one file: replicated shares among three parties, no dealer. docs/adding.md tells about it.

Setting: three parties that all compute; semi-honest, no two collude. A teaching example: it has addition, products
    and revealing, and no truncation or comparison.
Shares: x = x0 + x1 + x2 mod 2^64; party i holds x_i and x_{i+1}. The one part that it lacks hides x from it.
Paper: Araki et al. 2016, written with a sum of three parts, over the integers mod 2^64.
Cost: a product: 1 round, 8 bytes an element of the result from each party. An input: 32 bytes an element from its
    owner, fewer if that is a computing party. A result: 1 round, 8 bytes an element from each party.
Leaks: shapes, scales and the program. Not provided: security against parties that deviate.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

import shareflow as sf
from shareflow.party.send import Kind, send
from shareflow.protocol.op import BILINEAR, LINEAR, Op
from shareflow.protocol.protocol import Protocol
from shareflow.protocol.rules import Rules
from shareflow.share.known import Known
from shareflow.share.public import Public
from shareflow.share.share import Share, linear
from shareflow.share.stream import shared_stream

Parties = tuple[sf.Party, sf.Party, sf.Party]
rules = Rules()


class Replicated(Share):
    """``own[i]`` is x_i and ``next[i]`` is x_{i+1}, both at party i."""

    def __init__(self, holders: Parties, own: Sequence[tf.Tensor], following: Sequence[tf.Tensor]) -> None:
        super().__init__()
        self.holders, self.own, self.next = holders, tuple(own), tuple(following)

    @property
    def parties(self) -> tuple[sf.Party, ...]:
        return (*self.holders, *self.holders)

    @property
    def components(self) -> tuple[tf.Tensor, ...]:
        return (*self.own, *self.next)

    def with_components(self, components: Sequence[tf.Tensor]) -> "Replicated":
        return Replicated(self.holders, components[:3], components[3:])


@dataclass(frozen=True)
class ThreeParties(Protocol):
    """Three parties that all compute."""

    holders: Parties = (sf.Party("one"), sf.Party("two"), sf.Party("three"))
    fixed_point: sf.FixedPoint = field(default_factory=sf.FixedPoint)
    rules: ClassVar[Rules] = rules

    @property
    def computing_parties(self) -> Parties:
        return self.holders

    def share(self, known: Known, fractional_bits: int) -> Replicated:
        """x_{k+1} and x_{k+2} are streams of the owner and one holder each; x_k is what x lacks then."""
        owner = known.owner
        k = self.holders.index(owner) if owner in self.holders else 0
        with owner:
            x = self.fixed_point.encode(known.value, fractional_bits)
        pads = {i % 3: shared_stream(owner, self.holders[i % 3], x.shape) for i in (k + 1, k + 2)}
        with owner:
            rest = x - sum(pad.at(owner) for pad in pads.values())
        own, following = [], []
        for i, holder in enumerate(self.holders):
            before = self.holders[i - 1]
            part = pads[i].at(owner) if i in pads else rest
            own.append(pads[i].at(holder) if i in pads else send(part, owner, holder, Kind.INPUT))
            following.append(send(part, owner, before, Kind.INPUT))
        return Replicated(self.holders, own, (*following[1:], following[0]))

    def reveal(self, share: Share, receiver: sf.Party) -> tf.Tensor:
        """The three parts at the receiver, with a fresh share of zero."""
        x = self.rules.convert(self, share, Replicated)
        parts = [send(part, at, receiver, Kind.RESULT) for at, part in self.with_zero(x.own)]
        with receiver:
            return tf.add_n(parts)

    def reusable(self, share: Share) -> Replicated:
        return self.rules.convert(self, share, Replicated)

    def with_zero(self, parts: Sequence[tf.Tensor]) -> list[tuple[sf.Party, tf.Tensor]]:
        """Party i's part plus r_i - r_{i-1}, where r_i is a stream of parties i and i + 1: the sum stays."""
        streams = [shared_stream(self.holders[i], self.holders[(i + 1) % 3], parts[0].shape) for i in range(3)]
        result = []
        for i, holder in enumerate(self.holders):
            with holder:
                result.append((holder, parts[i] + streams[i].at(holder) - streams[i - 1].at(holder)))
        return result


@rules.rule(LINEAR, Replicated)
def _linear(protocol: ThreeParties, op: Op, *shares: Replicated, **attributes: Any) -> Replicated:
    return linear(lambda *own: op.ring(*own, **attributes), *shares)


@rules.lift(Public, Replicated, cost=1)
def _public(protocol: ThreeParties, x: Public) -> Replicated:
    zero = tf.zeros_like(x.value)
    # Part x_0 is the value: party 0 holds it as its own, party 2 as its next.
    return Replicated(protocol.holders, (x.value, zero, zero), (zero, zero, x.value))


@rules.rule(BILINEAR, Replicated, Public)
def _by_public(protocol: ThreeParties, op: Op, x: Replicated, c: Public, **attributes: Any) -> Replicated:
    return linear(lambda own: op.ring(own, c.value, **attributes), x)


@rules.rule(BILINEAR, Public, Replicated)
def _public_by(protocol: ThreeParties, op: Op, c: Public, x: Replicated, **attributes: Any) -> Replicated:
    return linear(lambda own: op.ring(c.value, own, **attributes), x)


@rules.rule(BILINEAR, Replicated, Replicated)
def _bilinear(protocol: ThreeParties, op: Op, x: Replicated, y: Replicated, **attributes: Any) -> Replicated:
    """z_i = op(x_i, y_i + y_{i+1}) + op(x_{i+1}, y_i) + a share of zero; party i hands z_i to party i - 1."""
    products = []
    for i, holder in enumerate(protocol.holders):
        with holder:
            first = op.ring(x.own[i], y.own[i] + y.next[i], **attributes)
            products.append(first + op.ring(x.next[i], y.own[i], **attributes))
    hidden = protocol.with_zero(products)
    own = [part for _, part in hidden]
    handed = [send(part, at, protocol.holders[i - 1], Kind.OPENING) for i, (at, part) in enumerate(hidden)]
    return Replicated(protocol.holders, own, (*handed[1:], handed[0]))


def main() -> None:
    """A product of two parties' matrices, with a public offset, and what it cost."""
    x = sf.private_tensor(np.array([[1.0, 2.0], [3.0, 4.0]]), "alice")
    y = sf.private_tensor(np.array([[0.5, -1.0], [0.25, 2.0]]), "two")

    @sf.function
    def program(x: sf.PrivateTensor, y: sf.PrivateTensor) -> sf.PrivateTensor:
        with ThreeParties():
            return (x @ y + 10).reveal("bob")

    print(program(x, y).numpy())
    cost = program.cost(x, y)
    print(f"{cost.rounds} rounds, {cost.online_bytes} bytes, {cost.offline_bytes} of them dealt ahead")
    try:
        with ThreeParties():
            sf.relu(x @ y)
    except sf.errors.MissingRuleError as error:
        print("MissingRuleError:", error)


if __name__ == "__main__":
    main()
