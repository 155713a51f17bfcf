"""The table of handlers, and what an op without one is told.

A handler takes the node and the values of its inputs, of which at least one is a private tensor that no single party
knows, and returns the result, or a tuple of results. Values are NumPy arrays (public) or private tensors.
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
_NEAREST = {
    "Betainc": "an approximation by shareflow.nn.polynomial",
    "MatrixInverse": "inverting at the owner, in plaintext, and multiplying",
    "NonMaxSuppressionV3": "revealing boxes and scores to the client, which chooses",
    "Svd": "decomposing at the owner, in plaintext",
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
    try:
        result = handler(node, *values)
    except UnsupportedModelError:
        raise
    except ShareflowError as error:
        raise UnsupportedModelError(f"{node.op} of layer '{node.layer}' cannot be made private: {error}") from error
    results = tuple(result) if isinstance(result, (tuple, list)) else (result,)
    for value, shape in zip(results, node.shapes, strict=True):
        if tuple(value.shape) != shape:
            raise UnsupportedModelError(
                f"{node.op} of layer '{node.layer}' gave shape {list(value.shape)} in place of {list(shape)}. This is a "
                "mistake of the compiler: please report it with the model."
            )
    return results


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
        near = f"an op like {' or '.join(alike)}" if alike else "supported ops (docs/compiler.md lists them)"
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
