import struct

import numpy as np
import pytest

from shareflow_client import wire
from shareflow_client.errors import PeerError
from shareflow_client.wire import Assembler, FrameKind


def part(payload=b"", *, kind=FrameKind.DATA, message=2, total=None, offset=0, execution=7, round=3):
    total = len(payload) if total is None else total
    return wire.chunk(kind, [payload], execution=execution, round=round, message=message, total=total, offset=offset)


def assembler(limit=10, **settings):
    return Assembler("bob", lambda kind, execution, round: limit, next_message=2, **settings)


def test_the_header_is_what_the_specification_says():
    data = part(b"abc", total=9, offset=4, message=5)
    assert data == bytes([17, 0]) + b"\0\0" + struct.pack("<IQQQQ", 3, 7, 5, 9, 4) + b"abc"
    assert wire.HEADER.size == 40


def test_a_message_of_one_chunk_is_a_view_into_it():
    data = part(b"0123456789")
    kind, frame = assembler().add(data)
    assert kind is FrameKind.DATA
    assert (frame.execution, frame.round, bytes(frame.payload)) == (7, 3, b"0123456789")
    assert frame.payload.obj is data
    assert frame.payload.readonly


def test_an_empty_message_is_one_chunk():
    assert list(wire.pieces([], 4)) == [[]]
    assert bytes(assembler(0).add(part())[1].payload) == b""


@pytest.mark.parametrize("size", [1, 3, 4, 5, 100])
def test_pieces_are_the_bytes_in_order(size):
    views = wire.byte_views([b"abcde", bytearray(b"fg"), b"", memoryview(b"hijklmno")])
    cut = [b"".join(piece) for piece in wire.pieces(views, size)]
    assert b"".join(cut) == b"abcdefghijklmno"
    assert {len(piece) for piece in cut[:-1]} <= {size}
    assert 0 < len(cut[-1]) <= size


def test_arrays_are_buffers_and_strided_ones_are_refused():
    values = np.arange(6, dtype=np.int64).reshape(2, 3)
    assert b"".join(wire.byte_views([values, values.astype(np.float32), np.zeros(())])) == (
        values.tobytes() + values.astype(np.float32).tobytes() + bytes(8)
    )
    with pytest.raises(ValueError, match="contiguous"):
        wire.byte_views([values.T])


def test_messages_may_alternate():
    a = assembler()
    assert a.add(part(b"0123", total=10, message=2))[1] is None
    assert a.add(part(b"abcdef", total=10, message=3, round=4))[1] is None
    assert a.add(part(b"456", total=10, offset=4, message=2))[1] is None
    second = a.add(part(b"ghij", total=10, offset=6, message=3, round=4))[1]
    first = a.add(part(b"789", total=10, offset=7, message=2))[1]
    assert (first.round, bytes(first.payload)) == (3, b"0123456789")
    assert (second.round, bytes(second.payload)) == (4, b"abcdefghij")


def test_memory_is_asked_for_before_it_is_taken():
    asked = []

    def limit(*what):
        asked.append(what)
        return 1 << 50

    with pytest.raises(PeerError, match="exactly 1125899906842624 bytes, bob announced 1152921504606846976"):
        Assembler("bob", limit, next_message=2).add(part(b"x", total=1 << 60))
    assert asked == [(FrameKind.DATA, 7, 3)]


@pytest.mark.parametrize(
    ("chunks", "rule"),
    [
        ([b"short"], "40 bytes of header, bob sent 5"),
        ([part(b"0123456789", kind=9)], "kinds of messages .* bob sent 9"),
        ([part(b"0123456789", kind=FrameKind.HELLO)], "kinds of messages"),
        ([bytes([17, 1]) + part(b"0123456789")[2:]], "flags are zero"),
        ([part(b"0123456789")[:2] + b"\1\0" + part(b"0123456789")[4:]], "flags are zero"),
        ([part(b"012345678")], "DATA of execution 7, round 3 has exactly 10 bytes, bob announced 9"),
        ([part(b"01234567890")], "exactly 10 bytes, bob announced 11"),
        ([part(b"01234567890", kind=FrameKind.CONTROL)], "at most 10 bytes, bob announced 11"),
        ([part(b"x", kind=FrameKind.HEARTBEAT)], "HEARTBEAT has at most 0 bytes"),
        ([part(b"x" * 5000, kind=FrameKind.CLOSE)], "CLOSE has at most 4096 bytes"),
        ([part(b"0123", total=3)], "a chunk lies inside its message of 3 bytes, bob sent 4 at offset 0"),
        ([part(b"0123", total=10, offset=7)], "a chunk lies inside"),
        ([part(b"", total=10)], "not empty"),
        ([part(b"0123", total=10, offset=4)], "begins at offset 0"),
        ([part(b"0123456789", message=3)], "2 is next, bob sent a chunk of 3"),
        ([part(b"0123456789"), part(b"0123456789")], "3 is next, bob sent a chunk of 2"),
        ([part(b"0123", total=10), part(b"0123", total=10)], "sent offset 0 of message 2 where 4 is next"),
        ([part(b"0123", total=10), part(b"4", total=10, offset=3)], "sent offset 3 of message 2 where 4 is next"),
        ([part(b"0123", total=10), part(b"4", total=10, offset=5)], "sent offset 5 of message 2 where 4 is next"),
        ([part(b"0123", total=10), part(b"4", total=9, offset=4)], "changed that of message 2"),
        ([part(b"0123", total=10), part(b"4", total=10, offset=4, round=4)], "changed that of message 2"),
        ([part(b"0", total=10, message=2 + k) for k in range(3)], "at most 2 messages are unfinished"),
        ([part(bytes((4 << 20) + 1), total=1 << 30)], "at most 4194304 bytes of payload"),
    ],
)
def test_what_no_sender_writes_is_refused(chunks, rule):
    a = assembler(most_unfinished=2)
    with pytest.raises(PeerError, match=rule):
        for data in chunks:
            a.add(data)


def test_what_is_not_expected_is_refused():
    with pytest.raises(PeerError, match=r"DATA of execution 7, round 3 is not expected now, bob sent it \(4 bytes\)"):
        assembler(None).add(part(b"0123"))


def test_a_control_message_may_be_shorter():
    assert bytes(assembler().add(part(b"{}", kind=FrameKind.CONTROL))[1].payload) == b"{}"


class Kept:
    """A sink."""

    def __init__(self, size):
        self.size, self.pieces = size, []

    def __len__(self):
        return self.size

    def write(self, data):
        self.pieces.append(bytes(data))


def test_a_sink_takes_a_message_of_several_chunks_as_it_comes():
    asked, kept = [], Kept(10)

    def sink(kind, execution, round):
        asked.append((kind, execution, round))
        return kept

    found = assembler(sink=sink)
    assert found.add(part(b"0123456789"))[1].payload == b"0123456789"  # one chunk: no sink is asked for
    assert asked == []
    for message, offset, data in ((3, 0, b"0123"), (3, 4, b"4567")):
        assert found.add(part(data, total=10, message=message, offset=offset))[1] is None
    assert asked == [(FrameKind.DATA, 7, 3)]
    assert found.add(part(b"89", total=10, message=3, offset=8))[1].payload is kept
    assert kept.pieces == [b"0123", b"4567", b"89"]


def test_a_sink_gets_nothing_that_breaks_a_rule():
    kept = Kept(10)
    found = assembler(sink=lambda *about: kept)
    found.add(part(b"0123", total=10))
    with pytest.raises(PeerError, match="where 4 is next"):
        found.add(part(b"56", total=10, offset=5))
    assert kept.pieces == [b"0123"]
