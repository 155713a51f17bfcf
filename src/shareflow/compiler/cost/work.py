"""What a graph has its parties compute, counted: operations, and the words that they touch, by kind."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from shareflow.runtime.definition import node_name

# Operations; words of random streams; packed words in and out of the gates of comparisons; values packed or unpacked;
# products of ring elements in matrix products and convolutions; words that all others give.
KINDS = ("operations", "random", "gates", "packing", "products", "words")

_FREE = {"Const", "Placeholder", "NoOp"}
_VIEWS = {"Identity", "Reshape", "ExpandDims", "Squeeze"}
_GATES = {"ShareflowGroupProducts", "ShareflowGroupPolynomials", "ShareflowGateProducts", "ShareflowGate"}
_PACKING = {"ShareflowPackBits", "ShareflowUnpackBits", "ShareflowBitPlanes", "ShareflowFromBitPlanes"}
_BOTH_ENDS = _GATES | _PACKING | {"ShareflowMultiplyBit", "ShareflowTruncateMultiplyBit", "ShareflowTruncateOpened"}

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Work:
    """Counts by party, each a vector in the order of KINDS."""

    parties: Mapping[str, Vector]

    def of(self, party: str) -> Vector:
        """One party's."""
        return self.parties.get(party, np.zeros(len(KINDS)))

    def others(self, party: str) -> Vector:
        """Those of all but one."""
        return sum((vector for name, vector in self.parties.items() if name != party), np.zeros(len(KINDS)))


def work_of(graph: tf.Graph, results: Iterable[tf.Tensor | tf.Operation]) -> Work:
    """Counts what leads to the results; what is pinned to no party does not count."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for operation in _leading_to(graph, results):
        party = _party(operation)
        if party is None or operation.type in _FREE:
            continue
        counts = found[party]
        if operation.type == "Identity":
            continue
        counts["operations"] += 1
        kind, words = _kind(operation)
        if kind is not None:
            counts[kind] += words
    return Work({party: np.array([float(counts[kind]) for kind in KINDS]) for party, counts in found.items()})


def _leading_to(graph: tf.Graph, results: Iterable[tf.Tensor | tf.Operation]) -> list[tf.Operation]:
    waiting = [result if isinstance(result, tf.Operation) else result.op for result in results]
    seen: dict[str, tf.Operation] = {}
    while waiting:
        operation = waiting.pop()
        if operation.name not in seen:
            seen[operation.name] = operation
            waiting += [graph.get_operation_by_name(node_name(tensor.name)) for tensor in operation.inputs]
            waiting += operation.control_inputs
    return list(seen.values())


def _party(operation: tf.Operation) -> str | None:
    job = operation.device.partition("/job:")[2].partition("/")[0]
    return job or None


def _kind(operation: tf.Operation) -> tuple[str | None, int]:
    name = operation.type
    if name in _VIEWS:
        return None, 0
    out = sum(map(_size, operation.outputs))
    if name == "ShareflowUniform":
        return "random", out
    if name == "ShareflowMatmul":
        a = operation.inputs[0].shape
        return "products", out * int(a[-2] if operation.get_attr("transpose_a") else a[-1])
    if name == "ShareflowConv2d":
        filters = operation.inputs[1].shape
        return "products", out * math.prod(filters[:3])
    if name == "ShareflowDepthwiseConv2d":
        return "products", out * math.prod(operation.inputs[1].shape[:2])
    if name in _BOTH_ENDS:
        out += sum(map(_size, operation.inputs))
    return ("gates" if name in _GATES else "packing" if name in _PACKING else "words"), out


def _size(tensor: tf.Tensor) -> int:
    return math.prod(tensor.shape) if tensor.shape.is_fully_defined() else 0
