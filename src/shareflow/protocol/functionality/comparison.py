"""The sign of a masked value, by masked evaluation of the carry.

Setting: servers S0, S1 and the dealer S2; semi-honest, no two collude.
Shares: x is masked, alpha = x - a. The result is a masked bit d = [x >= 0].
Source: shareflow's own (docs/protocols/spdz.md, Sign); the carry in G and P form is the classic prefix adder.
Names: alpha -> `opened`, a -> `mask`; G, P of a group of bits -> generate, propagate.
Cost, for each element with groups of 4 bits and two gates of radix 4: 3 rounds; online each server sends
4 bytes (32 masked bits), 1 byte (8 bits) and 1/8 byte; offline 30 + 11 + 11/8 bytes go to the two servers.
"""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass

import tensorflow as tf

from shareflow.party.party import at_each
from shareflow.protocol.functionality.dealer import correct_bits
from shareflow.protocol.functionality.opening import open_bits
from shareflow.ring import kernels
from shareflow.share.boolean import MaskedBits
from shareflow.share.masked import Masked

_SIGN = 63


class Comparison(abc.ABC):
    """How a protocol finds the sign of a masked value."""

    @abc.abstractmethod
    def non_negative(self, x: Masked) -> MaskedBits:
        """<<[x >= 0]>>, opened."""


@dataclass(frozen=True)
class MaskedCarry(Comparison):
    """x = alpha + a, so bit 63 of x is alpha63 xor a63 xor the carry out of the low 63 bits of the sum.

    ``group`` bits make one group, and each entry of ``gates`` joins that many neighbours: with more bits a
    group there are fewer rounds and more offline bytes. group * product(gates) >= 63.
    """

    group: int = 4
    gates: tuple[int, ...] = (4, 4)

    def __post_init__(self) -> None:
        if self.group * math.prod(self.gates) < _SIGN:
            raise ValueError(
                f"group * product(gates) covers the {_SIGN} bits below the sign; "
                f"{self.group} * {math.prod(self.gates)} does not. The default is group 4 and gates (4, 4)."
            )

    def non_negative(self, x: Masked) -> MaskedBits:
        servers, dealer = x.servers, x.dealer
        leader = (True, False)
        groups = math.prod(self.gates)

        # 1. S2 corrects the products of a's bits in each group: G and P of a group are then local.
        with dealer:
            products = kernels.group_products(x.mask, bits=_SIGN, group=self.group, groups=groups)
        shares = at_each(
            servers,
            lambda alpha, own, first: kernels.group_polynomials(
                alpha, own, bits=_SIGN, group=self.group, groups=groups, leader=first
            ),
            x.opened,
            correct_bits(servers, dealer, products),
            leader,
        )

        # 2. A gate joins `radix` neighbours: G' = xor_k G_k and_{j>k} P_j, P' = and_j P_j, on opened masked bits.
        for level, radix in enumerate(self.gates, 1):
            last = level == len(self.gates)
            opened, mask = open_bits(servers, dealer, (shares[0], shares[1]))
            with dealer:
                products = kernels.gate_products(mask.whole, radix=radix, last=last)
            shares = at_each(
                servers,
                lambda m, own_mask, own, first, radix=radix, last=last: kernels.gate(
                    m, own_mask, own, radix=radix, last=last, leader=first
                ),
                opened,
                mask.parts,
                correct_bits(servers, dealer, products),
                leader,
            )

        # 3. d = 1 xor carry xor alpha63 xor a63. The dealer knows a63: with it counted into the mask of the
        #    opening (l xor a63), the servers never need a share of it.
        xor = tf.bitwise.bitwise_xor

        def outside(carry: tf.Tensor, alpha: tf.Tensor, first: bool) -> tf.Tensor:
            bits = carry[0, 0]
            return xor(bits, tf.bitwise.invert(_signs(alpha))) if first else bits

        parts = at_each(servers, outside, shares, x.opened, leader)
        opened, mask = open_bits(servers, dealer, (parts[0], parts[1]))
        with dealer:
            hidden = xor(mask.whole, _signs(x.mask))
        return MaskedBits(servers, dealer, opened, hidden, x.shape)


def _signs(x: tf.Tensor) -> tf.Tensor:
    return kernels.pack_bits(kernels.shift_right_logical(x, _SIGN))
