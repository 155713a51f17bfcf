"""Functions of each element."""

from __future__ import annotations

from collections.abc import Callable

from shareflow.compiler.graph import Node
from shareflow.compiler.lower.handler import Value, lowers
from shareflow.nn import activation, elementary, normalization, rounding, selection, smooth
from shareflow.protocol.tensor import PrivateTensor


def _unary(function: Callable[[PrivateTensor], PrivateTensor]) -> Callable[[Node, PrivateTensor], PrivateTensor]:
    def handler(node: Node, x: PrivateTensor) -> PrivateTensor:
        return function(x)

    return handler


for _op, _function in {
    "Abs": selection.absolute,
    "Ceil": rounding.ceil,
    "Elu": smooth.elu,
    "Erf": smooth.erf,
    "Exp": elementary.exp,
    "Floor": rounding.floor,
    "Log": elementary.log,
    "LogSoftmax": normalization.log_softmax,
    "Relu": activation.relu,
    "Relu6": activation.relu6,
    "Rint": rounding.round,
    "Round": rounding.round,
    "Rsqrt": elementary.rsqrt,
    "Sigmoid": smooth.sigmoid,
    "Sign": selection.sign,
    "Softmax": normalization.softmax,
    "Softplus": smooth.softplus,
    "Sqrt": elementary.sqrt,
    "Tanh": smooth.tanh,
}.items():
    lowers(_op)(_unary(_function))


@lowers("Erfc")
def _erfc(node: Node, x: PrivateTensor) -> Value:
    return 1 - smooth.erf(x)


@lowers("LeakyRelu")
def _leaky_relu(node: Node, x: PrivateTensor) -> Value:
    return smooth.leaky_relu(x, node.attributes["alpha"])


@lowers("shareflow.polynomial")
def _polynomial(node: Node, x: PrivateTensor) -> Value:
    return activation.polynomial(x, node.attributes["coefficients"], node.attributes["bound"])
