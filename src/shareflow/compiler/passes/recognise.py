"""Several operations as the one function that they are together, which shares compute as a whole."""

from __future__ import annotations

from shareflow.compiler.graph import Graph, Node, Replacement
from shareflow.compiler.passes import recognise_limits, recognise_norms, recognise_smooth, recognise_softmax
from shareflow.compiler.passes.sweep import Sweep, settle

_RULES = (
    recognise_limits.limits,
    recognise_limits.leaky_relu,
    recognise_limits.relu_of_opposite,
    recognise_limits.elu,
    recognise_smooth.times_itself,
    recognise_smooth.by_exponential,
    recognise_norms.norm_as_sum,
    recognise_norms.norm_as_product,
    recognise_softmax.softmax,
    recognise_softmax.log_softmax,
    recognise_softmax.masks,
)


def recognise(graph: Graph) -> Graph:
    """Activation functions, norms and softmax as one operation each."""
    return settle(graph, _visit, "recognise")


def _visit(node: Node, at: Sweep) -> Replacement:
    for rule in _RULES:
        replaced = rule(node, at)
        if replaced is not None:
            return replaced
    return None
