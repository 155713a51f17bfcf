"""A graph as the audit reads it: nodes in topological order, each with its party, its shape and what it sends.

TensorFlow's own objects are slow to ask, so that a graph is copied once into plain lists. Nothing about it is taken for
granted: the order in which it lists its nodes, the names, the devices and the shapes may have been written by anyone.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf

from shareflow.audit.finding import Finding
from shareflow.audit.pure import CALLS
from shareflow.audit.shapes import CLAIM, Shape, claims_falsely, inferred, is_native
from shareflow.party.send import Kind, claims_to_cross, parse

# GraphDef versions of TensorFlow 2.10 and later: older ones have TensorFlow be lenient.
_OLDEST = 1000
_DEVICE = re.compile(r"/job:([A-Za-z][A-Za-z0-9_]*)")


@dataclass
class Circuit:
    """Nodes by number; every input of a node has a smaller number than the node.

    ``inputs[i]`` are (node, output) pairs, ``controls[i]`` nodes that run before. ``written[i]`` are the attributes as
    they stand in the file, ``attributes[i]`` the same with TensorFlow's defaults. ``party[i]`` computes node i; ""
    stands for everybody: a constant, or what follows from constants alone.
    """

    names: list[str] = field(default_factory=list)
    ops: list[str] = field(default_factory=list)
    attributes: list[Any] = field(default_factory=list)
    written: list[Any] = field(default_factory=list)
    devices: list[str] = field(default_factory=list)
    inputs: list[tuple[tuple[int, int], ...]] = field(default_factory=list)
    controls: list[tuple[int, ...]] = field(default_factory=list)
    shapes: list[tuple[Shape, ...]] = field(default_factory=list)
    messages: dict[int, tuple[Kind, str, str]] = field(default_factory=dict)
    party: list[str] = field(default_factory=list)
    number: dict[str, int] = field(default_factory=dict)
    library: Any = None

    def __len__(self) -> int:
        return len(self.names)

    def tensor(self, name: str) -> tuple[int, int] | None:
        """Node and output of a tensor's name, or None where there is none of that name."""
        node, colon, output = name.rpartition(":")
        if not colon or not output.isdecimal() or node not in self.number:
            return None
        index = self.number[node]
        return (index, int(output)) if int(output) < max(len(self.shapes[index]), 1) else None

    def shape(self, node: int, output: int = 0) -> Shape:
        """A tensor's shape; None where it is not fully known."""
        shapes = self.shapes[node]
        return shapes[output] if output < len(shapes) else None

    def holder(self, node: int) -> str:
        """Who has a node's value in the end: of a message, whoever gets it."""
        crossing = self.messages.get(node)
        return crossing[2] if crossing else self.party[node]

    def moved(self, node: int, output: int = 0) -> tuple[int, int]:
        """The tensor whose elements these are, before they were only moved."""
        while self.ops[node] in ("Identity", "Reshape"):
            node, output = self.inputs[node][0]
        return node, output

    def path(self, start: Sequence[int], end: int) -> tuple[str, ...]:
        """Names of the nodes on a shortest way from one of the first nodes to the last; empty where there is none."""
        wanted, came = set(start), {end: end}
        waiting = deque([end])
        while waiting:
            node = waiting.popleft()
            if node in wanted:
                way = [node]
                while way[-1] != end:
                    way.append(came[way[-1]])
                return tuple(self.names[step] for step in way)
            for source, _ in self.inputs[node]:
                if source not in came:
                    came[source] = node
                    waiting.append(source)
        return ()


def read(graph: tf.Graph | Any, trusted: bool = False) -> tuple[Circuit | None, list[Finding]]:
    """The circuit of a graph or graph definition, and what is wrong with its form; no circuit where it has none.

    Args:
        graph: as traced, or as it came in a file.
        trusted: traced in this process, so that its shapes are taken as they are.
    """
    definition = graph.as_graph_def(add_shapes=True) if isinstance(graph, tf.Graph) else graph
    findings, order = _ordered(definition)
    if order is None:
        return None, findings
    if not trusted:
        if definition.versions.producer < _OLDEST:
            why = f"it says it is of version {definition.versions.producer}, whose operations compute other things"
            return None, [Finding("", "the graph", why)]
        unknown = sorted({node.op for node in definition.node if is_native(node.op) and not _registered(node.op)})
        if unknown:
            why = f"this program has no operation {unknown[0]}: the native kernels are not loaded, or are others"
            return None, [Finding("", unknown[0], why)]
        try:
            shaped = inferred(definition).as_graph_def(add_shapes=True)
        except (ValueError, TypeError, tf.errors.OpError) as error:
            reason = (str(error).splitlines() or [""])[0]
            return None, [Finding("", "the graph", f"TensorFlow makes no graph of it: {reason}")]
    else:
        shaped = definition
    circuit = _filled(definition, order)
    # Shapes, and attributes with their defaults, are TensorFlow's. The rest is read as it stands in the file: an import
    # gives devices another form.
    attributes = {node.name: node.attr for node in shaped.node}
    circuit.attributes = [attributes[name] for name in circuit.names]
    circuit.shapes = [
        tuple(_static(shape) for shape in found[CLAIM].list.shape) if CLAIM in found else ()
        for found in circuit.attributes
    ]
    if not trusted:
        _forget_called(circuit)
    findings += _messages(circuit)
    if not trusted:
        findings += _shapes(circuit)
    return circuit, findings


def place(circuit: Circuit, given: dict[int, str], trusted: bool = False) -> list[Finding]:
    """Finds who computes each node, and what crosses between parties without being sent.

    A pinned node is its party's. One that is not belongs to the party of whom all its inputs are, and to everybody
    where it has no input but what belongs to everybody.

    Args:
        given: parties of placeholders that are not pinned, as declared; "" for a value that everybody knows.
        trusted: placeholders that nobody declared belong to whoever uses them, and control edges may join parties.
    """
    findings: list[Finding] = []
    users = _users(circuit) if trusted else {}
    for node in range(len(circuit)):
        name, device = circuit.names[node], circuit.devices[node]
        holders = {circuit.holder(source) for source, _ in circuit.inputs[node]} - {""}
        if device:
            match = _DEVICE.fullmatch(device)
            party = match[1] if match else ""
            if match is None:
                findings.append(
                    Finding("", name, f"its device {device!r} names no party: a device is '/job:<party>' and no more")
                )
        elif node in given:
            party = given[node]
        elif circuit.ops[node].startswith("Placeholder"):
            using = users.get(node, set())
            party = next(iter(using)) if len(using) == 1 else ""
            if not trusted:
                findings.append(Finding("", name, "a value from outside that no party is declared to give"))
            elif len(using) > 1 and circuit.attributes[node]["dtype"].type == tf.resource.as_datatype_enum:
                findings.append(Finding("", name, f"a variable that {' and '.join(sorted(using))} share"))
        elif len(holders) > 1:
            party = ""
            why = f"no party computes it: it uses values of {' and '.join(sorted(holders))} and is not pinned"
            findings.append(Finding("", name, why))
        else:
            party = next(iter(holders), "")
        if node in given and device and party != given[node]:
            why = f"it is declared to be given by {given[node]} and is pinned to {party}"
            findings.append(Finding(party, name, why))
        circuit.party.append(party)
        findings += _stray(circuit, node, party, trusted)
    return findings


def _stray(circuit: Circuit, node: int, party: str, trusted: bool) -> list[Finding]:
    """Inputs of a node that another party holds and did not send."""
    found = []
    for source, _ in circuit.inputs[node]:
        owner = circuit.party[source]
        crossing = circuit.messages.get(source)
        if not party or not owner or owner == party or (crossing and crossing[1:] == (owner, party)):
            continue
        why = f"a value of {owner} is used by {party} and was not sent to it"
        found.append(Finding(party, circuit.names[node], why, (circuit.names[source], circuit.names[node])))
    if not trusted:
        for source in circuit.controls[node]:
            owner = circuit.party[source]
            if owner and party and owner != party:
                why = f"it waits for {circuit.names[source]} of {owner} and is {party}'s: that would be a message"
                found.append(Finding(party, circuit.names[node], why))
    return found


def _users(circuit: Circuit) -> dict[int, set[str]]:
    """For each placeholder the parties that are pinned to use it."""
    users: dict[int, set[str]] = {}
    for node in range(len(circuit)):
        match = _DEVICE.fullmatch(circuit.devices[node])
        if match:
            for source, _ in circuit.inputs[node]:
                if circuit.ops[source].startswith("Placeholder"):
                    users.setdefault(source, set()).add(match[1])
    return users


def _ordered(definition: Any) -> tuple[list[Finding], list[int] | None]:
    """Positions of the nodes, inputs first; None, and why, where there is no such order."""
    position: dict[str, int] = {}
    for index, node in enumerate(definition.node):
        if node.name in position:
            return [Finding("", node.name, "two nodes have this name")], None
        position[node.name] = index
    before: list[list[int]] = []
    for node in definition.node:
        sources = []
        for name in node.input:
            source = name[1:] if name.startswith("^") else name.partition(":")[0]
            if source not in position:
                return [Finding("", node.name, f"its input {name!r} is no node of the graph")], None
            sources.append(position[source])
        before.append(sources)
    waiting_for = [len(sources) for sources in before]
    after: list[list[int]] = [[] for _ in before]
    for index, sources in enumerate(before):
        for source in sources:
            after[source].append(index)
    ready = deque(index for index, count in enumerate(waiting_for) if not count)
    order = []
    while ready:
        index = ready.popleft()
        order.append(index)
        for user in after[index]:
            waiting_for[user] -= 1
            if not waiting_for[user]:
                ready.append(user)
    if len(order) < len(before):
        stuck = next(index for index, count in enumerate(waiting_for) if count)
        return [Finding("", definition.node[stuck].name, "it stands on a cycle: a value would depend on itself")], None
    return [], order


def _filled(definition: Any, order: list[int]) -> Circuit:
    circuit = Circuit(library=definition.library)
    number = circuit.number
    for index in order:
        node = definition.node[index]
        number[node.name] = len(circuit.names)
        circuit.names.append(node.name)
        circuit.ops.append(node.op)
        circuit.written.append(node.attr)
        circuit.devices.append(node.device)
        inputs, controls = [], []
        for name in node.input:
            if name.startswith("^"):
                controls.append(number[name[1:]])
            else:
                source, _, output = name.partition(":")
                inputs.append((number[source], int(output or 0)))
        circuit.inputs.append(tuple(inputs))
        circuit.controls.append(tuple(controls))
    return circuit


def _static(shape: Any) -> Shape:
    if shape.unknown_rank:
        return None
    sizes = tuple(dimension.size for dimension in shape.dim)
    return None if -1 in sizes else sizes


def _messages(circuit: Circuit) -> list[Finding]:
    """Finds the messages by their names, and those that only look like one."""
    findings = []
    for node, name in enumerate(circuit.names):
        if not claims_to_cross(name):
            continue
        try:
            crossing = parse(name)
        except ValueError:
            crossing = None
        if crossing is None:
            findings.append(Finding("", name, "its name is a message's, but of no kind or form that there is"))
            continue
        _, source, to = crossing
        if circuit.ops[node] != "Identity" or len(circuit.inputs[node]) != 1:
            findings.append(Finding(to, name, f"a message is sent by Identity; this is {circuit.ops[node]}"))
            continue
        if source == to:
            findings.append(Finding(to, name, "a message goes from one party to another; this one to its sender"))
        if circuit.devices[node] != f"/job:{source}":
            pinned = circuit.devices[node] or "nobody"
            findings.append(Finding(to, name, f"its name says {source} sends it, and it is pinned to {pinned}"))
        circuit.messages[node] = crossing
    return findings


def _shapes(circuit: Circuit) -> list[Finding]:
    """Native ops whose shape is not what follows from their operands."""
    findings = []
    for node, op in enumerate(circuit.ops):
        if is_native(op):
            operands = [circuit.shape(*source) for source in circuit.inputs[node]]
            if claims_falsely(op, circuit.attributes[node], operands, circuit.shape(node)):
                why = f"its shape {circuit.shape(node)} is not what {op} gives for operands of {operands}"
                findings.append(Finding("", circuit.names[node], why))
    return findings


def _forget_called(circuit: Circuit) -> None:
    """Takes the shapes away that follow from what a function gave."""
    doubtful: list[bool] = []
    for node, op in enumerate(circuit.ops):
        doubt = op in CALLS or (op != "EnsureShape" and any(doubtful[source] for source, _ in circuit.inputs[node]))
        doubtful.append(doubt)
        if doubt:
            circuit.shapes[node] = (None,) * len(circuit.shapes[node])


def _registered(op: str) -> bool:
    from tensorflow.python.framework import op_def_registry

    return op_def_registry.get(op) is not None
