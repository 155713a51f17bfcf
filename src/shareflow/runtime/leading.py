"""The server that leads: it decides what is computed together, under which index, and what to ask the dealer for."""

from __future__ import annotations

import json
import logging
import threading
import time
from typing import Any

from shareflow.errors import ChannelError, RequestError, ShareflowError, TimeLimitError
from shareflow.runtime.execution import Mailbox
from shareflow.runtime.queue import Batch
from shareflow.runtime.requests import Request
from shareflow.runtime.serving import Handlers, Running, Serving, UnusableMaterialError, request_key
from shareflow.runtime.stock import Use
from shareflow.runtime.store import Material

_log = logging.getLogger(__name__)

# Seconds between looks at what needs no haste.
_LOOK = 0.05
# Seconds after which a dealer that could not deal is asked again.
_ASK_AGAIN = 10.0
# How often a request is computed anew because material could not be used.
_MOST_MISSES = 8


class Leading(Serving):
    """The first server of the plan. One more thread than :class:`Serving` has: the scheduler."""

    _over = "drop"
    _tells_of_failures = True

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._wanted: dict[Use, int] = {}  # asked of the dealer, not usable yet
        self._cannot: dict[Use, tuple[float, str]] = {}  # since when, and why the dealer does not deal
        self._heard: set[str] = set()  # graphs of which the follower told what it has
        self._trouble = ""  # why material could not be taken, the last time
        threading.Thread(target=self._schedule, name="shareflow scheduler", daemon=True).start()

    @property
    def _most_at_once(self) -> int:
        return self._settings.parallel

    def _server_handlers(self) -> Handlers:
        return {
            "arrived": self._peer_arrived,
            "gone": self._peer_gone,
            "finished": self._peer_finished,
            "missing": self._peer_misses,
        }

    def _lost(self, link: Any, text: str) -> None:
        super()._lost(link, text)
        if link.peer == self._other:
            self._heard.clear()

    def _linked(self, link: Any) -> None:
        self._tell(link, {"type": "current", "version": self._version})
        if link.peer != self._other:
            with self._lock:
                self._wanted.clear()
                self._cannot.clear()

    def _input_is_here(self, request: Request) -> None:
        with self._lock:
            self._enqueue(request)
            self._start()

    def _confirmation(self, request: Request, version: int) -> bytes | None:
        return json.dumps({"type": "done", "request": request.key.number, "version": version}).encode()

    def _enqueue(self, request: Request) -> None:
        """Queues a request that is complete at both servers. Holds the lock."""
        if request.complete and request.key in self._arrived and not request.over:
            del self._arrived[request.key]
            if request.queued:
                return
            replaced = self._queue.add(request)
            if replaced is not None:
                text = f"Another request took the place of this one under label {request.label!r}."
                self._end(replaced, text, retry=False)

    def _peer_arrived(self, link: Any, message: dict[str, Any]) -> None:
        key = request_key(message)
        with self._lock:
            self._arrived[key] = None
            while len(self._arrived) > 10 * self._settings.most_waiting_rows:
                self._arrived.popitem(last=False)
            request = self._requests.get(key)
            if request is not None:
                self._enqueue(request)
                # At once, and not when the scheduler has woken up.
                self._start()

    def _peer_gone(self, link: Any, message: dict[str, Any]) -> None:
        key = request_key(message)
        with self._lock:
            self._arrived.pop(key, None)
            request = self._requests.get(key)
            if request is not None and not self._is_running(request):
                self._end(request, f"{link.peer} lost the request or gave it up. Try again.", retry=True)

    def _peer_misses(self, link: Any, message: dict[str, Any]) -> None:
        _log.error("%s has no state of version %s: load it anew", link.peer, message["version"])
        with self._lock:
            self._version, self._state = 0, {}
            self._lock.notify_all()

    def _peer_finished(self, link: Any, message: dict[str, Any]) -> None:
        with self._lock:
            running = self._running.get(int(message["index"]))
        if running is not None:
            running.finished.set()

    def _schedule(self) -> None:
        """Starts what could not be started when it came; now and then looks for requests out of time and for stock."""
        look = 0.0
        while True:
            with self._lock:
                if self._stopping:
                    return
                begun = self._start()
                if time.monotonic() >= look:
                    look = time.monotonic() + _LOOK
                    try:
                        self._expire(self._settings.request_limit)
                        self._ask_dealer()
                    except Exception:
                        _log.exception("the scheduler failed; it goes on")
                if not begun:
                    self._lock.wait(self._pause())

    def _start(self) -> bool:
        """Begins an execution if one can begin. Holds the lock."""
        try:
            return self._start_one()
        except Exception:
            _log.exception("an execution could not begin; others can")
            return False

    def _pause(self) -> float:
        window = self._settings.batch_window
        return min(window, _LOOK) if window and any(self._queue.waiting(e) for e in self._manifest.entries) else _LOOK

    def _peer_has(self, link: Any, message: dict[str, Any]) -> None:
        super()._peer_has(link, message)
        with self._lock:
            self._heard.add(str(message["graph"]))

    def _became_usable(self, use: Use, count: int) -> None:
        with self._lock:
            if count:
                self._wanted[use] = max(self._wanted.get(use, 0) - count, 0)
                self._cannot.pop(use, None)
            self._lock.notify_all()

    def _cannot_deal(self, link: Any, message: dict[str, Any]) -> None:
        super()._cannot_deal(link, message)
        use = Use(str(message["graph"]), int(message["version"]))
        with self._lock:
            self._wanted.pop(use, None)
            self._cannot[use] = time.monotonic(), str(message["text"])[:1000]
            self._lock.notify_all()

    def _why_waiting(self, request: Request) -> str:
        if self._other not in self._links:
            return f"there is no link to {self._other}"
        if not request.queued:
            return f"its input did not arrive at {self._other}"
        if self._trouble:
            return self._trouble
        uses = [self._use(graph) for graph in self._manifest.entries[request.entry].variants]
        if not any(self._stock.usable(use) for use in uses):
            told = [self._cannot[use][1] for use in uses if use in self._cannot]
            return "there is no material of the dealer" + (f" ({told[0]})" if told else "")
        if not self._queue.in_rows(request.entry):
            return "another party of the entry did not send its input under this label"
        return "others were before it"

    def _start_one(self) -> bool:
        """Begins one execution if it can. Holds the lock."""
        link = self._links.get(self._other)
        if link is None or self._stopping or len(self._running) >= self._settings.parallel:
            return False
        for turn in self._queue.turns():
            keeps = bool(self._manifest.entries[turn.entry].keeps)
            if keeps and any(self._manifest.entries[r.batch.entry].keeps for r in self._running.values()):
                continue
            young = time.monotonic() - self._queue.since(turn) < self._settings.batch_window
            if young and not self._queue.full(turn):
                continue
            for graph, _ in self._queue.variants(turn):
                use = self._use(graph)
                # What keeps state is rare, and its material is worth waiting a moment for: none is taken ahead.
                try:
                    material, self._trouble = self._stock.next(use, ahead=not keeps), ""
                except ShareflowError as error:
                    if str(error) != self._trouble:
                        _log.error("material of %s cannot be used: %s", graph, error)
                    self._trouble = f"{self._party} cannot use its material: {error}"
                    return False
                if material is not None:
                    self._lead(link, self._queue.take(turn, graph), use, material)
                    return True
        return False

    def _ask_dealer(self) -> None:
        """Tells the dealer what runs short. Holds the lock."""
        link = self._links.get(self._manifest.protocol.dealer or "")
        if link is None:
            return
        for graph, info in self._manifest.graphs.items():
            use, entry = self._use(graph), self._manifest.entries[info.entry]
            # What the follower does not have as well is no stock.
            if (entry.uses and not self._version) or graph not in self._heard:
                continue
            if use in self._cannot and time.monotonic() - self._cannot[use][0] < _ASK_AGAIN:
                continue
            dealt = self._programs[graph].part.corrections
            target = self._settings.target(self._manifest, graph, dealt.nbytes if dealt else 0)
            usable = self._stock.usable(use)
            missing = target - usable - self._wanted.get(use, 0)
            # Asked for in groups: half of the target may be used up before.
            if missing > target // 2 or (missing > 0 and not usable):
                message = {"type": "want", "graph": use.graph, "version": use.version, "count": missing}
                if self._tell(link, message):
                    self._wanted[use] = self._wanted.get(use, 0) + missing

    def _lead(self, link: Any, batch: Batch, use: Use, material: Material) -> None:
        """Begins an execution at both servers. Holds the lock."""
        mailbox = Mailbox(self._programs[use.graph].part)
        running = Running(material.index, batch, use.graph, use.version, self._state, mailbox)
        self._running[material.index] = running
        rows = [[*row.request.key, row.number] for some in batch.rows.values() for row in some]
        # Under the lock: the follower hears of executions and of changes of the state in the order they have here.
        begin = {"type": "begin", "index": running.index, "graph": running.graph, "version": running.version}
        told = self._tell(link, {**begin, "rows": rows})
        self._pool.submit(self._run_leading, running, material, link, told)

    def _run_leading(self, running: Running, material: Material, link: Any, told: bool) -> None:
        began, outcome = time.perf_counter(), "error"
        try:
            if not told:
                raise ChannelError(f"The link to {self._other} was lost.")
            ends = self._compute(running, material, link)
            version = running.version
            if self._programs[running.graph].part.state_out:
                state = self._keep(running, ends)
                self._await_follower(running)
                version = running.index
                commit = {"type": "commit", "index": running.index, "version": version}
                self._switch(version, state, lambda: self._tell(link, commit))
                dealer = self._links.get(self._manifest.protocol.dealer or "")
                if dealer is not None:
                    self._tell(dealer, {"type": "current", "version": version})
            self._answer(running.batch, self._results(running, ends), version)
            outcome = "ok"
        except UnusableMaterialError as error:
            outcome = "material"
            _log.warning("execution %d is computed anew: %s", running.index, error)
            self._compute_anew(running, error, link)
        except Exception as error:
            self._fail(running, error, link)
        finally:
            self._done(running, outcome)
            self._metrics.execution_seconds.labels(running.graph).observe(time.perf_counter() - began)

    def _compute_anew(self, running: Running, error: Exception, link: Any) -> None:
        with self._lock:
            for request in running.batch.requests:
                request.misses += 1
            # The queue was emptied with the link.
            if self._links.get(self._other) is not link:
                error = ChannelError(f"The link to {self._other} was lost.")
            elif max(request.misses for request in running.batch.requests) > _MOST_MISSES:
                error = RequestError(f"Material could not be used {_MOST_MISSES} times: {error}", retry=True)
            else:
                self._queue.put_back(running.batch)
                return
        self._fail(running, error, link)

    def _await_follower(self, running: Running) -> None:
        if not running.finished.wait(self._settings.execution_limit):
            raise TimeLimitError(f"{self._other} did not finish within the time limit of an execution.")
        # An abort sets it too, with its error in the mailbox.
        running.mailbox.raise_failure()
