"""The dealer's role: deals ahead, when the leader wants more or a command says so, and sends each server its part.

An execution is dealt while both servers are connected, with keys of these two links; its index is used for nothing
else, whatever becomes of it. What is on its way when a link is lost, and what a server refuses, is dealt anew under
another index. One thread computes, one for each link sends, and a window bounds what is dealt and not stored yet.

What is large is sent while the rest of it is made. Only where a state is kept it is made whole first, as nobody may
hear of a state that is not durable.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

from shareflow.errors import ChannelError, PeerError, RequestError, ShareflowError, TimeLimitError
from shareflow.runtime import control
from shareflow.runtime.control import Control
from shareflow.runtime.dealer_part import DealerPart
from shareflow.runtime.intake import deal_key_info
from shareflow.runtime.metrics import Metrics
from shareflow.runtime.party_config import DealingSettings
from shareflow.runtime.plan import Plan
from shareflow.runtime.role import Role
from shareflow.runtime.store import Store
from shareflow_client.link import Callbacks, Link
from shareflow_client.wire import Frame, FrameKind

_log = logging.getLogger(__name__)

# Indices that one durable step of the counter gives.
_INDICES = 64
_MOST_WANTED = 1 << 20
# Bytes for one server that are made and not sent yet, beside one buffer.
_UNSENT = 32 << 20
# A server that refuses is left alone for a while, the longer the more often; then the order is given up.
_PAUSE, _LONGEST_PAUSE, _MOST_REFUSALS = 0.1, 5.0, 8


@dataclass(eq=False)
class _Order:
    """Executions of one graph that are to be dealt. ``left``: how many are not on their way yet."""

    graph: str
    version: int
    left: int
    wanted: bool  # by the leader; else by a caller of deal
    done: int = 0
    last: int = 0  # the index of the last one that both servers stored
    refusals: int = 0  # in a row
    text: str = ""  # of the last refusal
    error: Exception | None = None


@dataclass(eq=False)
class _Record:
    """The material of one execution, on its way."""

    order: _Order
    nbytes: int
    waiting: set[str]  # servers that have not stored it yet


@dataclass(eq=False)
class _Delivery:
    """A link to a server, and what is still to be sent over it, in order."""

    link: Link
    queue: SimpleQueue[_Announced | bytes | None] = field(default_factory=SimpleQueue)
    counted: bool = False  # it told what it has in store
    unsent: int = 0  # bytes of material that wait in the queue


@dataclass(eq=False)
class _Announced:
    """Material for one server: what announces it, then its bytes, some of which are still to be made."""

    about: bytes
    index: int
    size: int
    buffers: SimpleQueue[memoryview | None] = field(default_factory=SimpleQueue)  # None: no more will be made

    def made(self, done: Callable[[int], None]) -> Iterator[memoryview]:
        """The buffers as they are made; ``done`` is called with the size of each when it was sent."""
        left = self.size
        while left > 0 and (buffer := self.buffers.get()) is not None:
            left -= len(buffer)
            yield buffer
            done(len(buffer))


class _GoneError(Exception):
    """What is being dealt is not wanted any more."""


class Dealing(Role):
    """Deals for one plan. Links are brought to it by way of its callbacks; it reads and writes the store by itself."""

    def __init__(self, plan: Plan, party: str, store: Store, settings: DealingSettings, metrics: Metrics) -> None:
        self.manifest, self.party = plan.manifest, party
        self.part = DealerPart(plan, party, store)
        self._store, self._settings, self._metrics = store, settings, metrics
        self._servers = plan.manifest.protocol.servers
        self._leader = self._servers[0]
        self._indices: deque[int] = deque()  # reserved, not used yet; of the dealing thread
        self._changed = threading.Condition()  # guards all below
        self._deliveries: dict[str, _Delivery] = {}
        self._counts: dict[str, dict[tuple[str, int], int]] = {}
        self._current: int | None = None  # the state version in use; None before the leader told
        self._orders: deque[_Order] = deque()
        self._records: dict[int, _Record] = {}
        self._not_before = 0.0
        self._dealt: dict[str, int] = {}
        self._stopping = False
        for server in self._servers:
            metrics.links.labels(peer=server).set(0)
        self._thread = threading.Thread(target=self._run, name="shareflow dealing", daemon=True)
        self._thread.start()

    @property
    def callbacks(self) -> Callbacks:
        """For the links to both servers."""
        return Callbacks(self._on_frame, self._on_close, self._size_limit, self._on_link)

    def status(self) -> dict[str, Any]:
        """As :class:`Role` says; ``dealt`` counts by graph what both servers stored since the start."""
        with self._changed:
            lost = [server for server in self._servers if server not in self._deliveries]
            why = "stopping" if self._stopping else f"no link to {' and '.join(lost)}" if lost else ""
            return {
                "ready": not why,
                "why": why,
                "state_version": self._current or 0,
                "stock": {},
                "peers": {server: "lost" if server in lost else "connected" for server in self._servers},
                "running": len(self._records),
                "waiting": sum(order.left for order in self._orders),
                "dealt": dict(self._dealt),
            }

    @property
    def current(self) -> int:
        """The state version that the servers use, 0 for none. Known once :meth:`await_servers` returned."""
        with self._changed:
            return self._current or 0

    def counted(self, graph: str, version: int) -> int:
        """For how many executions both servers have material; what they used since they connected counts too."""
        with self._changed:
            return min(self._counts.get(server, {}).get((graph, version), 0) for server in self._servers)

    def await_servers(self, seconds: float) -> None:
        """Waits until both servers are connected and told what they have.

        Raises:
            TimeLimitError: they did not; the text says which.
        """
        deadline = time.monotonic() + seconds
        with self._changed:
            while waiting := self._silent():
                if not self._changed.wait(deadline - time.monotonic()) and time.monotonic() >= deadline:
                    raise TimeLimitError(
                        f"A dealer deals while both servers are connected; {' and '.join(waiting)} did not connect "
                        f"within {seconds:g} s. Start it, and see the log of both sides."
                    )

    def deal(
        self, graph: str, version: int, count: int, progress: Callable[[int], None] = lambda done: None
    ) -> int:
        """Deals ``count`` executions and waits until both servers have stored all; goes on when a lost link is back.

        Args:
            graph: of the plan, such as "predict@8".
            version: the state version that they use, 0 for an entry that uses none.
            count: how many.
            progress: called by this thread with how many are stored, when that changes.

        Returns:
            The index of the last one; for an entry that keeps state that is the new state version.

        Raises:
            RequestError: no such graph, no such state version, or a server refused again and again.
            StoreError: the own store failed.
            ChannelError: the dealer is stopping.
        """
        if graph not in self.manifest.graphs:
            raise RequestError(f"The plan has no graph {graph!r}; it has: {', '.join(self.manifest.graphs)}.")
        order, shown = _Order(graph, version, count, wanted=False), 0
        with self._changed:
            if self._stopping:
                raise ChannelError(f"{self.party} is stopping, nothing more is dealt.")
            self._orders.append(order)
            self._changed.notify_all()
        try:
            while shown < count:
                with self._changed:
                    while order.error is None and order.done == shown:
                        self._changed.wait()
                    if order.error is not None:
                        raise order.error
                    shown = order.done
                progress(shown)
        finally:
            with self._changed:
                self._end(order, order.error or ChannelError("the caller does not wait any more"))
        return order.last

    def stop(self, grace: float) -> None:
        """Deals nothing more, and waits up to ``grace`` seconds for what is on its way."""
        deadline = time.monotonic() + grace
        with self._changed:
            self._stopping = True
            for order in list(self._orders):
                self._end(order, ChannelError(f"{self.party} is stopping, nothing more is dealt."))
            self._changed.notify_all()
            while self._records and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)
        self._thread.join(max(deadline - time.monotonic(), 0.1))

    # --- links ----------------------------------------------------------------------------------------------------

    def _on_link(self, link: Link) -> None:
        if link.peer not in self._servers:
            raise PeerError(f"{self.party} deals to {' and '.join(self._servers)}, {link.peer} is none of them")
        delivery = _Delivery(link)
        with self._changed:
            self._lost(link.peer)
            self._deliveries[link.peer] = delivery
            self._changed.notify_all()
        self._metrics.links.labels(peer=link.peer).set(1)
        threading.Thread(target=self._deliver, args=(delivery,), name="shareflow delivery", daemon=True).start()

    def _on_close(self, link: Link, text: str) -> None:
        with self._changed:
            delivery = self._deliveries.get(link.peer)
            if delivery is None or delivery.link is not link:
                return
            self._lost(link.peer)
            self._changed.notify_all()
        self._metrics.links.labels(peer=link.peer).set(0)

    def _size_limit(self, link: Link, kind: FrameKind, execution: int, round_: int) -> int | None:
        return control.MOST_BYTES if kind is FrameKind.CONTROL else None

    def _on_frame(self, link: Link, frame: Frame) -> None:
        self._metrics.bytes_received.labels(peer=link.peer).inc(len(frame.payload))
        message = Control.decode(frame.payload, link.peer)
        handlers = {"stored": self._on_stored, "refused": self._on_refused, "counts": self._on_counts}
        if link.peer == self._leader:
            handlers |= {"want": self._on_want, "current": self._on_current}
        if message.type not in handlers:
            raise message.unknown()
        handlers[message.type](message)

    def _on_stored(self, message: Control) -> None:
        for index in message.numbers("indices"):
            with self._changed:
                record = self._records.get(index)
                if record is None or message.peer not in record.waiting:
                    continue  # its link was lost meanwhile
                record.waiting.discard(message.peer)
                if record.waiting:
                    continue
            # Before anybody hears of it: a restarted dealer deals for this state.
            if self._keeps(record.order.graph):
                self.part.acknowledge(index)
            with self._changed:
                if self._records.pop(index, None) is not None:
                    order = record.order
                    order.done, order.last, order.refusals = order.done + 1, max(order.last, index), 0
                    self._dealt[order.graph] = self._dealt.get(order.graph, 0) + 1
                    for counts in self._counts.values():
                        use = (order.graph, order.version)
                        counts[use] = counts.get(use, 0) + 1
                    self._metrics.dealt.labels(graph=order.graph).inc()
                    if order.wanted and not order.left and not any(r.order is order for r in self._records.values()):
                        self._end(order, None)
                    self._changed.notify_all()

    def _on_refused(self, message: Control) -> None:
        index, text = message.number("index"), message.text("text")
        with self._changed:
            record = self._records.pop(index, None)
            if record is None:
                return
            order = record.order
            order.left, order.refusals, order.text = order.left + 1, order.refusals + 1, f"{message.peer}: {text}"
            pause = min(_PAUSE * 2 ** (order.refusals - 1), _LONGEST_PAUSE)
            self._not_before = max(self._not_before, time.monotonic() + pause)
            self._requeue(order)
            self._changed.notify_all()
        _log.warning("%s refused material of execution %d: %s", message.peer, index, text)

    def _on_counts(self, message: Control) -> None:
        counts = {(graph, version): count for graph, version, count in message.counts("counts")}
        with self._changed:
            self._counts[message.peer] = counts
            if message.peer in self._deliveries:
                self._deliveries[message.peer].counted = True
            self._changed.notify_all()

    def _on_want(self, message: Control) -> None:
        graph, version = message.text("graph"), message.number("version")
        count = message.number("count", low=1, high=_MOST_WANTED)
        if graph not in self.manifest.graphs:
            raise PeerError(f"{message.peer} wants material of a graph that is not in the plan")
        with self._changed:
            if self._stopping:
                return
            for order in self._orders:
                if order.wanted and (order.graph, order.version) == (graph, version):
                    order.left = min(order.left + count, _MOST_WANTED)
                    break
            else:
                self._orders.append(_Order(graph, version, count, wanted=True))
            self._changed.notify_all()

    def _on_current(self, message: Control) -> None:
        version = message.number("version")
        with self._changed:
            self._current = version
            self._changed.notify_all()

    def _deliver(self, delivery: _Delivery) -> None:
        """The thread of one link: sends what is in its queue until the link is lost."""
        link = delivery.link
        sent = self._metrics.bytes_sent.labels(peer=link.peer)

        def done(count: int) -> None:
            sent.inc(count)
            with self._changed:
                delivery.unsent -= count
                self._changed.notify_all()

        while (item := delivery.queue.get()) is not None:
            try:
                if isinstance(item, bytes):
                    link.send(FrameKind.CONTROL, item)
                    sent.inc(len(item))
                    continue
                link.send(FrameKind.CONTROL, item.about)
                sent.inc(len(item.about))
                if item.size:
                    link.send_made(FrameKind.DATA, item.size, item.made(done), execution=item.index)
            except ChannelError:
                return  # on_close tells the rest
            except ValueError:
                # The dealing thread gave up in the middle, and has told why.
                return

    def _lost(self, peer: str) -> None:
        """The link is gone: what it did not confirm is dealt anew, and its own wishes are no longer known."""
        delivery = self._deliveries.pop(peer, None)
        if delivery is None:
            return
        delivery.queue.put(None)
        self._counts.pop(peer, None)
        if peer == self._leader:
            self._current = None
            for order in {record.order for record in self._records.values()} | set(self._orders):
                if order.wanted:
                    self._end(order, ChannelError(f"the link to {peer} was lost"))
        for index in [index for index, record in self._records.items() if peer in record.waiting]:
            order = self._records.pop(index).order
            order.left += 1
            self._requeue(order)

    # --- dealing --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        """The dealing thread: one execution after the other, orders in turn."""
        self._warm_up()
        while (order := self._next_order()) is not None:
            try:
                self._deal_one(order)
            except Exception as error:
                if not isinstance(error, ShareflowError):
                    _log.exception("dealing %s failed", order.graph)
                    error = RequestError(f"an internal error at {self.party}, see its log.")
                self._give_up(order, error)

    def _warm_up(self) -> None:
        """Runs the smallest graph of each entry that keeps nothing, while nobody waits yet."""
        for entry in [entry for entry in self.manifest.entries.values() if not entry.keeps]:
            with self._changed:
                if self._stopping or self._orders:
                    return
            self.part.warm_up(entry.variants[0])

    def _next_order(self) -> _Order | None:
        """Waits for an order that can be dealt now; None when the dealer stops."""
        while True:
            with self._changed:
                if self._stopping:
                    return None
                current = self._current
                ready = not self._silent() and time.monotonic() >= self._not_before
                if not current or current == self.part.in_use:
                    order = next((o for o in self._orders if o.left), None) if ready else None
                    if order is None:
                        self._changed.wait(max(self._not_before - time.monotonic(), 0) or None)
                        continue
                    self._orders.remove(order)
                    self._orders.append(order)
                    return order
            try:
                self.part.use(current)
            except ShareflowError as error:
                _log.error("older state versions cannot be dropped: %s", error)

    def _deal_one(self, order: _Order) -> None:
        if order.refusals >= _MOST_REFUSALS:
            raise RequestError(f"material was refused {order.refusals} times in a row, the last time by {order.text}")
        nbytes = sum(self.part.sizes(order.graph).values())
        deliveries = self._await_room(order, nbytes)
        if deliveries is None:
            return
        if not self._indices:
            self._indices.extend(self._store.next_indices(min(order.left, _INDICES) or 1))
        index = self._indices.popleft()
        info = deal_key_info(order.graph, order.version, index)
        try:
            keys = {server: delivery.link.key(info) for server, delivery in deliveries.items()}
        except ChannelError:
            return  # a link that was just lost
        sending = _Sending(self, order, index, nbytes, deliveries)
        try:
            if self._keeps(order.graph):
                made: list[tuple[str, memoryview]] = []
                self.part.make(order.graph, order.version, index, keys, lambda *given: made.append(given))
                for server, data in made:
                    sending.give(server, data)
            else:
                self.part.make(order.graph, order.version, index, keys, sending.give)
            sending.begin()
        except _GoneError:
            # The index is not used again.
            if self._keeps(order.graph) and not sending.begun:
                self.part.discard(index)
        finally:
            sending.end()

    def _await_room(self, order: _Order, nbytes: int) -> dict[str, _Delivery] | None:
        """Waits until so many bytes more may be on their way; the links to use, None where the order cannot go on."""
        with self._changed:
            while True:
                if self._stopping or self._silent() or order not in self._orders or not order.left:
                    return None
                used = sum(record.nbytes for record in self._records.values())
                room = len(self._records) < self._settings.window and used + nbytes <= self._settings.window_bytes
                if room or not self._records:
                    return dict(self._deliveries)
                self._changed.wait()

    def _give_up(self, order: _Order, error: Exception) -> None:
        _log.error("cannot deal %s for state version %d: %s", order.graph, order.version, error)
        with self._changed:
            self._end(order, error)
            delivery = self._deliveries.get(self._leader)
            if order.wanted and delivery is not None:
                about = control.encode("cannot", graph=order.graph, version=order.version, text=str(error)[:2000])
                delivery.queue.put(about)
            self._changed.notify_all()

    def _silent(self) -> list[str]:
        """Servers that are not connected, or did not tell yet what they have; holds the lock."""
        ready = {server for server, delivery in self._deliveries.items() if delivery.counted}
        if self._current is None:
            ready.discard(self._leader)
        return [server for server in self._servers if server not in ready]

    def _keeps(self, graph: str) -> bool:
        return bool(self.manifest.entries[self.manifest.graphs[graph].entry].keeps)

    def _requeue(self, order: _Order) -> None:
        if order not in self._orders and order.error is None:
            self._orders.append(order)

    def _end(self, order: _Order, error: Exception | None) -> None:
        """Nothing more is dealt for it; what is on its way may still arrive."""
        order.error = error
        if order in self._orders:
            self._orders.remove(order)


class _Sending:
    """One execution's material on its way from the thread that makes it to those that send it."""

    def __init__(
        self, dealing: Dealing, order: _Order, index: int, nbytes: int, deliveries: dict[str, _Delivery]
    ) -> None:
        self._dealing, self._order, self._index, self._nbytes = dealing, order, index, nbytes
        self._deliveries = deliveries
        self._announced: dict[str, _Announced] = {}

    @property
    def begun(self) -> bool:
        """Whether servers may have heard of it."""
        return bool(self._announced)

    def begin(self) -> None:
        """Announces the material, if that was not done. :class:`_GoneError` where nobody wants it any more."""
        if self.begun:
            return
        dealing, order = self._dealing, self._order
        sizes = dealing.part.sizes(order.graph)
        with dealing._changed:
            if dealing._stopping or order not in dealing._orders or self._deliveries != dealing._deliveries:
                raise _GoneError
            order.left -= 1
            dealing._records[self._index] = _Record(order, self._nbytes, set(self._deliveries))
            for server, delivery in self._deliveries.items():
                about = control.encode(
                    "material", graph=order.graph, version=order.version, index=self._index, bytes=sizes[server]
                )
                self._announced[server] = _Announced(about, self._index, sizes[server])
                delivery.queue.put(self._announced[server])

    def give(self, server: str, data: memoryview) -> None:
        """The next bytes for a server; waits while much of it is unsent.

        Where one link is lost the rest is made for the other one, as a message that has begun cannot be taken back.
        """
        self.begin()
        delivery, links = self._deliveries[server], self._dealing._deliveries
        with self._dealing._changed:
            while delivery.unsent > _UNSENT and links.get(server) is delivery:
                self._dealing._changed.wait()
            if not any(links.get(name) is one for name, one in self._deliveries.items()):
                raise _GoneError
            if links.get(server) is not delivery:
                return
            delivery.unsent += len(data)
        self._announced[server].buffers.put(data)

    def end(self) -> None:
        """Nothing more is made. A link on which something is missing is closed by the thread that sends."""
        for announced in self._announced.values():
            announced.buffers.put(None)
