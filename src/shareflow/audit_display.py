"""Showing an audit to people, in the terminal with rich: who learns what, by which proof, and at what cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from shareflow.audit.cost import Cost
from shareflow.audit.duration import Duration
from shareflow.audit.finding import Finding
from shareflow.audit.plan import GraphAudit, PlanAudit
from shareflow.audit.view import Audit, View
from shareflow.display import size_text

# Steps of a proof, nodes of a path, layers and checks that are shown without `full`.
_STEPS, _PATH, _LAYERS, _CHECKS = 3, 6, 12, 3
_FILE_WIDTH = 160


def plan_report(audit: PlanAudit, fingerprint: str, full: bool = False) -> RenderableType:
    """The audit of a plan: the verdict, findings, then graph by graph who learns what, the proofs and the cost.

    Args:
        audit: of all graphs.
        fingerprint: of the plan, for people to compare.
        full: whole orders of removal, paths and lists of layers; shortened otherwise.
    """
    parts: list[RenderableType] = [_verdict(audit.passed, len(audit.every_finding()))]
    parts.append(Text(f"fingerprint {fingerprint}"))
    if audit.findings:
        parts.append(findings_tree("The plan as a whole", audit.findings, full))
    states = audit.states()
    for graph in audit.graphs:
        parts += _graph(graph, states, full)
    parts += [Text(f"assumed: {text}", style="yellow") for text in audit.assumed]
    return Group(*parts)


def graph_report(audit: Audit, cost: Cost, full: bool = False) -> RenderableType:
    """The audit of one graph that was traced here, as `plan_report` shows it."""
    parts: list[RenderableType] = [_verdict(audit.passed, len(audit.findings))]
    if audit.findings:
        parts.append(findings_tree("Findings", audit.findings, full))
    parts += [views_table(audit, cost), *_proofs(audit, full), *_costs(cost, full)]
    parts += [Text(f"assumed: {text}", style="yellow") for text in audit.assumed]
    return Group(*parts)


def print_report(report: RenderableType) -> None:
    """Prints a report to standard output; in a file its lines are longer than a terminal's, as names are."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=max(console.width, _FILE_WIDTH))
    console.print(report)


def views_table(audit: Audit, cost: Cost) -> Table:
    """One row a party: what it receives, how much of that is proved to say nothing, and what it learns."""
    table = Table(title="What each party is sent")
    for header in ("party", "messages", "online", "offline", "say nothing", "learns"):
        table.add_column(header, justify="left" if header in ("party", "learns") else "right")
    for view in audit.views:
        received = [message for message in cost.messages if message.to == view.party]
        table.add_row(
            Text(view.party),
            str(len(received)),
            size_text(sum(message.bytes for message in received if not message.offline)),
            size_text(sum(message.bytes for message in received if message.offline)),
            _said(view),
            Text(_learned(view)),
        )
    return table


def times_table(times: Mapping[str, Duration]) -> Table:
    """How long each graph takes over a network, in ms, by where the time goes."""
    table = Table(title="Predicted times, material ready (docs/network.md)")
    for header in ("graph", "latency ms", "transfer ms", "computing ms", "all ms"):
        table.add_column(header, justify="left" if header == "graph" else "right")
    for name, time in times.items():
        parts = (time.latency, time.transfer, time.computing, time.seconds)
        table.add_row(Text(name), *(f"{part * 1e3:,.1f}" for part in parts))
    return table


def findings_tree(title: str, findings: Sequence[Finding], full: bool = False) -> Tree:
    """Each finding with its node, its reason, and the path to it."""
    tree = Tree(Text(title, style="bold red"))
    for finding in findings:
        who = f"{finding.party}: " if finding.party else ""
        branch = tree.add(Text(f"{who}{finding.where}: {finding.why}", style="red"))
        if finding.path:
            branch.add(Text(" -> ".join(_shortened(finding.path, None if full else _PATH))))
    return tree


def _graph(graph: GraphAudit, states: Mapping[str, tuple[str, ...]], full: bool) -> Iterator[RenderableType]:
    batch = "" if graph.batch is None else f", batch {graph.batch}"
    yield Text("")
    yield Text(f"{graph.name} (entry {graph.entry}{batch}, {graph.nodes} nodes)", style="bold")
    if graph.audit.findings:
        yield findings_tree("Findings", graph.audit.findings, full)
    for given in graph.results:
        inputs = sorted(PlanAudit.inputs_of(given.depends_on, states))
        of = ", ".join(_shortened(inputs, None if full else _PATH)) or "nothing but constants"
        yield Text(f"{given.party} learns {given.name} {list(given.shape)}, computed from {of}")
    if graph.kept:
        table = Table(title="What parties keep")
        for header in ("state", "party", "shape", "computed from"):
            table.add_column(header)
        for given in graph.kept if full else graph.kept[:_LAYERS]:
            of = ", ".join(given.depends_on) or "streams alone"
            table.add_row(Text(given.name), Text(given.party), str(list(given.shape)), Text(of))
        yield table
        yield from _rest(len(graph.kept), _LAYERS, "components", full)
    yield views_table(graph.audit, graph.cost)
    yield from _proofs(graph.audit, full)
    yield from _costs(graph.cost, full)


def _proofs(audit: Audit, full: bool) -> Iterator[RenderableType]:
    for view in audit.views:
        if view.removed:
            tree = Tree(Text(f"Order of removal for {view.party}"))
            steps = [f"{removal.message}: uniform by {removal.stream}" for removal in view.removed]
            for step in _shortened(steps, None if full else 2 * _STEPS):
                tree.add(Text(step))
            yield tree
    if audit.checks:
        shown = audit.checks if full else audit.checks[:_CHECKS]
        where = ", ".join(f"{name} of {party}" for party, name in shown)
        more = "" if len(shown) == len(audit.checks) else f" and {len(audit.checks) - len(shown)} more"
        yield Text(f"a check of a party's own values can end the run: {where}{more}")


def _costs(cost: Cost, full: bool) -> Iterator[RenderableType]:
    yield Text(
        f"{cost.rounds} rounds; {size_text(cost.online_bytes)} online, {size_text(cost.offline_bytes)} offline, "
        "by all parties together"
    )
    online, offline = cost.bytes_by_link(False), cost.bytes_by_link(True)
    links = Table(title="Bytes by link")
    for header in ("from", "to", "online", "offline"):
        links.add_column(header, justify="left" if header in ("from", "to") else "right")
    for source, to in sorted({*online, *offline}):
        links.add_row(
            Text(source), Text(to), size_text(online.get((source, to), 0)), size_text(offline.get((source, to), 0))
        )
    yield links
    layers = Table(title="Bytes by layer")
    for header in ("layer", "rounds", "online", "offline"):
        layers.add_column(header, justify="left" if header == "layer" else "right")
    by_layer = cost.layers()
    for layer in by_layer if full else by_layer[:_LAYERS]:
        online_size, offline_size = size_text(layer.cost.online_bytes), size_text(layer.cost.offline_bytes)
        layers.add_row(Text(layer.name or "(none)"), str(layer.rounds), online_size, offline_size)
    yield layers
    yield from _rest(len(by_layer), _LAYERS, "layers", full)


def _rest(count: int, shown: int, what: str, full: bool) -> Iterator[RenderableType]:
    if not full and count > shown:
        yield Text(f"{count - shown} more {what}; --full shows all", style="dim")


def _verdict(passed: bool, count: int) -> Text:
    if passed:
        return Text("Proved from the graph: passed", style="bold green")
    return Text(f"Not accounted for: {count} finding{'s' if count > 1 else ''}", style="bold red")


def _said(view: View) -> str:
    return f"{len(view.removed)} proved" if view.removed else "-"


def _learned(view: View) -> str:
    if not view.results:
        return "nothing"
    return ", ".join(f"a {learned.kind.value} {list(learned.shape)}" for learned in view.results)


def _shortened(items: Sequence[str], most: int | None) -> list[str]:
    """All items, or the first and the last ones with a word between them on how many are left out."""
    if most is None or len(items) <= most + 1:
        return list(items)
    left = len(items) - most
    return [*items[: most // 2], f"... {left} more ...", *items[len(items) - most // 2 :]]
