"""Batch normalisation at inference is x * scale + offset, both the owner's: as such, other passes can fold it."""

from __future__ import annotations

from shareflow.compiler.graph import Builder, Graph, Node, Replacement
from shareflow.errors import UnsupportedModelError

_FUSED = ("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")


def split_batch_norm(graph: Graph) -> Graph:
    """scale = gamma / sqrt(variance + epsilon), offset = beta - mean * scale, in plaintext at their owner.

    Raises:
        UnsupportedModelError: the layer is in training mode, where statistics come from private data.
    """
    return graph.rewrite(_visit)


def _visit(node: Node, build: Builder) -> Replacement:
    if node.op not in _FUSED:
        return None
    x, gamma, beta, mean, variance = node.inputs
    attributes = node.attributes
    if attributes["is_training"]:
        raise UnsupportedModelError(
            f"{node.op} of layer '{node.layer}' takes its statistics from the batch (training mode). Trace the model "
            "with training=False, so that the moving statistics are used."
        )
    epsilon = build.constant(attributes["epsilon"], variance.dtype)
    scale = build("Mul", gamma, build("Rsqrt", build("AddV2", variance, epsilon)))
    offset = build("Sub", beta, build("Mul", mean, scale))
    if attributes["data_format"] in ("NCHW", "NCDHW"):
        spatial = [-1, *[1] * (len(x.shape) - 2)]
        scale, offset = (build("Reshape", value, build.constant(spatial, "int32")) for value in (scale, offset))
    result = build("AddV2", build("Mul", x, scale), offset)
    # Besides the result, inference uses none of its outputs.
    return [result, mean, variance, mean, variance, mean][: len(node.shapes)]
