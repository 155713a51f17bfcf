"""A second place that remembers how far a store has come, so that an older copy of the store is noticed.

The file lies on another disk than the store, best one that is not part of the same snapshots. It holds the number
of the last transaction twice, in turn, so that a torn write leaves the one before.

    slot = transaction (8 bytes) || store id (16) || tag (32),  at 64 * (transaction mod 2)
"""

from __future__ import annotations

import hmac
import os
from pathlib import Path

from shareflow.runtime.store.keys import StoreKeys, joined
from shareflow.runtime.store.sealed_file import sync
from shareflow_client.errors import StoreError

_SLOT_BYTES = 64


class Witness:
    """The open file of one store's witness."""

    def __init__(self, path: Path, keys: StoreKeys, store_id: bytes) -> None:
        """Opens the file; makes it where there is none, whole or not at all. Raises OSError."""
        self.path = path
        self._keys = keys
        self._id = store_id
        if not path.exists():
            new = path.with_name(path.name + ".new")
            file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                os.pwrite(file, self._slot(0), 0)
                os.fsync(file)
            finally:
                os.close(file)
            os.replace(new, path)
            sync([path.parent])
        self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)

    def last(self) -> int:
        """The last transaction it saw. StoreError where it is another store's."""
        content = os.pread(self._file, 2 * _SLOT_BYTES, 0)
        slots = [content[k : k + len(self._slot(0))] for k in (0, _SLOT_BYTES)]
        numbers = [int.from_bytes(slot[:8], "little") for slot in slots]
        seen = [n for n, slot in zip(numbers, slots, strict=True) if hmac.compare_digest(slot, self._slot(n))]
        if not seen:
            raise StoreError(
                f"the witness {self.path} belongs to another store, or was changed. Either the store was replaced "
                "(do not use it before you know why), or this is a new store: then remove the witness first."
            )
        return max(seen)

    def note(self, transaction: int) -> None:
        """Remembers, durably, that the store has come this far. Raises OSError."""
        os.pwrite(self._file, self._slot(transaction), _SLOT_BYTES * (transaction % 2))
        os.fsync(self._file)

    def close(self) -> None:
        os.close(self._file)

    def _slot(self, transaction: int) -> bytes:
        number = transaction.to_bytes(8, "little")
        return number + self._id + self._keys.head_tag(joined(b"witness", self._id, number))
