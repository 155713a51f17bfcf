"""What a compiler works on: a model as a graph of TensorFlow's operations, read out of TensorFlow.

Nodes hold TensorFlow's op types and attributes as Python values, and a few types of our own:

* ``Input``: a value that a party brings to each prediction.
* ``Parameter``: a value that the model's owner knows: a variable, or an array that stands in the code.
* ``Constant``: a public value, part of the program that all parties see.
* ``shareflow.*``: what passes make of several operations.

Graphs are values: a pass makes a new one by :meth:`Graph.rewrite`.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from shareflow.compiler.inference import result_types

Shape = tuple[int, ...]
INPUT, PARAMETER, CONSTANT = "Input", "Parameter", "Constant"


@dataclass(frozen=True)
class Output:
    """One result of a node."""

    node: Node
    index: int = 0

    @property
    def shape(self) -> Shape:
        """The shape, always known."""
        return self.node.shapes[self.index]

    @property
    def dtype(self) -> str:
        """NumPy's name of the type."""
        return self.node.dtypes[self.index]

    @property
    def constant(self) -> np.ndarray | None:
        """The value, where it is public."""
        return self.node.attributes["value"] if self.node.op == CONSTANT else None

    @property
    def name(self) -> str:
        """The node's name, with the index of a result that is not the first."""
        return f"{self.node.name}:{self.index}" if self.index else self.node.name


@dataclass(frozen=True, eq=False)
class Node:
    """One operation.

    Args:
        op: TensorFlow's op type, or one of ours.
        inputs: results of nodes before it.
        attributes: as TensorFlow's ``get_attr`` gives them; ``value`` of a Constant, ``source`` of a Parameter.
        name: unique in its graph.
        layer: the layer that made it, or the scope that it stands in; for people.
        shapes, dtypes: one for each result.
    """

    op: str
    inputs: tuple[Output, ...]
    attributes: Mapping[str, Any]
    name: str
    layer: str
    shapes: tuple[Shape, ...]
    dtypes: tuple[str, ...]

    @property
    def outputs(self) -> tuple[Output, ...]:
        """All results."""
        return tuple(Output(self, i) for i in range(len(self.shapes)))

    def __repr__(self) -> str:
        inputs = ", ".join(value.name for value in self.inputs)
        return f"{self.name} = {self.op}({inputs}) {' '.join(map(str, self.shapes))}"


class Builder:
    """Makes nodes with names that are unique, one after the other."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self._names: Counter[str] = Counter()
        # The layer of nodes made without one: a pass sets it to that of the node it replaces.
        self.layer = ""

    def add(self, node: Node) -> Node:
        """The node under a name of its own."""
        name = self._unique(node.name)
        if name != node.name:
            node = Node(node.op, node.inputs, node.attributes, name, node.layer, node.shapes, node.dtypes)
        self.nodes.append(node)
        return node

    def node(
        self, op: str, inputs: Sequence[Output], attributes: Mapping[str, Any] | None = None, name: str = ""
    ) -> Node:
        """A new node of a TensorFlow op; shapes and types of its results follow from its inputs'."""
        given = dict(attributes or {})
        types = result_types(op, [(i.shape, i.dtype, i.constant) for i in inputs], given)
        shapes, dtypes = tuple(s for s, _ in types), tuple(t for _, t in types)
        return self.add(Node(op, tuple(inputs), given, name or f"{self.layer}/{op}", self.layer, shapes, dtypes))

    def custom(
        self,
        op: str,
        inputs: Sequence[Output],
        shape: Shape,
        dtype: str,
        attributes: Mapping[str, Any] | None = None,
        name: str = "",
    ) -> Output:
        """A new node of an op of ours, with one result."""
        node = Node(
            op, tuple(inputs), dict(attributes or {}), name or f"{self.layer}/{op}", self.layer, (shape,), (dtype,)
        )
        return Output(self.add(node))

    def __call__(self, op: str, *inputs: Output, **attributes: Any) -> Output:
        """The first result of a new node: ``build("Mul", x, y)``."""
        return Output(self.node(op, inputs, attributes))

    def constant(self, value: Any, dtype: str | None = None) -> Output:
        """A public value."""
        array = np.asarray(value, dtype)
        shape, kind = tuple(array.shape), array.dtype.name
        return Output(
            self.add(Node(CONSTANT, (), {"value": array}, f"{self.layer}/constant", self.layer, (shape,), (kind,)))
        )

    def _unique(self, wanted: str) -> str:
        name = wanted.strip("/") or "node"
        self._names[name] += 1
        count = self._names[name]
        if count == 1:
            return name
        while f"{name}_{count - 1}" in self._names:
            count += 1
        unique = f"{name}_{count - 1}"
        self._names[unique] += 1
        return unique


@dataclass(frozen=True)
class Note:
    """What a pass did, and how often."""

    by: str
    what: str
    count: int = 1

    def __str__(self) -> str:
        return f"{self.by}: {self.what} ({self.count})"


Replacement = Output | Sequence[Output] | None
Visit = Callable[[Node, Builder], Replacement]


@dataclass(frozen=True, eq=False)
class Graph:
    """Nodes in an order in which they can be computed.

    Args:
        nodes: each after its inputs.
        outputs: results by name.
        notes: what passes did to it.
    """

    nodes: tuple[Node, ...]
    outputs: Mapping[str, Output]
    notes: tuple[Note, ...] = field(default=())

    @functools.cached_property
    def inputs(self) -> tuple[Node, ...]:
        """What parties bring, in order."""
        return tuple(node for node in self.nodes if node.op == INPUT)

    @functools.cached_property
    def parameters(self) -> tuple[Node, ...]:
        """What the owner knows, in order."""
        return tuple(node for node in self.nodes if node.op == PARAMETER)

    @functools.cached_property
    def users(self) -> dict[Output, tuple[Node, ...]]:
        """The nodes that take each result. One that takes it twice stands there twice."""
        found: dict[Output, list[Node]] = {}
        for node in self.nodes:
            for value in node.inputs:
                found.setdefault(value, []).append(node)
        return {value: tuple(nodes) for value, nodes in found.items()}

    @functools.cached_property
    def results(self) -> frozenset[Output]:
        """The outputs, as a set."""
        return frozenset(self.outputs.values())

    def only_user(self, value: Output) -> Node | None:
        """The one node that takes a value, if nothing else does and it is no result of the graph."""
        users = self.users.get(value, ())
        return users[0] if len(users) == 1 and value not in self.results else None

    @functools.cached_property
    def knowledge(self) -> dict[Output, frozenset[str]]:
        """Whose values each result depends on: parties' names; empty for a public value."""
        found: dict[Output, frozenset[str]] = {}
        for node in self.nodes:
            if node.op in (INPUT, PARAMETER):
                known = frozenset((node.attributes["party"],))
            else:
                known = frozenset().union(*(found[value] for value in node.inputs))
            for value in node.outputs:
                found[value] = known
        return found

    def secret(self, value: Output) -> bool:
        """Whether no single party knows the value."""
        return len(self.knowledge[value]) > 1

    def rewrite(self, visit: Visit, notes: Iterable[Note] = ()) -> Graph:
        """A new graph: ``visit(node, build)`` is called for each node in order, its inputs already the new ones.

        It returns what stands in place of the node's results (one, or a list of all), having made new nodes with
        ``build``; or None, and the node stays. What no output needs any more is gone.
        """
        build = Builder()
        new: dict[Output, Output] = {}
        for old in self.nodes:
            inputs = tuple(new[value] for value in old.inputs)
            node = Node(old.op, inputs, old.attributes, old.name, old.layer, old.shapes, old.dtypes)
            build.layer = old.layer
            replaced = visit(node, build)
            if replaced is None:
                values: Sequence[Output] = build.add(node).outputs
            else:
                values = (replaced,) if isinstance(replaced, Output) else tuple(replaced)
            for before, after in zip(old.outputs, values, strict=False):
                new[before] = after
        outputs = {name: new[value] for name, value in self.outputs.items()}
        return Graph(tuple(build.nodes), outputs, (*self.notes, *notes)).pruned()

    def pruned(self, keep_inputs: bool = True) -> Graph:
        """The graph without nodes that no output needs. Inputs stay: they are the entry's signature."""
        needed: set[Node] = {node for node in self.nodes if keep_inputs and node.op == INPUT}
        waiting = [value.node for value in self.outputs.values()]
        while waiting:
            node = waiting.pop()
            if node not in needed:
                needed.add(node)
                waiting += [value.node for value in node.inputs]
        nodes = tuple(node for node in self.nodes if node in needed)
        return self if len(nodes) == len(self.nodes) else Graph(nodes, self.outputs, self.notes)
