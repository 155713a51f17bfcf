"""The server that follows: it computes what the leader begins, if its own store and its clients say the same."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Any

from shareflow.errors import PeerError
from shareflow.runtime.execution import Mailbox
from shareflow.runtime.queue import Batch
from shareflow.runtime.requests import Request, RequestKey, Row
from shareflow.runtime.serving import Handlers, Running, Serving, request_key
from shareflow.runtime.stock import Use

_log = logging.getLogger(__name__)

# Executions that the leader may have running here; it has a limit of its own, which is lower.
_MOST_AT_ONCE = 256
# Seconds between looks for requests that the leader never begins; it has its own limit, and better reasons.
_LOOK, _PATIENCE = 1.0, 1.25


class Following(Serving):
    """The second server of the plan."""

    _over = "gone"
    _tells_of_failures = False

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        threading.Thread(target=self._expire_requests, name="shareflow request limit", daemon=True).start()

    def _expire_requests(self) -> None:
        with self._lock:
            while not self._stopping:
                self._expire(_PATIENCE * self._settings.request_limit)
                self._lock.wait_for(lambda: self._stopping, _LOOK)

    def _why_waiting(self, request: Request) -> str:
        return f"{self._other} did not begin it"

    @property
    def _most_at_once(self) -> int:
        return _MOST_AT_ONCE

    def _server_handlers(self) -> Handlers:
        return {"current": self._set_current, "begin": self._begin, "commit": self._commit, "drop": self._drop}

    def _linked(self, link: Any) -> None:
        if link.peer != self._other:
            return
        with self._lock:
            complete = [request.key for request in self._requests.values() if request.complete]
        for key in complete:
            self._tell(link, {"type": "arrived", **key._asdict()})

    def _input_is_here(self, request: Request) -> None:
        self._tell_other({"type": "arrived", **request.key._asdict()})

    def _confirmation(self, request: Request, version: int) -> bytes | None:
        return None

    def _set_current(self, link: Any, message: dict[str, Any]) -> None:
        version = int(message["version"])
        if version == self._version:
            return
        if version and version not in self._store.versions():
            self._tell(link, {"type": "missing", "version": version})
        elif version:
            self._switch(version, self._read_state(version))

    def _drop(self, link: Any, message: dict[str, Any]) -> None:
        with self._lock:
            request = self._requests.pop(request_key(message), None)
            if request is not None:
                request.over = True
                self._metrics.waiting_rows.dec(request.rows)

    def _begin(self, link: Any, message: dict[str, Any]) -> None:
        index, use = int(message["index"]), Use(str(message["graph"]), int(message["version"]))
        program = self._programs.get(use.graph)
        if program is None:
            raise PeerError(f"{link.peer} begins graph {use.graph!r}, which the plan does not have.")
        entry = self._manifest.graphs[use.graph].entry
        mailbox = Mailbox(program.part)
        keys = [(RequestKey(str(c), str(s), int(n)), int(row)) for c, s, n, row in message["rows"]]
        with self._lock:
            if index in self._running or index in self._ended:
                raise PeerError(f"{link.peer} begins execution {index} twice: an index is used once.")
            requests = [(self._requests.get(key), row) for key, row in keys]
            self._ended[index] = mailbox
            state = self._state
        # A state that was replaced meanwhile is no one's fault: the leader takes the rows up again.
        stale = use != self._use(use.graph)
        text = self._unfit(entry, use, requests, len(keys))
        if text is not None:
            mailbox.end()
            self._abort(link, index, text, material=stale)
            return
        rows: dict[str, list[Row]] = {}
        for request, row in requests:
            if request is not None:
                request.begun.add(row)
                rows.setdefault(request.acts_as, []).append(Row(request, row))
        running = Running(index, Batch(entry, use.graph, rows), use.graph, use.version, state, mailbox)
        with self._lock:
            del self._ended[index]
            self._running[index] = running
        self._pool.submit(self._run_following, running, link)

    def _abort(self, link: Any, index: int, text: str, material: bool) -> None:
        self._tell(link, {"type": "abort", "index": index, "text": text, "material": material})

    def _unfit(self, entry: str, use: Use, requests: Sequence[tuple[Request | None, int]], count: int) -> str | None:
        """Why what the leader wants to compute is not what clients asked for; None where it is."""
        if use != self._use(use.graph):
            return f"{self._party} uses state version {self._version}, not {use.version}"
        if len(self._running) >= _MOST_AT_ONCE:
            return f"{self._party} has too many executions at once"
        batch = self._manifest.graphs[use.graph].batch or 1
        parties = self._queue.parties(entry)
        if self._queue.in_rows(entry):
            if not 1 <= count <= batch:
                return f"a batch of {use.graph} has 1 to {batch} rows, not {count}"
        elif sorted(r.acts_as for r, _ in requests if r) != sorted(parties):
            return f"an execution of {entry} has one request of each of {', '.join(parties)}"
        mixed = len({r.key.client for r, _ in requests if r}) > 1 and self._queue.in_rows(entry)
        if mixed and not self._settings.mix_clients:
            return f"{self._party} does not compute rows of different clients together (mix_clients)"
        seen = set()
        for request, row in requests:
            if request is None or not request.complete or request.entry != entry:
                return f"{self._party} does not have a client's part of the input (any more)"
            if not 0 <= row < request.rows or (request, row) in seen or row in request.begun:
                return "a row is computed once, and is one of its request's"
            seen.add((request, row))
        if len({r.label for r, _ in requests if r}) > 1 and not self._queue.in_rows(entry):
            return "requests that are computed together have one label"
        return None

    def _run_following(self, running: Running, link: Any) -> None:
        outcome = "error"
        try:
            keeps = bool(self._manifest.entries[running.batch.entry].keeps)
            use = Use(running.graph, running.version)
            material = self._stock.exactly(use, running.index, ahead=not keeps)
            if material is None:
                outcome = "material"
                for row in (row for rows in running.batch.rows.values() for row in rows):
                    row.request.begun.discard(row.number)
                text = f"{self._party} has no material of index {running.index}"
                self._abort(link, running.index, text, material=True)
                return
            ends = self._compute(running, material, link)
            if self._programs[running.graph].part.state_out:
                self._keep(running, ends)
                self._tell(link, {"type": "finished", "index": running.index})
            self._answer(running.batch, self._results(running, ends), running.version)
            outcome = "ok"
        except Exception as error:
            self._fail(running, error, link)
        finally:
            self._done(running, outcome)

    def _commit(self, link: Any, message: dict[str, Any]) -> None:
        version = int(message["version"])
        self._switch(version, self._read_state(version))
