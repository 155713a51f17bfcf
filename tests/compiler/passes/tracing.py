"""What the tests of passes share: functions of secret values as graphs, and graphs compared in plain TensorFlow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import shareflow as sf
from shareflow.compiler.evaluate import evaluate
from shareflow.compiler.graph import Graph
from shareflow.compiler.model import Model, source_of
from shareflow.compiler.parameters import values_of
from shareflow.compiler.private_graph import PrivateGraph
from shareflow.compiler.read import read

OWNER, CLIENT, OTHER = "owner", "client", "other"


def graph_of(function: Callable[..., Any], *shapes: tuple[int, ...], dtype: str = "float32") -> Graph:
    """A function's graph on secret values: sums of what two parties bring. Arrays in its code are its owner's."""
    names = [f"{side}{i}" for i in range(len(shapes)) for side in "ab"]

    def whole(*given: tf.Tensor) -> Any:
        return function(*(given[2 * i] + given[2 * i + 1] for i in range(len(shapes))))

    specs = [tf.TensorSpec(shapes[int(name[1:])], dtype, name=name) for name in names]
    traced = tf.function(lambda *x: tf.nest.flatten(whole(*x)), input_signature=specs, autograph=False)
    concrete = traced.get_concrete_function()
    outputs = tuple(f"result_{i}" for i in range(len(concrete.outputs)))
    parties = {name: CLIENT if name[0] == "a" else OTHER for name in names}
    return read(concrete, parties, outputs, OWNER)


def graph_of_model(model: keras.Model, batch: int = 2, seed: int = 0) -> Graph:
    """A Keras model's graph, all its weights drawn anew: defaults such as a scale of 1 would hide mistakes."""
    draw = np.random.default_rng(seed)
    for variable in model.variables:
        positive = any(word in variable.path for word in ("variance", "gamma"))
        if not variable.dtype.startswith("float"):
            continue
        low, high = (0.5, 1.5) if positive else (-0.6, 0.6)
        variable.assign(draw.uniform(low, high, variable.shape))
    return Model(source_of(model), OWNER, CLIENT, sf.FixedPoint()).read(batch)


def given(graph: Graph, seed: int = 1, scale: float = 1.0) -> dict[str, np.ndarray]:
    """Inputs of a graph."""
    draw = np.random.default_rng(seed)
    return {
        node.attributes["name"]: (scale * draw.normal(size=node.shapes[0])).astype(node.dtypes[0])
        for node in graph.inputs
    }


def results(graph: Graph, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What TensorFlow computes, by the names of the outputs."""
    found = evaluate(graph, inputs)
    return {name: found[value] for name, value in graph.outputs.items()}


def same(before: Graph, after: Graph, tolerance: float = 1e-5, scale: float = 1.0) -> None:
    """Asserts that two graphs compute the same of several inputs."""
    for seed in (1, 2):
        inputs = given(before, seed, scale)
        wanted, found = results(before, inputs), results(after, inputs)
        assert wanted.keys() == found.keys()
        for name, value in wanted.items():
            assert found[name].shape == value.shape and found[name].dtype == value.dtype
            np.testing.assert_allclose(found[name], value, rtol=tolerance, atol=tolerance * max(1, np.abs(value).max()))


def ops(graph: Graph) -> Counter[str]:
    """How many operations of each kind meet secret values; the sums that make inputs secret are left out."""
    counts: Counter[str] = Counter()
    for node in graph.nodes:
        if not node.outputs or not graph.secret(node.outputs[0]):
            continue
        brought = all(value.node.op == "Input" for value in node.inputs)
        parties = {value.node.attributes["party"] for value in node.inputs} if brought else set()
        counts[node.op] += parties != {CLIENT, OTHER}
    return +counts


def did(graph: Graph) -> dict[str, int]:
    """What passes say that they did."""
    return {note.what: note.count for note in graph.notes}


def cost(graph: Graph, protocol: Any = None) -> Any:
    """The cost of a graph as it runs, from its own trace; and its largest error on inputs, as (cost, error)."""
    protocol = protocol or sf.SPDZ()
    compiled = PrivateGraph.make(graph, OWNER, protocol.fixed_point)
    values = values_of(compiled.graph, compiled.parameters)
    variables = {
        name: sf.PrivateVariable(sf.private_tensor(value, OWNER), protocol, compiled.parameters[name].fractional_bits)
        for name, value in values.items()
    }
    inputs = given(graph)
    owners = {node.attributes["name"]: node.attributes["party"] for node in graph.inputs}

    @sf.function
    def run(*arguments: Any) -> Any:
        brought = {name: x.shared(protocol) for name, x in zip(owners, arguments, strict=True)}
        return [value.reveal(CLIENT) for value in compiled.run(brought, variables, protocol).values()]

    arguments = [sf.private_tensor(inputs[name], owner) for name, owner in owners.items()]
    found = [value.numpy() for value in run(*arguments)]
    wanted = list(results(graph, inputs).values())
    error = max(float(np.abs(a - b).max()) for a, b in zip(found, wanted, strict=True))
    return run.cost(*arguments), error
