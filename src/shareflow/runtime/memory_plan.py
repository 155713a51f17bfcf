"""The order in which a graph runs in one process, chosen for its memory.

A stream is made of nothing but a key and an index. So TensorFlow could make every mask of a network, and with them all
that the dealer makes of masks, as soon as a run begins: all of it would be held until the last layer. A graph in order
runs operation after operation as it was traced, layer by layer: a tensor lives from where it is made to its last use.
Kernels use all threads either way, so nothing is lost by the order where tensors are large.

Only the local runtime orders a graph, by control edges in its own copy. A plan has none of them: there the dealer's
part waits for nobody.
"""

from __future__ import annotations

from typing import Any

from shareflow.runtime.definition import node_name

# Placeholders are there when a run begins, constants from the start.
_GIVEN = ("Placeholder", "Const")


def in_trace_order(definition: Any) -> Any:
    """The GraphDef, changed in place, with each node waiting for the one traced before it."""
    before = None
    for node in _order(definition):
        if node.op in _GIVEN:
            continue
        if before is not None:
            node.input.append(f"^{before}")
        before = node.name
    return definition


def _order(definition: Any) -> list[Any]:
    """The nodes as they were traced; one that was told later to wait for another comes after that."""
    named = {node.name: node for node in definition.node}
    done, order = set[str](), []
    for node in definition.node:
        waiting = [node]
        while waiting:
            last = waiting[-1]
            missing = [] if last.name in done else [named[n] for n in _sources(last) if n in named and n not in done]
            if missing:
                waiting += missing[::-1]
                continue
            waiting.pop()
            if last.name not in done:
                done.add(last.name)
                order.append(last)
    return order


def _sources(node: Any) -> list[str]:
    return [node_name(reference) for reference in node.input]
