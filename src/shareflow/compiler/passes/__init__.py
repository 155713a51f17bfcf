"""Graph to graph: each pass keeps what the model computes, and makes it cheaper on shares."""

from __future__ import annotations

from collections.abc import Callable

from shareflow.compiler.graph import Graph
from shareflow.compiler.passes.fold_affine import fold_affine
from shareflow.compiler.passes.pool_before_relu import pool_before_relu
from shareflow.compiler.passes.split_batch_norm import split_batch_norm

Pass = Callable[[Graph], Graph]

# In this order: each finds what the ones before it made.
passes: tuple[Pass, ...] = (split_batch_norm, fold_affine, pool_before_relu)


def optimize(graph: Graph) -> Graph:
    """The graph after all passes."""
    for improve in passes:
        graph = improve(graph)
    return graph
