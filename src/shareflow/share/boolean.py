"""Masked bits: both servers know m = v xor l; the dealer knows the mask l, of which each server holds a part.

Bits are packed, 64 values a word (value j is bit j mod 64 of word j // 64), so one XOR or AND works on 64 of
them. They have no linear algebra over the integers: arithmetic converts them first (spdz.py, `bits_to_ring`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import tensorflow as tf

from shareflow.party.party import Party, at_each
from shareflow.ring import kernels
from shareflow.share.share import Share


class MaskedBits(Share):
    """<<v>> of bits. ``opened[i]`` is server i's copy of m, ``mask`` the dealer's l.

    The first axis is packed in ``rows`` of whole words, int64[rows * ceil(n / 64)] for rows of n bits.
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
        rows: int = 1,
    ) -> None:
        super().__init__()
        self.servers = servers
        self.dealer = dealer
        self.opened = opened
        self.mask = mask
        self._shape = shape
        self.rows = rows

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
        return MaskedBits(self.servers, self.dealer, (m0, m1), mask, self._shape, self.rows)

    def unpack(self, words: tf.Tensor) -> tf.Tensor:
        """Packed bits of this form as 0 and 1, of this shape."""
        if self.rows == 1:
            return kernels.unpack_bits(words, self._shape)
        padded = words.shape[0] // self.rows * 64
        bits = tf.reshape(kernels.unpack_bits(words, (self.rows * padded,)), [self.rows, padded])
        return tf.reshape(bits[:, : math.prod(self._shape[1:])], self._shape)

    def row(self, number: int = 0) -> MaskedBits:
        """One row of the first axis, without that axis."""
        width = self.mask.shape[0] // self.rows
        m0, m1, mask = at_each(
            self.parties, lambda words: words[number * width : (number + 1) * width], self.components
        )
        return MaskedBits(self.servers, self.dealer, (m0, m1), mask, self._shape[1:])

    def invert(self) -> MaskedBits:
        """<<not v>>, under the same mask."""
        m0, m1 = at_each(self.servers, tf.bitwise.invert, self.opened)
        return self.with_components((m0, m1, self.mask))
