"""What both servers do: take requests of clients and material of the dealer, compute their part, answer.

The first server of the plan *leads* (leading.py): it decides what is computed together, and under which index. The
other one *follows* (following.py): it checks each index against its own store, and each row against what the client
itself told it. Messages are those of docs/serving.md.
"""

from __future__ import annotations

import abc
import json
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from shareflow.errors import ChannelError, PeerError, RequestError, ShareflowError, StoreError, TimeLimitError
from shareflow.runtime.courier import Courier
from shareflow.runtime.cut import cut
from shareflow.runtime.execution import LinkExchange, Mailbox
from shareflow.runtime.intake import Intake
from shareflow.runtime.metrics import Metrics
from shareflow.runtime.part import PartProgram
from shareflow.runtime.party_config import ClientRights, ServingSettings
from shareflow.runtime.plan import Plan
from shareflow.runtime.queue import Batch, Queue
from shareflow.runtime.quota import Quota
from shareflow.runtime.reading_ahead import ReadingAhead
from shareflow.runtime.requests import Request, RequestKey, given_values, result_parts, row_size
from shareflow.runtime.role import Role
from shareflow.runtime.stock import Stock, Use
from shareflow.runtime.store import Material, Store
from shareflow_client.link import Callbacks
from shareflow_client.wire import Frame, FrameKind, Sink

_log = logging.getLogger(__name__)

_CONTROL_LIMIT = {"party": 8 << 20, "client": 1 << 16}
# Executions and requests that ended, of which messages may still be on their way.
_REMEMBERED = 4096
# Requests of one link whose input is on its way, and answers that its client did not read yet.
_MOST_ANNOUNCED = _MOST_UNREAD = 1024
# Indices that one message may name.
_MOST_INDICES = 1 << 22
# Bytes of an execution's messages up to which any graph is run once at the start.
_WARMED = 64 << 20
# A plan's index is an unsigned number of 64 bits, TensorFlow's a signed one.
_WORD = 1 << 64


Handlers = dict[str, Callable[[Any, dict[str, Any]], None]]


@dataclass(eq=False)
class Running:
    """One execution that has begun here."""

    index: int
    batch: Batch
    graph: str
    version: int
    state: Mapping[str, tf.Tensor]  # of that version, which may be replaced meanwhile
    mailbox: Mailbox
    finished: threading.Event = field(default_factory=threading.Event)  # at the follower, as the leader learns

    def fail(self, error: Exception) -> None:
        """Ends it with an error, whatever it waits for."""
        self.mailbox.fail(error)
        self.finished.set()


class UnusableMaterialError(ShareflowError):
    """The material of an index cannot be used: the rows are computed under another one."""


class Serving(Role):
    """The work of one server. Threads: links' readers, the intake's, clients' couriers, and one for each execution.

    One lock guards what the threads share. Computing and storing happen outside of it, and what is sent under it does
    not wait for the peer.
    """

    # What the other server is told of a request that is over here.
    _over: str
    # Whether clients hear from this server of executions that the other one ended.
    _tells_of_failures: bool

    def __init__(
        self,
        plan: Plan,
        party: str,
        store: Store,
        settings: ServingSettings,
        clients: Mapping[str, ClientRights],
        metrics: Metrics,
    ) -> None:
        manifest = plan.manifest
        self._manifest, self._party, self._store, self._settings = manifest, party, store, settings
        self._clients, self._metrics = clients, metrics
        (self._other,) = (server for server in manifest.protocol.servers if server != party)
        self._programs = {name: PartProgram(cut(plan, name, party)).prepare() for name in manifest.graphs}
        self._stock = Stock(store, settings.prefetch, settings.prefetch_bytes)
        sizes = {n: p.part.corrections.nbytes if p.part.corrections else 0 for n, p in self._programs.items()}
        self._intake = Intake(store, self._stock, sizes, self._material_stored, self._material_refused)
        self._quotas = {name: Quota(rights.rows_per_minute) for name, rights in clients.items()}

        self._lock = threading.Condition()
        self._links: dict[str, Any] = {}
        self._requests: dict[RequestKey, Request] = {}
        self._announced: dict[Any, dict[int, int]] = {}  # by client's link and request: bytes of input to come
        self._next_rows: dict[Any, int] = {}
        self._couriers: dict[Any, Courier] = {}
        self._arrived: OrderedDict[RequestKey, None] = OrderedDict()  # complete at the follower
        self._queue = Queue(manifest, settings.mix_clients)
        self._running: dict[int, Running] = {}
        self._ended: OrderedDict[int, Mailbox] = OrderedDict()
        self._version = store.current or 0
        self._state = self._read_state(self._version)
        self._stopping = False
        self._pool = ThreadPoolExecutor(self._most_at_once, "shareflow execution")
        self._warm = False

    def start(self) -> None:
        threading.Thread(target=self._warm_up, name="shareflow warm-up", daemon=True).start()

    def _warm_up(self) -> None:
        """Runs graphs once that are not large, and what is asked most: the first answer is fast, too.

        Keeping a state is done once: where it is large, that is not worth the memory. What is asked meanwhile is
        computed, only slower.
        """
        smallest = {entry.variants[0] for entry in self._manifest.entries.values() if not entry.keeps}
        for name, program in self._programs.items():
            if (name in smallest or program.traffic <= _WARMED) and not self._stopping:
                try:
                    program.warm_up()
                except Exception as error:
                    # It is no request's: what fails with zeros need not fail with others.
                    _log.warning("graph %s could not be run on zeros: %s", name, type(error).__name__)
        with self._lock:
            self._warm = True

    @property
    @abc.abstractmethod
    def _most_at_once(self) -> int:
        """Executions that may run here side by side."""

    @abc.abstractmethod
    def _server_handlers(self) -> Handlers:
        """What is done with each type of message that only the other server sends this one."""

    @abc.abstractmethod
    def _linked(self, link: Any) -> None:
        """The other server, or the dealer, is connected."""

    @abc.abstractmethod
    def _input_is_here(self, request: Request) -> None:
        """A request's input has arrived."""

    @abc.abstractmethod
    def _why_waiting(self, request: Request) -> str:
        """Why a request whose input is here was not computed. Holds the lock."""

    @abc.abstractmethod
    def _confirmation(self, request: Request, version: int) -> bytes | None:
        """What a client is told after its result."""

    # --- the process's side ------------------------------------------------------------------------------------

    @property
    def callbacks(self) -> Callbacks:
        return Callbacks(self._on_frame, self._on_close, self._size_limit, self._on_link, self._sink)

    def status(self) -> dict[str, Any]:
        with self._lock:
            peers = {name: "connected" if name in self._links else "lost" for name in self._peers()}
            waiting = len([request for request in self._requests.values() if not request.over])
            stock = {name: self._stock.count(self._use(name)) for name in self._manifest.graphs}
            why = ""
            if self._stopping:
                why = "it is stopping"
            elif self._other not in self._links:
                why = f"no link to {self._other}"
            elif not self._version and any(entry.uses for entry in self._manifest.entries.values()):
                why = "no state is loaded yet"
            elif not self._warm:
                why = "its functions run for the first time"
            return {
                "ready": not why,
                "why": why,
                "state_version": self._version,
                "stock": stock,
                "peers": peers,
                "running": len(self._running),
                "waiting": waiting,
            }

    def stop(self, grace: float) -> None:
        deadline = time.monotonic() + grace
        with self._lock:
            self._stopping = True
            text = f"{self._party} is stopping. Try again in a while."
            for request in [r for r in self._requests.values() if not self._is_running(r)]:
                self._end(request, text, retry=True)
            self._lock.notify_all()
            while self._running and time.monotonic() < deadline:
                self._lock.wait(min(0.1, max(deadline - time.monotonic(), 0)))
            for running in self._running.values():
                running.fail(ChannelError(f"{self._party} stopped."))
            # Those of which only some rows were computed.
            for request in list(self._requests.values()):
                self._end(request, text, retry=True)
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._intake.stop()

    # --- links -------------------------------------------------------------------------------------------------

    def _peers(self) -> list[str]:
        return [name for name in self._manifest.computing if name != self._party]

    def _on_link(self, link: Any) -> None:
        if link.role == "client":
            if link.peer not in self._clients:
                raise PeerError(f"{link.peer} is no client of {self._party}.")
            with self._lock:
                self._next_rows[link] = 0
                self._announced[link] = {}
                self._couriers[link] = Courier(link)
            return
        if link.peer not in self._peers():
            raise PeerError(f"{link.peer} is none of the parties that {self._party} computes with.")
        with self._lock:
            before = self._links.get(link.peer)
            if before is not None:
                # The peer noticed before this party did that the old link is dead.
                self._lost(before, f"{link.peer} connected anew")
                threading.Thread(target=before.close, args=(f"{link.peer} connected anew",), daemon=True).start()
            self._links[link.peer] = link
        self._metrics.links.labels(link.peer).set(1)
        if link.peer == self._other:
            # Of every graph, so that the leader knows when it has heard all.
            for use in dict.fromkeys((*self._stock.uses(), *map(self._use, self._manifest.graphs))):
                self._tell(link, self._have(use, self._stock.indices(use)))
        else:
            counts = [[*use, self._stock.count(use)] for use in self._stock.uses()]
            self._tell(link, {"type": "counts", "counts": counts})
        self._linked(link)
        with self._lock:
            self._lock.notify_all()

    def _on_close(self, link: Any, text: str) -> None:
        if link.role == "client":
            with self._lock:
                self._next_rows.pop(link, None)
                courier = self._couriers.pop(link, None)
                if courier is not None:
                    courier.stop()
                for request in [r for r in self._requests.values() if r.link is link]:
                    self._end(request, "", retry=False, tell=False)
                self._announced.pop(link, None)
            return
        with self._lock:
            if self._links.get(link.peer) is link:
                self._lost(link, text)
        if link.peer == self._manifest.protocol.dealer:
            self._intake.lost(link)

    def _lost(self, link: Any, text: str) -> None:
        """The link to a party is no longer used. Holds the lock."""
        del self._links[link.peer]
        self._metrics.links.labels(link.peer).set(0)
        if link.peer == self._other:
            self._stock.peer_lost()
            self._arrived.clear()
            # Those that still wait are queued anew when the follower says again that it has them.
            self._queue.clear()
            for running in self._running.values():
                running.fail(ChannelError(f"The link to {link.peer} was lost: {text}"))
        self._lock.notify_all()

    def _size_limit(self, link: Any, kind: FrameKind, execution: int, round_: int) -> int | None:
        if kind is FrameKind.CONTROL:
            return _CONTROL_LIMIT[link.role]
        if link.role == "client":
            # Asked once for each message: a second one is not expected.
            with self._lock:
                return self._announced.get(link, {}).pop(execution, None) if round_ == 0 else None
        if link.peer == self._other:
            mailbox = self._mailbox(execution)
            return None if mailbox is None else mailbox.admit(round_)
        return self._intake.size(link, execution)

    def _sink(self, link: Any, kind: FrameKind, execution: int, round_: int) -> Sink | None:
        # The dealer's messages are larger than all others of an execution, and are looked at only when they are used.
        dealt = kind is FrameKind.DATA and link.peer == self._manifest.protocol.dealer and link.role == "party"
        return self._intake.begin(link, execution) if dealt else None

    def _mailbox(self, index: int) -> Mailbox | None:
        with self._lock:
            running = self._running.get(index)
            return running.mailbox if running else self._ended.get(index)

    def _on_frame(self, link: Any, frame: Frame) -> None:
        if frame.kind is FrameKind.DATA:
            if link.role == "client":
                self._input(link, frame.execution, frame.payload)
            elif link.peer == self._other:
                mailbox = self._mailbox(frame.execution)
                if mailbox is not None:
                    mailbox.put(frame.round, frame.payload)
            else:
                self._intake.message(link, frame.execution, frame.payload)
            # After it was handed on: somebody waits for it.
            self._metrics.bytes_received.labels(link.role if link.role == "client" else link.peer).inc(
                len(frame.payload)
            )
            return
        message = _parsed(link, frame.payload)
        handlers = self._handlers(link)
        handler = handlers.get(str(message.get("type", "")))
        if handler is None:
            raise PeerError(f"{link.peer} sent a message of unknown type: {str(message.get('type'))[:40]!r}.")
        try:
            handler(link, message)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            raise PeerError(f"{link.peer} sent a message {message['type']!r} with a key missing or wrong.") from None

    def _handlers(self, link: Any) -> Handlers:
        if link.role == "client":
            return {"submit": self._submit, "cancel": self._cancel}
        if link.peer == self._manifest.protocol.dealer:
            return {"material": self._material, "cannot": self._cannot_deal}
        common: Handlers = {"have": self._peer_has, "spent": self._peer_spent, "abort": self._peer_aborts}
        return common | self._server_handlers()

    def _tell(self, link: Any, message: Mapping[str, Any]) -> bool:
        """Sends a message without waiting, so that it can be done under the lock; whether the link was still open."""
        link.post(FrameKind.CONTROL, json.dumps(message, separators=(",", ":")).encode())
        return link.closed is None

    def _tell_other(self, message: Mapping[str, Any]) -> bool:
        link = self._links.get(self._other)
        return link is not None and self._tell(link, message)

    # --- clients -----------------------------------------------------------------------------------------------

    def _submit(self, link: Any, message: dict[str, Any]) -> None:
        number, rows, first = int(message["request"]), int(message["rows"]), int(message["first_row"])
        session, entry = str(message["session"]), str(message["entry"])
        acts_as, label = str(message["as"]), str(message["label"])
        key = RequestKey(link.peer, session, number)
        numbered = 0 < number < 1 << 63 and 0 <= first < 1 << 63
        if len(session) != 32 or max(map(len, (label, entry, acts_as))) > 200 or not numbered:
            raise PeerError(f"{link.peer} sent a request with a malformed session, name, label or number.")
        if rows < 1 or rows > self._clients[link.peer].most_rows:
            limit = self._clients[link.peer].most_rows
            raise PeerError(f"A request of {link.peer} has 1 to {limit} rows; got {rows}. Ask in smaller requests.")
        refusal = self._refusal(link.peer, entry, acts_as, label, rows)
        graphs = self._manifest.entries[entry].variants if entry in self._manifest.entries else ()
        size = rows * row_size(self._programs[graphs[0]].part, acts_as) if graphs else 0
        request = Request(key, entry, acts_as, label, rows, first, link, size)
        with self._lock:
            if first < self._next_rows.get(link, 0):
                raise PeerError(f"{link.peer} numbers a row {first} that it has used in this session: rows go up.")
            self._next_rows[link] = first + rows
            announced, courier = self._announced[link], self._couriers[link]
            if key in self._requests or number in announced:
                raise PeerError(f"{link.peer} uses the number {number} for two requests.")
            if len(announced) >= _MOST_ANNOUNCED:
                raise PeerError(f"{link.peer} announced {len(announced)} requests without sending their input.")
            if courier.unsent > _MOST_UNREAD:
                raise PeerError(f"{link.peer} does not read what it is answered: {courier.unsent} answers wait.")
            if size:
                announced[number] = size
            if refusal is None:
                self._requests[key] = request
                self._metrics.waiting_rows.inc(rows)
        if refusal is not None:
            reason, text, retry = refusal
            self._metrics.refused.labels(reason).inc()
            _log.warning("refused a request of %s: %s", link.peer, text)
            with self._lock:
                self._tell_error(link, number, text, retry)
        elif not size:
            self._complete(request, memoryview(b""))

    def _refusal(self, client: str, entry: str, acts_as: str, label: str, rows: int) -> tuple[str, str, bool] | None:
        """Reason, text for the client, and whether to try again; None for a request that is taken."""
        rights = self._clients[client]
        if entry not in self._manifest.entries:
            return "entry", f"The plan's entries are {', '.join(self._manifest.entries)}; asked for {entry!r}.", False
        if acts_as not in rights.acts_as:
            return "rights", f"{client} acts as {', '.join(rights.acts_as)} here; asked as {acts_as!r}.", False
        if acts_as not in self._queue.parties(entry):
            return "rights", f"Entry {entry!r} is for {', '.join(self._queue.parties(entry))}, not {acts_as!r}.", False
        if rows > 1 and not self._queue.in_rows(entry):
            return "rows", f"Entry {entry!r} takes one request at a time, of one row; got {rows}.", False
        if self._stopping:
            return "stopping", f"{self._party} is stopping. Try again in a while.", True
        if not self._version and self._manifest.entries[entry].uses:
            return "state", f"Entry {entry!r} uses state that nobody has loaded yet. Load it, then try again.", True
        with self._lock:
            waiting = [r for r in self._requests.values() if not r.over]
            # Answers that a client does not fetch take up memory as requests do.
            unread = sum(courier.rows for link, courier in self._couriers.items() if link.peer == client)
        if sum(r.rows for r in waiting if r.key.client == client) + unread + rows > rights.most_waiting:
            return "waiting", f"At most {rights.most_waiting} rows of {client} wait at once. Send fewer.", True
        if sum(r.rows for r in waiting) + rows > self._settings.most_waiting_rows:
            return "overload", f"{self._party} has too much waiting. Try again in a while.", True
        if not self._quotas[client].take(rows):
            return "quota", f"{client} may ask for {rights.rows_per_minute} rows a minute. Wait, or ask for more.", True
        return None

    def _input(self, link: Any, number: int, payload: memoryview) -> None:
        with self._lock:
            found = [r for r in self._requests.values() if r.link is link and r.key.number == number]
        for request in found:
            self._complete(request, payload)

    def _complete(self, request: Request, payload: memoryview) -> None:
        with self._lock:
            request.data = payload
        self._input_is_here(request)

    def _cancel(self, link: Any, message: dict[str, Any]) -> None:
        number = int(message["request"])
        with self._lock:
            for request in [r for r in self._requests.values() if r.link is link and r.key.number == number]:
                self._end(request, "", retry=False, tell=False)

    def _end(self, request: Request, text: str, retry: bool, tell: bool = True) -> None:
        """Ends a request with an error, or without a word. Holds the lock."""
        if self._requests.pop(request.key, None) is None:
            return
        request.over = True
        request.data = request.data if self._is_running(request) else None
        self._metrics.waiting_rows.dec(request.rows)
        self._arrived.pop(request.key, None)
        if tell:
            self._tell_error(request.link, request.key.number, text, retry)
        self._tell_other({"type": self._over, **request.key._asdict()})
        self._lock.notify_all()

    def _tell_error(self, link: Any, number: int, text: str, retry: bool) -> None:
        """Ends a request at its client. Holds the lock."""
        courier = self._couriers.get(link)
        if courier is not None:
            message = {"type": "error", "request": number, "text": text, "retry": retry}
            courier.put(number, 0, (), json.dumps(message).encode())

    def _expire(self, limit: float) -> None:
        """Ends requests of which nothing was computed for so long. Holds the lock."""
        now = time.monotonic()
        for request in [r for r in self._requests.values() if now - r.progress > limit]:
            if not self._is_running(request):
                missing = self._why_waiting(request) if request.complete else "its input did not arrive here"
                self._end(request, f"The request waited {limit:g} s: {missing}.", retry=True)

    def _is_running(self, request: Request) -> bool:
        return any(request in running.batch.requests for running in self._running.values())

    def _answer(self, batch: Batch, results: dict[str, list[bytes]], version: int) -> None:
        """Notes the result parts of a batch, and sends the answers of requests that have all of theirs."""
        with self._lock:
            for party, rows in batch.rows.items():
                for position, row in enumerate(rows):
                    row.request.parts[row.number] = results[party][position] if party in results else b""
                    row.request.progress = time.monotonic()
                    row.request.versions.add(version)
            answered = [r for r in batch.requests if r.answered and not r.over]
            for request in answered:
                if len(request.versions) > 1:
                    # Its rows fell into several executions, and a load came between them.
                    text = "The state changed while the request was computed; one answer is of one state. Try again."
                    self._end(request, text, retry=True)
                    continue
                request.over = True
                self._requests.pop(request.key, None)
                self._metrics.waiting_rows.dec(request.rows)
                self._metrics.rows.labels(request.entry).inc(request.rows)
                courier = self._couriers.get(request.link)
                if courier is not None:
                    parts = [part for part in request.parts if part]
                    courier.put(request.key.number, request.rows, parts, self._confirmation(request, version))
                    self._metrics.bytes_sent.labels("client").inc(sum(map(len, parts)))

    # --- material ----------------------------------------------------------------------------------------------

    def _use(self, graph: str) -> Use:
        entry = self._manifest.entries[self._manifest.graphs[graph].entry]
        return Use(graph, self._version if entry.uses else 0)

    def _have(self, use: Use, indices: Sequence[int]) -> dict[str, Any]:
        return {"type": "have", "graph": use.graph, "version": use.version, "indices": _ranges(indices)}

    def _material(self, link: Any, message: dict[str, Any]) -> None:
        use = Use(str(message["graph"]), int(message["version"]))
        self._intake.announce(link, use, int(message["index"]), int(message["bytes"]))

    def _material_stored(self, link: Any, use: Use, indices: list[int], usable: int) -> None:
        self._tell(link, {"type": "stored", "indices": indices})
        self._tell_other(self._have(use, indices))
        self._metrics.stock.labels(use.graph).set(self._stock.count(use))
        self._became_usable(use, usable)

    def _material_refused(self, link: Any, use: Use, index: int, text: str) -> None:
        _log.warning("could not keep material of %s: %s", use.graph, text)
        # The dealer deals it anew, under another index: what the other server has of this one is of no use.
        self._tell(link, {"type": "refused", "index": index, "text": text})
        self._tell_other({"type": "spent", "indices": [index]})

    def _became_usable(self, use: Use, count: int) -> None:
        """Both servers have material for so many executions more."""
        with self._lock:
            self._lock.notify_all()

    def _cannot_deal(self, link: Any, message: dict[str, Any]) -> None:
        text = str(message["text"])[:1000]
        _log.error("%s cannot deal %s: %s", link.peer, message["graph"], text)

    def _peer_has(self, link: Any, message: dict[str, Any]) -> None:
        use = Use(str(message["graph"]), int(message["version"]))
        ranges = [(int(first), int(last)) for first, last in message["indices"]]
        if sum(last - first + 1 for first, last in ranges) > _MOST_INDICES:
            raise PeerError(f"{link.peer} says that it has material of more than {_MOST_INDICES} executions.")
        indices = [index for first, last in ranges for index in range(first, last + 1)]
        usable = self._stock.peer_has(use, indices)
        spent = self._stock.spent(indices)
        if spent:
            self._tell(link, {"type": "spent", "indices": spent})
        self._became_usable(use, usable)

    def _peer_spent(self, link: Any, message: dict[str, Any]) -> None:
        self._stock.spend([int(index) for index in message["indices"]])

    # --- executions, at both -----------------------------------------------------------------------------------

    def _compute(self, running: Running, material: Material, link: Any) -> dict[str, tf.Tensor]:
        """This server's part of an execution. Raises what ends it."""
        program = self._programs[running.graph]
        part, single = program.part, self._programs[self._manifest.entries[running.batch.entry].variants[0]].part
        values = {tensor: running.state[f"{name}/{number}"] for tensor, (name, number, _) in part.state_in.items()}
        for value, peer in part.keys:
            key = material.key if peer != self._other else link.key(_execution_key_info(running))
            values[value.tensor] = tf.constant(np.frombuffer(key, "<i8"))
        if part.index is not None:
            signed = running.index if running.index < _WORD >> 1 else running.index - _WORD
            values[part.index.tensor] = tf.constant(signed, tf.int64)
        values.update(given_values(part, single, running.batch.rows))
        exchange = LinkExchange(link, running.index, running.mailbox, time.monotonic() + self._settings.execution_limit)
        with ReadingAhead(material, program.pieces) as corrections:
            ends = program.run(values, exchange, corrections.read)
        self._metrics.bytes_sent.labels(self._other).inc(exchange.sent)
        self._metrics.messages_sent.labels(self._other).inc(exchange.messages)
        return ends

    def _results(self, running: Running, ends: Mapping[str, tf.Tensor]) -> dict[str, list[bytes]]:
        rows = self._manifest.graphs[running.graph].batch if self._queue.in_rows(running.batch.entry) else None
        return {m.peer: result_parts(m, ends, rows) for m in self._programs[running.graph].part.results}

    def _keep(self, running: Running, ends: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Stores the state that an execution made; what it does not keep anew stays as it was."""
        part = self._programs[running.graph].part
        state = dict(running.state) if running.version else {}
        state.update({f"{name}/{number}": ends[tensor] for tensor, (name, number, _) in part.state_out.items()})
        self._store.put_state(
            running.index, {name: t.numpy() for name, t in state.items()}, based_on=running.version or None
        )
        return state

    def _read_state(self, version: int) -> dict[str, tf.Tensor]:
        return {name: tf.constant(array) for name, array in self._store.state(version).items()} if version else {}

    def _switch(self, version: int, state: dict[str, tf.Tensor], announce: Callable[[], Any] = lambda: None) -> None:
        """From now on executions use this state.

        ``announce`` tells of it: no execution begins between that and the change.
        """
        self._store.set_current(version)
        with self._lock:
            announce()
            before, self._version, self._state = self._version, version, state
            kept = {version, *self._running}
            self._lock.notify_all()
        if before and before != version:
            self._stock.discard(before)
        # Also what executions left that failed after they had stored it.
        for old in [old for old in self._store.versions() if old not in kept]:
            self._store.drop_state(old)
        _log.info("state version %d is in use", version)

    def _done(self, running: Running, outcome: str) -> None:
        running.mailbox.end()
        with self._lock:
            self._running.pop(running.index, None)
            self._ended[running.index] = running.mailbox
            while len(self._ended) > _REMEMBERED:
                self._ended.popitem(last=False)
            self._lock.notify_all()
        self._metrics.executions.labels(running.graph, outcome).inc()

    def _peer_aborts(self, link: Any, message: dict[str, Any]) -> None:
        with self._lock:
            running = self._running.get(int(message["index"]))
        if running is not None:
            text = str(message["text"])[:1000]
            running.fail(UnusableMaterialError(text) if message["material"] else PeerAborted(link.peer, text))

    def _fail(self, running: Running, error: Exception, link: Any) -> None:
        text, retry = _told(error, self._party)
        if not isinstance(error, (PeerAborted, ChannelError)) or isinstance(error, PeerError):
            _log.error("execution %d of %s failed: %s", running.index, running.graph, text)
            if not isinstance(error, ShareflowError):
                _log.debug("the error was", exc_info=error)
            self._tell(link, {"type": "abort", "index": running.index, "text": text, "material": False})
        else:
            _log.warning("execution %d of %s was aborted: %s", running.index, running.graph, text)
        with self._lock:
            self._running.pop(running.index, None)
            # At once: a late message of it is no fault of the peer.
            self._ended[running.index] = running.mailbox
            # Where the leader ended the execution it tells the clients; otherwise it may have finished its part.
            tell = self._tells_of_failures or not isinstance(error, PeerAborted)
            for request in running.batch.requests:
                self._end(request, text, retry=retry, tell=tell)


class PeerAborted(ShareflowError):  # noqa: N818 - it says what happened
    """The other server ended an execution."""

    def __init__(self, peer: str, text: str) -> None:
        super().__init__(f"{peer} ended the execution: {text}")


def _execution_key_info(running: Running) -> bytes:
    """What the two servers derive their key of one execution under."""
    return f"execution {running.graph} {running.index}".encode()


def _told(error: Exception, party: str) -> tuple[str, bool]:
    """What clients and the other server are told of an error, and whether another try can succeed."""
    if isinstance(error, (ChannelError, TimeLimitError, PeerAborted, StoreError)):
        return str(error), True
    if isinstance(error, ShareflowError):
        return str(error), isinstance(error, RequestError) and error.retry
    # TensorFlow's texts may hold values: they stay here.
    return f"An internal error at {party} ({type(error).__name__}); its log says more.", True


def request_key(message: Mapping[str, Any]) -> RequestKey:
    """The request that a message of the other server speaks of."""
    return RequestKey(str(message["client"]), str(message["session"]), int(message["number"]))


def _ranges(indices: Sequence[int]) -> list[list[int]]:
    ranges: list[list[int]] = []
    for index in sorted(indices):
        if ranges and ranges[-1][1] == index - 1:
            ranges[-1][1] = index
        else:
            ranges.append([index, index])
    return ranges


def _parsed(link: Any, payload: memoryview) -> dict[str, Any]:
    try:
        message = json.loads(bytes(payload))
    except (ValueError, RecursionError):
        message = None
    if not isinstance(message, dict):
        raise PeerError(f"A control message is a JSON object; {link.peer} sent something else.")
    return message
