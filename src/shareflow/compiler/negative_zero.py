"""Fixed point has one zero: what tells floating point's -0.0 from 0.0 finds none.

Keras takes care of -0.0 in argmax and argmin, by the sign bit of a value that equals 0. Read as it stands this would
need the bits of a floating-point number, which shares do not have.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from shareflow.compiler.graph import Builder, Output

_SIGN_BITS = (np.iinfo(np.int32).min, np.iinfo(np.int64).min)


def without_negative_zero(op: str, given: Sequence[Output], build: Builder) -> Output | None:
    """What stands for an op that looks for -0.0 or chooses by the result; None for all others.

    * A sign bit is that of ``x < 0``: the two differ for -0.0 alone.
    * ``x == 0`` and ``x < 0`` together are False everywhere.
    * A choice by a public condition that is the same everywhere is that side, where it has the result's shape.
    """
    if op == "Less" and _all_zero(given[1]):
        x = _source_of_bits(given[0])
        if x is not None:
            return build("Less", x, build.constant(0, x.dtype))
    if op == "LogicalAnd":
        for equal, less in (given, given[::-1]):
            same = equal.node.op == "Equal" and less.node.op == "Less" and equal.node.inputs[0] == less.node.inputs[0]
            if same and _all_zero(equal.node.inputs[1]) and _all_zero(less.node.inputs[1]):
                return build.constant(np.zeros(np.broadcast_shapes(equal.shape, less.shape), bool))
    if op in ("SelectV2", "Select") and given[0].constant is not None and given[0].constant.size:
        condition = given[0].constant
        shape = np.broadcast_shapes(*(value.shape for value in given)) if op == "SelectV2" else given[1].shape
        chosen = given[1] if condition.all() else given[2]
        if (condition.all() or not condition.any()) and chosen.shape == shape:
            return chosen
    return None


def _all_zero(value: Output) -> bool:
    return value.constant is not None and not np.any(value.constant)


def _source_of_bits(value: Output) -> Output | None:
    """x, where the value is the bits of a floating-point x, or its sign bit alone."""
    node = value.node
    if (
        node.op == "BitwiseAnd"
        and node.inputs[1].constant is not None
        and np.isin(node.inputs[1].constant, _SIGN_BITS).all()
    ):
        node = node.inputs[0].node
    return node.inputs[0] if node.op == "Bitcast" and "float" in node.inputs[0].dtype else None
