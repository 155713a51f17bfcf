"""The audit of a plan: all its graphs, against what its manifest declares, and what it has parties outside compute.

A plan comes from another organisation, and whoever runs it runs what it says. Nothing in it is believed: the manifest
says what ought to be, the graphs are read, and every difference is a finding (docs/audit.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf

from shareflow.audit import circuit as reading
from shareflow.audit.circuit import Circuit
from shareflow.audit.cost import Cost, cost_of_circuit
from shareflow.audit.crossing import Roles
from shareflow.audit.finding import Finding
from shareflow.audit.stream import Streams, streams
from shareflow.audit.view import Audit, proved
from shareflow.errors import PlanError
from shareflow_client.manifest import ExternalPart, GraphInfo, Manifest, StateTensor, TensorInfo

REPORT = 1
"""The format of `PlanAudit.to_json`; it grows when a field changes its meaning."""

_ROWS = "rows of one batch do not depend on each other, where requests of several clients are computed together"

# Protocols whose messages this audit can prove, all with two servers and a dealer.
_PROTOCOLS = ("SPDZ",)

_STATE = "state "

Steps = Callable[[Iterable[Any], str], list[dict[str, Any]]]


@dataclass(frozen=True)
class Given:
    """A value that leaves an execution: a result that ``party`` is given, or a component of a state that it keeps.

    ``depends_on`` names the inputs ("x of client") and states ("state dense/kernel") that it is computed from.
    ``messages`` are those that a result comes in.
    """

    name: str
    party: str
    shape: tuple[int, ...]
    depends_on: tuple[str, ...]
    messages: tuple[str, ...] = ()

    def to_json(self) -> dict[str, object]:
        """The fields by name."""
        return {
            "name": self.name,
            "party": self.party,
            "shape": list(self.shape),
            "depends_on": list(self.depends_on),
            "messages": list(self.messages),
        }


@dataclass(frozen=True)
class GraphAudit:
    """One graph of a plan: the parties' views, what it costs, and what each party is given or keeps."""

    name: str
    entry: str
    batch: int | None
    nodes: int
    audit: Audit
    cost: Cost
    results: tuple[Given, ...]
    kept: tuple[Given, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing was found."""
        return self.audit.passed

    def to_json(self) -> dict[str, object]:
        """As docs/audit.md describes it."""
        return {
            "entry": self.entry,
            "batch": self.batch,
            "nodes": self.nodes,
            "passed": self.passed,
            **audit_json(self.audit),
            "results": [given.to_json() for given in self.results],
            "kept": [given.to_json() for given in self.kept],
            "cost": self.cost.to_json(),
        }


@dataclass(frozen=True)
class PlanAudit:
    """All graphs of a plan, and what is wrong with the plan as a whole."""

    graphs: tuple[GraphAudit, ...]
    findings: tuple[Finding, ...] = ()
    servers: tuple[str, ...] = ()
    dealer: str | None = None

    @property
    def passed(self) -> bool:
        """Whether nothing was found: the only plans that are to be run."""
        return not self.findings and all(graph.passed for graph in self.graphs)

    @property
    def assumed(self) -> tuple[str, ...]:
        """What the proofs rest on besides the graphs."""
        return tuple(dict.fromkeys(text for graph in self.graphs for text in graph.audit.assumed))

    def states(self) -> dict[str, tuple[str, ...]]:
        """For each state the inputs that it comes from, in whatever entry and through whatever other state."""
        found: dict[str, set[str]] = {}
        grown = True
        while grown:
            grown = False
            for given in (given for graph in self.graphs for given in graph.kept):
                own = found.setdefault(given.name.rpartition("[")[0], set())
                more = self.inputs_of(given.depends_on, found) - own
                own |= more
                grown = grown or bool(more)
        return {name: tuple(sorted(inputs)) for name, inputs in found.items()}

    @staticmethod
    def inputs_of(depends_on: Iterable[str], states: Mapping[str, Iterable[str]]) -> set[str]:
        """The inputs among what a value is computed from, and those that its states come from."""
        inputs: set[str] = set()
        for name in depends_on:
            inputs |= set(states.get(name.removeprefix(_STATE), ())) if name.startswith(_STATE) else {name}
        return inputs

    def every_finding(self) -> tuple[tuple[str, Finding], ...]:
        """All findings, with the graph's name; "" for those of the plan as a whole."""
        of_graphs = ((graph.name, finding) for graph in self.graphs for finding in graph.audit.findings)
        return (*(("", finding) for finding in self.findings), *of_graphs)

    def to_json(self) -> dict[str, object]:
        """The whole report, as docs/audit.md describes it: JSON values only."""
        return {
            "format": REPORT,
            "passed": self.passed,
            "servers": list(self.servers),
            "dealer": self.dealer,
            "assumed": list(self.assumed),
            "findings": [finding.to_json() for finding in self.findings],
            "states": {name: list(inputs) for name, inputs in self.states().items()},
            "graphs": {graph.name: graph.to_json() for graph in self.graphs},
        }

    def require(self) -> None:
        """Does nothing for a plan that passed.

        Raises:
            PlanError: it did not; the text tells the first finding.
        """
        if not self.passed:
            found = self.every_finding()
            graph, first = found[0]
            where = f"graph {graph!r}, {first.where}" if graph else first.where
            raise PlanError(
                f"A plan that does not pass the audit is not run; this one has {len(found)} findings, the first at "
                f"{where}: {first.why}. See all with `shareflow audit`, and do not run it."
            )


def graph_json(audit: Audit, cost: Cost) -> dict[str, object]:
    """The report on one graph that was traced in this process."""
    return {"format": REPORT, "passed": audit.passed, **audit_json(audit), "cost": cost.to_json()}


def audit_json(audit: Audit) -> dict[str, object]:
    """Views, findings, assumptions and checks of one graph as JSON values."""
    return {
        "assumed": list(audit.assumed),
        "findings": [finding.to_json() for finding in audit.findings],
        "checks": [{"party": party, "where": where} for party, where in audit.checks],
        "views": [
            {
                "party": view.party,
                "removed": [
                    {"message": removal.message, "stream": removal.stream.to_json()} for removal in view.removed
                ],
                "learned": [
                    {"kind": learned.kind.value, "messages": list(learned.messages), "shape": list(learned.shape)}
                    for learned in view.results
                ],
            }
            for view in audit.views
        ],
    }


def audit_plan(manifest: Manifest, graphs: Mapping[str, Any], steps: Steps) -> PlanAudit:
    """Audits a plan.

    Args:
        manifest: what the plan declares.
        graphs: by name the GraphDefs of the plan, just as they stand in its file.
        steps: computes from the nodes of a GraphDef the steps of a party outside of the computation. A client runs
            the manifest's steps and not the graph: they must be these.
    """
    findings = list(_declared(manifest))
    audited = []
    for name, info in manifest.graphs.items():
        if name in graphs:
            audited.append(_graph(manifest, info, graphs[name], steps))
        else:
            findings.append(Finding("", name, "the manifest declares this graph, and the plan has none of that name"))
    extra = sorted(set(graphs) - set(manifest.graphs))
    findings += [Finding("", name, "the manifest declares no such graph") for name in extra]
    return PlanAudit(tuple(audited), tuple(findings), manifest.protocol.servers, manifest.protocol.dealer)


def _declared(manifest: Manifest) -> Iterable[Finding]:
    """What is wrong with the manifest whatever the graphs are."""
    protocol = manifest.protocol
    if protocol.name not in _PROTOCOLS or len(protocol.servers) != 2 or protocol.dealer is None:
        yield Finding("", "protocol", f"the audit proves {', '.join(_PROTOCOLS)}, with two servers and a dealer")
    for entry in manifest.entries.values():
        for party in entry.receivers:
            if party in manifest.computing:
                yield Finding(party, f"entry {entry.name}", "a party that computes receives results")


def _graph(manifest: Manifest, info: GraphInfo, definition: Any, steps: Steps) -> GraphAudit:
    """One graph."""
    if isinstance(definition, tf.Graph):
        definition = definition.as_graph_def(add_shapes=True)
    circuit, findings = reading.read(definition)
    if circuit is None:
        return GraphAudit(info.name, info.entry, info.batch, 0, Audit((), tuple(findings)), Cost(()), (), ())
    ends = _Ends(manifest, info, circuit)
    findings += ends.findings
    findings += reading.place(circuit, ends.parties)
    found, wrong = streams(circuit, manifest.parties)
    findings += wrong
    findings += ends.outputs(found)
    dealer = manifest.protocol.dealer or ""
    server0, server1, *_ = manifest.protocol.servers
    receivers = manifest.entries[info.entry].receivers
    roles = Roles(manifest.parties, (server0, server1), dealer, receivers)
    leaving = frozenset(node for node, _ in (*ends.results.values(), *ends.kept.values()))
    audit = proved(circuit, found, ends.states, roles, findings, leaving=leaving)
    results, undeclared = _results(circuit, info, ends, audit)
    outside = [
        finding for part in info.external.values() for finding in _outside(circuit, definition, part, info, steps)
    ]
    senders = sorted({s for _, s, _ in circuit.messages.values()} - {*roles.computing, *info.external})
    outside += [Finding(party, info.name, f"{party} sends, and the manifest has no part of it") for party in senders]
    assumed = [*audit.assumed, *([_ROWS] if (info.batch or 1) > 1 else [])]
    wrong = [*audit.findings, *undeclared, *outside]
    audit = Audit(audit.views, tuple(dict.fromkeys(wrong)), tuple(assumed), audit.checks)
    cost = cost_of_circuit(circuit, sorted(leaving))
    kept = tuple(
        Given(f"{s.state}[{s.component}]", s.party, manifest.states[s.state].components[s.component].shape, origin)
        for s, origin in ends.origins()
    )
    return GraphAudit(info.name, info.entry, info.batch, len(circuit), audit, cost, results, kept)


@dataclass
class _Ends:
    """The declared ends of a graph: whose placeholders there are, and what leaves it."""

    manifest: Manifest
    info: GraphInfo
    circuit: Circuit
    parties: dict[int, str] = field(default_factory=dict)
    states: set[int] = field(default_factory=set)
    names: dict[int, str] = field(default_factory=dict)
    results: dict[TensorInfo, tuple[int, int]] = field(default_factory=dict)
    kept: dict[StateTensor, tuple[int, int]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def __post_init__(self) -> None:
        for given in self.info.inputs:
            if given.party in self.manifest.computing:
                why = f"input {given.name!r} is of {given.party}, who computes: inputs come from parties outside"
                self._found(given.party, given.tensor, why)
            self._placeholder(given.tensor, given.party, given.shape, given.dtype, f"{given.name} of {given.party}")
        for state in self.info.state_in:
            component = self.manifest.states[state.state].components[state.component]
            node = self._placeholder(
                state.tensor, state.party, component.shape, component.dtype, f"{_STATE}{state.state}"
            )
            if node is not None:
                self.states.add(node)
        for result in self.info.results:
            self._output(result.tensor, result.party, result.shape, self.results, result)
        for state in self.info.state_out:
            shape = self.manifest.states[state.state].components[state.component].shape
            self._output(state.tensor, state.party, shape, self.kept, state)

    def _found(self, party: str, where: str, why: str) -> None:
        self.findings.append(Finding(party, where, why))

    def _placeholder(self, tensor: str, party: str, shape: tuple[int, ...], dtype: str, name: str) -> int | None:
        found, circuit = self.circuit.tensor(tensor), self.circuit
        if found is None or circuit.ops[found[0]] != "Placeholder":
            self._found(party, tensor, f"{name} is declared here, and the graph has no placeholder of this name")
            return None
        node = found[0]
        if node in self.parties:
            self._found(party, tensor, f"it is declared twice: as {self.names[node]} and as {name}")
            return None
        kind = tf.dtypes.as_dtype(circuit.attributes[node]["dtype"].type).name
        if circuit.shape(*found) != shape or kind != dtype:
            why = f"{name} is declared as {dtype}{list(shape)}, and the graph has {kind}{circuit.shape(*found)}"
            self._found(party, tensor, why)
        self.parties[node], self.names[node] = party, name
        return node

    def _output(self, tensor: str, party: str, shape: tuple[int, ...], into: dict[Any, Any], declared: Any) -> None:
        found = self.circuit.tensor(tensor)
        if found is None:
            self._found(party, tensor, "it is declared to leave the graph, and the graph has no such tensor")
            return
        if self.circuit.shape(*found) != shape:
            why = f"it is declared with shape {list(shape)}, and the graph has {self.circuit.shape(*found)}"
            self._found(party, tensor, why)
        into[declared] = found

    def outputs(self, found: Streams) -> list[Finding]:
        """What leaves the graph at another party than declared, or is a key. Asked when all nodes are placed."""
        findings = []
        ends: list[tuple[TensorInfo | StateTensor, tuple[int, int]]] = [*self.results.items(), *self.kept.items()]
        for declared, (node, _) in ends:
            if node in found.keys or node in found.executions:
                findings.append(Finding(declared.party, declared.tensor, "a key or execution index leaves the graph"))
            holders = {self.circuit.party[node], self.circuit.holder(node)} - {""}
            if holders and declared.party not in holders:
                why = f"it is declared to be {declared.party}'s, and {' and '.join(sorted(holders))} computes it"
                findings.append(Finding(declared.party, declared.tensor, why))
        for node in self.parties:
            if node in found.keys or node in found.executions:
                why = f"it is a key or execution index, and declared as {self.names[node]}"
                findings.append(Finding(self.parties[node], self.circuit.names[node], why))
        known = {*self.parties, *found.keys, *found.executions}
        for node, op in enumerate(self.circuit.ops):
            if op == "Placeholder" and node not in known:
                why = "a value from outside that is no declared input or state, no key and no execution index"
                findings.append(Finding(self.circuit.party[node], self.circuit.names[node], why))
        return findings

    def origins(self) -> list[tuple[StateTensor, tuple[str, ...]]]:
        """What each kept component is computed from."""
        depends = self.depends()
        return [(state, depends(node)) for state, (node, _) in self.kept.items()]

    def depends(self) -> Callable[[int], tuple[str, ...]]:
        """From a node to the names of the inputs and states that it is computed from."""
        names = list(dict.fromkeys(self.names.values()))
        bit = {name: 1 << index for index, name in enumerate(names)}
        reach: list[int] = []
        for node in range(len(self.circuit)):
            own = bit[self.names[node]] if node in self.names else 0
            for source, _ in self.circuit.inputs[node]:
                own |= reach[source]
            reach.append(own)
        return lambda node: tuple(name for name in names if reach[node] & bit[name])


def _results(circuit: Circuit, info: GraphInfo, ends: _Ends, audit: Audit) -> tuple[tuple[Given, ...], list[Finding]]:
    """The declared results with the messages that they come in, and messages that come to no declared result."""
    depends = ends.depends()
    learned = {name: view.party for view in audit.views for name in view.learned}
    results, used = [], set()
    for result, (node, _) in ends.results.items():
        messages = [name for name in _before(circuit, node, result.party) if learned.get(name) == result.party]
        used |= set(messages)
        results.append(Given(result.name, result.party, result.shape, depends(node), tuple(messages)))
    why = "it tells its receiver something that leads to no declared result"
    return tuple(results), [Finding(party, name, why) for name, party in learned.items() if name not in used]


def _before(circuit: Circuit, end: int, party: str) -> list[str]:
    """Names of the messages that a value of a party is computed from, as that party gets them."""
    waiting, seen, found = [end], {end}, []
    while waiting:
        node = waiting.pop()
        if node in circuit.messages and circuit.messages[node][2] == party:
            found.append(circuit.names[node])
            continue
        for source, _ in circuit.inputs[node]:
            if source not in seen:
                seen.add(source)
                waiting.append(source)
    return sorted(found)


def _outside(
    circuit: Circuit, definition: Any, part: ExternalPart, info: GraphInfo, steps: Steps
) -> Iterable[Finding]:
    """Where a party outside would not do what the graph says that it does."""
    where = f"{info.name}: external.{part.party}"
    try:
        expected = steps(definition.node, part.party)
    except PlanError as error:
        yield Finding(part.party, where, f"its steps cannot be told from the graph: {error}")
        return
    written = [(step.name, step.op, tuple(step.inputs), dict(step.attributes)) for step in part.steps]
    computed = [(s["name"], s["op"], tuple(s["inputs"]), dict(s["attributes"])) for s in expected]
    if written != computed:
        pairs = zip(written, computed, strict=False)
        differing = next((one[0] for one, other in pairs if one != other), "one is missing, or there is one too many")
        yield Finding(part.party, where, f"its steps are not the graph's: {differing}")
    for direction, declared, end in (("sends", part.sends, 1), ("receives", part.receives, 2)):
        own = {
            (crossing[3 - end], f"{circuit.names[node]}:0", circuit.shape(node), _dtype(circuit, node))
            for node, crossing in circuit.messages.items()
            if crossing[end] == part.party
        }
        if own != {(message.peer, message.tensor, message.shape, message.dtype) for message in declared}:
            yield Finding(part.party, where, f"what it {direction} is not what it {direction} in the graph")


def _dtype(circuit: Circuit, node: int) -> str:
    return str(tf.dtypes.as_dtype(circuit.attributes[node]["T"].type).name)
