"""Functions of each element."""

from __future__ import annotations

import math
from collections.abc import Callable

from shareflow.compiler.graph import Node
from shareflow.compiler.lower.handler import Value, fine, lowers
from shareflow.nn import activation, elementary, half_even, normalization, rounding, selection, smooth, trigonometric
from shareflow.protocol.tensor import PrivateTensor

# Selu's two numbers (Klambauer et al. 2017).
_SELU_SCALE, _SELU_ALPHA = 1.0507009873554805, 1.6732632423543772


def _unary(function: Callable[[PrivateTensor], Value]) -> Callable[[Node, PrivateTensor], Value]:
    def handler(node: Node, x: PrivateTensor) -> Value:
        return function(fine(x))

    return handler


def _exactly(function: Callable[[PrivateTensor], Value]) -> Callable[[Node, PrivateTensor], Value]:
    def handler(node: Node, x: PrivateTensor) -> Value:
        return function(x)

    return handler


# Of whole numbers whole numbers: they stay without fractional bits.
for _op, _function in {
    "Abs": selection.absolute,
    "Ceil": rounding.ceil,
    "Floor": rounding.floor,
    "Relu6": activation.relu6,
    "Rint": half_even.round_half_even,
    "Round": half_even.round_half_even,
    "Sign": selection.sign,
}.items():
    lowers(_op)(_exactly(_function))

for _op, _function in {
    "Cos": trigonometric.cos,
    "Elu": smooth.elu,
    "Erf": smooth.erf,
    "Erfc": lambda x: 1 - smooth.erf(x),
    "Exp": elementary.exp,
    "Expm1": lambda x: elementary.exp(x) - 1,
    "Log": elementary.log,
    "Log1p": lambda x: elementary.log(x + 1),
    "LogSoftmax": normalization.log_softmax,
    "Rsqrt": elementary.rsqrt,
    "Selu": lambda x: smooth.elu(x, _SELU_ALPHA) * _SELU_SCALE,
    "Sigmoid": smooth.sigmoid,
    "Sin": trigonometric.sin,
    "Softmax": normalization.softmax,
    "Softplus": smooth.softplus,
    "Sqrt": elementary.sqrt,
    "Tan": trigonometric.tan,
    "Tanh": smooth.tanh,
}.items():
    lowers(_op)(_unary(_function))


@lowers("Relu")
def _relu(node: Node, x: PrivateTensor) -> Value:
    return activation.relu(x, bound=node.attributes.get("bound"))


@lowers("LeakyRelu")
def _leaky_relu(node: Node, x: PrivateTensor) -> Value:
    return smooth.leaky_relu(fine(x), node.attributes["alpha"])


@lowers("Softsign")
def _softsign(node: Node, x: PrivateTensor) -> Value:
    x = fine(x).ready().reusable()
    return elementary.divide(x, selection.absolute(x) + 1, low=1.0, positive=True)


@lowers("Sinh", "Cosh")
def _hyperbolic(node: Node, x: PrivateTensor) -> Value:
    x = fine(x).ready().reusable()
    up, down = elementary.exp(x), elementary.exp(-x)
    return (up - down if node.op == "Sinh" else up + down) / 2


@lowers("Asinh")
def _inverse_sinh(node: Node, x: PrivateTensor) -> Value:
    # Odd: for large negative x the sum x + sqrt(x^2 + 1) would cancel.
    x = fine(x).ready().reusable()
    size = selection.absolute(x)
    return elementary.log(size + elementary.sqrt(x * x + 1)) * selection.sign(x)


@lowers("Acosh")
def _inverse_cosh(node: Node, x: PrivateTensor) -> Value:
    x = fine(x).ready().reusable()
    return elementary.log(x + elementary.sqrt(x * x - 1))


@lowers("Atanh")
def _inverse_tanh(node: Node, x: PrivateTensor) -> Value:
    x = fine(x).ready().reusable()
    return (elementary.log(1 + x) - elementary.log(1 - x)) / 2


@lowers("shareflow.polynomial")
def _polynomial(node: Node, x: PrivateTensor) -> Value:
    return activation.polynomial(fine(x), node.attributes["coefficients"], node.attributes["bound"])


@lowers("FakeQuantWithMinMaxArgs")
def _fake_quantised(node: Node, x: PrivateTensor) -> Value:
    low, high = node.attributes["min"], node.attributes["max"]
    first = 1 if node.attributes["narrow_range"] else 0
    last = 2 ** node.attributes["num_bits"] - 1
    # TensorFlow moves the range so that 0 is one of its steps.
    step = (high - low) / (last - first)
    zero = min(max(math.floor(first - low / step + 0.5), first), last)
    low, high = (first - zero) * step, (last - zero) * step
    kept = selection.clip_by_value(fine(x), low, high)
    return rounding.floor((kept - low) * (1 / step) + 0.5) * step + low
