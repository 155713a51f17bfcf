"""Comparisons that look at the bits of a known range alone. An option: what lies beyond the range comes out wrong.

A sign is found from all 63 bits below it, whatever the value. Where values are known to be small, fewer do, and the
cost is in proportion. That knowledge is from samples, so a margin is kept; an input unlike all samples may still go
beyond.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from shareflow.compiler.graph import Builder, Graph, Node, Output, Replacement
from shareflow.errors import EncodingError

if TYPE_CHECKING:
    from shareflow.compiler.calibration import Range

# Whose handlers honour the attribute ``bound``: |x| stays below it, or the difference of any two elements does.
_SIGNS = ("Relu",)
_DIFFERENCES = ("MaxPool", "MaxPool3D", "Max", "Min", "ArgMax", "ArgMin")
# Fixed point rounds: what was largest may become a little larger.
_ROUNDING = 1.01


def trust_ranges(graph: Graph, ranges: Mapping[Output, Range], margin: float) -> Graph:
    """The graph with an attribute ``bound`` at each comparison: ``margin`` times what the samples showed.

    Raises:
        EncodingError: the margin is below 1.
    """
    if not margin >= 1:
        raise EncodingError(
            f"A margin says how many times the samples' range is trusted, at least 1; got {margin!r}. "
            "4 leaves two bits."
        )

    # A rewritten node has its old name.
    named = {output.name: found for output, found in ranges.items()}

    def visit(node: Node, build: Builder) -> Replacement:
        if node.op not in _SIGNS + _DIFFERENCES:
            return None
        found = named.get(node.inputs[0].name)
        bound = _reach(node.op, found) * margin * _ROUNDING if found else 0.0
        if not bound:
            return None
        attributes = {**node.attributes, "bound": bound}
        return build.add(
            Node(node.op, node.inputs, attributes, node.name, node.layer, node.shapes, node.dtypes)
        ).outputs

    return graph.rewrite(visit)


def _reach(op: str, found: Range) -> float:
    return found.size if op in _SIGNS else found.high - found.low
