"""Shapes that nobody has to be believed: TensorFlow's own inference, and that of the native ops done again here.

A graph from a file says the shapes of its nodes, and TensorFlow takes such a claim for true where it cannot infer the
shape itself. A false one could have a small stream repeated over a large value. So the claims are dropped, except for
the native ops, whose shape functions TensorFlow cannot ask; and those are computed from attributes and operands here.
Going through the graph in order, each shape follows from those before. What a called function gives has no shape that
could be relied on (TensorFlow takes a loop's from an attribute, or from its operands), and nothing has that follows
from it, until an EnsureShape checks it while it runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

Shape = tuple[int, ...] | None

CLAIM = "_output_shapes"
_NATIVE = "Shareflow"


def is_native(op: str) -> bool:
    """Whether an operation is one of the kernels of this library."""
    return op.startswith(_NATIVE)


def inferred(definition: Any) -> tf.Graph:
    """The graph of a definition, its shapes inferred; what native ops claim is still to be checked.

    Raises:
        ValueError: TensorFlow cannot make a graph of it.
    """
    bare = type(definition)()
    bare.CopyFrom(definition)
    for node in bare.node:
        # Where a node is to run says nothing of its shape, and takes half of an import's time.
        node.device = ""
        node.attr.pop("_class", None)
        if not is_native(node.op):
            node.attr.pop(CLAIM, None)
    graph = tf.Graph()
    with graph.as_default():
        tf.graph_util.import_graph_def(bare, name="")
    return graph


def claims_falsely(op: str, attributes: Any, inputs: Sequence[Shape], claimed: Shape) -> bool:
    """Whether a native op's shape is another than follows from its operands. None: not known."""
    rule = _RULES.get(op)
    if rule is None:
        # Of one shape with the first operand: inferred by TensorFlow itself.
        return bool(inputs) and claimed != inputs[0]
    try:
        return rule(attributes, inputs) != claimed
    except (TypeError, ValueError, IndexError, ZeroDivisionError):
        # Operands of no shape, or of one that the op does not take.
        return claimed is not None


def _words(shape: Shape) -> int:
    return -(-math.prod(_known(shape)) // 64)


def _known(shape: Shape) -> tuple[int, ...]:
    if shape is None:
        raise ValueError("a shape is not known")
    return shape


def _integers(attribute: Any) -> tuple[int, ...]:
    return tuple(attribute.list.i)


def _given(attributes: Any, inputs: Sequence[Shape]) -> Shape:
    return _integers(attributes["shape"])


def _matmul(attributes: Any, inputs: Sequence[Shape]) -> Shape:
    a, b = _known(inputs[0]), _known(inputs[1])
    rows = a[-1] if attributes["transpose_a"].b else a[-2]
    columns = b[-2] if attributes["transpose_b"].b else b[-1]
    batch = tf.broadcast_static_shape(tf.TensorShape(a[:-2]), tf.TensorShape(b[:-2]))
    return (*batch.as_list(), rows, columns)


def _window(attributes: Any, inputs: Sequence[Shape]) -> tuple[int, int]:
    x, w = _known(inputs[0]), _known(inputs[1])
    strides, dilations = _integers(attributes["strides"]), _integers(attributes["dilations"])
    top, bottom, left, right = _integers(attributes["padding"])
    high = x[1] + top + bottom - (dilations[0] * (w[0] - 1) + 1)
    wide = x[2] + left + right - (dilations[1] * (w[1] - 1) + 1)
    return high // strides[0] + 1, wide // strides[1] + 1


def _conv2d(attributes: Any, inputs: Sequence[Shape]) -> Shape:
    return (_known(inputs[0])[0], *_window(attributes, inputs), _known(inputs[1])[3])


def _depthwise_conv2d(attributes: Any, inputs: Sequence[Shape]) -> Shape:
    w = _known(inputs[1])
    return (_known(inputs[0])[0], *_window(attributes, inputs), w[2] * w[3])


def _group_products(attributes: Any, inputs: Sequence[Shape]) -> Shape:
    return (1 << attributes["group"].i) - 1, attributes["groups"].i, _words(inputs[0])


def _group_polynomials(attributes: Any, inputs: Sequence[Shape]) -> Shape:
    return 2, attributes["groups"].i, _words(inputs[0])


def _gate_products(attributes: Any, inputs: Sequence[Shape]) -> Shape:
    radix, last = attributes["radix"].i, attributes["last"].b
    _, lines, width = _known(inputs[0])
    # l_G[k] with each set of the l_P above k, and the sets of two or more l_P.
    count = (1 << radix) - radix - 1 + (1 << radix) - radix - 1 - (((1 << radix - 1) - 1) if last else 0)
    return count, lines // radix, width


def _gate(attributes: Any, inputs: Sequence[Shape]) -> Shape:
    _, lines, width = _known(inputs[0])
    return 1 if attributes["last"].b else 2, lines // attributes["radix"].i, width


_RULES: dict[str, Callable[[Any, Sequence[Shape]], Shape]] = {
    "ShareflowUniform": _given,
    "ShareflowFromBitPlanes": _given,
    "ShareflowUnpackBits": _given,
    "ShareflowBitPlanes": lambda attributes, inputs: (64, _words(inputs[0])),
    "ShareflowPackBits": lambda attributes, inputs: (_words(inputs[0]),),
    "ShareflowMatmul": _matmul,
    "ShareflowConv2d": _conv2d,
    "ShareflowDepthwiseConv2d": _depthwise_conv2d,
    "ShareflowGroupProducts": _group_products,
    "ShareflowGroupPolynomials": _group_polynomials,
    "ShareflowGateProducts": _gate_products,
    "ShareflowGate": _gate,
}
