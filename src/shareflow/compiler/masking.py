"""Where a value is best masked: at its source, or at each of the views that products and comparisons take of it.

A masked tensor's slices and joins are masked, too. A value that several operations need, one of them through a view, is
masked once at its source if that opens fewer elements than masking each view.
"""

from __future__ import annotations

import enum
import math

from shareflow.compiler.graph import Graph, Node, Output
from shareflow.compiler.scales import PRODUCTS, STRUCTURE, SUMS

_JOINS = ("ConcatV2", "Pack")


class AtSource(enum.Enum):
    """What is done to a value where it is computed."""

    MASK = "masked at the scale that it has: comparisons alone need it"
    TRUNCATE_AND_MASK = "truncated first: a product needs it"


def masked_at_source(graph: Graph) -> dict[Output, AtSource]:
    """The values to mask where they are computed, and how."""
    elements: dict[Output, float] = {}
    multiplied: set[Output] = set()
    marked: set[Output] = set()
    for node in reversed(graph.nodes):
        for value in node.outputs:
            direct, through = 0.0, 0.0
            for user in graph.users.get(value, ()):
                if _is_view(user):
                    through += _share_of_view(user, value, elements)
                    factor = any(result in multiplied for result in user.outputs)
                else:
                    # However many need the value itself, it is masked once.
                    direct = _size(value) if user.op not in SUMS else direct
                    factor = user.op in PRODUCTS
                if factor:
                    multiplied.add(value)
            elements[value] = direct + through
            if through and elements[value] > _size(value) and not _is_view(node) and graph.secret(value):
                marked.add(value)
    _complete_joins(graph, marked, elements)
    return {value: AtSource.TRUNCATE_AND_MASK if value in multiplied else AtSource.MASK for value in marked}


def _complete_joins(graph: Graph, marked: set[Output], elements: dict[Output, float]) -> None:
    """Marks what is joined with marked values: one part that is not masked, and the whole is masked anew."""
    sources: dict[Output, frozenset[Output]] = {}
    for node in graph.nodes:
        for value in node.outputs:
            if not graph.secret(value):
                sources[value] = frozenset()
            elif _is_view(node):
                sources[value] = frozenset().union(*(sources[part] for part in node.inputs))
            else:
                sources[value] = frozenset((value,))
    joined = [sources[node.outputs[0]] for node in graph.nodes if node.op in _JOINS and elements.get(node.outputs[0])]
    while True:
        more = {value for parts in joined if parts & marked for value in parts - marked}
        if not more:
            return
        marked |= more


def _is_view(node: Node) -> bool:
    """Whether the result is masked where the input is: elements moved, or a public value added."""
    if node.op in SUMS and node.op != "AddN":
        return any(value.constant is not None for value in node.inputs)
    return node.op in STRUCTURE


def _share_of_view(node: Node, value: Output, elements: dict[Output, float]) -> float:
    """How many elements are masked for a value's sake, where a view of it is needed masked."""
    needed = sum(elements.get(result, 0.0) for result in node.outputs)
    if node.op not in _JOINS:
        return needed
    joined = sum(_size(part) for part in node.inputs if part.constant is None)
    return needed * _size(value) / joined if joined else 0.0


def _size(value: Output) -> int:
    return math.prod(value.shape)
