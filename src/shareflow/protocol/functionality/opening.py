"""Opening: a value goes to both servers under a mask that only the dealer knows.

Cost: one round; each server sends the value's size to the other.
"""

from __future__ import annotations

import tensorflow as tf

from shareflow.party.party import Party, at_each
from shareflow.party.send import Kind, send
from shareflow.protocol.functionality.dealer import Combine
from shareflow.share.stream import Mask, fresh_mask


def open_under(
    servers: tuple[Party, Party],
    parts: tuple[tf.Tensor, tf.Tensor],
    mask: Mask,
    hide: Combine,
    join: Combine,
) -> tuple[tf.Tensor, tf.Tensor]:
    """alpha = hide(x, a) at each server, from parts of x: S_i sends hide(x_i, a_i), both join the two."""
    server0, server1 = servers
    hidden0, hidden1 = at_each(servers, hide, parts, mask.parts)
    at0 = send(hidden1, server1, server0, Kind.OPENING)
    at1 = send(hidden0, server0, server1, Kind.OPENING)
    alpha0, alpha1 = at_each(servers, join, (hidden0, at1), (at0, hidden1))
    return alpha0, alpha1


def open_ring(
    servers: tuple[Party, Party], dealer: Party, parts: tuple[tf.Tensor, tf.Tensor]
) -> tuple[tuple[tf.Tensor, tf.Tensor], Mask]:
    """alpha = x - a under a fresh mask a, and the mask."""
    mask = fresh_mask(servers, dealer, parts[0].shape, tf.add)
    return open_under(servers, parts, mask, tf.subtract, tf.add), mask


def open_bits(
    servers: tuple[Party, Party], dealer: Party, parts: tuple[tf.Tensor, tf.Tensor]
) -> tuple[tuple[tf.Tensor, tf.Tensor], Mask]:
    """m = v xor l under a fresh mask l of packed bits, and the mask."""
    xor = tf.bitwise.bitwise_xor
    mask = fresh_mask(servers, dealer, parts[0].shape, xor)
    return open_under(servers, parts, mask, xor, xor), mask
