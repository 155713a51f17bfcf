"""A ring value that everyone knows: a constant of the program, or a public argument of it."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from shareflow.party.party import Party
from shareflow.share.share import Share


class Public(Share):
    """A ring tensor that belongs to no party and that each may use."""

    def __init__(self, value: tf.Tensor) -> None:
        super().__init__()
        self.value = value

    @property
    def parties(self) -> tuple[Party, ...]:
        return ()

    @property
    def components(self) -> tuple[tf.Tensor, ...]:
        return ()

    def with_components(self, components: Sequence[tf.Tensor]) -> Public:
        raise NotImplementedError("a public value has no components")

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.value.shape)
