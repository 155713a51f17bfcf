"""A plaintext value that one party knows, and nobody else."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from shareflow.party.party import Party
from shareflow.share.share import Share


class Known(Share):
    """Real numbers at their owner, as an ordinary tensor; not yet encoded, not yet shared."""

    def __init__(self, owner: Party, value: tf.Tensor) -> None:
        super().__init__()
        self.owner = owner
        self.value = value

    @property
    def parties(self) -> tuple[Party, ...]:
        return (self.owner,)

    @property
    def components(self) -> tuple[tf.Tensor, ...]:
        return (self.value,)

    def with_components(self, components: Sequence[tf.Tensor]) -> Known:
        return Known(self.owner, components[0])
