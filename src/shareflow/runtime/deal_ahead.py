"""Dealing before anybody asks: what a command deals, for which state version, in which order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from shareflow.errors import RequestError
from shareflow.runtime.dealing import Dealing


class Batch(NamedTuple):
    """Material that is to be dealt: ``executions`` of a graph, for a state version (0: it uses none)."""

    graph: str
    version: int
    executions: int


def deal_ahead(
    dealing: Dealing,
    count: int,
    *,
    entries: Sequence[str] = (),
    graphs: Sequence[str] = (),
    progress: Callable[[Batch, int], None] = lambda batch, done: None,
    patience: float = 60.0,
) -> list[Batch]:
    """Deals ``count`` executions of each graph of the chosen entries, once both servers are connected.

    What uses a state is dealt for the version that the servers use; before there is one, for a version that is dealt
    first, one execution for each entry that keeps a state. Without ``entries`` and ``graphs``, all graphs of entries
    that keep no state are chosen.

    Args:
        dealing: the dealer's role, with links to both servers or about to have them.
        count: executions of each graph.
        entries: names of entries, all of whose graphs are dealt.
        graphs: names of graphs, besides.
        progress: called with a batch and how many of it both servers have stored.
        patience: seconds to wait for the servers to connect.

    Returns:
        What was dealt, in order.

    Raises:
        RequestError: no such entry or graph, or material was refused.
        TimeLimitError: a server did not connect.
        StoreError, ChannelError: the dealer's own store failed; it is stopping.
    """
    manifest = dealing.manifest
    for name in entries:
        if name not in manifest.entries:
            raise RequestError(f"The plan has no entry {name!r}; it has: {', '.join(manifest.entries)}.")
    for graph in graphs:
        if graph not in manifest.graphs:
            raise RequestError(f"The plan has no graph {graph!r}; it has: {', '.join(manifest.graphs)}.")
    chosen = [graph for name in entries for graph in manifest.entries[name].variants] + list(graphs)
    if not chosen:
        chosen = [g for e in manifest.entries.values() if not e.keeps for g in e.variants]
    dealing.await_servers(patience)
    dealt: list[Batch] = []

    def deal(graph: str, version: int, number: int) -> int:
        batch = Batch(graph, version, number)
        progress(batch, 0)
        last = dealing.deal(graph, version, number, lambda done: progress(batch, done))
        dealt.append(batch)
        return last

    version, states = _version_to_use(dealing)
    for graph in dict.fromkeys(chosen):
        entry = manifest.entries[manifest.graphs[graph].entry]
        while missing := set(entry.uses) - states:
            if dealing.current:
                raise RequestError(
                    f"{graph!r} uses state version {dealing.current}, in which this dealer has no {min(missing)!r}: "
                    "its store is another one. Restore that, or deal the entry that keeps the state and run it anew."
                )
            # An entry that keeps something new, and uses nothing that is missing itself.
            able = (e for e in manifest.entries.values() if set(e.keeps) - states and set(e.uses) <= states)
            first = next(able, None)
            if first is None:
                raise RequestError(f"No entry of the plan keeps state {min(missing)!r}, which {graph!r} uses.")
            made = deal(first.variants[0], version if first.uses else 0, 1)
            # The leader may have wanted one at the same time, which is then used before ours.
            version, now = _version_to_use(dealing)
            if not now > states:
                raise RequestError(
                    f"{graph!r} uses states that no version has together: version {made}, of {first.name!r}, has "
                    f"{', '.join(sorted(dealing.part.states(made)))}. Keep them in one entry, or let it use the others."
                )
            states = now
        deal(graph, version if entry.uses else 0, count)
    return dealt


def _version_to_use(dealing: Dealing) -> tuple[int, set[str]]:
    """The state version to deal for, and the states that it has here; (0, none) where one is to be dealt first."""
    part, entries = dealing.part, dealing.manifest.entries.values()
    if dealing.current:
        return dealing.current, part.states(dealing.current) if dealing.current in part.versions() else set()
    # None is in use yet. It will be the oldest for which both servers still have the material that makes it.
    keeping = [graph for entry in entries if entry.keeps for graph in entry.variants]

    def unused(version: int) -> int:
        return max((dealing.counted(graph, part.based_on(version)) for graph in keeping), default=0)

    waiting = [version for version in part.acknowledged() if unused(version)]
    most = max((len(part.states(version)) for version in waiting), default=0)
    complete = [version for version in waiting if len(part.states(version)) == most]
    if not complete:
        return 0, set()
    version = complete[-min(unused(complete[-1]), len(complete))]
    return version, part.states(version)
