"""What changes nothing is left out, and equal things are done once: zeros, ones, signs, shapes, scalars, repetitions.

On shares even a product with 1 would leave a scale to truncate. Public quotients become products here, in which scalars
meet; :mod:`powers_of_two` turns those back that division does for nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from shareflow.compiler.graph import CONSTANT, INPUT, PARAMETER, Builder, Graph, Node, Note, Output, Replacement
from shareflow.compiler.passes.sweep import Sweep, merged, settle

ADDS = ("AddV2", "Add")
_RESHAPES = ("Reshape", "ExpandDims", "Squeeze")
_ZERO_PRODUCTS = (
    "Mul",
    "MulNoNan",
    "MatMul",
    "BatchMatMul",
    "BatchMatMulV2",
    "BatchMatMulV3",
    "Conv2D",
    "Conv3D",
    "Einsum",
)
_POWERS = {0.5: "Sqrt", -0.5: "Rsqrt", -1.0: "Reciprocal", 2.0: "Square"}

_Rule = Callable[[Node, Sweep], Replacement]
_rules: dict[str, list[_Rule]] = {}


def simplify(graph: Graph) -> Graph:
    """The same results from fewer operations."""
    while True:
        smaller = common_subexpressions(settle(graph, _visit, "simplify"))
        if smaller is graph:
            return graph
        graph = smaller


def common_subexpressions(graph: Graph) -> Graph:
    """Equal operations on equal values once. Inputs and parameters are equal to themselves alone."""
    seen: dict[Any, tuple[Output, ...]] = {}
    repeated = 0

    def visit(node: Node, build: Builder) -> Replacement:
        nonlocal repeated
        if node.op in (INPUT, PARAMETER):
            return None
        key = _key(node)
        if key in seen:
            # A constant that stands twice costs nothing.
            repeated += node.op != CONSTANT
            return seen[key]
        outputs = build.add(node).outputs
        seen[key] = outputs
        return outputs

    result = graph.rewrite(visit)
    if not repeated:
        return graph
    return Graph(result.nodes, result.outputs, merged(graph.notes, [Note("simplify", "computed once", repeated)]))


def _key(node: Node) -> Any:
    if node.op == CONSTANT:
        value = node.attributes["value"]
        return CONSTANT, value.dtype.name, value.shape, value.tobytes() if value.dtype != object else repr(value)
    return node.op, node.inputs, node.dtypes, node.shapes, frozen(node.attributes)


def frozen(value: Any) -> Any:
    """Attributes as something that can be compared and hashed."""
    if isinstance(value, Mapping):
        return tuple((name, frozen(item)) for name, item in sorted(value.items()))
    if isinstance(value, np.ndarray):
        return value.dtype.name, value.shape, value.tobytes()
    if isinstance(value, (list, tuple)):
        return tuple(frozen(item) for item in value)
    return repr(value)


def _visit(node: Node, at: Sweep) -> Replacement:
    for rule in _rules.get(node.op, ()):
        replaced = rule(node, at)
        if replaced is not None:
            return replaced
    return None


def _on(*ops: str) -> Callable[[_Rule], _Rule]:
    def register(rule: _Rule) -> _Rule:
        for op in ops:
            _rules.setdefault(op, []).append(rule)
        return rule

    return register


# --- zeros and ones


def all_are(value: Output, number: float) -> bool:
    """Whether a value is public and this number throughout."""
    constant = value.constant
    return constant is not None and constant.dtype.kind in "fiu" and bool(np.all(constant == number))


def scalar(value: Output) -> float | None:
    """The number that a public floating value is throughout, and that broadcasts."""
    constant = value.constant
    if constant is None or constant.dtype.kind != "f" or not constant.size or np.any(constant != constant.flat[0]):
        return None
    number = float(constant.flat[0])
    return number if np.isfinite(number) else None


def _zeros(node: Node, at: Sweep) -> Output:
    return at.build.constant(np.zeros(node.shapes[0], node.dtypes[0]))


def _same_type(node: Node, value: Output) -> bool:
    return value.shape == node.shapes[0] and value.dtype == node.dtypes[0]


@_on(*_ZERO_PRODUCTS)
def _product_of_zeros(node: Node, at: Sweep) -> Replacement:
    if not any(all_are(value, 0) for value in node.inputs):
        return None
    at.did("product with zeros")
    return _zeros(node, at)


@_on("Mul", "MulNoNan")
def _by_one(node: Node, at: Sweep) -> Replacement:
    for x, y in (node.inputs, node.inputs[::-1]):
        if all_are(y, 1) and _same_type(node, x):
            at.did("product with 1")
            return at(x)
        if all_are(y, -1) and _same_type(node, x) and at.secret(x):
            at.did("product with -1")
            return at.build("Neg", at(x))
    return None


@_on(*ADDS, "Sub", "BiasAdd")
def _plus_zero(node: Node, at: Sweep) -> Replacement:
    x, y = node.inputs
    if all_are(y, 0) and _same_type(node, x):
        at.did("sum with 0")
        return at(x)
    if all_are(x, 0) and _same_type(node, y):
        at.did("sum with 0")
        return at.build("Neg", at(y)) if node.op == "Sub" else at(y)
    return None


@_on("RealDiv", "Div")
def _by_public(node: Node, at: Sweep) -> Replacement:
    x, y = node.inputs
    divisor = y.constant
    if divisor is None or divisor.dtype.kind != "f" or not at.secret(x):
        return None
    if not np.all(np.isfinite(divisor)) or not np.all(divisor):
        return None
    at.did("public quotient as a product")
    return at.build("Mul", at(x), at.build.constant(1 / divisor, y.dtype))


@_on("AddN")
def _sum_of_one(node: Node, at: Sweep) -> Replacement:
    if len(node.inputs) == 1:
        at.did("sum of one")
        return at(node.inputs[0])
    return None


@_on("Sub")
def _minus_itself(node: Node, at: Sweep) -> Replacement:
    x, y = node.inputs
    if x != y or not at.secret(x):
        return None
    at.did("difference of equals")
    return _zeros(node, at)


@_on("Maximum", "Minimum")
def _extreme_of_equals(node: Node, at: Sweep) -> Replacement:
    x, y = node.inputs
    if x != y:
        return None
    at.did("extreme of equals")
    return at(x)


@_on("SelectV2", "Select")
def _choice_known(node: Node, at: Sweep) -> Replacement:
    condition, x, y = node.inputs
    chosen = None
    if x == y:
        chosen = x
    elif condition.constant is not None and condition.constant.size:
        chosen = x if np.all(condition.constant) else y if not np.any(condition.constant) else None
    if chosen is None or not _same_type(node, chosen):
        return None
    at.did("choice that is known")
    return at(chosen)


# --- powers


@_on("Pow")
def _power(node: Node, at: Sweep) -> Replacement:
    x, y = node.inputs
    exponent = scalar(y)
    if exponent is None or x.shape != node.shapes[0] or not at.secret(x):
        return None
    if exponent == 1:
        at.did("power of 1")
        return at(x)
    if exponent not in _POWERS:
        return None
    at.did("power as a simpler function")
    return at.build(_POWERS[exponent], at(x))


@_on("Mul")
def _by_itself(node: Node, at: Sweep) -> Replacement:
    x, y = node.inputs
    if x != y or not at.secret(x):
        return None
    at.did("product with itself as a square")
    return at.build("Square", at(x))


@_on("SquaredDifference")
def _difference_from_zero(node: Node, at: Sweep) -> Replacement:
    x, y = node.inputs
    for value, other in ((x, y), (y, x)):
        if all_are(other, 0) and _same_type(node, value):
            at.did("sum with 0")
            return at.build("Square", at(value))
    return None


# --- signs


@_on("Neg")
def _minus(node: Node, at: Sweep) -> Replacement:
    (x,) = node.inputs
    inner = x.node
    if not at.secret(x):
        return None
    if inner.op == "Neg":
        at.did("two signs")
        return at(inner.inputs[0])
    if at.alone(x) is None:
        return None
    if inner.op == "Sub":
        at.did("sign of a difference")
        return at.build("Sub", at(inner.inputs[1]), at(inner.inputs[0]))
    if inner.op == "Mul":
        for value, factor in (inner.inputs, inner.inputs[::-1]):
            if factor.constant is not None:
                at.did("sign of a factor")
                return at.build("Mul", at(value), at.build.constant(-factor.constant))
    return None


@_on("Mul")
def _factor_with_sign(node: Node, at: Sweep) -> Replacement:
    for x, y in (node.inputs, node.inputs[::-1]):
        if x.node.op != "Neg" or not at.secret(x):
            continue
        inner = at(x.node.inputs[0])
        if y.constant is not None:
            at.did("sign of a factor")
            return at.build("Mul", inner, at.build.constant(-y.constant))
        if at.alone(x) is not None:
            at.did("sign of a factor")
            return at.build("Neg", at.build("Mul", inner, at(y)))
    return None


@_on(*ADDS, "Sub")
def _term_with_sign(node: Node, at: Sweep) -> Replacement:
    x, y = node.inputs
    if y.node.op == "Neg" and at.secret(y):
        at.did("sign of a term")
        return at.build("AddV2" if node.op == "Sub" else "Sub", at(x), at(y.node.inputs[0]))
    if x.node.op == "Neg" and at.secret(x) and node.op != "Sub":
        at.did("sign of a term")
        return at.build("Sub", at(y), at(x.node.inputs[0]))
    return None


# --- scalars that meet


@_on("Mul")
def _factors_meet(node: Node, at: Sweep) -> Replacement:
    """(x a) b = x (a b), for public a and b."""
    if not at.secret(Output(node)):
        return None
    for x, b in (node.inputs, node.inputs[::-1]):
        if x.node.op != "Mul" or b.constant is None or at.alone(x) is None:
            continue
        for value, a in (x.node.inputs, x.node.inputs[::-1]):
            if a.constant is not None and np.broadcast_shapes(a.shape, b.shape, value.shape) == node.shapes[0]:
                both = a.constant * b.constant
                if np.all(np.isfinite(both)):
                    at.did("public factors multiplied")
                    return at.build("Mul", at(value), at.build.constant(both))
    return None


@_on("Mul")
def _factor_to_the_root(node: Node, at: Sweep) -> Replacement:
    """(x a) y = (x y) a for a public scalar a and a private y: it then meets others, and is truncated with them."""
    for x, y in (node.inputs, node.inputs[::-1]):
        if x.node.op != "Mul" or not at.secret(x) or y.constant is not None or not at.secret(y) or at.alone(x) is None:
            continue
        for value, a in (x.node.inputs, x.node.inputs[::-1]):
            if scalar(a) is not None and value.shape == x.shape and not a.shape:
                at.did("public factor last")
                return at.build("Mul", at.build("Mul", at(value), at(y)), at(a))
    return None


@_on(*ADDS, "Sub")
def _terms_meet(node: Node, at: Sweep) -> Replacement:
    """(x + a) + b = x + (a + b), for public a and b and any signs."""
    if not at.secret(Output(node)):
        return None
    for k in (0, 1):
        y, b = node.inputs[k], node.inputs[1 - k]
        inner = y.node
        if inner.op not in (*ADDS, "Sub") or b.constant is None or at.alone(y) is None:
            continue
        sign_y, sign_b = signs(node, k)
        for j in (0, 1):
            x, a = inner.inputs[j], inner.inputs[1 - j]
            if a.constant is None or np.broadcast_shapes(a.shape, b.shape, x.shape) != node.shapes[0]:
                continue
            sign_x, sign_a = signs(inner, j)
            both = at.build.constant(sign_y * sign_a * a.constant + sign_b * b.constant, x.dtype)
            at.did("public terms added")
            return at.build("AddV2", at(x), both) if sign_y * sign_x > 0 else at.build("Sub", both, at(x))
    return None


def signs(node: Node, k: int) -> tuple[int, int]:
    """Signs, in a sum of two, of input k and of the other."""
    if node.op != "Sub":
        return 1, 1
    return (1, -1) if k == 0 else (-1, 1)


# --- structure


@_on(*_RESHAPES)
def _reshape(node: Node, at: Sweep) -> Replacement:
    x = node.inputs[0]
    if x.shape == node.shapes[0]:
        at.did("same shape")
        return at(x)
    if x.node.op in _RESHAPES:
        at.did("shape of a shape")
        source = x.node.inputs[0]
        return at.build("Reshape", at(source), at.shape(node.shapes[0]))
    return None


@_on("StridedSlice")
def _axes_alone(node: Node, at: Sweep) -> Replacement:
    """An index that takes all and only adds axes, or leaves out some of length 1."""
    x, strides = node.inputs[0], node.inputs[3].constant
    if math.prod(x.shape) != math.prod(node.shapes[0]) or strides is None or np.any(strides != 1):
        return None
    at.did("index as a shape")
    return at.build("Reshape", at(x), at.shape(node.shapes[0]))


@_on("Reshape")
def _rows(node: Node, at: Sweep) -> Replacement:
    """Rows put one after another for a matrix product, and back, as a product of all of them where they are."""
    product = node.inputs[0].node
    if product.op != "MatMul" or at.alone(node.inputs[0]) is None or product.attributes["transpose_a"]:
        return None
    flat, kernel = product.inputs
    if flat.node.op != "Reshape" or not at.owned(kernel) or not at.secret(node.inputs[0]):
        return None
    x = flat.node.inputs[0]
    if (
        x.shape[:-1] != node.shapes[0][:-1]
        or x.shape[-1] != flat.shape[-1]
        or node.shapes[0][-1] != product.shapes[0][-1]
    ):
        return None
    at.did("matrix product of rows where they are")
    turned = product.attributes["transpose_b"]
    return at.build("BatchMatMulV2", at(x), at(kernel), adj_x=False, adj_y=turned)


@_on("Transpose")
def _transpose(node: Node, at: Sweep) -> Replacement:
    x, order = node.inputs
    if order.constant is None:
        return None
    perm = [int(i) % len(x.shape) for i in order.constant.ravel()]
    if perm == sorted(perm):
        at.did("order of axes kept")
        return at(x)
    if x.node.op == "Transpose" and x.node.inputs[1].constant is not None:
        before = [int(i) % len(x.shape) for i in x.node.inputs[1].constant.ravel()]
        at.did("two transposes")
        return at.build("Transpose", at(x.node.inputs[0]), at.shape(before[i] for i in perm))
    return None


@_on("Pad", "PadV2", "MirrorPad")
def _pad_nothing(node: Node, at: Sweep) -> Replacement:
    if all_are(node.inputs[1], 0):
        at.did("padding of nothing")
        return at(node.inputs[0])
    return None


@_on(
    "Slice", "Tile", "BroadcastTo", "Cast", "ConcatV2", "StridedSlice", "Sum", "Mean", "Max", "Min", "ReverseV2", "Roll"
)
def _same_as_before(node: Node, at: Sweep) -> Replacement:
    joined = node.inputs[:-1] if node.op == "ConcatV2" else node.inputs[:1]
    x = joined[0]
    if len(joined) != 1 or not _same_type(node, x):
        return None
    if node.op == "StridedSlice" and not (node.inputs[3].constant is not None and np.all(node.inputs[3].constant == 1)):
        return None
    if node.op in ("ReverseV2", "Roll"):
        nothing = node.inputs[1].constant
        if nothing is None or (np.any(nothing) if node.op == "Roll" else nothing.size):
            return None
    at.did("structure that changes nothing")
    return at(x)


@_on("Split", "SplitV")
def _one_piece(node: Node, at: Sweep) -> Replacement:
    if len(node.shapes) != 1:
        return None
    at.did("structure that changes nothing")
    return at(node.inputs[1] if node.op == "Split" else node.inputs[0])
