"""Graph to graph: each pass keeps what the model computes, and makes it cheaper on shares."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from shareflow.compiler.graph import Graph
from shareflow.compiler.passes.fold_affine import fold_affine
from shareflow.compiler.passes.fold_average_pool import fold_average_pool
from shareflow.compiler.passes.join import functions_of_joins, join_functions, join_linear
from shareflow.compiler.passes.pool_before_relu import pool_before_relu
from shareflow.compiler.passes.powers_of_two import powers_of_two
from shareflow.compiler.passes.recognise import recognise
from shareflow.compiler.passes.restore_dilation import restore_dilation
from shareflow.compiler.passes.select_first import select_first
from shareflow.compiler.passes.simplify import simplify
from shareflow.compiler.passes.split_batch_norm import split_batch_norm

Pass = Callable[[Graph], Graph]

# In this order: each finds what the ones before it made.
passes: tuple[Pass, ...] = (
    restore_dilation,
    split_batch_norm,
    simplify,
    recognise,
    fold_average_pool,
    fold_affine,
    pool_before_relu,
    select_first,
    fold_affine,
    join_linear,
    functions_of_joins,
    join_functions,
    simplify,
    powers_of_two,
)


def optimize(graph: Graph) -> Graph:
    """The graph after all passes."""
    for _, improved in steps(graph):
        graph = improved
    return graph


def steps(graph: Graph) -> Iterator[tuple[Pass, Graph]]:
    """Each pass with the graph after it."""
    for improve in passes:
        graph = improve(graph)
        yield improve, graph
