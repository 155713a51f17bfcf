"""Max-pooling before ReLU: the same result, with one comparison for each window in place of one for each element.

Both are monotone, so they can change places where nothing else uses the ReLU's result. A bias or batch normalisation that
stands before the ReLU stays before both.
"""

from __future__ import annotations

from shareflow.compiler.graph import Builder, Graph, Node, Output, Replacement

_MONOTONE = ("Relu", "Relu6")
_POOLS = ("MaxPool", "MaxPool3D")


def pool_before_relu(graph: Graph) -> Graph:
    """max_pool(relu(x)) as relu(max_pool(x)), where it has one use and the window pads nothing with zeros.

    TensorFlow's max-pooling pads with the lowest value, so padding never wins in either order.
    """
    single = {
        value.node.name
        for value, users in graph.users.items()
        if len(users) == 1 and value not in graph.results and value.node.op in _MONOTONE
    }

    def visit(node: Node, build: Builder) -> Replacement:
        if node.op not in _POOLS or node.inputs[0].node.op not in _MONOTONE:
            return None
        relu = node.inputs[0].node
        if relu.name not in single:
            return None
        pooled = Output(build.node(node.op, relu.inputs, node.attributes, node.name))
        return Output(build.node(relu.op, [pooled], relu.attributes, relu.name))

    return graph.rewrite(visit)
