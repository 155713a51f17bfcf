"""The dealer's one gift: a correction.

Setting: servers S0, S1 and the dealer S2, who takes no input and sends nothing that depends on one.
Names: "S2 corrects c" in docs/protocols/spdz.md: S2 knows c, computed from masks; one server takes its part
from a stream that it shares with S2, and S2 sends c minus that stream to the other.
Cost: one ring element (or one word of bits) from the dealer to one server, offline. The receiving server is
the one that was dealt less so far, so both links carry half.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import tensorflow as tf

from shareflow.party.party import Party
from shareflow.party.send import Kind, send
from shareflow.party.session import current_execution
from shareflow.share.stream import shared_stream

Combine = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def correct(servers: tuple[Party, Party], dealer: Party, value: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Additive parts, one a server, of a ring tensor that the dealer knows."""
    return _deal(servers, dealer, value, tf.subtract)


def correct_bits(servers: tuple[Party, Party], dealer: Party, value: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """XOR parts, one a server, of packed bits that the dealer knows."""
    return _deal(servers, dealer, value, tf.bitwise.bitwise_xor)


def _deal(
    servers: tuple[Party, Party], dealer: Party, value: tf.Tensor, difference: Combine
) -> tuple[tf.Tensor, tf.Tensor]:
    receiver = current_execution().lighter(servers, math.prod(value.shape), Kind.CORRECTION)
    keeper = servers[1] if receiver == servers[0] else servers[0]
    pad = shared_stream(keeper, dealer, value.shape)
    with dealer:
        correction = difference(value, pad.at(dealer))
    parts = {keeper: pad.at(keeper), receiver: send(correction, dealer, receiver, Kind.CORRECTION)}
    return parts[servers[0]], parts[servers[1]]
