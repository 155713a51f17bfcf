"""Frames: how messages lie in the stream between two processes. docs/wire-format.md is the specification.

A message is cut into chunks; each gRPC message of the stream is one chunk: 40 bytes of header and a piece of payload.
Chunks of different messages may alternate; those of one message come in order. All integers are little-endian:

    kind u8 | flags u8 | zero u16 | round u32 | execution u64 | message u64 | total u64 | offset u64
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple, Protocol

from shareflow_client.aligned import POOL
from shareflow_client.errors import PeerError

Buffer = bytes | bytearray | memoryview

HEADER = struct.Struct("<BBHIQQQQ")
CHUNK_BYTES = 1 << 20  # what we send: see docs/wire-format.md for the measurement
MOST_CHUNK_BYTES = 4 << 20  # what we take
MOST_CLOSING_BYTES = 4096
MOST_HANDSHAKE_BYTES = 4096


class FrameKind(IntEnum):
    """What a message is. HELLO to CLOSE belong to the link itself; CONTROL and DATA to those who use it."""

    HELLO = 1
    CONFIRM = 2
    HEARTBEAT = 3
    CLOSE = 4
    CONTROL = 16
    DATA = 17


# Messages that a user of a link sends and receives.
CARRIED = (FrameKind.CONTROL, FrameKind.DATA)


class Sink(Protocol):
    """Takes a message of several chunks as it comes, where holding it whole would need much memory."""

    def __len__(self) -> int:
        """Bytes of the whole message."""

    def write(self, data: memoryview) -> None:
        """The next bytes; the view is valid during the call only. It may raise PeerError."""


@dataclass(frozen=True)
class Frame:
    """A whole message. The payload of one of a single chunk is a view into that chunk and read-only.

    Where a :class:`Sink` took the message, the payload is that sink.
    """

    kind: FrameKind
    execution: int
    round: int
    payload: Any  # memoryview | Sink


class Header(NamedTuple):
    """The first 40 bytes of a chunk."""

    kind: int
    flags: int
    zero: int
    round: int
    execution: int
    message: int
    total: int
    offset: int


SizeLimit = Callable[[FrameKind, int, int], "int | None"]


def byte_views(buffers: Sequence[Buffer] | Buffer) -> list[memoryview]:
    """The buffers as flat views of bytes, without copying; raises ValueError for one that is not contiguous."""
    listed = [buffers] if isinstance(buffers, (bytes, bytearray, memoryview)) else buffers
    views = []
    for buffer in listed:
        view = memoryview(buffer)
        if not view.c_contiguous:
            raise ValueError("a buffer to send lies contiguous in memory, this one does not: copy it first")
        if view.nbytes:
            views.append(view.cast("B") if view.format != "B" or view.ndim != 1 else view)
    return views


def pieces(views: Iterable[memoryview], size: int) -> Iterator[list[memoryview]]:
    """The same bytes in lists of views of `size` bytes each, the last one shorter; one empty list for no bytes."""
    piece: list[memoryview] = []
    room, some = size, False
    for view in views:
        at, some = 0, True
        while at < len(view):
            part = view[at : at + room]
            piece.append(part)
            at += len(part)
            room -= len(part)
            if not room:
                yield piece
                piece, room = [], size
    if piece or not some:
        yield piece


def chunk(
    kind: int, parts: Sequence[Buffer], *, execution: int, round: int, message: int, total: int, offset: int
) -> bytes:
    """One chunk: the only copy that sending makes."""
    return b"".join((HEADER.pack(kind, 0, 0, round, execution, message, total, offset), *parts))


def single(kind: FrameKind, payload: bytes = b"", *, message: int, execution: int = 0, round: int = 0) -> bytes:
    """A whole message in one chunk."""
    return chunk(kind, [payload], execution=execution, round=round, message=message, total=len(payload), offset=0)


def read_header(data: bytes, peer: str) -> Header:
    """The header of a chunk that `peer` sent; raises PeerError where no sender of version 1 writes such a one."""
    if len(data) < HEADER.size:
        raise PeerError(f"a chunk has {HEADER.size} bytes of header, {peer} sent {len(data)} bytes in all")
    header = Header._make(HEADER.unpack_from(data))
    if header.flags or header.zero:
        raise PeerError(f"flags are zero in wire version 1, {peer} sent {header.flags:#x} and {header.zero:#x}")
    length = len(data) - HEADER.size
    if length > MOST_CHUNK_BYTES:
        raise PeerError(f"a chunk has at most {MOST_CHUNK_BYTES} bytes of payload, {peer} sent {length}")
    if header.offset + length > header.total:
        raise PeerError(
            f"a chunk lies inside its message of {header.total} bytes, {peer} sent {length} at offset {header.offset}"
        )
    if not length and header.total:
        raise PeerError(f"a chunk of a message of {header.total} bytes is not empty, {peer} sent an empty one")
    return header


class _Whole:
    """The sink that keeps a message in memory."""

    def __init__(self, total: int) -> None:
        # Not cleared: the message is given on only when every byte of it was written.
        self.view = POOL.memory(total)
        self._filled = 0

    def __len__(self) -> int:
        return len(self.view)

    def write(self, data: memoryview) -> None:
        self.view[self._filled : self._filled + len(data)] = data
        self._filled += len(data)


class _Unfinished:
    """A message of which a part is here."""

    __slots__ = ("filled", "header", "sink")

    def __init__(self, header: Header, sink: Sink) -> None:
        self.header = header
        self.sink = sink
        self.filled = 0


class Assembler:
    """Puts the chunks of one direction of a link together again.

    `size_limit(kind, execution, round)` is asked at a message's first chunk, before any memory is reserved: the exact
    size of DATA, the most that CONTROL may have, None for what is not expected now. At most `most_unfinished`
    messages may be in pieces at a time, so a peer can make us hold no more than that many expected messages.
    `sink(kind, execution, round)` is asked then for messages of several chunks: None for those to hold in memory.
    """

    def __init__(
        self,
        peer: str,
        size_limit: SizeLimit,
        *,
        next_message: int,
        most_unfinished: int = 64,
        sink: Callable[[FrameKind, int, int], Sink | None] = lambda kind, execution, round: None,
    ) -> None:
        self._peer = peer
        self._size_limit = size_limit
        self._sink = sink
        self._next_message = next_message
        self._most_unfinished = most_unfinished
        self._unfinished: dict[int, _Unfinished] = {}

    def add(self, data: bytes) -> tuple[FrameKind, Frame | None]:
        """The kind of the chunk's message, and the message where it is now whole; raises PeerError."""
        header = read_header(data, self._peer)
        started = self._unfinished.get(header.message)
        if started is None:
            return self._first(header, data)
        return FrameKind(header.kind), self._further(started, header, data)

    def _first(self, header: Header, data: bytes) -> tuple[FrameKind, Frame | None]:
        if header.message != self._next_message:
            raise PeerError(
                f"messages are numbered in the order they begin, {self._next_message} is next, {self._peer} sent "
                f"a chunk of {header.message}: a message was lost, repeated or reordered"
            )
        if header.offset:
            raise PeerError(
                f"a message begins at offset 0, {self._peer} began {header.message} at offset {header.offset}"
            )
        kind = self._known(header.kind)
        self._check_size(kind, header)
        self._next_message += 1
        if len(data) - HEADER.size == header.total:
            return kind, Frame(kind, header.execution, header.round, memoryview(data)[HEADER.size :])
        if len(self._unfinished) >= self._most_unfinished:
            raise PeerError(
                f"at most {self._most_unfinished} messages are unfinished at a time, {self._peer} began another"
            )
        sink = self._sink(kind, header.execution, header.round)
        if sink is None:
            sink = _Whole(header.total)
        started = self._unfinished[header.message] = _Unfinished(header, sink)
        return kind, self._further(started, header, data)

    def _known(self, number: int) -> FrameKind:
        if number in (*CARRIED, FrameKind.HEARTBEAT, FrameKind.CLOSE):
            return FrameKind(number)
        raise PeerError(
            f"kinds of messages after the handshake are HEARTBEAT, CLOSE, CONTROL and DATA, {self._peer} sent {number}"
        )

    def _check_size(self, kind: FrameKind, header: Header) -> None:
        what = f"{kind.name} of execution {header.execution}, round {header.round}"
        if kind is FrameKind.HEARTBEAT or kind is FrameKind.CLOSE:
            most = 0 if kind is FrameKind.HEARTBEAT else MOST_CLOSING_BYTES
            if header.total > most:
                raise PeerError(f"{kind.name} has at most {most} bytes, {self._peer} sent {header.total}")
            return
        limit = self._size_limit(kind, header.execution, header.round)
        if limit is None:
            raise PeerError(f"{what} is not expected now, {self._peer} sent it ({header.total} bytes)")
        if kind is FrameKind.DATA and header.total != limit:
            raise PeerError(f"{what} has exactly {limit} bytes, {self._peer} announced {header.total}")
        if header.total > limit:
            raise PeerError(f"{what} has at most {limit} bytes, {self._peer} announced {header.total}")

    def _further(self, started: _Unfinished, header: Header, data: bytes) -> Frame | None:
        if header._replace(offset=0) != started.header:
            raise PeerError(
                f"all chunks of a message have the same header but for the offset, {self._peer} changed that of "
                f"message {header.message}"
            )
        if header.offset != started.filled:
            raise PeerError(
                f"chunks of a message follow each other, {self._peer} sent offset {header.offset} of message "
                f"{header.message} where {started.filled} is next"
            )
        end = started.filled + len(data) - HEADER.size
        started.sink.write(memoryview(data)[HEADER.size :])
        started.filled = end
        if end < header.total:
            return None
        del self._unfinished[header.message]
        sink = started.sink
        payload = sink.view if isinstance(sink, _Whole) else sink
        return Frame(FrameKind(header.kind), header.execution, header.round, payload)
