"""A compiled graph, and how it runs on private tensors: node by node, each where its operands are known or shared."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from shareflow.compiler.composite import plain_meaning
from shareflow.compiler.graph import CONSTANT, INPUT, Graph, Node, Output
from shareflow.compiler.inference import compute
from shareflow.compiler.lower.handler import Value, check_supported, lower
from shareflow.compiler.parameters import Parameter, parameters_of_graph
from shareflow.compiler.scales import PRODUCTS, STRUCTURE
from shareflow.compiler.scope import scope_name
from shareflow.errors import UnsupportedModelError
from shareflow.protocol.protocol import Protocol
from shareflow.protocol.tensor import PrivateTensor
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
        cls, graph: Graph, owner: str, point: FixedPoint, activations: Mapping[str, str] | None = None
    ) -> PrivateGraph:
        """Parameters are what secret nodes take from the owner.

        Raises:
            UnsupportedModelError: an op on shares has no handler.
        """
        found = cls(graph, parameters_of_graph(graph, owner, point), dict(activations or {}))
        check_supported([node for node in found.steps if node.op not in (CONSTANT, INPUT)])
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

    def run(
        self, inputs: Mapping[str, PrivateTensor], parameters: Mapping[str, Any], protocol: Protocol
    ) -> dict[str, PrivateTensor]:
        """The results by name, shared. ``parameters`` by name, shared or as variables."""
        values: dict[Output, Value] = {p.output: parameters[name].read() for name, p in self.parameters.items()}
        reused = _reused(self.graph)
        for node in self.steps:
            if node.op == CONSTANT:
                values[Output(node)] = node.attributes["value"]
                continue
            if node.op == INPUT:
                values[Output(node)] = inputs[node.attributes["name"]].read()
                continue
            with tf.name_scope(scope_name(node.layer)):
                results = compute_node(node, [values[value] for value in node.inputs])
                for output, result in zip(node.outputs, results, strict=True):
                    shared = isinstance(result, PrivateTensor) and result.protocol is not None
                    values[output] = result.ready().reusable() if shared and output in reused else result
        return {name: _shared(values[output], protocol) for name, output in self.graph.outputs.items()}


def compute_node(node: Node, values: Sequence[Value]) -> Sequence[Value]:
    """The results of one node: in plaintext where one party knows all that it takes, else on shares."""
    private = [value for value in values if isinstance(value, PrivateTensor)]
    owners = {value.share.owner for value in private if isinstance(value.share, Known)}
    if not private:
        return [np.asarray(result) for result in _plain(node, [tf.constant(value) for value in values])]
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


def _reused(graph: Graph) -> set[Output]:
    """Values that several products or comparisons need masked, one of them through a view: masked once, at their source.

    A masked tensor's slices and joins are masked, too; without this each view would be opened under a mask of its own.
    """
    needs: dict[Output, int] = {}
    marked = set()
    for node in reversed(graph.nodes):
        for value in node.outputs:
            through = 0
            total = 0
            for user in graph.users.get(value, ()):
                if user.op in STRUCTURE:
                    here = max((needs.get(o, 0) for o in user.outputs), default=0)
                    through += here
                    total += here
                elif user.op in PRODUCTS or user.op not in ("AddV2", "Add", "Sub", "BiasAdd", "AddN"):
                    total += 1
            needs[value] = total
            if total >= 2 and through and node.op not in STRUCTURE and graph.secret(value):
                marked.add(value)
    return marked
