"""Links between roles of one process: frames, checks and threads as the real ones have them, but no network."""

from __future__ import annotations

import hashlib
import itertools
import json
import threading
from queue import SimpleQueue

from shareflow_client.errors import ChannelError, PeerError
from shareflow_client.link import Callbacks
from shareflow_client.wire import Frame, FrameKind, byte_views

GUARD = 10.0
_sessions = itertools.count()


class FakeLink:
    """One end. ``gate`` open: what the peer sent is handled at once; closed: it waits, as from a peer that hangs."""

    def __init__(self, peer, role, callbacks, session):
        self.peer, self.role, self.callbacks, self._session = peer, role, callbacks, session
        self.closed = None
        self.peer_error = None
        self.other = None
        self.gate = threading.Event()
        self.gate.set()
        self.change = lambda kind, execution, round_, payload: payload  # of what this end sends; None drops it
        self._inbox = SimpleQueue()
        self._lock = threading.Lock()
        self._reader = threading.Thread(target=self._read, daemon=True)

    def key(self, info):
        return hashlib.sha256(self._session + info).digest()[:16]

    def send(self, kind, buffers, *, execution=0, round=0):
        if self.closed is not None:
            raise ChannelError(f"the link to {self.peer} is closed: {self.closed}")
        payload = self.change(kind, execution, round, b"".join(map(bytes, byte_views(buffers))))
        if payload is not None:
            self.other._inbox.put((kind, execution, round, payload))

    queued = 0

    def send_made(self, kind, total, made, *, execution=0, round=0):
        buffers = list(made)
        assert sum(map(len, buffers)) == total
        self.send(kind, buffers, execution=execution, round=round)

    def post(self, kind, payload=b"", *, execution=0, round=0):
        if self.closed is None:
            self.send(kind, payload, execution=execution, round=round)

    def say(self, type_, **fields):
        self.send(FrameKind.CONTROL, json.dumps({"type": type_, **fields}).encode())

    def close(self, reason=""):
        for end, text in ((self, f"closed here: {reason}"), (self.other, f"{self.other.peer} closed it: {reason}")):
            with end._lock:
                if end.closed is None:
                    end.closed = text
                    end._inbox.put(None)

    def _read(self):
        self.callbacks.on_link(self)
        while True:
            item = self._inbox.get()
            self.gate.wait(GUARD)
            if item is None:
                break
            kind, execution, round_, payload = item
            try:
                limit = self.callbacks.size_limit(self, kind, execution, round_)
                exact = kind is FrameKind.DATA
                if limit is None or not (len(payload) == limit if exact else len(payload) <= limit):
                    raise PeerError(f"{kind.name} of {execution}, round {round_}: {len(payload)} bytes, not {limit}")
                self.callbacks.on_frame(self, Frame(kind, execution, round_, memoryview(payload)))
            except PeerError as error:
                self.peer_error = error
                self.close(str(error))
        self.callbacks.on_close(self, self.closed)


def joined(name, callbacks, peer, peer_callbacks, *, role="party"):
    """The two ends of a link: that of ``name``, which plays ``role``, and that of ``peer``."""
    session = f"session {next(_sessions)}".encode()
    mine, theirs = FakeLink(peer, "party", callbacks, session), FakeLink(name, role, peer_callbacks, session)
    mine.other, theirs.other = theirs, mine
    mine._reader.start()
    theirs._reader.start()
    return mine, theirs


class Scripted:
    """A peer that does nothing by itself: it remembers what it is told, and says what the test wants."""

    def __init__(self):
        self.said, self.data, self.text = [], [], None
        self._changed = threading.Condition()
        self.callbacks = Callbacks(self._frame, self._close, self._limit)
        self.sizes = {}  # of DATA, by (execution, round); any other size is taken, too

    def _limit(self, link, kind, execution, round_):
        return 1 << 30 if kind is FrameKind.CONTROL else self.sizes.get((execution, round_), _Any())

    def _frame(self, link, frame):
        with self._changed:
            if frame.kind is FrameKind.DATA:
                self.data.append((frame.execution, frame.round, bytes(frame.payload)))
            else:
                self.said.append(json.loads(bytes(frame.payload)))
            self._changed.notify_all()

    def _close(self, link, text):
        with self._changed:
            self.text = text
            self._changed.notify_all()

    def wait(self, condition, seconds=GUARD):
        with self._changed:
            assert self._changed.wait_for(condition, seconds), (self.said[-5:], self.text)

    def heard(self, type_, **fields):
        """Waits for a message of this type with these fields, and gives it."""

        def found():
            return [m for m in self.said if m["type"] == type_ and all(m.get(k) == v for k, v in fields.items())]

        self.wait(found)
        return found()[-1]


class _Any(int):
    """A size that equals every other."""

    def __eq__(self, other):
        return True

    __hash__ = int.__hash__
