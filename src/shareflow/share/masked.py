"""Masked shares <<x>>: both servers know alpha = x - a; the dealer knows the mask a = a0 + a1, server i its a_i.

Paper: Dahl et al. 2018, section 2 (masked tensors). The mask is made of two streams, one that the dealer
shares with each server, so that dealing it costs no communication.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from shareflow.party.party import Party, at_each
from shareflow.share.additive import Additive
from shareflow.share.share import Share


class Masked(Share):
    """<<x>>. ``opened[i]`` is server i's copy of alpha, ``mask_parts[i]`` its a_i, ``mask`` the dealer's a."""

    def __init__(
        self,
        servers: tuple[Party, Party],
        dealer: Party,
        opened: tuple[tf.Tensor, tf.Tensor],
        mask_parts: tuple[tf.Tensor, tf.Tensor],
        mask: tf.Tensor,
    ) -> None:
        super().__init__()
        self.servers = servers
        self.dealer = dealer
        self.opened = opened
        self.mask_parts = mask_parts
        self.mask = mask

    @property
    def parties(self) -> tuple[Party, ...]:
        return (*self.servers, *self.servers, self.dealer)

    @property
    def components(self) -> tuple[tf.Tensor, ...]:
        return (*self.opened, *self.mask_parts, self.mask)

    def with_components(self, components: Sequence[tf.Tensor]) -> Masked:
        alpha0, alpha1, a0, a1, a = components
        return Masked(self.servers, self.dealer, (alpha0, alpha1), (a0, a1), a)

    def shift(self, public: tf.Tensor) -> Masked:
        """<<x + c>> for a public ring value c, under the same mask."""
        opened = at_each(self.servers, lambda alpha: alpha + public, self.opened)
        # The mask takes the shape of the sum.
        shape = opened[0].shape
        if shape == self.mask.shape:
            return Masked(self.servers, self.dealer, opened, self.mask_parts, self.mask)
        wide = at_each(self.servers, lambda part: tf.broadcast_to(part, shape), self.mask_parts)
        with self.dealer:
            mask = tf.broadcast_to(self.mask, shape)
        return Masked(self.servers, self.dealer, opened, wide, mask)

    def additive(self) -> Additive:
        """<x>, locally: x0 = alpha + a0 and x1 = a1."""
        kept = self.lifted(Additive)
        if kept is None:
            server0, _ = self.servers
            with server0:
                part0 = self.opened[0] + self.mask_parts[0]
            kept = Additive(self.servers, (part0, self.mask_parts[1]))
            # Each form knows the other: what is masked already is never masked again.
            kept.keep(self)
            self.keep(kept)
        return kept
