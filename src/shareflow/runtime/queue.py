"""What waits to be computed at the leading server, and what goes together in one execution."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from shareflow.runtime.requests import Request, Row
from shareflow_client.manifest import Manifest


@dataclass(frozen=True, eq=False)
class Batch:
    """What one execution computes: a graph, and by party outside the rows it gets, in order."""

    entry: str
    graph: str
    rows: dict[str, list[Row]]

    @property
    def requests(self) -> list[Request]:
        """All requests that have a row in it."""
        return list(dict.fromkeys(row.request for rows in self.rows.values() for row in rows))


class Turn(NamedTuple):
    """What could be computed next of an entry: rows of one client; of all, or inputs that were joined, with None."""

    entry: str
    client: str | None


class Queue:
    """Requests that are complete at both servers. Not thread-safe: its user holds a lock.

    Clients take turns: the one for which nothing was computed for longest is next, however much others ask for. Rows
    of different clients go together with ``mix_clients`` only, one row of each in turn: that a graph keeps its rows
    apart is what the audit cannot prove.
    """

    def __init__(self, manifest: Manifest, mix_clients: bool) -> None:
        self._manifest, self._mix_clients = manifest, mix_clients
        self._rows: dict[str, dict[str, deque[Row]]] = {name: {} for name in manifest.entries}  # by entry and client
        self._jobs: dict[str, deque[dict[str, Request]]] = {name: deque() for name in manifest.entries}
        self._partial: defaultdict[tuple[str, str], dict[str, Request]] = defaultdict(dict)
        self._taken = 0  # batches so far
        self._last: dict[str, int] = {}  # by client: the last one that it had a part in
        self._sizes = {
            name: [(graph, manifest.graphs[graph].batch or 1) for graph in entry.variants]
            for name, entry in manifest.entries.items()
        }

    def parties(self, entry: str) -> tuple[str, ...]:
        """The parties outside that an entry's execution waits for."""
        return tuple(self._manifest.graphs[self._manifest.entries[entry].variants[0]].external)

    def in_rows(self, entry: str) -> bool:
        """Whether rows of several requests are computed together."""
        return self._manifest.entries[entry].batched and len(self.parties(entry)) == 1

    def add(self, request: Request) -> Request | None:
        """A request that is complete. Gives the one it replaces: of the same party, under the same label.

        Rows of it that were computed before are left out.
        """
        request.queued = True
        if self.in_rows(request.entry):
            left = [number for number, part in enumerate(request.parts) if part is None]
            own = self._rows[request.entry].setdefault(request.key.client, deque())
            own.extend(Row(request, number) for number in left)
            return None
        joined = self._partial[request.entry, request.label]
        before = joined.get(request.acts_as)
        joined[request.acts_as] = request
        if set(joined) == set(self.parties(request.entry)):
            self._jobs[request.entry].append(self._partial.pop((request.entry, request.label)))
        return before

    def waiting(self, entry: str) -> int:
        """Rows, or joined requests, that wait."""
        self._forget(entry)
        return sum(map(len, self._rows[entry].values())) + len(self._jobs[entry])

    def turns(self) -> list[Turn]:
        """All that could be computed next, in the order in which it should be."""
        found = []
        for entry in self._rows:
            if self.waiting(entry):
                clients = [None] if self._mix_clients or self._jobs[entry] else list(self._rows[entry])
                found += [Turn(entry, client) for client in clients]
        return sorted(found, key=self._place)

    def _place(self, turn: Turn) -> tuple[int, float]:
        if self._jobs[turn.entry]:
            clients: Iterable[str] = {request.key.client for request in self._jobs[turn.entry][0].values()}
        else:
            clients = self._rows[turn.entry] if turn.client is None else (turn.client,)
        return min(self._last.get(client, 0) for client in clients), self.since(turn)

    def together(self, turn: Turn) -> int:
        """How many rows could be computed in one execution; 1 for inputs that were joined."""
        return 1 if self._jobs[turn.entry] else sum(map(len, self._rows_of(turn).values()))

    def _rows_of(self, turn: Turn) -> dict[str, deque[Row]]:
        rows = self._rows[turn.entry]
        return rows if turn.client is None else {turn.client: rows[turn.client]}

    def since(self, turn: Turn) -> float:
        """When the longest-waiting request of it came."""
        if self._jobs[turn.entry]:
            return min(request.since for request in self._jobs[turn.entry][0].values())
        return min(rows[0].request.since for rows in self._rows_of(turn).values())

    def variants(self, turn: Turn) -> Iterator[tuple[str, int]]:
        """Graphs to compute it, the best first: the smallest that holds all, else the largest."""
        if not self.in_rows(turn.entry):
            yield self._sizes[turn.entry][0]
            return
        waiting = self.together(turn)
        sizes = sorted(self._sizes[turn.entry], key=lambda variant: variant[1])
        holding = [v for v in sizes if v[1] >= waiting]
        smaller = [v for v in sizes if v[1] < waiting]
        # What holds all wastes at most what it fills up; below that, large before small.
        yield from holding[:1]
        yield from reversed(smaller)
        yield from holding[1:]

    def full(self, turn: Turn) -> bool:
        """Whether no more could go together, however long one waits."""
        return not self.in_rows(turn.entry) or self.together(turn) >= max(size for _, size in self._sizes[turn.entry])

    def take(self, turn: Turn, graph: str) -> Batch:
        """As much of it as one execution of this graph computes."""
        entry = turn.entry
        if self._jobs[entry]:
            job = self._jobs[entry].popleft()
            return self._counted(Batch(entry, graph, {party: [Row(request, 0)] for party, request in job.items()}))
        size = dict(self._sizes[entry])[graph]
        (party,) = self.parties(entry)
        rows: list[Row] = []
        waiting = self._rows[entry]
        clients = deque(sorted(self._rows_of(turn), key=lambda client: self._place(Turn(entry, client))))
        while clients and len(rows) < size:
            client = clients.popleft()
            rows.append(waiting[client].popleft())
            if waiting[client]:
                clients.append(client)
            else:
                del waiting[client]
        return self._counted(Batch(entry, graph, {party: rows}))

    def _counted(self, batch: Batch) -> Batch:
        self._taken += 1
        self._last.update(dict.fromkeys((request.key.client for request in batch.requests), self._taken))
        return batch

    def put_back(self, batch: Batch) -> None:
        """What was taken and could not be computed is next again."""
        for request in batch.requests:
            self._last.pop(request.key.client, None)
        if self.in_rows(batch.entry):
            (rows,) = batch.rows.values()
            for row in reversed(rows):
                self._rows[batch.entry].setdefault(row.request.key.client, deque()).appendleft(row)
        else:
            self._jobs[batch.entry].appendleft({party: rows[0].request for party, rows in batch.rows.items()})

    def clear(self) -> None:
        """Nothing waits any more; what did may be added again."""
        for request in self.requests():
            request.queued = False
        self._partial.clear()
        for entry in self._rows:
            self._rows[entry].clear()
            self._jobs[entry].clear()

    def requests(self) -> list[Request]:
        """All that wait."""
        rows = [row.request for clients in self._rows.values() for own in clients.values() for row in own]
        jobs = [request for queue in self._jobs.values() for job in queue for request in job.values()]
        partial = [request for job in self._partial.values() for request in job.values()]
        return list(dict.fromkeys((*rows, *jobs, *partial)))

    def _forget(self, entry: str) -> None:
        """Leaves out requests that are over: cancelled, out of time, their client gone."""
        clients, jobs = self._rows[entry], self._jobs[entry]
        for client, rows in list(clients.items()):
            if any(row.request.over for row in rows):
                clients[client] = deque(row for row in rows if not row.request.over)
                if not clients[client]:
                    del clients[client]
        if any(request.over for job in jobs for request in job.values()):
            self._jobs[entry] = deque(job for job in jobs if not any(r.over for r in job.values()))
        for name, job in list(self._partial.items()):
            for party, request in list(job.items()):
                if request.over:
                    del job[party]
            if not job:
                del self._partial[name]
