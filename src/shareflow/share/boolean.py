"""Masked bits: both servers know m = v xor l; the dealer knows the mask l, of which each server holds a part.

Bits are packed, 64 values a word (value j is bit j mod 64 of word j // 64), so one XOR or AND works on 64 of
them. They have no linear algebra over the integers: arithmetic converts them first (spdz.py, `bits_to_ring`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import tensorflow as tf

from shareflow.party.party import Party
from shareflow.share.share import Share


class MaskedBits(Share):
    """<<v>> of bits. ``opened[i]`` is server i's copy of m, ``mask`` the dealer's l; all int64[ceil(n / 64)].

    The servers hold no part of l: what needs one is dealt as a ring element (`bits_to_ring`, relu).
    """

    linear: ClassVar[bool] = False

    def __init__(
        self,
        servers: tuple[Party, Party],
        dealer: Party,
        opened: tuple[tf.Tensor, tf.Tensor],
        mask: tf.Tensor,
        shape: tuple[int, ...],
    ) -> None:
        super().__init__()
        self.servers = servers
        self.dealer = dealer
        self.opened = opened
        self.mask = mask
        self._shape = shape

    @property
    def parties(self) -> tuple[Party, ...]:
        return (*self.servers, self.dealer)

    @property
    def components(self) -> tuple[tf.Tensor, ...]:
        return (*self.opened, self.mask)

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape

    def with_components(self, components: Sequence[tf.Tensor]) -> MaskedBits:
        m0, m1, mask = components
        return MaskedBits(self.servers, self.dealer, (m0, m1), mask, self._shape)

    def invert(self) -> MaskedBits:
        """<<not v>>, under the same mask."""
        m0, m1 = (tf.bitwise.invert(m) for m in self.opened)
        return self.with_components((m0, m1, self.mask))
