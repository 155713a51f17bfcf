"""A client's links to the servers of its plan: made when needed, made again when lost; answers find their requests.

The messages are described in docs/client.md. Every frame is checked against what was asked before memory is reserved.
"""

from __future__ import annotations

import json
import logging
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent import futures
from concurrent.futures import Future
from types import MappingProxyType
from typing import Any

from shareflow_client.answer import Answer
from shareflow_client.errors import ChannelError, PeerError, RequestError, TimeLimitError
from shareflow_client.link import Callbacks, Link, LinkSettings, UnreachableError, dial
from shareflow_client.tls import Identity, Trusted
from shareflow_client.wire import Frame, FrameKind

CONTROL_LIMIT = 1 << 16
"""The largest CONTROL message of a server in bytes."""
_TEXT_LIMIT = 2000
_REMEMBERED = 1 << 16
_log = logging.getLogger(__name__)


class Session:
    """Links to all servers, and the requests that are under way. Thread-safe.

    Args:
        servers: by name, "host:port" and the pinned certificate; the leader first.
        identity: of the client.
        plan: its fingerprint.
        connect_limit: seconds that making one connection may take.
        on_notice: called with (server, text) for what a server tells people; on a link's thread.
    """

    def __init__(
        self,
        servers: Mapping[str, tuple[str, Trusted]],
        identity: Identity,
        plan: str,
        *,
        settings: LinkSettings,
        connect_limit: float,
        on_notice: Callable[[str, str], None],
    ) -> None:
        self.id = secrets.token_hex(16)
        # From 0.5 to 1.5: clients that lost the same server do not come back all at once.
        self.pace = 0.5 + int(self.id[:8], 16) / (1 << 32)
        self.leader = next(iter(servers))
        self.was_connected = False
        self._servers = servers
        self._identity = identity
        self._plan = plan
        self._settings = settings
        self._connect_limit = connect_limit
        self._on_notice = on_notice
        self._callbacks = Callbacks(
            on_link=self._opened, on_frame=self._frame, on_close=self._closed, size_limit=self._size_limit
        )
        self._lock = threading.Lock()  # guards all below, and the answers
        self._links: dict[str, Link] = {}
        self._dialing: Future[None] | None = None
        self._ended = False
        self._answers: dict[int, Answer] = {}
        # What may still come for requests that were given up, by link and request: its size.
        self._late: dict[Link, OrderedDict[int, int]] = {}

    # --- links ------------------------------------------------------------------------------------------------

    def links(self, limit: float | None = None) -> dict[str, Link]:
        """Open links to all servers, by name, the leader first; those that were lost are made again.

        Args:
            limit: seconds that the caller waits; as long as connecting takes if None. The attempt goes on for others.

        Raises:
            ChannelError: a connection cannot be made; the text tells of every server that failed. UnreachableError
                where another attempt may succeed.
            TimeLimitError: there were no links in time.
        """
        with self._lock:
            if self._ended:
                raise ChannelError("The client is closed. Make another one.")
            if not self._not_open():
                return self._in_order()
            if self._dialing is None:
                self._dialing = Future()
                threading.Thread(
                    target=self._dial_all, args=(self._dialing,), name="shareflow client connects", daemon=True
                ).start()
            dialing = self._dialing
        if not futures.wait([dialing], limit).done:
            with self._lock:
                lost = " and ".join(self._not_open())
            raise TimeLimitError(
                f"There was no connection to {lost} within the time limit of the request. Raise limits.answer, or ask "
                "who runs the server."
            )
        dialing.result()
        with self._lock:
            return self._in_order()

    def _dial_all(self, dialing: Future[None]) -> None:
        """The thread of one attempt to connect."""
        try:
            self._connect()
        except BaseException as error:  # shown in the threads that wait
            self._dialing = None
            dialing.set_exception(error)
        else:
            self._dialing = None
            dialing.set_result(None)

    def _in_order(self) -> dict[str, Link]:
        return {name: self._links[name] for name in self._servers}

    def _not_open(self) -> list[str]:
        return [name for name in self._servers if name not in self._links or self._links[name].closed is not None]

    def _connect(self) -> None:
        with self._lock:
            lost = self._not_open()
        failed: dict[str, ChannelError] = {}
        unforeseen: list[BaseException] = []

        def connect(name: str) -> None:
            address, trusted = self._servers[name]
            try:
                link = dial(
                    address,
                    self._identity,
                    trusted,
                    plan=self._plan,
                    callbacks=self._callbacks,
                    settings=self._settings,
                    time_limit=self._connect_limit,
                )
            except ChannelError as error:
                failed[name] = error
                return
            except BaseException as error:  # shown in the thread that waits
                unforeseen.append(error)
                return
            with self._lock:
                ended = self._ended
                self._links[name] = link
            if ended:
                link.close("the client is closed")

        threads = [threading.Thread(target=connect, args=(name,), daemon=True) for name in lost[1:]]
        for thread in threads:
            thread.start()
        for name in lost[:1]:
            connect(name)
        for thread in threads:
            thread.join()
        if unforeseen:
            raise unforeseen[0]
        if failed:
            again = all(isinstance(error, UnreachableError) for error in failed.values())
            text = "; ".join(str(failed[name]) for name in self._servers if name in failed)
            raise (UnreachableError if again else ChannelError)(text)
        self.was_connected = True

    def close(self, reason: str = "") -> None:
        """Close the links; what waits for an answer fails. May be repeated."""
        with self._lock:
            self._ended = True
            links = list(self._links.values())
        for link in links:
            link.close(reason)

    # --- requests ---------------------------------------------------------------------------------------------

    def expect(self, number: int, links: Mapping[str, Link], sizes: Mapping[str, int]) -> Answer:
        """The answer of a request that is about to be submitted over these links; see Answer.

        Raises:
            ChannelError: a link was lost.
        """
        answer = Answer(number, self.leader, links, sizes)
        with self._lock:
            for name, link in links.items():
                if self._links.get(name) is not link or link.closed is not None:
                    raise ChannelError(f"The link to {name} was lost before the request went out: {link.closed}")
            self._answers[number] = answer
        return answer

    def wait(self, answer: Answer, limit: float) -> None:
        """Wait at most ``limit`` seconds for a complete answer, and take no more of it.

        Raises:
            TimeLimitError: names the servers that did not answer; the others are told that it was given up.
            RequestError: a server refused or failed.
            ChannelError: a link was lost.
        """
        try:
            if not answer.settled.wait(max(limit, 0.0)):
                with self._lock:
                    missing = answer.missing
                if missing:
                    raise TimeLimitError(
                        f"Request {answer.number} was not answered within its time limit; no answer came from "
                        f"{' and '.join(missing)}. Raise limits.answer, or ask who runs "
                        f"{'it' if len(missing) == 1 else 'them'}."
                    )
            if answer.error is not None:
                raise answer.error
        finally:
            self.forget(answer)

    def forget(self, answer: Answer) -> None:
        """Take no more of an answer; servers that have not finished it are told."""
        with self._lock:
            if self._answers.pop(answer.number, None) is None:
                return
            complete = not answer.missing and answer.error is None
            for name, link in answer.links.items():
                if answer.sizes[name] and name not in answer.begun and link in self._late:
                    late = self._late[link]
                    late[answer.number] = answer.sizes[name]
                    if len(late) > _REMEMBERED:
                        late.popitem(last=False)
        if complete:
            return
        for link in answer.links.values():
            try:
                send_control(link, {"type": "cancel", "request": answer.number})
            except ChannelError:
                continue  # a lost link: its server knows

    def fail(self, answer: Answer, error: RequestError) -> None:
        """End an answer from here; who waits for it gets the error."""
        with self._lock:
            answer.fail(error)

    # --- what comes, on the links' reader threads -------------------------------------------------------------

    def _size_limit(self, link: Link, kind: FrameKind, execution: int, round: int) -> int | None:
        if kind is FrameKind.CONTROL:
            return CONTROL_LIMIT
        if round != 1:
            return None
        with self._lock:
            answer = self._answers.get(execution)
            if answer is None or answer.links.get(link.peer) is not link:
                return self._late[link].pop(execution, None) if link in self._late else None
            if link.peer in answer.begun or not answer.sizes[link.peer]:
                return None
            answer.begun.add(link.peer)
            return answer.sizes[link.peer]

    def _frame(self, link: Link, frame: Frame) -> None:
        if frame.kind is FrameKind.DATA:
            with self._lock:
                answer = self._answers.get(frame.execution)
                if answer is not None and answer.links.get(link.peer) is link:
                    answer.data[link.peer] = frame.payload
                    answer.settle_if_complete()
            return
        message = read_control(link.peer, frame.payload)
        take = _CONTROLS.get(message.get("type", ""))
        if take is None:
            raise PeerError(f"A server says {', '.join(_CONTROLS)}; {link.peer} sent a message of another type.")
        take(self, link, message)

    def _done(self, link: Link, message: Mapping[str, Any]) -> None:
        number, version = _whole(link, message, "request"), _whole(link, message, "version")
        with self._lock:
            answer = self._answers.get(number)
            if link.peer != self.leader:
                raise PeerError(f"{self.leader} says when a request is done; {link.peer} said so of request {number}.")
            if answer is None or answer.links.get(link.peer) is not link:
                return
            if answer.sizes[link.peer] and link.peer not in answer.data:
                raise PeerError(f"Data comes before done; {link.peer} said that request {number} is done without it.")
            answer.version = version
            answer.settle_if_complete()

    def _error(self, link: Link, message: Mapping[str, Any]) -> None:
        number, retry = _whole(link, message, "request"), message.get("retry")
        if not isinstance(retry, bool):
            raise PeerError(f"An error says whether to retry, true or false; that of {link.peer} does not.")
        text = f"{link.peer} could not do request {number}: {_text(link, message)}"
        with self._lock:
            answer = self._answers.get(number)
            if answer is not None and answer.links.get(link.peer) is link:
                answer.begun.add(link.peer)  # nothing more comes from here
                answer.fail(RequestError(text, retry=retry))
            elif link in self._late:
                self._late[link].pop(number, None)

    def _notice(self, link: Link, message: Mapping[str, Any]) -> None:
        text = _text(link, message)
        _log.info("%s says: %s", link.peer, text)
        self._on_notice(link.peer, text)

    def _opened(self, link: Link) -> None:
        with self._lock:
            self._late[link] = OrderedDict()

    def _closed(self, link: Link, text: str) -> None:
        kind = ChannelError if link.peer_error is None else PeerError
        with self._lock:
            self._late.pop(link, None)
            for answer in self._answers.values():
                if answer.links.get(link.peer) is link:
                    answer.fail(kind(f"The link to {link.peer} was lost: {text}"))


_CONTROLS: Mapping[str, Callable[[Session, Link, Mapping[str, Any]], None]] = MappingProxyType(
    {"done": Session._done, "error": Session._error, "notice": Session._notice}
)


def send_control(link: Link, message: Mapping[str, Any]) -> None:
    """Send one CONTROL message."""
    link.send(FrameKind.CONTROL, json.dumps(message, separators=(",", ":")).encode())


def read_control(peer: str, payload: memoryview) -> Mapping[str, Any]:
    """The JSON object of a CONTROL message; raises PeerError where it is none."""
    try:
        message = json.loads(bytes(payload).decode("utf-8"))
    except (ValueError, RecursionError):
        raise PeerError(f"A CONTROL message is JSON in UTF-8; what {peer} sent is not.") from None
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise PeerError(f"A CONTROL message is an object with a type; what {peer} sent is not.")
    return message


def _whole(link: Link, message: Mapping[str, Any], key: str) -> int:
    value = message.get(key)
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise PeerError(f"{key!r} of a message is a whole number; in what {link.peer} sent it is not.")
    return value


def _text(link: Link, message: Mapping[str, Any]) -> str:
    text = message.get("text")
    if not isinstance(text, str):
        raise PeerError(f"'text' of a message is text; in what {link.peer} sent it is not.")
    return "".join(c if c.isprintable() else " " for c in text[:_TEXT_LIMIT])
