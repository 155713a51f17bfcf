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
    if spread.op != "SpaceToBatchND" or any(v.constant is None for v in (*node.inputs[1:], *spread.inputs[1:])):
        return None
    block, before = node.inputs[1].constant, spread.inputs[1].constant
    assert block is not None and before is not None
    x, kernel = spread.inputs[0], convolution.inputs[1]
    if len(block) != 2 or list(block) != list(before) or len(x.shape) != 4:
        return None
    padding = _padding(node, spread, x, kernel)
    if padding is None:
        return None
    if not all(side == 0 for side in padding[2:6]):
        sides = [[0, 0], padding[2:4], padding[4:6], [0, 0]]
        x = build("Pad", x, build.constant(sides, "int32"))
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


def _padding(node: Node, spread: Node, x: Output, kernel: Output) -> list[int] | None:
    """Zeros around the image that give the same result, eight numbers as TensorFlow's; None where rows would be cut."""
    pads, crops, block = spread.inputs[2].constant, node.inputs[2].constant, node.inputs[1].constant
    assert pads is not None and crops is not None and block is not None
    sides = [0, 0]
    for axis in (0, 1):
        reach = (kernel.shape[axis] - 1) * int(block[axis]) + 1
        first = int(pads[axis][0]) - int(crops[axis][0])
        last = node.shapes[0][axis + 1] - 1 + reach - x.shape[axis + 1] - first
        if first < 0 or last < 0:
            return None
        sides += [first, last]
    return [*sides, 0, 0]
