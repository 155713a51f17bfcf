"""A second place that remembers how far a store has come, so that an older copy of the store is noticed.

The file lies on another disk than the store, best one that is not part of the same snapshots. It holds the number
of the last transaction twice, in turn, so that a torn write leaves the one before.

    slot = transaction (8 bytes) || store id (16) || tag (32),  at 64 * (transaction mod 2)
"""

from __future__ import annotations

import hmac
import os
from pathlib import Path

from shareflow.runtime.store.keys import ID_BYTES, StoreKeys, joined
from shareflow_client.errors import StoreError

_SLOT_BYTES = 64


class Witness:
    """The open file of one store's witness."""

    def __init__(self, path: Path, keys: StoreKeys, store_id: bytes) -> None:
        self.path = path
        self._keys = keys
        self._id = store_id
        new = not path.exists()
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        if new:
            folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def last(self) -> int | None:
        """The last transaction it saw; None where it saw none. StoreError where it is another store's."""
        content = os.pread(self._file, 2 * _SLOT_BYTES, 0)
        slots = [content[k : k + 8 + ID_BYTES + 32] for k in (0, _SLOT_BYTES)]
        seen = [
            int.from_bytes(slot[:8], "little")
            for slot in slots
            if slot[8 : 8 + ID_BYTES] == self._id and hmac.compare_digest(slot[8 + ID_BYTES :], self._tag(slot[:8]))
        ]
        if not seen and any(content):
            raise StoreError(
                f"the witness {self.path} belongs to another store, or was changed. Either the store was replaced "
                "(do not use it before you know why), or this is a new store: then remove the witness first."
            )
        return max(seen, default=None)

    def note(self, transaction: int) -> None:
        """Remembers, durably, that the store has come this far. Raises OSError."""
        number = transaction.to_bytes(8, "little")
        os.pwrite(self._file, number + self._id + self._tag(number), _SLOT_BYTES * (transaction % 2))
        os.fsync(self._file)

    def close(self) -> None:
        os.close(self._file)

    def _tag(self, number: bytes) -> bytes:
        return self._keys.head_tag(joined(b"witness", self._id, number))
