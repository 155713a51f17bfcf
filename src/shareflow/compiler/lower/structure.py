"""Rarer ops that move elements and do nothing else to them, found by running each on the elements' numbers.

TensorFlow's op, applied to arrays in which every element stands for its own place, says where each element of the
result comes from, and private elements are taken from there. Number 0 stands for a zero that the op puts in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from shareflow.compiler.graph import Node
from shareflow.compiler.inference import compute
from shareflow.compiler.lower.array import whole_numbers
from shareflow.compiler.lower.handler import Value, lowers, public
from shareflow.protocol.arithmetic import concat


def moves(*data: int) -> Callable[..., tuple[Value, ...]]:
    """A handler of an op whose inputs at these positions hold the elements that it moves; all others are public."""

    def handler(node: Node, *values: Value) -> tuple[Value, ...]:
        moved = [value.reshape(math.prod(value.shape)) for i, value in enumerate(values) if i in data]
        flat = concat(whole_numbers(node, [np.zeros(1), *moved]), 0)
        # At once, also while a program is traced: places are part of it.
        with tf.init_scope():
            numbers = [np.asarray(result) for result in compute(node.op, numbered(node, values), node.attributes)]
        return tuple(flat.take(places.ravel(), 0).reshape(*places.shape) for places in numbers)

    def numbered(node: Node, values: Sequence[Value]) -> list[tf.Tensor]:
        """The op's inputs, with its own number from 1 on in the place of each element."""
        arguments, start = [], 1
        for position, value in enumerate(values):
            if position in data:
                stop = start + math.prod(value.shape)
                arguments.append(tf.reshape(tf.range(start, stop, dtype=tf.int64), value.shape))
                start = stop
            else:
                told = public(node, value, "what says where elements go")
                arguments.append(tf.constant(told, node.inputs[position].dtype))
        return arguments

    return handler


for _ops, _data in {
    ("BatchMatrixBandPart", "MatrixBandPart"): (0,),
    ("BatchMatrixDiag", "BatchMatrixDiagPart", "MatrixDiag", "MatrixDiagPart", "Diag", "DiagPart"): (0,),
    ("BatchToSpace", "SpaceToBatch"): (0,),
    ("ExtractImagePatches", "ExtractVolumePatches"): (0,),
    ("MatrixDiagPartV2", "MatrixDiagPartV3"): (0, 2),
    ("MatrixDiagV2", "MatrixDiagV3"): (0, 4),
    ("BatchMatrixSetDiag", "MatrixSetDiag", "MatrixSetDiagV2", "MatrixSetDiagV3"): (0, 1),
    ("ReverseSequence",): (0,),
    ("DynamicPartition",): (0,),
}.items():
    lowers(*_ops)(moves(*_data))


@lowers("DynamicStitch", "ParallelDynamicStitch")
def _stitch(node: Node, *values: Value) -> tuple[Value, ...]:
    count = len(values) // 2
    return moves(*range(count, 2 * count))(node, *values)
