"""A compiled graph, and how it runs on private tensors: node by node, each where its operands are known or shared."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import tensorflow as tf

from shareflow.compiler.composite import plain_meaning
from shareflow.compiler.evaluate import as_array
from shareflow.compiler.graph import CONSTANT, INPUT, Graph, Node, Output
from shareflow.compiler.inference import compute
from shareflow.compiler.lower.handler import Value, check_supported, lower
from shareflow.compiler.masking import AtSource, masked_at_source
from shareflow.compiler.parameters import Parameter, parameters_of_graph
from shareflow.compiler.scope import scope_name
from shareflow.compiler.sharing import on_shares
from shareflow.errors import UnsupportedModelError
from shareflow.party.party import Party
from shareflow.protocol.placement import private_tensor
from shareflow.protocol.protocol import Protocol
from shareflow.protocol.tensor import PrivateTensor, PrivateValue
from shareflow.ring.fixed_point import FixedPoint
from shareflow.share.known import Known


@dataclass(frozen=True, eq=False)
class PrivateGraph:
    """A graph whose passes are done.

    Args:
        graph: of one batch size.
        parameters: what the owner computes in plaintext and shares, by name.
        activations: for each result, what its receiver still applies in plaintext ("softmax"), or nothing.
    """

    graph: Graph
    parameters: Mapping[str, Parameter]
    activations: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def make(
        cls,
        graph: Graph,
        owner: str,
        point: FixedPoint,
        activations: Mapping[str, str] | None = None,
        narrowed: Mapping[str, int] | None = None,
    ) -> PrivateGraph:
        """Parameters are what secret nodes take from the owner; those in ``narrowed`` have so many fractional bits.

        Raises:
            UnsupportedModelError: an op on shares has no handler.
        """
        found = cls(graph, parameters_of_graph(graph, owner, point, narrowed), dict(activations or {}))
        check_supported(on_shares(found.steps, [parameter.output for parameter in found.parameters.values()]))
        return found

    @functools.cached_property
    def steps(self) -> tuple[Node, ...]:
        """The nodes that are computed in a prediction, in order: the owner's part ends at the parameters."""
        begun = {parameter.output for parameter in self.parameters.values()}
        needed: set[Node] = set()
        waiting = [value for value in self.graph.outputs.values() if value not in begun]
        while waiting:
            node = waiting.pop().node
            if node not in needed:
                needed.add(node)
                waiting += [value for value in node.inputs if value not in begun]
        return tuple(node for node in self.graph.nodes if node in needed)

    @functools.cached_property
    def layers(self) -> tuple[tuple[str, tuple[Node, ...]], ...]:
        """The steps by the layers that made them, in the order in which they are computed."""
        found: list[tuple[str, list[Node]]] = []
        for node in self.steps:
            if node.op in (CONSTANT, INPUT):
                continue
            if not found or found[-1][0] != node.layer:
                found.append((node.layer, []))
            found[-1][1].append(node)
        counts: Counter[str] = Counter()
        named = []
        for layer, nodes in found:
            counts[layer] += 1
            name = layer or "model"
            named.append((name if counts[layer] == 1 else f"{name}, part {counts[layer]}", tuple(nodes)))
        return tuple(named)

    def run(
        self, inputs: Mapping[str, PrivateValue], parameters: Mapping[str, PrivateValue], protocol: Protocol
    ) -> dict[str, PrivateTensor]:
        """The results by name, shared. ``parameters`` by name, shared or as variables."""
        with protocol:
            values = self.run_part(self.steps, self.begin(inputs, parameters))
            return self.results(values, protocol)

    def begin(self, inputs: Mapping[str, PrivateValue], parameters: Mapping[str, PrivateValue]) -> dict[Output, Value]:
        """What the steps begin with: inputs, parameters and public values."""
        values: dict[Output, Value] = {p.output: parameters[name].read() for name, p in self.parameters.items()}
        for node in self.steps:
            if node.op == INPUT:
                values[Output(node)] = inputs[node.attributes["name"]].read()
            elif node.op == CONSTANT:
                values[Output(node)] = node.attributes["value"]
        return values

    def run_part(self, nodes: Sequence[Node], values: Mapping[Output, Value]) -> dict[Output, Value]:
        """What these nodes add to the values that there are."""
        found = dict(values)
        scopes: dict[str, str] = {}
        for node in nodes:
            if node.op not in (CONSTANT, INPUT):
                # A scope entered again by its full name is the same one; by its short name it would get a number.
                with tf.name_scope(scopes.get(node.layer, scope_name(node.layer))) as scope:
                    scopes[node.layer] = scope
                    results = compute_node(node, [found[value] for value in node.inputs])
                    for output, result in zip(node.outputs, results, strict=True):
                        found[output] = self.kept(output, result)
        return found

    def results(self, values: Mapping[Output, Value], protocol: Protocol) -> dict[str, PrivateTensor]:
        """The results by name."""
        return {name: _shared(values[output], protocol) for name, output in self.graph.outputs.items()}

    def kept(self, output: Output, value: Value) -> Value:
        """A result as later steps find it: masked at once, where several of them need that."""
        wanted = self._reused.get(output)
        if wanted is None or not isinstance(value, PrivateTensor) or value.protocol is None:
            return value
        return (value.ready() if wanted is AtSource.TRUNCATE_AND_MASK else value).reusable()

    @functools.cached_property
    def _reused(self) -> dict[Output, AtSource]:
        return masked_at_source(self.graph)


def finish(scores: PrivateTensor, receiver: Party, activation: str | None) -> PrivateTensor:
    """What the receiver of a result still applies to it, in plaintext."""
    if activation is None:
        return scores
    with receiver:
        return private_tensor(tf.nn.softmax(scores.plaintext), receiver)


def compute_node(node: Node, values: Sequence[Value]) -> Sequence[Value]:
    """The results of one node: in plaintext where one party knows all that it takes, else on shares."""
    private = [value for value in values if isinstance(value, PrivateTensor)]
    owners = {value.share.owner for value in private if isinstance(value.share, Known)}
    if not private:
        # At once, also while a program is traced: later nodes may need the values.
        with tf.init_scope():
            return [as_array(result) for result in _plain(node, [tf.constant(value) for value in values])]
    if len(owners) == 1 and all(isinstance(value.share, Known) for value in private):
        owner = owners.pop()
        with owner:
            given = [
                tf.cast(v.plaintext, i.dtype) if isinstance(v, PrivateTensor) else tf.constant(v, i.dtype)
                for v, i in zip(values, node.inputs, strict=True)
            ]
            return [PrivateTensor(Known(owner, result)) for result in _plain(node, given)]
    return lower(node, values)


def _plain(node: Node, values: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    meaning = plain_meaning(node.op)
    return compute(node.op, values, node.attributes) if meaning is None else [meaning(*values, **node.attributes)]


def _shared(value: Value, protocol: Protocol) -> PrivateTensor:
    if not isinstance(value, PrivateTensor):
        raise UnsupportedModelError("A result depends on no private value. Leave it out: all parties know it.")
    return value.shared(protocol)
