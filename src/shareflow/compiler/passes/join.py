"""Equal operations side by side as one: linear layers of one input, and functions that wait for nothing of each other.

Bytes and rounds stay; what falls is the number of operations: a spline is hundreds of them, for any number of elements.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from shareflow.compiler.graph import Graph, Node, Output, Replacement
from shareflow.compiler.passes.kernels import as_layer, linear_layer
from shareflow.compiler.passes.select_first import UNARY
from shareflow.compiler.passes.simplify import frozen
from shareflow.compiler.passes.sweep import Sweep, sweep
from shareflow.compiler.scales import scales_of_values

_LAYERS = ("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Conv2D")
# Beyond, taking a joined result apart costs more than a second operation.
_MOST_OF_LAYERS = 1 << 20
_MOST_OF_FUNCTIONS = 1 << 16
_FUNCTIONS = tuple(op for op in UNARY if op not in ("Neg", "Cast", "Square", "LogicalNot", "Pow"))


@dataclass(frozen=True, eq=False)
class _Group:
    """Nodes to join, in order; the first stands for all of them."""

    nodes: tuple[Node, ...]


def join_linear(graph: Graph) -> Graph:
    """x A, x B, x C as x [A B C], taken apart again; the owner puts the kernels side by side in plaintext."""
    given, graph = graph, _in_order(graph, _known_first(graph))
    found: dict[Hashable, list[Node]] = defaultdict(list)
    at = Sweep(graph)
    for node in graph.nodes:
        layer = linear_layer(node, at) if node.op in _LAYERS else None
        if layer is None or not at.secret(Output(node)) or math.prod(node.shapes[0]) > _MOST_OF_LAYERS:
            continue
        shape, turned = layer.kernel.shape, bool(node.attributes.get("transpose_b") or node.attributes.get("adj_y"))
        if node.op == "Conv2D" and shape[2] != layer.data.shape[3]:
            continue
        # Equal but for the channels of the result.
        size = (*shape[:-2], shape[-1]) if turned else shape[:-1]
        key = (node.op, layer.data, size, frozen(node.attributes), at.graph.knowledge[layer.kernel], layer.kernel.dtype)
        found[key].append(node)
    groups = _by_node(nodes for nodes in found.values() if _distinct(nodes))
    return sweep(graph, _Joining(groups, _layers_joined), "join")[0] if groups else given


def _distinct(nodes: list[Node]) -> bool:
    return len(nodes) > 1 and sum(math.prod(node.shapes[0]) for node in nodes) <= _MOST_OF_LAYERS


def _layers_joined(at: Sweep, nodes: tuple[Node, ...]) -> list[Output]:
    first = as_layer(nodes[0])
    turned = bool(nodes[0].attributes.get("transpose_b") or nodes[0].attributes.get("adj_y"))
    kernels = [at(node.inputs[1]) for node in nodes]
    axis = at.build.constant(len(kernels[0].shape) - (2 if turned else 1), "int32")
    kernel = at.compute("ConcatV2", *kernels, axis)
    whole = first.with_inputs(at, at(first.data), kernel)
    at.did("linear layers of one input as one", len(nodes))
    return _apart(at, whole, [node.shapes[0][-1] for node in nodes], len(whole.shape) - 1)


def join_functions(graph: Graph) -> Graph:
    """f(a), f(b), f(c) as f of a, b, c put together, where none waits for another."""
    levels = _levels(graph)
    bits = scales_of_values(graph)
    found: dict[Hashable, list[Node]] = defaultdict(list)
    for node in graph.nodes:
        if node.op in _FUNCTIONS and len(node.inputs) == 1 and graph.secret(Output(node)):
            x = node.inputs[0]
            # What others need masked, too, is masked without the rest; other scales would have to be made equal.
            if graph.only_user(x) is not None:
                found[node.op, frozen(node.attributes), levels[node], bits[x], x.dtype, node.dtypes].append(node)
    groups = _by_node(
        nodes
        for nodes in found.values()
        if len(nodes) > 1 and sum(math.prod(node.shapes[0]) for node in nodes) <= _MOST_OF_FUNCTIONS
    )
    if not groups:
        return graph
    order = {node: (level, node not in groups) for node, level in levels.items()}
    graph = _in_order(graph, order)
    return sweep(graph, _Joining(groups, _functions_joined), "join")[0]


def _functions_joined(at: Sweep, nodes: tuple[Node, ...]) -> list[Output]:
    shapes = [node.shapes[0] for node in nodes]
    values = [at(node.inputs[0]) for node in nodes]
    at.did(f"{nodes[0].op.removeprefix('shareflow.')} side by side as one", len(nodes))
    if len({shape[:-1] for shape in shapes}) == 1 and shapes[0]:
        axis = len(shapes[0]) - 1
        whole = at.again(nodes[0], at.build("ConcatV2", *values, at.build.constant(axis, "int32")))
        return _apart(at, whole, [shape[-1] for shape in shapes], axis)
    flat = [at.build("Reshape", value, at.shape([-1])) for value in values]
    whole = at.again(nodes[0], at.build("ConcatV2", *flat, at.build.constant(0, "int32")))
    pieces = _apart(at, whole, [math.prod(shape) for shape in shapes], 0)
    return [at.build("Reshape", piece, at.shape(shape)) for piece, shape in zip(pieces, shapes, strict=True)]


def functions_of_joins(graph: Graph) -> Graph:
    """concat(f(a), f(b)) as f(concat(a, b))."""
    bits = scales_of_values(graph)

    def visit(node: Node, at: Sweep) -> Replacement:
        if node.op != "ConcatV2" or not at.secret(Output(node)) or len(node.inputs) < 3:
            return None
        *values, axis = node.inputs
        functions = [value.node for value in values]
        first = functions[0]
        if first.op not in _FUNCTIONS or any(at.alone(v) is None or v.node in at.replaced for v in values):
            return None
        alike = {(f.op, frozen(f.attributes), len(f.inputs), bits[f.inputs[0]], f.inputs[0].dtype) for f in functions}
        if len(alike) != 1 or len(first.inputs) != 1:
            return None
        at.did(f"{first.op.removeprefix('shareflow.')} of a concatenation", len(functions))
        return at.again(first, at.build("ConcatV2", *(at(f.inputs[0]) for f in functions), at(axis)))

    return sweep(graph, visit, "join")[0]


# --- groups


class _Joining:
    """Makes each group when its first node is met."""

    def __init__(self, groups: Mapping[Node, _Group], make: Callable[[Sweep, tuple[Node, ...]], list[Output]]) -> None:
        self._groups = groups
        self._make = make
        self._made: dict[_Group, list[Output]] = {}

    def __call__(self, node: Node, at: Sweep) -> Replacement:
        group = self._groups.get(node)
        if group is None:
            return None
        if group not in self._made:
            self._made[group] = self._make(at, group.nodes)
        return self._made[group][group.nodes.index(node)]


def _apart(at: Sweep, whole: Output, sizes: list[int], axis: int) -> list[Output]:
    pieces = at.build.node(
        "SplitV", (whole, at.shape(sizes), at.build.constant(axis, "int32")), {"num_split": len(sizes)}
    )
    return list(pieces.outputs)


def _by_node(groups: Iterable[list[Node]]) -> dict[Node, _Group]:
    return {node: group for nodes in groups for group in (_Group(tuple(nodes)),) for node in nodes}


# --- order


def _known_first(graph: Graph) -> dict[Node, int]:
    """What owners know beforehand, before all else: then every kernel is there when the first layer is met."""
    at = Sweep(graph)
    return {node: 0 if all(at.owned(value) for value in node.outputs) else 1 for node in graph.nodes}


def _levels(graph: Graph) -> dict[Node, int]:
    """How many functions each node waits for at most, itself included: equal levels wait for nothing of each other."""
    found: dict[Node, int] = {}
    for node in graph.nodes:
        before = max((found[value.node] for value in node.inputs), default=0)
        found[node] = before + (node.op in _FUNCTIONS)
    return found


def _in_order(graph: Graph, key: Mapping[Node, Any]) -> Graph:
    nodes = tuple(sorted(graph.nodes, key=lambda node: key[node]))
    return Graph(nodes, graph.outputs, graph.notes)
