"""What waits to be computed at the leading server, and what goes together in one execution."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass

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


class Queue:
    """Requests that are complete at both servers. Not thread-safe: its user holds a lock.

    Rows of different clients go together with ``mix_clients`` only: that a graph keeps its rows apart is what the
    audit cannot prove.
    """

    def __init__(self, manifest: Manifest, mix_clients: bool) -> None:
        self._manifest, self._mix_clients = manifest, mix_clients
        self._rows: dict[str, deque[Row]] = {name: deque() for name in manifest.entries}
        self._jobs: dict[str, deque[dict[str, Request]]] = {name: deque() for name in manifest.entries}
        self._partial: defaultdict[tuple[str, str], dict[str, Request]] = defaultdict(dict)
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
            self._rows[request.entry].extend(Row(request, number) for number in left)
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
        return len(self._rows[entry]) + len(self._jobs[entry])

    def together(self, entry: str) -> int:
        """How many rows could be computed in one execution: the longest-waiting client's, or all."""
        self._forget(entry)
        return len(self._jobs[entry]) or len(self._next_rows(entry))

    def _next_rows(self, entry: str) -> list[Row]:
        rows = self._rows[entry]
        return [row for row in rows if self._mix_clients or row.request.key.client == rows[0].request.key.client]

    def oldest(self, entry: str) -> float:
        """When the longest-waiting request of an entry came; there is one."""
        if self._rows[entry]:
            return self._rows[entry][0].request.since
        return min(request.since for request in self._jobs[entry][0].values())

    def variants(self, entry: str) -> Iterator[tuple[str, int]]:
        """Graphs to compute what waits, the best first: the smallest that holds all, else the largest."""
        if not self.in_rows(entry):
            yield self._sizes[entry][0]
            return
        waiting = self.together(entry)
        sizes = sorted(self._sizes[entry], key=lambda variant: variant[1])
        holding = [v for v in sizes if v[1] >= waiting]
        smaller = [v for v in sizes if v[1] < waiting]
        # What holds all wastes at most what it fills up; below that, large before small.
        yield from holding[:1]
        yield from reversed(smaller)
        yield from holding[1:]

    def largest(self, entry: str) -> int:
        """Rows of an entry's largest graph."""
        return max(size for _, size in self._sizes[entry])

    def take(self, entry: str, graph: str) -> Batch:
        """What waits longest, for an execution of this graph."""
        if self._jobs[entry]:
            job = self._jobs[entry].popleft()
            return Batch(entry, graph, {party: [Row(request, 0)] for party, request in job.items()})
        size = dict(self._sizes[entry])[graph]
        (party,) = self.parties(entry)
        rows = self._next_rows(entry)[:size]
        taken = set(rows)
        self._rows[entry] = deque(row for row in self._rows[entry] if row not in taken)
        return Batch(entry, graph, {party: rows})

    def put_back(self, batch: Batch) -> None:
        """What was taken and could not be computed is next again."""
        if self.in_rows(batch.entry):
            (rows,) = batch.rows.values()
            self._rows[batch.entry].extendleft(reversed(rows))
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
        rows = [row.request for queue in self._rows.values() for row in queue]
        jobs = [request for queue in self._jobs.values() for job in queue for request in job.values()]
        partial = [request for job in self._partial.values() for request in job.values()]
        return list(dict.fromkeys((*rows, *jobs, *partial)))

    def _forget(self, entry: str) -> None:
        """Leaves out requests that are over: cancelled, out of time, their client gone."""
        rows, jobs = self._rows[entry], self._jobs[entry]
        if any(row.request.over for row in rows):
            self._rows[entry] = deque(row for row in rows if not row.request.over)
        if any(request.over for job in jobs for request in job.values()):
            self._jobs[entry] = deque(job for job in jobs if not any(r.over for r in job.values()))
        for name, job in list(self._partial.items()):
            for party, request in list(job.items()):
                if request.over:
                    del job[party]
            if not job:
                del self._partial[name]
