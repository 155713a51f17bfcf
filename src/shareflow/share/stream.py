"""A stream two parties share, and masks made of such streams. Each holder makes it alone: nothing crosses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import tensorflow as tf

from shareflow.party.party import Party
from shareflow.party.session import current_execution
from shareflow.ring.uniform import uniform


@dataclass
class SharedStream:
    """PRG(key of the pair, execution, number): uniform ring elements that just these two parties know."""

    pair: tuple[Party, Party]
    shape: tuple[int, ...]
    number: int
    _made: dict[Party, tf.Tensor] = field(default_factory=dict)

    def at(self, holder: Party) -> tf.Tensor:
        """The stream, as the holder makes it."""
        if holder not in self._made:
            one, other = self.pair
            peer = other if holder == one else one
            execution = current_execution()
            with holder:
                key, index = execution.key(holder, peer), execution.index(holder)
                self._made[holder] = uniform(key, index, self.number, self.shape)
        return self._made[holder]


def shared_stream(one: Party, other: Party, shape: Sequence[int]) -> SharedStream:
    """A stream of two parties that was never used before."""
    return SharedStream((one, other), tuple(shape), current_execution().fresh_stream())


@dataclass
class Mask:
    """A mask dealt without communication: ``parts[i]`` at server i, the whole at the dealer."""

    parts: tuple[tf.Tensor, tf.Tensor]
    whole: tf.Tensor


def fresh_mask(
    servers: tuple[Party, Party],
    dealer: Party,
    shape: Sequence[int],
    combine: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
) -> Mask:
    """A uniform mask a = combine(a0, a1), a_i from a stream of the dealer and server i."""
    streams = tuple(shared_stream(server, dealer, shape) for server in servers)
    with dealer:
        whole = combine(streams[0].at(dealer), streams[1].at(dealer))
    return Mask((streams[0].at(servers[0]), streams[1].at(servers[1])), whole)
