"""What the tests of handlers and of the reader share: a Python function, in TensorFlow, as a graph, and on shares.

The function is traced and read; the graph is computed in plain TensorFlow (which must give the function's own result),
and on shares node by node: under Plain, which has the ring, the scales and the rounding of the real protocol, or SPDZ.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import shareflow as sf
from shareflow.compiler.evaluate import evaluate
from shareflow.compiler.front.function_source import function_source
from shareflow.compiler.front.source import Argument
from shareflow.compiler.graph import Graph
from shareflow.compiler.model import Model, source_of
from shareflow.compiler.parameters import values_of
from shareflow.compiler.passes.split_batch_norm import split_batch_norm
from shareflow.compiler.private_graph import PrivateGraph
from shareflow.protocol.protocol import Protocol

UNIT = 2.0**-16
OWNER, CLIENT = "owner", "client"
PROTOCOLS: dict[str, Callable[[], Protocol]] = {"plain": sf.Plain, "spdz": sf.SPDZ}
Parties = Mapping[str, str]


def graph_of(
    function: Callable[..., Any], inputs: Sequence[Any], parties: Parties | None = None, public: bool = False
) -> Graph:
    """The function's graph, for inputs of these shapes and types; ``public``: arrays in its code are."""
    arrays = named(function, inputs)
    arguments = {name: Argument(array.shape, array.dtype.name, batched=False) for name, array in arrays.items()}
    traced = function if hasattr(function, "get_concrete_function") else tf.function(function, autograph=False)
    source = dataclasses.replace(function_source(traced, arguments), arrays_are_public=public)
    return Model(source, OWNER, CLIENT, sf.FixedPoint(), parties).read(1)


def named(function: Callable[..., Any], inputs: Sequence[Any]) -> dict[str, np.ndarray]:
    """Inputs by the names of the function's arguments."""
    names = list(inspect.signature(getattr(function, "python_function", function)).parameters)
    return {name: np.asarray(value) for name, value in zip(names, inputs, strict=True)}


def wanted(function: Callable[..., Any], inputs: Sequence[Any]) -> list[np.ndarray]:
    """TensorFlow's own results."""
    return [result.numpy() for result in tf.nest.flatten(function(*map(tf.constant, inputs)))]


def on_shares(
    graph: Graph, arrays: Mapping[str, np.ndarray], kind: str = "plain", known: Sequence[str] = ()
) -> list[np.ndarray]:
    """The graph's results on shares of its inputs; those that are ``known`` stay their party's plaintext."""
    protocol = PROTOCOLS[kind]()
    compiled = PrivateGraph.make(split_batch_norm(graph), OWNER, sf.FixedPoint())
    parameters = {}
    for name, value in values_of(compiled.graph, compiled.parameters).items():
        parameter = compiled.parameters[name]
        parameters[name] = sf.private_tensor(value, OWNER).shared(protocol, parameter.fractional_bits)
    values = {}
    for node in graph.inputs:
        name = node.attributes["name"]
        value = sf.private_tensor(arrays[name], node.attributes["party"])
        bits = 0 if arrays[name].dtype.kind in "iub" else None
        values[name] = value if name in known else value.shared(protocol, bits)
    with protocol:
        results = compiled.run(values, parameters, protocol)
    return [result.reveal(CLIENT).numpy() for result in results.values()]


def check(
    function: Callable[..., Any],
    *inputs: Any,
    units: float = 2.0,
    relative: float = 0.0,
    kind: str = "plain",
    parties: Parties | None = None,
    known: Sequence[str] = (),
    public: bool = False,
) -> Graph:
    """All three agree: TensorFlow and the graph as floats do, the shares within so many units of 2^-16.

    Args:
        relative: what is allowed beyond, times the size of the result.
    """
    arrays = named(function, inputs)
    right = wanted(function, inputs)
    graph = graph_of(function, inputs, parties, public)
    plain = evaluate(graph, arrays)
    for output, value in zip(graph.outputs.values(), right, strict=True):
        np.testing.assert_allclose(plain[output], value, rtol=1e-5, atol=1e-6)
    for got, value in zip(on_shares(graph, arrays, kind, known), right, strict=True):
        assert got.shape == value.shape
        exact = np.asarray(value, np.float64)
        error = np.abs(got - exact)
        allowed = units * UNIT + (relative + 1e-6) * np.abs(exact)
        worst = np.unravel_index(np.argmax(error - allowed), error.shape) if error.size else ()
        assert not error.size or np.all(error <= allowed), (
            f"{error[worst] / UNIT:.2f} units beside {exact[worst]} at {worst}; {np.mean(error > allowed):.0%} beyond"
        )
    return graph


def reals(*shape: int, size: float = 4.0, seed: int = 0) -> np.ndarray:
    """float32 of the encoding's own steps, so that sharing rounds nothing; between -size and size."""
    values = np.random.default_rng([seed, *shape]).uniform(-size, size, shape)
    return (np.round(values / UNIT) * UNIT).astype(np.float32)


def wholes(*shape: int, low: int = -8, high: int = 8, seed: int = 0, dtype: str = "int32") -> np.ndarray:
    """Whole numbers from low to high - 1."""
    return np.random.default_rng([seed, *shape]).integers(low, high, shape).astype(dtype)


def truths(*shape: int, seed: int = 0) -> np.ndarray:
    """Truth values."""
    return np.random.default_rng([seed, *shape]).integers(0, 2, shape).astype(bool)


def check_model(
    model: keras.Model,
    *inputs: np.ndarray,
    units: float,
    relative: float = 0.0,
    kind: str = "plain",
    known: bool = False,
) -> PrivateGraph:
    """A Keras model through all passes, on shares of its inputs (or with their owner's plaintext), beside itself."""
    compiler = Model(source_of(model), OWNER, CLIENT, sf.FixedPoint())
    batch = len(inputs[0])
    names = list(compiler.source.inputs)
    arrays = dict(zip(names, inputs, strict=True))
    right = [
        np.asarray(v) for v in tf.nest.flatten(model(list(inputs) if len(inputs) > 1 else inputs[0], training=False))
    ]
    for output, value in zip(compiler.read(batch).outputs.values(), right, strict=True):
        np.testing.assert_allclose(
            evaluate(compiler.read(batch), arrays, [output])[output], value, rtol=1e-4, atol=1e-5
        )
    compiled, protocol = compiler.compiled(batch), PROTOCOLS[kind]()
    weights = values_of(compiled.graph, compiled.parameters)
    parameters = {
        name: sf.private_tensor(value, OWNER).shared(protocol, compiled.parameters[name].fractional_bits)
        for name, value in weights.items()
    }
    given = {name: sf.private_tensor(array, CLIENT) for name, array in arrays.items()}
    with protocol:
        results = compiled.run(
            given if known else {n: v.shared(protocol) for n, v in given.items()}, parameters, protocol
        )
    for (name, result), value in zip(results.items(), right, strict=True):
        got = result.reveal(CLIENT).numpy()
        if name in compiled.activations:
            got = tf.nn.softmax(got).numpy()
        assert got.shape == value.shape
        error = np.abs(got - value)
        allowed = units * UNIT + (relative + 1e-5) * np.abs(value)
        worst = np.unravel_index(np.argmax(error - allowed), error.shape)
        assert np.all(error <= allowed), f"{name}: {error[worst] / UNIT:.2f} units beside {value[worst]} at {worst}"
    return compiled
