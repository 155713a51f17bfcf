"""A file that is encrypted in chunks, under a key of its own.

    file    = chunk 0 || chunk 1 || ... ;  all chunks but the last hold 1 MiB of plaintext
    chunk k = AES-256-GCM(key, nonce = k as 8 bytes || last ? 1 : 0 as 4 bytes, plaintext; the file's length)

The key is fresh for each file and is used for it alone; it stands sealed in the file's row, beside the length. So
a chunk that is changed, moved, missing, or of another file fails to decrypt, and a large file needs the memory of
one chunk only.
"""

from __future__ import annotations

import errno
import os
import weakref
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from shareflow_client.aligned import POOL
from shareflow_client.errors import StoreError

Buffer = Any  # whatever has the buffer protocol and is contiguous: bytes, bytearray, memoryview, an array

CHUNK_BYTES = 1 << 20
_TAG_BYTES = 16
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def views(buffers: Sequence[Buffer]) -> list[memoryview]:
    """The buffers as bytes, without a copy; empty ones left out."""
    whole = [memoryview(buffer) for buffer in buffers]
    return [view.cast("B") for view in whole if view.nbytes]


def chunk_count(length: int) -> int:
    """Number of chunks of a file of so many bytes; an empty file has one, that is empty."""
    return max(1, -(-length // CHUNK_BYTES))


class SealedWriter:
    """A new file that is written piece by piece; it is durable only after :func:`sync`.

    It has to be finished or discarded. StoreError where the disk fails or is full; what was written is removed then.
    """

    def __init__(self, path: Path, key: bytes, length: int) -> None:
        self.path, self._length = path, length
        self._cipher, self._count, self._written = AESGCM(key), chunk_count(length), 0
        self._pieces: list[memoryview] = []
        self._room = CHUNK_BYTES
        self._next = 0
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            path.unlink(missing_ok=True)
            raise disk_error(error, f"writing {length} bytes to {path}") from None

    def __len__(self) -> int:
        return self._length

    def write(self, data: memoryview) -> None:
        """The next bytes. A whole chunk is not copied; of what does not fill one, a copy is kept."""
        at = 0
        while at < len(data):
            piece = data[at : at + self._room]
            at += len(piece)
            self._room -= len(piece)
            self._pieces.append(piece)
            if not self._room:
                self._seal()
        if self._pieces and len(data):
            self._pieces[-1] = memoryview(bytes(self._pieces[-1]))

    def finish(self) -> None:
        """All is written: the file is whole."""
        if self._pieces or not self._next:
            self._seal()
        if self._written != self._length:
            self.discard()
            raise StoreError(f"{self._length} bytes were to be kept in {self.path.name}, {self._written} came.")
        self._close()

    def discard(self) -> None:
        """Removes the file."""
        self._close()
        self.path.unlink(missing_ok=True)

    def _seal(self) -> None:
        chunk = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces, self._room = [], CHUNK_BYTES
        nonce = _nonce(self._next, self._next + 1 == self._count)
        try:
            _write(self._file, self._cipher.encrypt(nonce, chunk, self._length.to_bytes(8, "little")))
        except OSError as error:
            self.discard()
            raise disk_error(error, f"writing {self._length} bytes to {self.path}") from None
        except BaseException:
            self.discard()
            raise
        self._next += 1
        self._written += len(chunk)

    def _close(self) -> None:
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)


def write_sealed(path: Path, key: bytes, payload: Sequence[memoryview]) -> None:
    """Writes a new file; it is durable only after :func:`sync`. StoreError where the disk is full.

    A file that could not be written whole is removed.
    """
    writer = SealedWriter(path, key, sum(map(len, payload)))
    for view in payload:
        writer.write(view)
    writer.finish()


class SealedReader:
    """A file that is read piece by piece, at best in order. It can be removed meanwhile, and is gone when it is closed.

    StoreError that names ``what`` where the file is missing, was cut, or (when that is read) was changed.
    """

    def __init__(self, path: Path, key: bytes, length: int, what: str) -> None:
        self._name, self._what, self._length = path.name, what, length
        self._cipher, self._count = AESGCM(key), chunk_count(length)
        # The chunk that was read last, of which the next piece may begin in the middle.
        self._last: tuple[int, memoryview] = (-1, memoryview(b""))
        self._sealed = memoryview(bytearray(min(length, CHUNK_BYTES) + _TAG_BYTES))
        self._path = path
        try:
            self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            raise StoreError(f"the file of {what} is missing: {path.name}.") from None
        except OSError as error:
            raise disk_error(error, f"opening {path}") from None
        self._ends = weakref.finalize(self, os.close, self._file)
        try:
            size = os.fstat(self._file).st_size
        except OSError as error:
            self.close()
            raise disk_error(error, f"reading {path}") from None
        if size != length + self._count * _TAG_BYTES:
            self.close()
            raise StoreError(
                f"the file of {what} has {size} bytes and not {length + self._count * _TAG_BYTES}: "
                f"{path.name} was cut or changed; it cannot be used."
            )

    def __len__(self) -> int:
        return self._length

    def read(self, begin: int, size: int) -> memoryview:
        """The plaintext from a byte on, in one buffer that is aligned where it is large."""
        if not 0 <= begin <= begin + size <= self._length:
            raise ValueError(f"bytes {begin} to {begin + size} of {self._length} were asked for")
        first, skip = divmod(begin, CHUNK_BYTES)
        if size <= CHUNK_BYTES - skip:
            return self._chunk(first)[skip : skip + size]
        # Not cleared first: every byte is written below, or an error is raised.
        plain, filled = POOL.memory(size), 0
        for k in range(first, chunk_count(begin + size)):
            piece = self._chunk(k)[skip : skip + size - filled]
            plain[filled : filled + len(piece)] = piece
            filled, skip = filled + len(piece), 0
        return plain

    def close(self) -> None:
        """Nothing more is read."""
        self._ends()
        # Its number may be another file's from now on.
        self._file = -1

    def _chunk(self, k: int) -> memoryview:
        number, chunk = self._last
        if number == k:
            return chunk
        start = k * CHUNK_BYTES
        sealed = self._sealed[: min(CHUNK_BYTES, self._length - start) + _TAG_BYTES]
        try:
            _read(self._file, sealed, k * (CHUNK_BYTES + _TAG_BYTES))
            nonce = _nonce(k, k + 1 == self._count)
            chunk = memoryview(self._cipher.decrypt(nonce, sealed, self._length.to_bytes(8, "little")))
        except InvalidTag:
            raise StoreError(
                f"the file of {self._what} was changed or is damaged: {self._name}; it cannot be used."
            ) from None
        except OSError as error:
            raise disk_error(error, f"reading {self._path}") from None
        self._last = k, chunk
        return chunk


def read_sealed(path: Path, key: bytes, length: int, what: str) -> memoryview:
    """The plaintext, in one buffer. StoreError that names ``what`` where the file is missing or was changed."""
    reader = SealedReader(path, key, length, what)
    try:
        # An empty file has one chunk, too.
        return reader.read(0, length) if length else reader._chunk(0)
    finally:
        reader.close()


def sync(paths: Iterable[Path]) -> None:
    """Makes files, or directories' entries, durable: returns when the disk has them."""
    for path in paths:
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(file)
            finally:
                os.close(file)
        except OSError as error:
            raise disk_error(error, f"making {path} durable") from None


def disk_error(error: OSError, doing: str) -> StoreError:
    """The store's error for one of the system, with the way out."""
    if error.errno in _FULL:
        return StoreError(
            f"the disk is full, or a limit is reached, while {doing}. Nothing of it was kept. "
            "Free space, or keep less material ahead, and try again."
        )
    return StoreError(
        f"the store's disk failed while {doing}: {error.strerror}. Check the disk, then reopen the store."
    )


def _nonce(k: int, last: bool) -> bytes:
    return k.to_bytes(8, "big") + int(last).to_bytes(4, "big")


def _write(file: int, data: bytes) -> None:
    rest = memoryview(data)
    while len(rest):
        rest = rest[os.write(file, rest) :]


def _read(file: int, into: memoryview, start: int) -> None:
    while len(into):
        got = os.preadv(file, [into], start)
        if not got:
            raise OSError(errno.EIO, "the file ended early")
        into, start = into[got:], start + got
