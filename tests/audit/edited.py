"""A small honest plan, and copies of it that are edited as someone would who wants a party to learn too much."""

from __future__ import annotations

import copy
import functools

import tensorflow as tf

import shareflow as sf
from shareflow.audit.plan import PlanAudit, audit_plan
from shareflow.party.send import Kind, parse
from shareflow.planning import Entry, Input, plan
from shareflow.runtime.external import steps_of
from shareflow_client.manifest import parse_manifest


@functools.cache
def network():
    """Dense, relu, dense: the weights are loaded and kept, a client asks."""

    def load(w1, w2):
        return {"w1": w1, "w2": w2}

    def predict(x, w1, w2):
        return (sf.relu(x @ w1) @ w2).reveal("client")

    weights = {"w1": Input("owner", (3, 4)), "w2": Input("owner", (4, 2))}
    entries = {
        "load": Entry(load, weights, keeps=("w1", "w2")),
        "predict": Entry(predict, {"x": Input("client", (2, 3))}),
    }
    return plan(entries, sf.SPDZ())


class Edited:
    """A copy of the plan's manifest and graphs that can be changed; ``nodes`` are those of one graph, by name."""

    def __init__(self, graph="predict", made=None):
        made = made or network()
        self.manifest = copy.deepcopy(made.file.manifest)
        self.definitions = {}
        for name in made.file.manifest["graphs"]:
            self.definitions[name] = tf.compat.v1.GraphDef()
            self.definitions[name].CopyFrom(made.definition(name))
        self.name = graph
        self.definition = self.definitions[graph]
        self.info = self.manifest["graphs"][graph]

    @property
    def nodes(self):
        return {node.name: node for node in self.definition.node}

    def audit(self) -> PlanAudit:
        return audit_plan(parse_manifest(self.manifest), self.definitions, steps_of)

    def findings(self):
        """(party, node, reason) of all."""
        audit = self.audit()
        assert not audit.passed
        return [(finding.party, finding.where, finding.why) for _, finding in audit.every_finding()]

    def messages(self, kind, source=None, to=None):
        """Names of the messages of a kind, in the graph's order."""
        found = []
        for node in self.definition.node:
            crossing = parse(node.name)
            if crossing and crossing[0] is Kind(kind) and source in (None, crossing[1]) and to in (None, crossing[2]):
                found.append(node.name)
        return found

    def streams(self, party, peer):
        """Names of the nodes by which a party makes streams of its key with another."""
        key = self.key(party, peer)
        return [n.name for n in self.definition.node if n.op == "ShareflowUniform" and n.input[0] == key]

    def key(self, party, peer):
        (name,) = [n for n in self.nodes if f"key.{party}.{peer}." in n]
        return name

    def execution(self, party):
        (name,) = [n for n in self.nodes if f"execution.{party}." in n]
        return name

    def feeding(self, name, slot=0):
        """The node behind an input of another."""
        return self.nodes[self.nodes[name].input[slot].partition(":")[0]]

    def add(self, op, name, inputs, party="", **attributes):
        """A new node, its device the party's; attributes as Python's values. Its name."""
        node = self.definition.node.add(op=op, name=name, device=f"/job:{party}" if party else "")
        node.input.extend(inputs)
        for key, value in attributes.items():
            set_attribute(node, key, value)
        return name

    def identity(self, name, source, party, dtype=tf.int64):
        return self.add("Identity", name, [source], party, T=tf.as_dtype(dtype))

    def send(self, kind, source, to, value, name="", dtype=tf.int64):
        """A message of a value, and a node at the receiver that has it."""
        sent = self.identity(f"{name or 'planted'}/send.{kind}.{source}.{to}.", value, source, dtype)
        self.identity(f"{name or 'planted'}/got", sent, to, dtype)
        return sent

    def stream(self, party, peer, number, shape, name, key=None, execution=None):
        """A stream that a party makes."""
        constant = self.constant(f"{name}/number", number, party)
        given = [key or self.key(party, peer), execution or self.execution(party), constant]
        made = self.add("ShareflowUniform", name, given, party)
        self.nodes[made].attr["shape"].list.i.extend(shape)
        self.nodes[made].attr["_output_shapes"].list.shape.add().CopyFrom(tf.TensorShape(shape).as_proto())
        return made

    def constant(self, name, value, party="", dtype=tf.int64):
        self.add("Const", name, [], party, dtype=tf.as_dtype(dtype))
        self.nodes[name].attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value, dtype))
        return name

    def joined(self, op, name, one, other, party):
        return self.add(op, name, [one, other], party, T=tf.int64)


def set_attribute(node, key, value):
    """An attribute of a NodeDef from a Python value."""
    attribute = node.attr[key]
    if isinstance(value, tf.DType):
        attribute.type = value.as_datatype_enum
    elif isinstance(value, bool):
        attribute.b = value
    elif isinstance(value, int):
        attribute.i = value
    elif isinstance(value, bytes):
        attribute.s = value
    elif isinstance(value, tf.TensorShape):
        attribute.shape.CopyFrom(value.as_proto())
    else:
        attribute.CopyFrom(value)


def found(plan, party, node, reason):
    """Whether there is a finding of that party, at that node (or a node whose name ends so), with that reason."""
    findings = plan.findings()
    assert any(p == party and w.endswith(node) and reason in why for p, w, why in findings), findings
    return True
