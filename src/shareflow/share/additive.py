"""Additive shares <x>: x = x0 + x1 mod 2^64, one part a server. Either part alone is uniform."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from shareflow.party.party import Party
from shareflow.share.share import Share


class Additive(Share):
    """<x>: ``parts[i]`` is server i's."""

    def __init__(self, servers: tuple[Party, Party], parts: tuple[tf.Tensor, tf.Tensor]) -> None:
        super().__init__()
        self.servers = servers
        self.parts = parts

    @property
    def parties(self) -> tuple[Party, ...]:
        return self.servers

    @property
    def components(self) -> tuple[tf.Tensor, ...]:
        return self.parts

    def with_components(self, components: Sequence[tf.Tensor]) -> Additive:
        return Additive(self.servers, (components[0], components[1]))
