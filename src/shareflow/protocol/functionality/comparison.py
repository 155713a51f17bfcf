"""Bits of a masked value, by masked evaluation of the carry; the sign is one of them.

Setting: servers S0, S1 and the dealer S2; semi-honest, no two collude.
Shares: x is masked, alpha = x - a. The result is a masked bit, opened: both servers know it up to S2's mask.
Source: shareflow's own (docs/protocols/spdz.md, Sign); the carry in G and P form is the classic prefix adder.
Names: alpha -> `opened`, a -> `mask`; G, P of a group of bits -> generate, propagate.
Cost, for each element and 63 bits with groups of 4 and two gates of radix 4: 3 rounds; online each server sends
    4 bytes (32 masked bits), 1 byte (8 bits) and 1/8 byte; offline 30 + 11 + 15/8 bytes go to the two servers.
    Each further threshold of the same x costs the same again, but for the 30 bytes. Other layouts: `Layout`.
"""

from __future__ import annotations

import abc
import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import tensorflow as tf

from shareflow.errors import ProtocolError
from shareflow.party.party import at_each
from shareflow.protocol.choices import Site, chosen
from shareflow.protocol.functionality.dealer import correct_bits
from shareflow.protocol.functionality.opening import open_bits
from shareflow.ring import kernels
from shareflow.share.boolean import MaskedBits
from shareflow.share.masked import Masked

SIGN = 63

_LEADER = (True, False)
_GROUPS = range(2, 7)
_RADICES = range(2, 9)


class Comparison(abc.ABC):
    """How a protocol finds bits of a masked value."""

    @abc.abstractmethod
    def at_least(self, x: Masked, thresholds: Sequence[int] = (0,), size: int = SIGN) -> MaskedBits:
        """<<[x >= t]>> for each public ring value t, of shape [len(thresholds), *x.shape].

        ``size``: |x - t| < 2^size for every t; the cost is in proportion to it.
        """

    @abc.abstractmethod
    def carry(self, x: Masked, bits: int) -> MaskedBits:
        """The carry that alpha + a hands on from its low ``bits`` bits; of x's shape."""


@dataclass(frozen=True)
class Layout:
    """How the bits below the sign are grouped: ``group`` bits a group, then gates that join ``gates[i]`` neighbours.

    More bits a group and wider gates: fewer rounds, more offline bytes. group is 2 to 6, a gate 2 to 8 wide. Without a
    gate there is one group, and one round.
    """

    group: int
    gates: tuple[int, ...]

    @property
    def covers(self) -> int:
        """How many bits it can take."""
        return self.group * math.prod(self.gates)

    @property
    def rounds(self) -> int:
        """One for the groups, one for each gate but the last, and one for the result."""
        return len(self.gates) + 1

    @property
    def online_bits(self) -> int:
        """Sent by each server for each element and threshold."""
        groups = math.prod(self.gates)
        return 1 + sum(2 * groups // math.prod(self.gates[:level]) for level in range(len(self.gates)))

    @property
    def offline_bits(self) -> int:
        """Dealt for each element and its first threshold."""
        return ((1 << self.group) - 1) * math.prod(self.gates) + self.gate_bits

    @property
    def gate_bits(self) -> int:
        """Dealt for each further threshold."""
        total, left = 0, math.prod(self.gates)
        for level, radix in enumerate(self.gates, 1):
            left //= radix
            total += left * kernels.gate_product_count(radix=radix, last=level == len(self.gates))
        return total

    def __str__(self) -> str:
        return f"groups of {self.group}, gates {' x '.join(map(str, self.gates)) or 'none'}"


@dataclass(frozen=True)
class Compared(Site):
    """A comparison of ``elements`` values by ``bits`` bits with each of ``thresholds``; its variants are layouts."""

    bits: int
    elements: int
    thresholds: int = 1

    def require(self, variant: object) -> None:
        if not isinstance(variant, Layout) or not is_layout(variant, self.bits):
            raise ProtocolError(
                f"A comparison of {self.bits} bits takes a Layout with a group of 2 to 6 bits and gates 2 to 8 wide, "
                f"whose product covers the bits; got {variant}."
            )

    def __str__(self) -> str:
        several = f" with {self.thresholds} thresholds" if self.thresholds > 1 else ""
        return f"compare {self.bits} bits of {self.elements}{several}"


def is_layout(layout: Layout, bits: int) -> bool:
    """Whether it can take so many bits."""
    return (
        layout.group in _GROUPS and all(radix in _RADICES for radix in layout.gates) and layout.covers >= max(bits, 1)
    )


@functools.cache
def layouts_for(bits: int) -> tuple[Layout, ...]:
    """All layouts that are worth a look for a number of bits, of each order of the same gates every one."""
    single = (Layout(group, ()) for group in _GROUPS if group >= bits)
    return (*itertools.islice(single, 1), *_layouts(bits))


@functools.cache
def layout_for(bits: int, prefer: str) -> Layout:
    """The layout for a number of bits: `latency` takes the fewest rounds, `bandwidth` the fewest bytes.

    `balanced` counts a round as much as 8 bytes an element, which gives groups of 4 and two gates of 4 for 63 bits.
    """
    weigh = {
        "latency": lambda plan: (plan.rounds, _bytes(plan)),
        "bandwidth": lambda plan: (_bytes(plan), plan.rounds),
        "balanced": lambda plan: (_bytes(plan) + 8 * plan.rounds, plan.rounds),
    }[prefer]
    return min((plan for plan in _layouts(bits)), key=weigh)


def _bytes(plan: Layout) -> float:
    return (2 * plan.online_bits + plan.offline_bits) / 8


def _layouts(bits: int) -> Iterator[Layout]:
    for group in _GROUPS:
        needed = -(-bits // group)
        for depth in range(1, 7):
            for gates in itertools.product(_RADICES, repeat=depth):
                # Wider than needed only in the last place that makes it fit.
                if needed <= math.prod(gates) < 2 * max(needed, 2):
                    yield Layout(group, gates)


@dataclass(frozen=True)
class MaskedCarry(Comparison):
    """x = alpha + a, so bit i of x is alpha_i xor a_i xor the carry out of the low i bits of the sum.

    Args:
        group, gates: a layout to use wherever it covers the bits; chosen by ``prefer`` where not given.
        prefer: `balanced`, `latency` (few rounds, for far networks) or `bandwidth` (few bytes, for slow ones).
    """

    group: int | None = None
    gates: tuple[int, ...] | None = None
    prefer: str = "balanced"

    def __post_init__(self) -> None:
        if self.prefer not in ("balanced", "latency", "bandwidth"):
            raise ProtocolError(f"prefer is 'balanced', 'latency' or 'bandwidth'; got {self.prefer!r}.")
        if (self.group is None) != (self.gates is None):
            raise ProtocolError("A layout is given as both group and gates, or as neither.")
        if self.group is not None and self.gates is not None:
            covers = Layout(self.group, self.gates).covers
            if covers < SIGN or self.group not in _GROUPS or any(radix not in _RADICES for radix in self.gates):
                raise ProtocolError(
                    f"group (2 to 6) times the product of gates (2 to 8 each) covers the {SIGN} bits below the sign; "
                    f"group {self.group} and gates {self.gates} do not. The default is group 4 and gates (4, 4)."
                )

    def layout(self, bits: int) -> Layout:
        """The layout for that many bits below the one that is wanted."""
        if bits == SIGN and self.group is not None and self.gates is not None:
            return Layout(self.group, self.gates)
        return layout_for(bits, self.prefer)

    def at_least(self, x: Masked, thresholds: Sequence[int] = (0,), size: int = SIGN) -> MaskedBits:
        # x - t keeps x's mask: one set of the mask's products serves all thresholds.
        opened = at_each(x.servers, lambda alpha: [alpha - t if t else alpha for t in thresholds], x.opened)
        carries = self._carries(x, opened, size)
        xor = tf.bitwise.bitwise_xor

        # [x >= t] = 1 xor bit `size` of x - t. The dealer knows its mask's bit: counted into the mask of the opening,
        # the servers never need a share of it.
        def outside(carry: tf.Tensor, alphas: list[tf.Tensor], first: bool) -> tf.Tensor:
            return xor(carry, tf.bitwise.invert(_bit(alphas, size))) if first else carry

        parts = at_each(x.servers, outside, carries, opened, _LEADER)
        shape = (len(thresholds), *x.shape)
        return self._open(x, parts, shape, [x.mask] * len(thresholds), size)

    def carry(self, x: Masked, bits: int) -> MaskedBits:
        return self._open(
            x, self._carries(x, tuple([alpha] for alpha in x.opened), bits), (1, *x.shape), None, bits
        ).row()

    def _open(
        self,
        x: Masked,
        parts: tuple[tf.Tensor, ...],
        shape: tuple[int, ...],
        outside: list[tf.Tensor] | None,
        position: int,
    ) -> MaskedBits:
        opened, mask = open_bits(x.servers, x.dealer, (parts[0], parts[1]))
        with x.dealer:
            hidden = mask.whole
            if outside is not None:
                hidden = tf.bitwise.bitwise_xor(hidden, _bit(outside, position))
        return MaskedBits(x.servers, x.dealer, opened, hidden, shape, rows=shape[0])

    def _carries(self, x: Masked, opened: tuple[list[tf.Tensor], ...], bits: int) -> tuple[tf.Tensor, ...]:
        """XOR shares of the carry out of the low bits of alpha + a, for several alpha under one a; packed in rows."""
        servers, dealer = x.servers, x.dealer
        plan = chosen(Compared(bits, math.prod(x.shape), len(opened[0])), self.layout(bits))
        groups = math.prod(plan.gates)

        # 1. S2 corrects the products of a's bits in each group: G and P of a group are then local.
        with dealer:
            products = kernels.group_products(x.mask, bits=bits, group=plan.group, groups=groups)

        def polynomials(alphas: list[tf.Tensor], own: tf.Tensor, first: bool) -> tf.Tensor:
            each = [
                kernels.group_polynomials(alpha, own, bits=bits, group=plan.group, groups=groups, leader=first)
                for alpha in alphas
            ]
            return tf.concat(each, -1) if len(each) > 1 else each[0]

        shares = at_each(servers, polynomials, opened, correct_bits(servers, dealer, products), _LEADER)

        # 2. A gate joins `radix` neighbours: G' = xor_k G_k and_{j>k} P_j, P' = and_j P_j, on opened masked bits.
        for level, radix in enumerate(plan.gates, 1):
            last = level == len(plan.gates)
            masked, mask = open_bits(servers, dealer, (shares[0], shares[1]))
            with dealer:
                products = kernels.gate_products(mask.whole, radix=radix, last=last)
            shares = at_each(
                servers,
                lambda m, own_mask, own, first, radix=radix, last=last: kernels.gate(
                    m, own_mask, own, radix=radix, last=last, leader=first
                ),
                masked,
                mask.parts,
                correct_bits(servers, dealer, products),
                _LEADER,
            )
        return at_each(servers, lambda carry: carry[0, 0], shares)


def _bit(values: Sequence[tf.Tensor], position: int) -> tf.Tensor:
    """Bit `position` of each value, packed in rows: row k holds the bits of values[k]."""
    rows = [kernels.pack_bits(kernels.shift_right_logical(value, position)) for value in values]
    return tf.concat(rows, 0) if len(rows) > 1 else rows[0]
