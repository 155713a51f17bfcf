"""The table of handlers, and what an op without one is told.

A handler takes the node and the values of its inputs, of which at least one is a private tensor that no single party
knows, and returns the result, or a tuple of results. Values are NumPy arrays (public) or private tensors. Truth values
are 0 and 1 without fractional bits; whole numbers have none either where an op made them.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from shareflow.compiler.graph import Node
from shareflow.errors import ShareflowError, UnsupportedModelError
from shareflow.protocol.tensor import PrivateTensor

Value = np.ndarray | PrivateTensor
Handler = Callable[..., Any]
H = TypeVar("H", bound=Handler)

_handlers: dict[str, Handler] = {}
# For ops that cannot be had: what does nearly the same.
_AT_OWNER = "the owner's plaintext: decompose or invert what is the owner's before, and multiply"
_AT_CLIENT = "the client's plaintext, before or behind the private part"
_FOURIER = "a matrix product with the public cosines, and one with the sines"
_NEAREST: dict[str, str] = {
    **dict.fromkeys(("Acos", "Asin", "Atan", "Atan2"), "shareflow.nn.polynomial on the range that occurs"),
    **dict.fromkeys(("Betainc", "Digamma", "Igamma", "Igammac", "Lgamma", "Polygamma", "Zeta"), "a polynomial fit"),
    **dict.fromkeys(("Erfinv", "Ndtri", "BesselI0e", "BesselI1e"), "shareflow.nn.polynomial on the range that occurs"),
    **dict.fromkeys(("BitwiseAnd", "BitwiseOr", "BitwiseXor", "Invert"), "truth values and tf.logical_and, or, not"),
    **dict.fromkeys(("BatchMatrixInverse", "Cholesky", "MatrixDeterminant", "MatrixInverse", "MatrixSolve"), _AT_OWNER),
    **dict.fromkeys(("MatrixTriangularSolve", "Qr", "SelfAdjointEigV2", "Svd"), _AT_OWNER),
    **dict.fromkeys(("FFT", "FFT2D", "FFT3D", "IFFT", "RFFT", "RFFT2D", "IRFFT"), _FOURIER),
    **dict.fromkeys(
        ("CTCGreedyDecoder", "CTCBeamSearchDecoder", "CTCLoss"), "revealing the scores to who decodes them"
    ),
    **dict.fromkeys(("DecodeJpeg", "DecodePng", "DecodeImage", "DecodeRaw", "StringSplitV2"), _AT_CLIENT),
    **dict.fromkeys(("StringToHashBucketFast", "StaticRegexReplace", "AsString", "StringJoin"), _AT_CLIENT),
    **dict.fromkeys(
        ("Switch", "Merge", "Enter", "Exit", "NextIteration", "LoopCond"),
        "control flow as functions: tf.compat.v1.enable_control_flow_v2() before the graph is made",
    ),
    **dict.fromkeys(("BlockLSTM", "BlockLSTMV2", "LSTMBlockCell", "GRUBlockCell", "CudnnRNNV3"), "Keras' LSTM and GRU"),
    "ListDiff": "a fixed set of classes, and comparing with each",
    "MaxPoolWithArgmax": "tf.nn.max_pool, and unpooling by a layer that needs no places",
    "FractionalMaxPool": "tf.nn.max_pool",
    "FractionalAvgPool": "tf.nn.avg_pool",
    "QuantizeAndDequantizeV4": "the model before quantisation",
    "QuantizeV2": "the model before quantisation",
    "SparseTensorDenseMatMul": "tf.sparse.to_dense and a matrix product",
    "UniqueV2": "a fixed set of classes, and comparing with each",
    "CropAndResize": "public boxes: slices, and tf.image.resize",
    **dict.fromkeys(
        ("NonMaxSuppressionV3", "NonMaxSuppressionV4", "NonMaxSuppressionV5", "CombinedNonMaxSuppression"),
        "revealing boxes and scores to the client, which chooses",
    ),
    "Unique": "a fixed set of classes, and comparing with each",
    "Where": "tf.where with three arguments, whose result has a public shape",
}


def lowers(*ops: str) -> Callable[[H], H]:
    """Registers the handler of these ops."""

    def register(handler: H) -> H:
        for op in ops:
            if op in _handlers:
                raise UnsupportedModelError(f"Two handlers for {op}; there is one for each.")
            _handlers[op] = handler
        return handler

    return register


def supported() -> list[str]:
    """The TensorFlow ops that can be computed on shares."""
    return sorted(op for op in _handlers if not op.startswith("shareflow."))


def lower(node: Node, values: Sequence[Value]) -> tuple[Value, ...]:
    """The results of a node on values of which one or more are shared.

    Raises:
        UnsupportedModelError: there is no handler, or it cannot do what the node's attributes ask.
    """
    handler = _handlers.get(node.op)
    if handler is None:
        raise UnsupportedModelError(unsupported(node))
    given = [_numbers(value) for value in values]
    if node.op.startswith("shareflow."):
        given = [fine(value) if isinstance(value, PrivateTensor) else value for value in given]
    try:
        result = handler(node, *given)
    except UnsupportedModelError:
        raise
    except ShareflowError as error:
        raise UnsupportedModelError(f"{node.op} of layer '{node.layer}' cannot be made private: {error}") from error
    results = tuple(result) if isinstance(result, (tuple, list)) else (result,)
    for value, shape in zip(results, node.shapes, strict=True):
        if tuple(value.shape) != shape:
            raise UnsupportedModelError(
                f"{node.op} of layer '{node.layer}' gave shape {list(value.shape)} in place of {list(shape)}. This is "
                "a mistake of the compiler: please report it with the model."
            )
    return results


def _numbers(value: Value) -> Value:
    """Public truth values as 0 and 1, and bfloat16 as a type that NumPy knows."""
    if isinstance(value, PrivateTensor) or value.dtype.kind in "fiu":
        return value
    return value.astype(np.int64 if value.dtype == bool else np.float32)


def check_supported(nodes: Sequence[Node]) -> None:
    """Raises an UnsupportedModelError that names every op without a handler, before any work is done."""
    missing = {node.op: node for node in reversed(nodes) if node.op not in _handlers}
    if missing:
        first = missing[next(iter(sorted(missing)))]
        others = ", ".join(op for op in sorted(missing) if op != first.op)
        raise UnsupportedModelError(unsupported(first) + (f" Also without: {others}." if others else ""))


def unsupported(node: Node) -> str:
    """The op, the layer that made it, and the nearest supported way."""
    near = _NEAREST.get(node.op)
    if near is None:
        alike = difflib.get_close_matches(node.op, supported(), 3, 0.7)
        near = f"an op like {' or '.join(alike)}" if alike else "supported ops (docs/compiler-ops.md lists them)"
    return (
        f"{node.op} of layer '{node.layer}' has no private form. Use {near}, or split the model there and compute the "
        "rest in plaintext."
    )


def public(node: Node, value: Value, what: str) -> np.ndarray:
    """An input that must be public, such as an axis.

    Raises:
        UnsupportedModelError: it is private.
    """
    if isinstance(value, PrivateTensor):
        raise UnsupportedModelError(
            f"{node.op} of layer '{node.layer}' takes {what} that all parties know; here it depends on private values."
        )
    return value


def refuse(node: Node, rule: str, way_out: str) -> UnsupportedModelError:
    """An error that names the op and its layer."""
    return UnsupportedModelError(f"{node.op} of layer '{node.layer}': {rule} {way_out}")


def as_bits(value: Value, beside: PrivateTensor | None = None) -> Any:
    """Truth values as 0 and 1 without fractional bits, whichever way they came.

    Args:
        beside: where a value that one party knows is to be shared; as it is without it.
    """
    if not isinstance(value, PrivateTensor):
        return value
    if value.protocol is not None:
        return value != 0 if value.fractional_bits else value
    return value if beside is None else value.shared(beside.protocol_of_shares(), 0)


def fine(x: PrivateTensor) -> PrivateTensor:
    """With the encoding's fractional bits at least: a function of whole numbers has a result between them. Local."""
    if x.protocol is None:
        return x
    usual = x.protocol.fixed_point.fractional_bits
    return x.at_scale(usual) if x.fractional_bits < usual else x


def is_whole(dtype: str) -> bool:
    """Whether values of a type are whole numbers or truth values."""
    return dtype == "bool" or "int" in dtype


def first_shared(*values: Value) -> PrivateTensor | None:
    """The first value that is shared, if any."""
    return next((v for v in values if isinstance(v, PrivateTensor) and v.protocol is not None), None)
