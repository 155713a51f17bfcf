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
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

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


def write_sealed(path: Path, key: bytes, payload: Sequence[memoryview]) -> None:
    """Writes a new file; it is durable only after :func:`sync`. StoreError where the disk is full.

    A file that could not be written whole is removed.
    """
    length = sum(map(len, payload))
    cipher, count = AESGCM(key), chunk_count(length)
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            for k, chunk in enumerate(_chunks(payload)):
                _write(file, cipher.encrypt(_nonce(k, k + 1 == count), chunk, length.to_bytes(8, "little")))
        finally:
            os.close(file)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise disk_error(error, f"writing {length} bytes to {path}") from None
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def read_sealed(path: Path, key: bytes, length: int, what: str) -> memoryview:
    """The plaintext, in one buffer. StoreError that names ``what`` where the file is missing or was changed."""
    cipher, count, authenticated = AESGCM(key), chunk_count(length), length.to_bytes(8, "little")
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        raise StoreError(f"the file of {what} is missing: {path.name}.") from None
    except OSError as error:
        raise disk_error(error, f"opening {path}") from None
    try:
        size = os.fstat(file).st_size
        if size != length + count * _TAG_BYTES:
            raise StoreError(
                f"the file of {what} has {size} bytes and not {length + count * _TAG_BYTES}: "
                f"{path.name} was cut or changed; it cannot be used."
            )
        sealed = memoryview(bytearray(min(size, CHUNK_BYTES + _TAG_BYTES)))
        # Not zeroed first: every byte is written below, or an error is raised.
        plain = np.empty(length, np.uint8).data if count > 1 else None
        for k in range(count):
            start = k * CHUNK_BYTES
            part = sealed[: min(CHUNK_BYTES, length - start) + _TAG_BYTES]
            _read(file, part)
            chunk = cipher.decrypt(_nonce(k, k + 1 == count), part, authenticated)
            if plain is None:
                return memoryview(chunk)
            plain[start : start + len(chunk)] = chunk
        return memoryview(b"") if plain is None else plain
    except InvalidTag:
        raise StoreError(f"the file of {what} was changed or is damaged: {path.name}; it cannot be used.") from None
    except OSError as error:
        raise disk_error(error, f"reading {path}") from None
    finally:
        os.close(file)


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


def _chunks(payload: Sequence[memoryview]) -> Iterator[Buffer]:
    """The payload in chunks. A chunk within one buffer is not copied; one across buffers is."""
    pieces: list[memoryview] = []
    room = CHUNK_BYTES
    some = False
    for view in payload:
        while len(view):
            piece, view = view[:room], view[room:]
            pieces.append(piece)
            room -= len(piece)
            if not room:
                yield pieces[0] if len(pieces) == 1 else b"".join(pieces)
                pieces, room, some = [], CHUNK_BYTES, True
    if pieces or not some:
        yield pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _write(file: int, data: bytes) -> None:
    rest = memoryview(data)
    while len(rest):
        rest = rest[os.write(file, rest) :]


def _read(file: int, into: memoryview) -> None:
    while len(into):
        got = os.readv(file, [into])
        if not got:
            raise OSError(errno.EIO, "the file ended early")
        into = into[got:]
