"""Smooth activation functions out of the several operations that they are written as: each is one spline."""

from __future__ import annotations

import math

from shareflow.compiler.graph import Node, Output, Replacement
from shareflow.compiler.passes.matching import Product, near, product_of, sum_of, times
from shareflow.compiler.passes.simplify import scalar
from shareflow.compiler.passes.sweep import Sweep

_ROOT_HALF = math.sqrt(0.5)
_CUBE = 0.044715
_ROOT_TWO_OVER_PI = math.sqrt(2 / math.pi)


def times_itself(node: Node, at: Sweep) -> Replacement:
    """x f(x) as one function: GELU in its three forms, SiLU, Mish."""
    if node.op != "Mul" or not at.secret(node.outputs[0]):
        return None
    product = product_of(at, node.outputs[0])
    for factor in product.factors:
        if at.alone(factor) is None or factor.node in at.replaced:
            continue
        for found in (_gelu, _silu, _mish):
            match = found(at, factor)
            if match is None:
                continue
            op, x, attributes, number = match
            rest = product.without(factor, x)
            if rest is None or x.shape != factor.shape:
                continue
            at.did(op.removeprefix("shareflow."))
            result = at.build.custom(op, [at(x)], x.shape, x.dtype, attributes)
            return times(at, result, Product(rest.number * number, rest.factors))
    return None


# What was found: op, x, attributes, and the number with which x times the factor is that op of x.
_Match = tuple[str, Output, dict[str, bool], float]


def _gelu(at: Sweep, factor: Output) -> _Match | None:
    """x times erfc(-x / sqrt 2), 1 + erf(x / sqrt 2) or 1 + tanh(...) is two gelu(x)."""
    if factor.node.op == "Erfc":
        x = _of(at, factor, -_ROOT_HALF)
        return None if x is None else ("shareflow.gelu", x, {"approximate": False}, 2.0)
    total = sum_of(at, factor)
    if not near(total.number, 1) or len(total.terms) != 1 or total.terms[0][0] < 0:
        return None
    term = total.terms[0][1]
    if at.alone(term) is None:
        return None
    if term.node.op == "Erf":
        x = _of(at, term, _ROOT_HALF)
        return None if x is None else ("shareflow.gelu", x, {"approximate": False}, 2.0)
    if term.node.op == "Tanh":
        x = _inside_tanh(at, term.node.inputs[0])
        return None if x is None else ("shareflow.gelu", x, {"approximate": True}, 2.0)
    return None


def _of(at: Sweep, function: Output, number: float) -> Output | None:
    """x, where the function is of x times the number."""
    inner = product_of(at, function.node.inputs[0])
    return inner.factors[0] if len(inner.factors) == 1 and near(inner.number, number) else None


def _inside_tanh(at: Sweep, value: Output) -> Output | None:
    """x, where the value is sqrt(2 / pi) (x + 0.044715 x^3), or x (1 + 0.044715 x^2) times that root."""
    product = product_of(at, value)
    if not near(product.number, _ROOT_TWO_OVER_PI):
        return None
    if len(product.factors) == 1:
        total = sum_of(at, product.factors[0])
        if total.number != 0 or len(total.terms) != 2 or any(sign < 0 for sign, _ in total.terms):
            return None
        values = [term for _, term in total.terms]
        for x, cube in (values, values[::-1]):
            if _is_power(at, cube, x, 3):
                return x
    if len(product.factors) == 2:
        for x, rest in (product.factors, product.factors[::-1]):
            total = sum_of(at, rest)
            if near(total.number, 1) and len(total.terms) == 1 and _is_power(at, total.terms[0][1], x, 2):
                return x
    return None


def _is_power(at: Sweep, value: Output, x: Output, exponent: int) -> bool:
    """Whether the value is 0.044715 x^exponent."""
    product = product_of(at, value)
    total = 0.0
    for factor in product.factors:
        node = factor.node
        if factor == x:
            total += 1
        elif node.op == "Square" and node.inputs[0] == x:
            total += 2
        elif node.op == "Pow" and node.inputs[0] == x:
            total += scalar(node.inputs[1]) or math.nan
        else:
            return False
    return near(product.number, _CUBE) and total == exponent


def _silu(at: Sweep, factor: Output) -> _Match | None:
    x = _of(at, factor, 1) if factor.node.op == "Sigmoid" else None
    return None if x is None else ("shareflow.silu", x, {}, 1.0)


def _mish(at: Sweep, factor: Output) -> _Match | None:
    if factor.node.op != "Tanh":
        return None
    inner = factor.node.inputs[0]
    if inner.node.op != "Softplus" or at.alone(inner) is None:
        return None
    return "shareflow.mish", inner.node.inputs[0], {}, 1.0


def by_exponential(node: Node, at: Sweep) -> Replacement:
    """log(1 + e^x) as Softplus and 1 / (1 + e^-x) as Sigmoid, which hold for every x."""
    if not node.inputs or not at.secret(node.outputs[0]):
        return None
    if node.op in ("Log", "Log1p"):
        power = node.inputs[0] if node.op == "Log1p" else _one_plus(at, node.inputs[0])
        if power is None or power.node.op != "Exp" or at.alone(power) is None:
            return None
        at.did("softplus")
        return at.build("Softplus", at(power.node.inputs[0]))
    if node.op == "RealDiv" and scalar(node.inputs[0]) == 1:
        below = node.inputs[1]
    elif node.op in ("Reciprocal", "Inv"):
        below = node.inputs[0]
    else:
        return None
    power = _one_plus(at, below)
    if power is None or power.node.op != "Exp" or at.alone(power) is None or power.shape != node.shapes[0]:
        return None
    at.did("sigmoid")
    inner = power.node.inputs[0]
    negative = inner.node.inputs[0] if inner.node.op == "Neg" else None
    return at.build("Sigmoid", at(negative) if negative is not None else at.build("Neg", at(inner)))


def _one_plus(at: Sweep, value: Output) -> Output | None:
    """v, where the value is 1 + v."""
    if at.alone(value) is None:
        return None
    total = sum_of(at, value)
    if not near(total.number, 1) or len(total.terms) != 1 or total.terms[0][0] < 0:
        return None
    return total.terms[0][1]
