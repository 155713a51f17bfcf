"""A link: one authenticated stream between two processes, over which both send messages.

Threads of a link: gRPC's own, which takes chunks from the queue; the reader, which puts messages together and makes
the callbacks; the watch, which sends heartbeats and notices a silent peer. All are daemons: a link never keeps a
process alive. The synchronous API of gRPC is used because it is faster here than grpc.aio (docs/wire-format.md has
the figures).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from queue import SimpleQueue

from shareflow_client import __version__, wire
from shareflow_client.errors import ChannelError, ConfigError, PeerError
from shareflow_client.handshake import Handshake, Session, decode_hello
from shareflow_client.tls import (
    GRPC_CAME_FIRST,
    Identity,
    Trusted,
    channel_credentials,
    fingerprint,
    grpc,  # by way of tls, which sets what gRPC reads when it is imported
    require_tls13,
)
from shareflow_client.wire import Buffer, Frame, FrameKind, Sink

SERVICE, METHOD = "shareflow.Link", "Stream"
_log = logging.getLogger(__name__)

# Seconds between heartbeats, at the most: every limit of some seconds is then kept.
_BEAT = 1.0


@dataclass(frozen=True)
class Callbacks:
    """What the user of a link does with what comes; all are called on the link's reader thread.

    `size_limit(link, kind, execution, round)` is asked at a message's first chunk, before memory is reserved: the exact
    size of DATA, the most for CONTROL, None where none is expected. `on_frame` and `size_limit` may raise PeerError:
    the link closes and the peer is told the text. `on_link` comes first, `on_close` last and exactly once for a link
    that `on_link` was called for. A callback that sends much may wait for the peer: leave that to another thread.
    `sink(link, kind, execution, round)` is asked after `size_limit` for a message of several chunks: what takes them as
    they come, and is then the payload of the frame; None where the message is to be held in memory.
    """

    on_frame: Callable[[Link, Frame], None]
    on_close: Callable[[Link, str], None]
    size_limit: Callable[[Link, FrameKind, int, int], int | None]
    on_link: Callable[[Link], None] = lambda link: None
    sink: Callable[[Link, FrameKind, int, int], Sink | None] = lambda link, kind, execution, round: None


@dataclass(frozen=True)
class LinkSettings:
    """Limits of a link: seconds and bytes."""

    dead_after: float = 20.0  # a peer that is silent for this long is given up
    chunk_bytes: int = wire.CHUNK_BYTES
    queue_bytes: int = 8 << 20  # chunks that wait to be sent; `send` waits when they are more
    most_unfinished: int = 64
    drain: float = 5.0  # how long closing waits for what was sent before

    def __post_init__(self) -> None:
        if not 0 < self.chunk_bytes <= wire.MOST_CHUNK_BYTES:
            raise ConfigError(f"a chunk has 1 to {wire.MOST_CHUNK_BYTES} bytes, chunk_bytes is {self.chunk_bytes}")
        for name in ("dead_after", "queue_bytes", "most_unfinished", "drain"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} of a link is above zero, it is {getattr(self, name)}")


class Link:
    """A stream to one peer. Made by `dial` and by a Listener; `peer`, `role` and `session_id` are authenticated."""

    def __init__(self, callbacks: Callbacks, settings: LinkSettings, peer: str, cancel: Callable[[], object]) -> None:
        self.peer = peer
        self.role = "party"
        self.peer_software = ""
        self.peer_error: PeerError | None = None  # the rule that the peer broke, where the link closed for that
        self.opened = threading.Event()  # the handshake is over, well or not
        self._callbacks = callbacks
        self._settings = settings
        self._cancel = cancel
        self._session: Session | None = None
        self._unreachable = False
        self._room = threading.Condition()  # guards all below
        self._queue: SimpleQueue[bytes | None] = SimpleQueue()
        self._queued = 0
        self._waiting = 0
        self._next_message = 0
        self._reason: str | None = None
        self._ended = threading.Event()
        self._reader: threading.Thread | None = None
        self._heard = time.monotonic()
        self._listens = False

    # --- for users --------------------------------------------------------------------------------------------

    @property
    def session_id(self) -> bytes:
        """16 bytes that name this session, the same at both ends; not secret."""
        return self._live().id

    @property
    def closed(self) -> str | None:
        """Why the link is closed or closing; None while it is open."""
        return self._reason

    def key(self, info: bytes) -> bytes:
        """16 secret bytes for `info`: the same at both ends, fresh in every session."""
        return self._live().key(info)

    def send(
        self, kind: FrameKind, buffers: Sequence[Buffer] | Buffer, *, execution: int = 0, round: int = 0
    ) -> None:
        """Send one message: the bytes of the buffers one after the other (anything contiguous with a buffer).

        Thread-safe; messages of one thread arrive in its order. Waits only while the queue is full. The buffers may be
        changed when it returns. Raises ChannelError, with the reason, on a closed link.
        """
        views = wire.byte_views(buffers)
        self._send(kind, views, sum(len(view) for view in views), execution, round)

    def send_made(
        self, kind: FrameKind, total: int, made: Iterable[Buffer], *, execution: int = 0, round: int = 0
    ) -> None:
        """Send one message of ``total`` bytes whose buffers are only made while it is sent.

        As :meth:`send`. Where making them fails, or gives another number of bytes, the link is closed: what has begun
        cannot be taken back.
        """
        views = (view for buffer in made for view in wire.byte_views(buffer))
        try:
            self._send(kind, views, total, execution, round)
        except BaseException as error:
            if not isinstance(error, ChannelError):
                self._begin_close("a message could not be made whole, see the log", "an internal error")
            raise

    def _send(self, kind: FrameKind, views: Iterable[memoryview], total: int, execution: int, round: int) -> None:
        if kind not in wire.CARRIED:
            raise ValueError(f"users of a link send CONTROL and DATA, not {kind!r}")
        message, offset = -1, 0
        for parts in wire.pieces(views, self._settings.chunk_bytes):
            length = sum(len(part) for part in parts)
            if offset + length > total:
                raise ValueError(f"a message of {total} bytes was announced, and {offset + length} are given")
            if message >= 0:  # the copy of all but the first chunk is made outside the lock
                data = wire.chunk(
                    kind, parts, execution=execution, round=round, message=message, total=total, offset=offset
                )
            with self._room:
                self._wait_for_room(length)
                if message < 0:  # numbers follow the order in which messages begin in the queue
                    message = self._next_message
                    data = wire.chunk(
                        kind, parts, execution=execution, round=round, message=message, total=total, offset=offset
                    )
                    self._next_message += 1
                self._queued += len(data)
                self._queue.put(data)
            offset += length
        if offset < total:
            raise ValueError(f"a message of {total} bytes was announced, and {offset} are given")

    def close(self, reason: str = "") -> None:
        """Send what is queued, tell the peer the reason, and end; waits at most `drain` seconds. May be repeated."""
        self._begin_close(f"closed here{': ' if reason else ''}{reason}", reason)
        if threading.current_thread() is not self._reader:
            self._ended.wait(self._settings.drain + 1)

    # --- sending ----------------------------------------------------------------------------------------------

    def outgoing(self) -> Iterator[bytes]:
        """The chunks to send, taken by gRPC; a chunk counts as queued until gRPC asks for the next one."""
        while True:
            data = self._queue.get()
            if data is None:
                return
            yield data
            with self._room:
                self._queued -= len(data)
                if self._waiting:
                    self._room.notify_all()

    @property
    def queued(self) -> int:
        """Bytes that wait to be sent."""
        return self._queued

    def post(self, kind: FrameKind, payload: bytes = b"", *, execution: int = 0, round: int = 0) -> None:
        """Queue a message of one chunk at once, however much waits: for small ones, or where `queued` is looked at."""
        with self._room:
            data = wire.single(kind, payload, execution=execution, round=round, message=self._next_message)
            self._next_message += 1
            self._queued += len(data)
            self._queue.put(data)

    def _wait_for_room(self, length: int) -> None:
        while self._reason is None and self._queued and self._queued + length > self._settings.queue_bytes:
            self._waiting += 1
            try:
                self._room.wait()
            finally:
                self._waiting -= 1
        if self._reason is not None:
            raise ChannelError(f"the link to {self.peer} is closed, nothing can be sent: {self._reason}")

    # --- receiving --------------------------------------------------------------------------------------------

    def start(self, incoming: Iterable[bytes], handshake: Callable[[Link, Iterator[bytes]], Session]) -> None:
        """Start the reader: first the handshake, then messages until the stream ends."""
        self._reader = threading.Thread(
            target=self._run, args=(iter(incoming), handshake), name="shareflow link reader", daemon=True
        )
        self._reader.start()

    def receive(self, incoming: Iterator[bytes], kind: FrameKind) -> bytes:
        """The payload of the next message, one of the handshake; raises ChannelError for any other."""
        data = next(incoming, None)
        if data is None:
            raise ChannelError(f"{self.peer} ended the stream before the handshake was over; its log says why")
        header = wire.read_header(data, self.peer)
        payload = data[wire.HEADER.size :]
        if header.kind == FrameKind.CLOSE:
            raise _RefusedError(f"{self.peer} refused the link: {_shown(payload)}")
        if header.kind != kind or header.total != len(payload) or len(payload) > wire.MOST_HANDSHAKE_BYTES:
            raise PeerError(f"{kind.name} is next in the handshake, {self.peer} sent something else")
        return payload

    def _run(self, incoming: Iterator[bytes], handshake: Callable[[Link, Iterator[bytes]], Session]) -> None:
        try:
            self._session = self._shake(incoming, handshake)
            if self._session is None:
                return
            threading.Thread(target=self._watch, name="shareflow link watch", daemon=True).start()
            if not self._called(self._callbacks.on_link, self):
                self._begin_close("on_link failed, see the log", "an internal error")
            self.opened.set()
            self._read(incoming)
        finally:
            with self._room:
                if self._reason is None:
                    self._reason = f"the connection to {self.peer} was lost: it ended without a closing word"
                self._room.notify_all()
            self._queue.put(None)
            self.opened.set()
            if self._session is not None:
                self._called(self._callbacks.on_close, self, self._reason)
            self._ended.set()
            self._cancel()

    def _shake(
        self, incoming: Iterator[bytes], handshake: Callable[[Link, Iterator[bytes]], Session]
    ) -> Session | None:
        try:
            session = handshake(self, incoming)
        except _RefusedError as error:
            self._fail(str(error))
        except ChannelError as error:
            self._begin_close(str(error), str(error))
            self.opened.set()  # who dials need not wait until the peer has heard it
            self._discard(incoming)
        except grpc.RpcError as error:
            text, self._unreachable = _explain_connecting(error, self.peer)
            self._fail(text)
        except Exception:
            _log.exception("the handshake with %s failed here", self.peer)
            self._begin_close("the handshake failed here, see the log", "an internal error in the handshake")
            self.opened.set()
            self._discard(incoming)
        else:
            return session
        return None

    def _read(self, incoming: Iterator[bytes]) -> None:
        wanted = self._callbacks
        assembler = wire.Assembler(
            self.peer,
            lambda kind, execution, round: wanted.size_limit(self, kind, execution, round),
            next_message=2,  # after hello and confirmation
            most_unfinished=self._settings.most_unfinished,
            sink=lambda kind, execution, round: wanted.sink(self, kind, execution, round),
        )
        self._heard = time.monotonic()
        self._listens = True
        try:
            for data in incoming:
                self._listens = False  # time spent in callbacks is not the peer's silence
                if self._reason is None:
                    kind, frame = assembler.add(data)
                    if frame is not None and kind in wire.CARRIED:
                        wanted.on_frame(self, frame)
                else:
                    kind, frame = _closing(data)
                if kind is FrameKind.CLOSE and frame is not None:
                    self._fail(f"{self.peer} closed the link: {_shown(frame.payload)}")
                    return
                self._heard = time.monotonic()
                self._listens = True
        except PeerError as error:
            self.peer_error = error
            self._begin_close(str(error), str(error))
            self._discard(incoming)
        except grpc.RpcError as error:
            self._fail(f"the connection to {self.peer} was lost: {_details(error)}")
        except Exception:
            _log.exception("a message of %s could not be handled", self.peer)
            self._begin_close(f"a message of {self.peer} could not be handled, see the log", "an internal error")
            self._discard(incoming)

    def _discard(self, incoming: Iterator[bytes]) -> None:
        """Let the stream end by itself, so that the peer gets our last words; the drain limit ends it otherwise."""
        try:
            for data in incoming:
                if _closing(data)[0] is FrameKind.CLOSE:
                    return
        except (grpc.RpcError, PeerError):
            return

    def _called(self, callback: Callable[..., None], *arguments: object) -> bool:
        try:
            callback(*arguments)
        except Exception:
            _log.exception("a callback of the link to %s failed", self.peer)
            return False
        return True

    # --- ending -----------------------------------------------------------------------------------------------

    def _fail(self, reason: str) -> None:
        """The link is over; nothing more goes out."""
        with self._room:
            if self._reason is None:
                self._reason = reason
            self._room.notify_all()

    def _begin_close(self, reason: str, told: str) -> None:
        """No new messages; what is queued goes out, then the reason; the stream is cut when that takes too long."""
        with self._room:
            if self._reason is not None:
                return
            self._reason = reason
            self._room.notify_all()
        self.post(FrameKind.CLOSE, told.encode()[: wire.MOST_CLOSING_BYTES])
        self._queue.put(None)
        threading.Thread(target=self._cut_when_late, name="shareflow link closing", daemon=True).start()

    def _cut_when_late(self) -> None:
        if not self._ended.wait(self._settings.drain):
            self._cancel()

    def _watch(self) -> None:
        # The peer may be less patient than this end, and it cannot be asked.
        beat = min(self._settings.dead_after / 5, _BEAT)
        woken = time.monotonic()
        while not self._ended.wait(beat):
            before, woken = woken, time.monotonic()
            if woken - before > 2 * beat:
                self._heard = woken  # this process itself was stopped: the peer gets its time again
            if self._reason is not None:
                continue
            silent = woken - self._heard
            if self._listens and silent > 0.75 * self._settings.dead_after:
                self._fail(
                    f"nothing was heard from {self.peer} for {silent:.1f} s (dead_after is "
                    f"{self._settings.dead_after:g} s): its process hangs, or the network between is down"
                )
                self._cancel()
            elif not self._queued:
                self.post(FrameKind.HEARTBEAT)

    def _live(self) -> Session:
        if self._session is None:
            raise ChannelError(f"the link to {self.peer} has no session: its handshake is not over")
        return self._session


class UnreachableError(ChannelError):
    """Nobody answers at the address: not started yet, stopped, or no way there. Another attempt may succeed."""


class _RefusedError(ChannelError):
    """The peer said no; there is nothing to tell it."""


def _closing(data: bytes) -> tuple[FrameKind, Frame | None]:
    """Of a link that closes, only whether the peer says so too."""
    if len(data) >= wire.HEADER.size and data[0] == FrameKind.CLOSE:
        return FrameKind.CLOSE, Frame(FrameKind.CLOSE, 0, 0, memoryview(data)[wire.HEADER.size :])
    return FrameKind.HEARTBEAT, None


def _shown(payload: bytes | memoryview) -> str:
    """What a peer says, fit for a log: printable, not too long."""
    text = bytes(payload[: wire.MOST_CLOSING_BYTES]).decode(errors="replace")
    return "".join(c if c.isprintable() else " " for c in text) or "no reason given"


def _details(error: grpc.RpcError) -> str:
    text = error.details() if isinstance(error, grpc.Call) else str(error)
    return _shown(text.encode()) if text else "it ended without a closing word"


def _explain_connecting(error: grpc.RpcError, peer: str) -> tuple[str, bool]:
    """What most likely went wrong before the handshake was over, and whether nobody answered."""
    details = _details(error)
    if "CERTIFICATE_VERIFY_FAILED" in details or "Peer name" in details:
        text = (
            "the certificate it shows is not the one pinned for it, or is out of its time: compare the certificates "
            "of both configurations"
        )
    elif any(words in details for words in ("handshake failed", "SSL_ERROR", "WRONG_VERSION")):
        text = "no TLS 1.3 connection: is this the port where it listens for links?"
    elif any(words in details for words in ("Socket closed", "Secure read failed", "Connection reset", "Broken pipe")):
        text = (
            "it closed the connection when it saw our certificate, or has just stopped: it may not know the "
            "certificate, or the certificate is out of its time; its log says why"
        )
    elif "handshakes are pending" in details:
        return details, True
    else:
        return f"nobody answers there, or no longer: {details}", True
    return f"{text} ({details})", False


def options(settings: LinkSettings) -> list[tuple[str, int]]:
    """Channel arguments of both ends."""
    alive = int(1000 * settings.dead_after)
    most = wire.HEADER.size + wire.MOST_CHUNK_BYTES
    return [
        ("grpc.max_send_message_length", most),
        ("grpc.max_receive_message_length", most),
        # gRPC's keepalive stands behind our heartbeat: it also covers a stream that is not being read.
        ("grpc.keepalive_time_ms", alive),
        ("grpc.keepalive_timeout_ms", alive),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.max_ping_strikes", 0),
    ]


def dial(
    target: str,
    identity: Identity,
    trusted: Trusted,
    *,
    plan: str,
    callbacks: Callbacks,
    settings: LinkSettings | None = None,
    time_limit: float = 10.0,
) -> Link:
    """Connect to `trusted` at `target` ("host:port") as `identity`, for the plan of this fingerprint (hex).

    Returns an open link; messages may reach `callbacks` a moment before. One attempt; raises ChannelError that says
    which rule failed, within `time_limit` seconds: UnreachableError where nobody answers and a later attempt may do.
    """
    settings = settings or LinkSettings()
    if GRPC_CAME_FIRST:
        require_tls13(identity)
    credentials, expected = channel_credentials(identity, trusted)
    channel = grpc.secure_channel(
        target,
        credentials,
        [
            *options(settings),
            ("grpc.ssl_target_name_override", expected),
            ("grpc.use_local_subchannel_pool", 1),  # a connection of its own for each link
            ("grpc.enable_http_proxy", 0),
            ("grpc.enable_retries", 0),
            ("grpc.service_config_disable_resolution", 1),
        ],
    )
    link = Link(callbacks, settings, trusted.name, channel.close)
    call = channel.stream_stream(f"/{SERVICE}/{METHOD}")(link.outgoing())

    def handshake(link: Link, incoming: Iterator[bytes]) -> Session:
        mine = Handshake(
            dials=True,
            name=identity.name,
            peer=trusted.name,
            role=identity.role,
            fingerprint=plan,
            certificate=fingerprint(identity.certificate()),
            software=__version__,
        )
        link.post(FrameKind.HELLO, mine.mine.encode())
        theirs = decode_hello(link.receive(incoming, FrameKind.HELLO), identity.name)
        if theirs.certificate not in {fingerprint(pin) for pin in trusted.pins_in_time()}:
            raise ChannelError(
                f"{trusted.name} is known by its pinned certificate, the other end says that it uses one with SHA-256 "
                f"{theirs.certificate.hex()}: exchange the certificates again"
            )
        if theirs.role != trusted.role:
            raise ChannelError(f"{trusted.name} is a {trusted.role} here and says that it is a {theirs.role}")
        mine.receive(theirs)
        link.post(FrameKind.CONFIRM, mine.confirmation())
        session = mine.confirm(link.receive(incoming, FrameKind.CONFIRM))
        link.role, link.peer_software = theirs.role, theirs.software
        return session

    link.start(call, handshake)
    if not link.opened.wait(time_limit):
        link._fail(f"{trusted.name} at {target} did not answer within {time_limit:g} s")
        channel.close()
        raise UnreachableError(f"{trusted.name} at {target} did not answer within {time_limit:g} s")
    if link._session is None:
        error = UnreachableError if link._unreachable else ChannelError
        raise error(f"no link to {trusted.name} at {target}: {link.closed}")
    return link
