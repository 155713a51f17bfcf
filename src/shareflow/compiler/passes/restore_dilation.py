"""Dilated convolutions as such: Keras lets TensorFlow emulate them by moving blocks of the image to the batch and back.

Undone, the image is masked as it is, once, and batch normalisation that follows finds its convolution.
"""

from __future__ import annotations

from shareflow.compiler.graph import Builder, Graph, Node, Output, Replacement

_CONVOLUTIONS = ("Conv2D", "DepthwiseConv2dNative")


def restore_dilation(graph: Graph) -> Graph:
    """batch_to_space(conv(space_to_batch(x), kernel)) as conv(x, kernel, dilations), where the block sizes agree."""
    single = {value.node.name for value, users in graph.users.items() if len(users) == 1} - {
        value.node.name for value in graph.results
    }
    return graph.rewrite(lambda node, build: _visit(node, build, single))


def _visit(node: Node, build: Builder, single: set[str]) -> Replacement:
    if node.op != "BatchToSpaceND":
        return None
    convolution = node.inputs[0].node
    if convolution.op not in _CONVOLUTIONS or convolution.name not in single or not _plain(convolution):
        return None
    spread = convolution.inputs[0].node
    if spread.op != "SpaceToBatchND":
        return None
    block, crops, before, pads = (v.constant for v in (*node.inputs[1:], *spread.inputs[1:]))
    x, kernel = spread.inputs[0], convolution.inputs[1]
    if block is None or crops is None or before is None or pads is None or len(x.shape) != 4:
        return None
    if len(block) != 2 or list(block) != list(before):
        return None
    sides = []
    for axis in (0, 1):
        # Zeros around the image that give the same result; none do where rows of the image itself are cut.
        reach = (kernel.shape[axis] - 1) * int(block[axis]) + 1
        first = int(pads[axis][0]) - int(crops[axis][0])
        last = node.shapes[0][axis + 1] - 1 + reach - x.shape[axis + 1] - first
        if first < 0 or last < 0:
            return None
        sides.append([first, last])
    if any(map(any, sides)):
        x = build("Pad", x, build.constant([[0, 0], *sides, [0, 0]], "int32"))
    dilations = [1, int(block[0]), int(block[1]), 1]
    attributes = {**convolution.attributes, "dilations": dilations, "padding": "VALID", "explicit_paddings": []}
    return Output(build.node(convolution.op, (x, kernel), attributes, convolution.name))


def _plain(convolution: Node) -> bool:
    attributes = convolution.attributes
    return (
        attributes["padding"] == "VALID"
        and attributes["data_format"] == "NHWC"
        and all(n == 1 for n in (*attributes["strides"], *attributes["dilations"]))
    )
