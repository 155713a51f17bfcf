"""Division of a fixed-point value by a power of two.

* :class:`ExactWrap`: never wrong by a wrap. Result z / 2^f + e with -1 < e <= 1 unit, rounded up or down by chance in
  proportion (a bias of 2^-f units). One opening, which a comparison that follows shares.
  Source: shareflow's own (docs/protocols/spdz.md, Truncation), in place of Catrina and Saxena 2010 in Z_2^64.
  Cost: the opening of z if it is not masked yet (8 bytes a server, 1 round); offline 16 bytes an element.
* :class:`Optimistic`: Mohassel and Zhang 2017 (SecureML), section 4.1: each server shifts its own share. No
  communication; an element is wrong, by about 2^(64 - f), with probability |z| / 2^64.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any, ClassVar

import tensorflow as tf

from shareflow.party.party import at_each
from shareflow.protocol.functionality.dealer import correct
from shareflow.ring import kernels
from shareflow.share.additive import Additive
from shareflow.share.masked import Masked
from shareflow.share.share import Share

# z' = z + 2^62 lies in [0, 2^63) for |z| < 2^62.
SIZE = 62
OFFSET = 1 << SIZE


class Truncation(abc.ABC):
    """How a protocol divides by 2^bits. ``needs`` is the kind of share that it works on."""

    needs: ClassVar[type[Share]]

    @abc.abstractmethod
    def truncate(self, z: Any, bits: int) -> Additive:
        """<z / 2^bits>."""


@dataclass(frozen=True)
class ExactWrap(Truncation):
    """Truncation of a masked value; right for every |z| < 2^62."""

    needs = Masked

    def truncate(self, z: Masked, bits: int) -> Additive:
        """<z / 2^bits>."""
        t, v = self.mask_parts(z, bits)
        shares = at_each(
            z.servers,
            lambda alpha, own_t, own_v, first: kernels.truncate_opened(
                self.offset(alpha, bits), own_t, own_v, shift=bits, leader=first
            ),
            z.opened,
            t,
            v,
            (True, False),
        )
        return Additive(z.servers, (shares[0], shares[1]))

    @staticmethod
    def offset(alpha: tf.Tensor, bits: int) -> tf.Tensor:
        """alpha' = z' - a. The extra unit 2^bits centres the error: E[result] = z / 2^bits."""
        return alpha + (OFFSET + (1 << bits))

    @staticmethod
    def mask_parts(z: Masked, bits: int) -> tuple[tuple[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
        """S2 corrects t = a >> bits and v = a63."""
        with z.dealer:
            t = kernels.shift_right_logical(z.mask, bits)
            v = kernels.shift_right_logical(z.mask, 63)
        return correct(z.servers, z.dealer, t), correct(z.servers, z.dealer, v)

    @classmethod
    def shifted(cls, z: Masked, t: tuple[tf.Tensor, tf.Tensor], bits: int) -> Masked:
        """The truncated value y, masked, right mod 2^(64-f) only: y = (A >> f) - 2^(62-f) + t.

        For a comparison, which reads no bits above. Local; ``t`` are the servers' parts of t.
        """
        opened = at_each(
            z.servers,
            lambda alpha: kernels.shift_right_logical(cls.offset(alpha, bits), bits) - (OFFSET >> bits),
            z.opened,
        )
        with z.dealer:
            mask = kernels.shift_right_logical(z.mask, bits)
        return Masked(z.servers, z.dealer, (opened[0], opened[1]), t, mask)

    @staticmethod
    def shifted_size(bits: int, size: int) -> int:
        """n with -2^n <= y < 2^n, of |z| < 2^size truncated to y.

        y may be rounded up to 2^(size-f); but a z that is truncated rightly is below 2^62 - 2^f.
        """
        return max(min(size - bits + 1, SIZE - bits), 1)


@dataclass(frozen=True)
class Optimistic(Truncation):
    """Truncation of each share by its holder; wrong with probability |z| / 2^64 for each element."""

    needs = Additive

    def truncate(self, z: Additive, bits: int) -> Additive:
        """<z / 2^bits>, with no communication."""
        server0, server1 = z.servers
        amount = tf.constant(bits, tf.int64)
        # TensorFlow's shift of int64 is arithmetic: the shares count as signed.
        with server0:
            part0 = tf.bitwise.right_shift(z.parts[0], amount)
        with server1:
            part1 = -tf.bitwise.right_shift(-z.parts[1], amount)
        return Additive(z.servers, (part0, part1))
