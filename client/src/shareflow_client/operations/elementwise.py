"""Operations element by element. Operands have one dtype, as in TensorFlow, and it is the result's."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import numpy as np

from shareflow_client.operations.operation import MANY, Operation, ValueRefusedError, binary, require_float, unary


def _real(name: str, compute: Callable[..., Any]) -> Callable[..., Any]:
    """The function, for floating-point operands only: NumPy would turn integers into floats."""

    def checked(*operands: np.ndarray, **attributes: Any) -> Any:
        require_float(operands[0], name)
        return compute(*operands, **attributes)

    return checked


def _whole_division(compute: Callable[..., Any]) -> Callable[..., Any]:
    def checked(x: np.ndarray, y: np.ndarray) -> Any:
        if y.dtype.kind in "iu" and not np.all(y):
            raise ValueRefusedError("integers cannot be divided by zero")
        return compute(x, y)

    return checked


def _power(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    if y.dtype.kind == "i" and np.any(y < 0):
        raise ValueRefusedError("integers have no negative powers")
    return np.power(x, y)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    # Of -|x|, so that nothing overflows: 1 / (1 + e^-x) = e^x / (1 + e^x).
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + small), small / (1 + small))


def _softplus(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def _softmax(x: np.ndarray) -> np.ndarray:
    powers = np.exp(x - np.max(x, axis=-1, keepdims=True))
    return powers / np.sum(powers, axis=-1, keepdims=True)


def _log_softmax(x: np.ndarray) -> np.ndarray:
    shifted = x - np.max(x, axis=-1, keepdims=True)
    return shifted - np.log(np.sum(np.exp(shifted), axis=-1, keepdims=True))


def _elu(x: np.ndarray) -> np.ndarray:
    return np.where(x >= 0, x, np.expm1(np.minimum(x, 0)))


def _selu(x: np.ndarray) -> np.ndarray:
    # Klambauer et al. 2017: lambda and lambda * alpha.
    return np.where(
        x >= 0, x * x.dtype.type(1.0507009873554805), np.expm1(np.minimum(x, 0)) * x.dtype.type(1.7580993408473768)
    )


def _leaky_relu(x: np.ndarray, alpha: float) -> np.ndarray:
    return np.where(x > 0, x, x * x.dtype.type(alpha))


def _divide_no_nan(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.where(y == 0, x.dtype.type(0), x / np.where(y == 0, y.dtype.type(1), y))


def _multiply_no_nan(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.where(y == 0, x.dtype.type(0), x * y)


def _shift(compute: Callable[..., Any]) -> Callable[..., Any]:
    """Shifts by amounts within the word, which is how TensorFlow takes those outside."""
    return lambda x, y: compute(x, np.clip(y, 0, x.dtype.itemsize * 8 - 1).astype(y.dtype))


def _add_all(first: np.ndarray, *others: np.ndarray) -> np.ndarray:
    total = first.copy()
    for other in others:
        total += other
    return total


def _reals(**functions: Callable[..., Any]) -> dict[str, Operation]:
    return {name: unary(_real(name, compute)) for name, compute in functions.items()}


OPERATIONS: dict[str, Operation] = {
    "Add": binary(np.add),
    "AddV2": binary(np.add),
    "AddN": Operation(_add_all, (1, MANY)),
    "BiasAdd": Operation(np.add, (2, 2), fixed=MappingProxyType({"data_format": "NHWC"})),
    "Sub": binary(np.subtract),
    "Mul": binary(np.multiply),
    "RealDiv": binary(_real("RealDiv", np.true_divide)),
    "FloorDiv": binary(_whole_division(np.floor_divide)),
    "FloorMod": binary(_whole_division(np.mod)),
    "DivNoNan": binary(_real("DivNoNan", _divide_no_nan)),
    "MulNoNan": binary(_real("MulNoNan", _multiply_no_nan)),
    "Pow": binary(_power),
    "SquaredDifference": binary(lambda x, y: (x - y) * (x - y)),
    "Maximum": binary(np.maximum),
    "Minimum": binary(np.minimum),
    "Atan2": binary(_real("Atan2", np.arctan2)),
    "ClipByValue": Operation(lambda x, low, high: np.minimum(np.maximum(x, low), high), (3, 3)),
    "Neg": unary(np.negative),
    "Abs": unary(np.abs),
    "Sign": unary(np.sign),
    "Square": unary(np.square),
    "Equal": binary(np.equal),
    "NotEqual": binary(np.not_equal),
    "Less": binary(np.less),
    "LessEqual": binary(np.less_equal),
    "Greater": binary(np.greater),
    "GreaterEqual": binary(np.greater_equal),
    "LogicalAnd": binary(np.logical_and),
    "LogicalOr": binary(np.logical_or),
    "LogicalNot": unary(np.logical_not),
    "SelectV2": Operation(np.where, (3, 3)),
    "BitwiseAnd": binary(np.bitwise_and),
    "BitwiseOr": binary(np.bitwise_or),
    "BitwiseXor": binary(np.bitwise_xor),
    "Invert": unary(np.invert),
    "LeftShift": binary(_shift(np.left_shift)),
    "RightShift": binary(_shift(np.right_shift)),
    "Relu": unary(lambda x: np.maximum(x, x.dtype.type(0))),
    "Relu6": unary(lambda x: np.minimum(np.maximum(x, x.dtype.type(0)), x.dtype.type(6))),
    "LeakyRelu": unary(_leaky_relu, alpha="float"),
    **_reals(
        # To even where two are as near, as TensorFlow's.
        Round=np.rint,
        Rint=np.rint,
        Floor=np.floor,
        Ceil=np.ceil,
        Sqrt=np.sqrt,
        Rsqrt=lambda x: 1 / np.sqrt(x),
        Reciprocal=lambda x: 1 / x,
        Inv=lambda x: 1 / x,
        Exp=np.exp,
        Expm1=np.expm1,
        Log=np.log,
        Log1p=np.log1p,
        Sin=np.sin,
        Cos=np.cos,
        Tan=np.tan,
        Asin=np.arcsin,
        Acos=np.arccos,
        Atan=np.arctan,
        Sinh=np.sinh,
        Cosh=np.cosh,
        Tanh=np.tanh,
        Sigmoid=_sigmoid,
        Softplus=_softplus,
        Softsign=lambda x: x / (1 + np.abs(x)),
        Softmax=_softmax,
        LogSoftmax=_log_softmax,
        Elu=_elu,
        Selu=_selu,
        IsNan=np.isnan,
        IsInf=np.isinf,
        IsFinite=np.isfinite,
    ),
}
