"""What works element by element: as its operands lie, channels first or last."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from shareflow.compiler.front.onnx_ops.call import Call, Value, computes, tensor_of
from shareflow.compiler.front.onnx_ops.laid import Laid, channels_last, public_tensor

Function = Callable[..., tf.Tensor]


def together(function: Function, values: Sequence[Value]) -> Value:
    """A function of tensors that broadcast. Where one lies with channels last the result does, if its rank allows."""
    rank = max(len(value.shape) for value in values)
    last = rank > 2 and any(isinstance(v, Laid) and v.lies_last and len(v.shape) == rank for v in values)
    if not last:
        return Laid(function(*[tensor_of(value) for value in values]))
    return Laid(last=function(*[_last(value, rank) for value in values]))


def _last(value: Value, rank: int) -> tf.Tensor:
    if isinstance(value, Laid) and len(value.shape) == rank:
        return value.last
    missing = rank - len(value.shape)
    if isinstance(value, np.ndarray):
        if value.size == 1:
            return public_tensor(value.reshape(()))
        return public_tensor(np.moveaxis(value.reshape((1,) * missing + value.shape), 1, -1))
    if value.shape == ():
        return value.first
    return channels_last(tf.reshape(value.first, (1,) * missing + value.shape))


def unary(op: str, function: Function) -> None:
    """An op of one operand without attributes."""

    @computes(op)
    def compute(call: Call) -> Value:
        return together(function, [call.value(0)])


def binary(op: str, function: Function) -> None:
    """An op of two operands that broadcast."""

    @computes(op)
    def compute(call: Call) -> Value:
        return together(function, [call.value(0), call.value(1)])


def variadic(op: str, function: Function) -> None:
    """An op of any number of operands, from the first on."""

    @computes(op)
    def compute(call: Call) -> Value:
        values = [call.value(i) for i in range(len(call.inputs))]
        return functools.reduce(lambda x, y: together(function, [x, y]), values) if len(values) > 1 else values[0]


def _divide(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    if x.dtype.is_integer:
        # ONNX rounds quotients of whole numbers to zero.
        return tf.raw_ops.TruncateDiv(x=x, y=y)
    return tf.math.divide(x, y)


_UNARY: dict[str, Function] = {
    "Relu": tf.nn.relu,
    "Sigmoid": tf.sigmoid,
    "Tanh": tf.tanh,
    "Softplus": tf.math.softplus,
    "Softsign": tf.nn.softsign,
    "Erf": tf.math.erf,
    "Exp": tf.exp,
    "Log": tf.math.log,
    "Sqrt": tf.sqrt,
    "Reciprocal": tf.math.reciprocal,
    "Neg": tf.negative,
    "Abs": tf.abs,
    "Sign": tf.sign,
    "Floor": tf.floor,
    "Ceil": tf.math.ceil,
    "Round": tf.round,
    "Not": tf.logical_not,
    "Sin": tf.sin,
    "Cos": tf.cos,
    "Tan": tf.tan,
    "Sinh": tf.sinh,
    "Cosh": tf.cosh,
    "Asinh": tf.asinh,
    "Acosh": tf.acosh,
    "Atanh": tf.atanh,
    "Asin": tf.asin,
    "Acos": tf.acos,
    "Atan": tf.atan,
    "IsNaN": tf.math.is_nan,
    "IsInf": tf.math.is_inf,
    "HardSwish": lambda x: x * tf.nn.relu6(x + 3.0) * (1 / 6),
    "Mish": lambda x: x * tf.tanh(tf.math.softplus(x)),
}
_BINARY: dict[str, Function] = {
    "Add": tf.add,
    "Sub": tf.subtract,
    "Mul": tf.multiply,
    "Div": _divide,
    "Equal": tf.equal,
    "Greater": tf.greater,
    "GreaterOrEqual": tf.greater_equal,
    "Less": tf.less,
    "LessOrEqual": tf.less_equal,
    "And": tf.logical_and,
    "Or": tf.logical_or,
    "Xor": tf.math.logical_xor,
}
for _op, _function in _UNARY.items():
    unary(_op, _function)
for _op, _function in _BINARY.items():
    binary(_op, _function)
for _op, _function in {"Sum": tf.add, "Max": tf.maximum, "Min": tf.minimum}.items():
    variadic(_op, _function)


@computes("Mean")
def _mean(call: Call) -> Value:
    values = [call.value(i) for i in range(len(call.inputs))]
    total = functools.reduce(lambda x, y: together(tf.add, [x, y]), values)
    return together(lambda x: x * (1 / len(values)), [total])


@computes("Pow")
def _pow(call: Call) -> Value:
    exponent = call.value(1)
    if isinstance(exponent, Laid) and exponent.array is not None and exponent.array.size == 1:
        # How often to multiply is a part of the program.
        exponent = exponent.array.reshape(())
    kind = call.value(0).dtype
    if isinstance(exponent, np.ndarray):
        whole = float(exponent.flat[0]) if exponent.size == 1 else math.nan
        if whole == 2:
            return together(tf.square, [call.value(0)])
        if whole == 3:
            return together(lambda x: tf.square(x) * x, [call.value(0)])
    return together(lambda x, y: tf.pow(x, tf.cast(y, kind)), [call.value(0), exponent])


@computes("Mod")
def _mod(call: Call) -> Value:
    if call.get("fmod", 0):
        return together(lambda x, y: tf.raw_ops.TruncateMod(x=x, y=y), [call.value(0), call.value(1)])
    return together(tf.math.floormod, [call.value(0), call.value(1)])


@computes("Where")
def _where(call: Call) -> Value:
    return together(tf.where, [call.value(0), call.value(1), call.value(2)])


@computes("Clip")
def _clip(call: Call) -> Value:
    x = call.value(0)
    low, high = (_limit(call, i, name) for i, name in ((1, "min"), (2, "max")))
    if low is None and high is None:
        return x
    if low is not None and high is not None:
        if (low, high) == (0.0, 6.0):
            return together(tf.nn.relu6, [x])
        return together(lambda v: tf.clip_by_value(v, tf.cast(low, v.dtype), tf.cast(high, v.dtype)), [x])
    if high is None:
        return together(tf.nn.relu if low == 0 else lambda v: tf.maximum(v, tf.cast(low, v.dtype)), [x])
    return together(lambda v: tf.minimum(v, tf.cast(high, v.dtype)), [x])


def _limit(call: Call, index: int, name: str) -> float | None:
    value = call.get(name)
    if value is None and call.has(index):
        value = call.public(index, "a limit").reshape(-1)[0]
    # The largest numbers stand for no limit.
    return None if value is None or abs(float(value)) >= 3.4e38 else float(value)


@computes("LeakyRelu")
def _leaky_relu(call: Call) -> Value:
    return together(lambda x: tf.nn.leaky_relu(x, call.get("alpha", 0.01)), [call.value(0)])


@computes("PRelu")
def _prelu(call: Call) -> Value:
    return together(lambda x, slope: tf.nn.relu(x) - slope * tf.nn.relu(-x), [call.value(0), call.value(1)])


@computes("ThresholdedRelu")
def _thresholded(call: Call) -> Value:
    alpha = call.get("alpha", 1.0)
    return together(lambda x: x * tf.cast(x > tf.cast(alpha, x.dtype), x.dtype), [call.value(0)])


@computes("Shrink")
def _shrink(call: Call) -> Value:
    bias, edge = call.get("bias", 0.0), call.get("lambd", 0.5)

    def shrink(x: tf.Tensor) -> tf.Tensor:
        return tf.where(x < -edge, x + bias, tf.where(x > edge, x - bias, tf.zeros_like(x)))

    return together(shrink, [call.value(0)])


@computes("Elu", "Celu")
def _elu(call: Call) -> Value:
    alpha = call.get("alpha", 1.0)
    inner = alpha if call.op == "Celu" else 1.0

    def elu(x: tf.Tensor) -> tf.Tensor:
        if alpha == 1:
            return tf.nn.elu(x)
        # elu of the negative part alone; x itself above 0
        return tf.nn.relu(x) + alpha * tf.nn.elu(tf.minimum(x, tf.cast(0, x.dtype)) * (1 / inner))

    return together(elu, [call.value(0)])


@computes("Selu")
def _selu(call: Call) -> Value:
    alpha, gamma = call.get("alpha", 1.6732632), call.get("gamma", 1.050701)

    def selu(x: tf.Tensor) -> tf.Tensor:
        return gamma * (tf.nn.relu(x) + alpha * tf.nn.elu(tf.minimum(x, tf.cast(0, x.dtype))))

    return together(selu, [call.value(0)])


@computes("HardSigmoid")
def _hard_sigmoid(call: Call) -> Value:
    alpha, beta = call.get("alpha", 0.2), call.get("beta", 0.5)
    return together(lambda x: hard_sigmoid(x, alpha, beta), [call.value(0)])


def hard_sigmoid(x: tf.Tensor, alpha: float, beta: float) -> tf.Tensor:
    """alpha x + beta between 0 and 1."""
    return tf.clip_by_value(x * alpha + beta, 0.0, 1.0)


@computes("Gelu")
def _gelu(call: Call) -> Value:
    return together(lambda x: tf.nn.gelu(x, approximate=call.get("approximate", "none") == "tanh"), [call.value(0)])


@computes("Gelu", domain="com.microsoft")
def _gelu_exact(call: Call) -> Value:
    return together(lambda x: tf.nn.gelu(x, approximate=False), [call.value(0)])


@computes("FastGelu", domain="com.microsoft")
def _gelu_fast(call: Call) -> Value:
    values = [call.value(0), *([call.value(1)] if call.has(1) else [])]
    return together(lambda x, *bias: tf.nn.gelu(x + bias[0] if bias else x, approximate=True), values)


@computes("QuickGelu", domain="com.microsoft")
def _gelu_quick(call: Call) -> Value:
    return together(lambda x: x * tf.sigmoid(call.get("alpha", 1.702) * x), [call.value(0)])


@computes("Swish")
def _swish(call: Call) -> Value:
    alpha = call.get("alpha", 1.0)
    return together(lambda x: x * tf.sigmoid(x if alpha == 1 else alpha * x), [call.value(0)])


@computes("Identity", "Dropout")
def _identity(call: Call) -> Any:
    if call.op == "Dropout" and call.has(2) and np.any(call.public(2, "a training mode")):
        raise call.refuse("is in training mode, and so random.", "Export the model for inference.")
    if call.outputs > 1:
        return call.value(0), np.ones(call.shape(0), bool)
    return call.value(0)
