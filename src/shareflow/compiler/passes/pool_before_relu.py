"""Max-pooling before ReLU: the same result, with one function for each window in place of one for each element.

A function that never falls can change places with a maximum where nothing else uses its result. A bias or batch
normalisation that stands before the function stays before both.
"""

from __future__ import annotations

import numpy as np

from shareflow.compiler.graph import Graph, Node, Replacement
from shareflow.compiler.passes.sweep import Sweep, settle

# What never falls. LeakyRelu and Elu do where their slope is not below 0.
RISING = (
    *("Relu", "Relu6", "LeakyRelu", "Elu", "Selu", "Sigmoid", "Tanh", "Softplus", "Softsign", "Erf"),
    *("Exp", "Sqrt", "Log", "shareflow.clip", "shareflow.hard_sigmoid"),
)
_POOLS = ("MaxPool", "MaxPoolV2", "MaxPool3D", "Max")
# What stands between the two and neither makes nor joins elements.
_BETWEEN = ("Reshape", "ExpandDims", "Squeeze", "Transpose")


def pool_before_relu(graph: Graph) -> Graph:
    """max_pool(f(x)) as f(max_pool(x)) for rising f, through shapes and, for ReLU, paddings of zeros between them.

    TensorFlow's max-pooling pads with the lowest value, so its padding never wins in either order.
    """
    return settle(graph, _visit, "pool_before_relu")


def _visit(node: Node, at: Sweep) -> Replacement:
    if node.op not in _POOLS or not at.secret(node.inputs[0]):
        return None
    value, between = node.inputs[0], []
    while value.node.op in _BETWEEN or _pads_zeros(value.node):
        if at.alone(value) is None:
            return None
        between.append(value.node)
        value = value.node.inputs[0]
    function = value.node
    if not _rises(function) or at.alone(value) is None:
        return None
    if any(_pads_zeros(step) for step in between) and function.op not in ("Relu", "Relu6"):
        # 0 is what ReLU makes of 0; another function would change the padding.
        return None
    moved = at(function.inputs[0])
    for step in reversed(between):
        moved = at.again(step, moved, *(at(other) for other in step.inputs[1:]))
    pooled = at.again(node, moved, *(at(other) for other in node.inputs[1:]))
    if pooled.shape != node.shapes[0]:
        return None
    at.did(f"{function.op.removeprefix('shareflow.')} after its pooling")
    return at.again(function, pooled, *(at(other) for other in function.inputs[1:]))


def _pads_zeros(node: Node) -> bool:
    return node.op == "Pad" and node.inputs[1].constant is not None


def _rises(node: Node) -> bool:
    if node.op not in RISING:
        return False
    return not (node.op == "LeakyRelu" and np.less(node.attributes.get("alpha", 0.2), 0))
