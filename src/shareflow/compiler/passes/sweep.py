"""One walk over a graph that replaces nodes: patterns are read off the old graph, a new one is built beside it.

So users and owners of every value that a pattern looks at are known for sure, whatever was replaced before. What one
walk makes possible, the next finds: :func:`settle` repeats it until nothing is left to do.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import tensorflow as tf

from shareflow.compiler.graph import INPUT, Builder, Graph, Node, Note, Output, Replacement
from shareflow.compiler.inference import compute

# Walks of one pass: each undoes one layer of nesting, and no model nests that deep.
_MOST_WALKS = 100


class Sweep:
    """A walk in progress.

    Calling it with a value of the old graph gives what stands for it in the new one.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.build = Builder()
        self.done: Counter[str] = Counter()
        self._new: dict[Output, Output] = {}
        # Nodes that something else stands for already.
        self.replaced: set[Node] = set()

    def __call__(self, value: Output) -> Output:
        return self._new[value]

    def stands_for(self, old: Node, values: Sequence[Output]) -> None:
        """From here on these values stand for the node's."""
        self._new.update(zip(old.outputs, values, strict=False))

    def did(self, what: str, count: int = 1) -> None:
        """Counts something that was done."""
        self.done[what] += count

    # --- what is known of values of the old graph

    def secret(self, value: Output) -> bool:
        """Whether no single party knows the value."""
        return self.graph.secret(value)

    def owned(self, *values: Output) -> bool:
        """Whether one party knows all of them before any input comes: they may be computed with in plaintext."""
        knowing = frozenset[str]().union(*(self.graph.knowledge[value] for value in values))
        return len(knowing) <= 1 and not any(value in self._brought for value in values)

    def alone(self, value: Output) -> Node | None:
        """The one node that takes the value, if nothing else does and it is no result."""
        return self.graph.only_user(value)

    @functools.cached_property
    def _brought(self) -> frozenset[Output]:
        found: set[Output] = set()
        for node in self.graph.nodes:
            if node.op == INPUT or any(value in found for value in node.inputs):
                found.update(node.outputs)
        return frozenset(found)

    # --- values of the new graph

    def compute(self, op: str, *inputs: Output, **attributes: object) -> Output:
        """A new node; the value itself where all that it takes is public."""
        constants = [value.constant for value in inputs]
        if all(value is not None for value in constants):
            (result,) = compute(op, [tf.constant(value) for value in constants], attributes)
            return self.build.constant(np.asarray(result))
        return self.build(op, *inputs, **attributes)

    def again(self, node: Node, *inputs: Output, attributes: Mapping[str, object] | None = None) -> Output:
        """A node like an old one on other inputs, its shapes found anew."""
        given = dict(node.attributes) if attributes is None else dict(attributes)
        if "shareflow." in node.op:
            # Of each element, or on what has the shape that it had.
            shape = inputs[0].shape if node.inputs[0].shape == node.shapes[0] else node.shapes[0]
            return self.build.custom(node.op, inputs, shape, inputs[0].dtype, given, node.name)
        return Output(self.build.node(node.op, inputs, given, node.name))

    def shape(self, extents: Iterable[int]) -> Output:
        """A shape, or any whole numbers, as a public value."""
        return self.build.constant(np.array(list(extents), np.int32))


Visit = Callable[[Node, Sweep], Replacement]


def sweep(graph: Graph, visit: Visit, name: str) -> tuple[Graph, int]:
    """The graph after one walk, and how much was done.

    ``visit`` takes a node of the old graph; it returns what stands for its results in the new one, or None: it stays.
    """
    walk = Sweep(graph)
    for old in graph.nodes:
        walk.build.layer = old.layer
        replaced = visit(old, walk)
        if replaced is None:
            inputs = tuple(walk(value) for value in old.inputs)
            same = Node(old.op, inputs, old.attributes, old.name, old.layer, old.shapes, old.dtypes)
            values: Sequence[Output] = walk.build.add(same).outputs
        else:
            values = (replaced,) if isinstance(replaced, Output) else tuple(replaced)
            walk.replaced.add(old)
        walk.stands_for(old, values)
    if not walk.done:
        return graph, 0
    notes = merged(graph.notes, [Note(name, what, count) for what, count in walk.done.items()])
    outputs = {key: walk(value) for key, value in graph.outputs.items()}
    return Graph(tuple(walk.build.nodes), outputs, notes).pruned(), sum(walk.done.values())


def settle(graph: Graph, visit: Visit, name: str, most: int = _MOST_WALKS) -> Graph:
    """Walks until there is nothing left to do."""
    for _ in range(most):
        graph, done = sweep(graph, visit, name)
        if not done:
            break
    return graph


def merged(notes: Iterable[Note], more: Iterable[Note]) -> tuple[Note, ...]:
    """Notes with the counts of equal ones added up."""
    counts: Counter[tuple[str, str]] = Counter()
    for note in (*notes, *more):
        counts[note.by, note.what] += note.count
    return tuple(Note(by, what, count) for (by, what), count in counts.items())
