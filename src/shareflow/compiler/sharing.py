"""Which inputs are shared at once, and which stay with their party until others' values meet them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from shareflow.compiler.graph import CONSTANT, INPUT, Graph, Node, Output
from shareflow.compiler.lower.handler import is_whole
from shareflow.protocol.protocol import Protocol
from shareflow.protocol.tensor import PrivateTensor, PrivateValue

# Stands for the servers: two names, so that what it meets is shared, too.
_SHARED = frozenset(["server 0", "server 1"])


def shared_inputs(graph: Graph, inputs: Mapping[str, PrivateValue], protocol: Protocol) -> dict[str, PrivateTensor]:
    """Inputs by name as a prediction begins with them: real numbers shared.

    Whole numbers and truth values stay plaintext at their party: what it alone can make of them costs nothing, such as
    the one-hot vectors by which tokens choose rows of a table.
    """
    types = {node.attributes["name"]: node.dtypes[0] for node in graph.inputs}
    return {
        name: value.read() if is_whole(types[name]) else value.read().shared(protocol) for name, value in inputs.items()
    }


def on_shares(steps: Sequence[Node], parameters: Collection[Output]) -> list[Node]:
    """The steps of which an operand is shared, or two parties' operands meet: those that need a handler.

    Parameters are shared, and inputs as :func:`shared_inputs` does it. What one party knows it computes in plaintext.
    """
    found = []
    # The party that knows a value; none where all do; several where it is shared.
    knowing: dict[Output, frozenset[str]] = dict.fromkeys(parameters, _SHARED)
    for node in steps:
        if node.op == CONSTANT:
            here: frozenset[str] = frozenset()
        elif node.op == INPUT:
            here = frozenset([node.attributes["party"]]) if is_whole(node.dtypes[0]) else _SHARED
        else:
            here = frozenset().union(*(knowing[value] for value in node.inputs))
            if len(here) > 1:
                here = _SHARED
                found.append(node)
        for value in node.outputs:
            knowing.setdefault(value, here)
    return found
