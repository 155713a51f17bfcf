"""A graph in plain TensorFlow: the oracle of every pass, what calibration watches, and the owner's own part."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from shareflow.compiler.composite import plain_meaning
from shareflow.compiler.graph import CONSTANT, INPUT, PARAMETER, Graph, Node, Output
from shareflow.compiler.inference import compute
from shareflow.errors import ShapeError

Observe = Callable[[Output, np.ndarray], None]


def evaluate(
    graph: Graph,
    inputs: Mapping[str, Any],
    wanted: Iterable[Output] | None = None,
    observe: Observe | None = None,
) -> dict[Output, np.ndarray]:
    """The values of ``wanted`` (the graph's outputs, if not said), each as TensorFlow computes it.

    Args:
        inputs: by the names of the graph's inputs that are needed.
        observe: is shown each result of each node that is computed, in order.

    Raises:
        ShapeError: an input is missing or has another shape.
    """
    asked = tuple(graph.outputs.values() if wanted is None else wanted)
    nodes, last = _needed(graph, asked)
    values: dict[Output, Any] = {}
    for node in nodes:
        results = _results(node, values, inputs)
        for output, value in zip(node.outputs, results, strict=True):
            values[output] = value
            if observe is not None:
                observe(output, as_array(value))
        for output in last[node]:
            values.pop(output, None)
    return {output: as_array(values[output]) for output in asked}


def as_array(value: Any) -> np.ndarray:
    """A result as NumPy's; of bfloat16, too, which asarray does not take from TensorFlow."""
    return np.asarray(value.numpy() if hasattr(value, "numpy") else value)


def parameter_values(graph: Graph, wanted: Iterable[Output]) -> list[np.ndarray]:
    """What the owner alone computes, from its parameters."""
    asked = list(wanted)
    found = evaluate(graph, {}, asked)
    return [found[output] for output in asked]


def _needed(graph: Graph, asked: tuple[Output, ...]) -> tuple[list[Node], dict[Node, list[Output]]]:
    """The nodes that are needed, in order, and whose values are needed last by each."""
    needed = {output.node for output in asked}
    order = []
    last: dict[Node, list[Output]] = {}
    seen = set(asked)
    for node in reversed(graph.nodes):
        if node in needed:
            order.append(node)
            last[node] = []
            for value in node.inputs:
                needed.add(value.node)
                if value not in seen:
                    seen.add(value)
                    last[node].append(value)
    return order[::-1], last


def _results(node: Node, values: Mapping[Output, Any], inputs: Mapping[str, Any]) -> list[Any]:
    if node.op == CONSTANT:
        return [tf.constant(node.attributes["value"])]
    if node.op == PARAMETER:
        return [tf.constant(node.attributes["source"]())]
    if node.op == INPUT:
        name = node.attributes["name"]
        if name not in inputs:
            raise ShapeError(f"Input {name!r} has no value; it is a {node.dtypes[0]} of shape {list(node.shapes[0])}.")
        value = np.asarray(inputs[name], node.dtypes[0])
        if value.shape != node.shapes[0]:
            raise ShapeError(f"Input {name!r} has shape {list(node.shapes[0])}; got {list(value.shape)}.")
        return [tf.constant(value)]
    arguments = [values[value] for value in node.inputs]
    meaning = plain_meaning(node.op)
    if meaning is not None:
        return [meaning(*arguments, **node.attributes)]
    return compute(node.op, arguments, node.attributes)
