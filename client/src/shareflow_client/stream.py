"""Streams of uniform ring elements that two parties make alone, each from the key they share: AES-128 in counter mode.

Block b of stream s in execution e is AES-128(key, c), with c the 16 bytes of the little-endian integer
``e << 64 | s << 32 | b``. The ciphertext's two little-endian words are elements 2b and 2b + 1.
The same as shareflow's kernel `uniform`, bit by bit. What hides a value is used once: (key, e, s) never repeats.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB

KEY_BYTES = 16
_STREAMS = 1 << 31
_ELEMENTS = 1 << 33
_BLOCK = 16
# Blocks that are encrypted at once: their counters stay in the cache.
_AT_ONCE = 1 << 14


def uniform(key: bytes, execution: int, stream: int, shape: Sequence[int]) -> np.ndarray:
    """An int64 array of ``shape``, uniform to all who do not hold the key.

    Args:
        key: 16 bytes.
        execution: 0 <= execution < 2^64.
        stream: 0 <= stream < 2^31.
        shape: at most 2^33 elements.

    Raises:
        ValueError: an argument is out of its bounds. The text never holds the key.
    """
    if not isinstance(key, bytes) or len(key) != KEY_BYTES:
        raise ValueError(f"A stream's key is {KEY_BYTES} bytes. Take it from Link.key.")
    if not 0 <= execution < 1 << 64:
        raise ValueError(f"An execution index is from 0 to 2^64 - 1, not {execution}. Take the dealer's.")
    if not 0 <= stream < _STREAMS:
        raise ValueError(f"A stream's number is from 0 to 2^31 - 1, not {stream}. Take the plan's.")
    shape = tuple(shape)
    count = math.prod(shape)
    if any(size < 0 for size in shape) or count > _ELEMENTS:
        raise ValueError(f"A stream fills a shape of 0 to 2^33 elements, not {list(shape)}. Split it into several.")
    blocks = -(-count // 2)
    # The cipher wants room for one block less a byte beyond what it writes.
    made = np.empty(blocks * _BLOCK + _BLOCK, np.uint8)
    counters = np.empty((min(blocks, _AT_ONCE), 2), "<u8")
    counters[:, 0] = np.arange(len(counters), dtype=np.uint64)
    counters[:, 0] += np.uint64(stream << 32)
    counters[:, 1] = np.uint64(execution)
    encryptor = Cipher(AES(key), ECB()).encryptor()
    for first in range(0, blocks, _AT_ONCE):
        now = min(_AT_ONCE, blocks - first)
        encryptor.update_into(counters[:now].data.cast("B"), made[first * _BLOCK :].data)
        counters[:, 0] += np.uint64(_AT_ONCE)
    elements = made[: count * 8].view("<i8").astype(np.int64, copy=False)
    return elements.reshape(shape)
