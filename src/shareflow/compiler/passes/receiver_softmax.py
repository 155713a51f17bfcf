"""A softmax at the very end is the receiver's: it computes it in plaintext from the scores that are revealed.

Paper: Dahl et al. 2018, footnote 2. The receiver then learns the scores, which say no more than the probabilities but
for one number added to all.
"""

from __future__ import annotations

from shareflow.compiler.graph import Graph


def receiver_softmax(graph: Graph) -> tuple[Graph, dict[str, str]]:
    """The graph with such results replaced by their scores, and which results the receiver puts through what."""
    outputs, left = dict(graph.outputs), {}
    for name, value in graph.outputs.items():
        node = value.node
        alone = value not in graph.users and list(graph.outputs.values()).count(value) == 1
        if node.op == "Softmax" and alone and graph.secret(value):
            outputs[name] = node.inputs[0]
            left[name] = "softmax"
    return Graph(graph.nodes, outputs, graph.notes).pruned(), left
