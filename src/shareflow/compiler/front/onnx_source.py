"""ONNX models: each node as the TensorFlow ops that compute it, traced as any other function."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

import shareflow.compiler.front.onnx_ops  # noqa: F401  (fills the table of ops)
from shareflow.compiler.front.onnx_file import OnnxGraph, OnnxInput, OnnxNode, read_onnx
from shareflow.compiler.front.onnx_ops.call import Call, Value, compute_of, tensor_of, unsupported
from shareflow.compiler.front.onnx_ops.laid import Laid
from shareflow.compiler.front.onnx_ops.structure import type_of
from shareflow.compiler.front.source import Argument, Source
from shareflow.errors import ShapeError, UnsupportedModelError

# Whole numbers of these types are shapes, axes and indices; of the others, quantised weights.
_PUBLIC = ("int64", "int32", "uint32", "uint64", "bool")


def onnx_source(path: Path, inputs: Mapping[str, Argument] | None = None) -> Source:
    """The model in an .onnx file.

    Its initialisers are the owner's; arrays of whole numbers, which are shapes and indices, are public.

    Args:
        path: of the file; arrays that it keeps elsewhere lie in its folder.
        inputs: shapes of inputs that the file leaves open, by name.

    Raises:
        DataError: the file cannot be read, or the package onnx is missing.
        UnsupportedModelError: an op that has no translation; extents that are not known.
    """
    graph = read_onnx(path)
    program = _Program(graph)
    arguments: dict[str, Argument] = {}
    names = _identifiers([value.name for value in graph.inputs])
    unknown = set(inputs or {}) - set(names)
    if unknown:
        first = sorted(unknown)[0]
        raise UnsupportedModelError(f"The model has no input {first!r}; its inputs are {', '.join(names)}.")
    for value, name in zip(graph.inputs, names, strict=True):
        given = (inputs or {}).get(name)
        arguments[name] = given if given is not None else _argument(value, name)
    results = _identifiers(graph.outputs)
    program.check()

    def trace(batch: int) -> Any:
        def call(*given: tf.Tensor) -> list[tf.Tensor]:
            return program.run(given)

        specs = [tf.TensorSpec(a.full_shape(batch), a.dtype, name=name) for name, a in arguments.items()]
        return tf.function(call, autograph=False).get_concrete_function(*specs)

    return Source(path.stem, arguments, tuple(results) if len(results) > 1 else ("result",), trace, program.layer_of)


def _identifiers(names: Sequence[str]) -> list[str]:
    found: list[str] = []
    for name in names:
        plain = re.sub(r"\W", "_", name.split(":")[0]) or "x"
        plain = f"x_{plain}" if plain[0].isdigit() else plain
        while plain in found:
            plain += "_"
        found.append(plain)
    return found


def _argument(value: OnnxInput, name: str) -> Argument:
    dtype = type_of(value.kind, what=f"Input '{name}'")
    batched = bool(value.shape) and not isinstance(value.shape[0], int)
    shape = value.shape[1:] if batched else value.shape
    open_ = [n for n in shape if not isinstance(n, int)]
    if open_:
        raise UnsupportedModelError(
            f"Input '{name}' has shape {list(value.shape)}; all extents but the first, the batch, must be known. Give "
            f"inputs={{'{name}': shareflow.Argument(shape, '{dtype}')}}, or export the model with fixed ones."
        )
    return Argument(tuple(int(n) for n in shape if isinstance(n, int)), dtype, batched)


class _Program:
    """A graph that can be computed in TensorFlow, with the owner's arrays as variables."""

    def __init__(self, graph: OnnxGraph) -> None:
        self.graph = graph
        self._variables: dict[tuple[int, str], tf.Variable] = {}
        self._layers = {node.name for node in _nodes(graph)}
        self._quantised = {node.inputs[0] for node in _nodes(graph) if node.op == "DequantizeLinear" and node.inputs}

    def check(self) -> None:
        """Raises an UnsupportedModelError for the first op without a translation, before any work is done."""
        for node in _nodes(self.graph):
            if node.op != "Constant" and node.function is None and compute_of(node.domain, node.op) is None:
                raise unsupported(self._call(node, [], {}))

    def layer_of(self, scope: str) -> str:
        """The node that a scope of TensorFlow's names lies in."""
        parts = scope.split("/")
        for end in range(len(parts), 0, -1):
            if "/".join(parts[:end]) in self._layers:
                return "/".join(parts[:end])
        return ""

    def run(self, given: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """The results of the model."""
        values = dict(zip((value.name for value in self.graph.inputs), map(Laid, given), strict=True))
        return [tensor_of(value) for value in self._body(self.graph, values, {})]

    def _body(
        self, graph: OnnxGraph, given: Mapping[str, Value | None], outside: Mapping[str, Value | None]
    ) -> list[Value]:
        values: dict[str, Value | None] = {**outside, **given}
        for name, array in graph.arrays.items():
            values[name] = self._initialiser(graph, name, array)
        for node in graph.nodes:
            results = self._node(node, values)
            values.update(zip(node.outputs, results, strict=False))
        found = []
        for name in graph.outputs:
            value = values.get(name)
            if value is None:
                raise UnsupportedModelError(f"The graph's result '{name}' has no value. Export the model again.")
            found.append(value)
        return found

    def _initialiser(self, graph: OnnxGraph, name: str, array: np.ndarray) -> Value:
        public = array.dtype.name in _PUBLIC and name not in self._quantised
        return array if public else self._weight(id(graph), name, array)

    def _weight(self, place: int, name: str, array: np.ndarray) -> Laid:
        """An array of the owner's."""
        if (place, name) not in self._variables:
            with tf.init_scope():
                plain = re.sub(r"\W", "_", name) or "weight"
                self._variables[place, name] = tf.Variable(array, trainable=False, name=plain)
        return Laid(self._variables[place, name].read_value(), array=array)

    def _node(self, node: OnnxNode, values: Mapping[str, Value | None]) -> list[Value]:
        inputs = [values[name] if name else None for name in node.inputs]
        while inputs and inputs[-1] is None:
            inputs.pop()
        if node.op == "Constant":
            return [self._constant(node)]
        with tf.name_scope(f"{node.name}/"):
            if node.function is not None:
                padded = [*inputs, *[None] * (len(node.function.inputs) - len(inputs))]
                named = {value.name: given for value, given in zip(node.function.inputs, padded, strict=True)}
                return self._body(node.function, named, {})
            call = self._call(node, inputs, values)
            compute = compute_of(node.domain, node.op)
            if compute is None:
                raise unsupported(call)
            try:
                known = inputs and all(value is None or isinstance(value, np.ndarray) for value in inputs)
                if known and not node.domain and not any(isinstance(a, OnnxGraph) for a in node.attributes.values()):
                    # What follows from public values is public, and known now.
                    with tf.init_scope():
                        return [_array(value) for value in _several(compute(call))]
                return [_value(value) for value in _several(compute(call))]
            except (ValueError, TypeError, IndexError, tf.errors.OpError) as error:
                if isinstance(error, (UnsupportedModelError, ShapeError)):
                    raise
                reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
                raise call.refuse(f"cannot be computed: {reason}", "Check the model with onnx.checker.") from error

    def _call(self, node: OnnxNode, inputs: Sequence[Value | None], values: Mapping[str, Value | None]) -> Call:
        def body(attribute: str, given: Sequence[Value | None]) -> list[Value]:
            graph = node.attributes[attribute]
            named = {value.name: one for value, one in zip(graph.inputs, given, strict=False)}
            return self._body(graph, named, values)

        return Call(
            node.op,
            node.name,
            node.opset,
            node.attributes,
            inputs,
            max((i + 1 for i, name in enumerate(node.outputs) if name), default=1),
            lambda name, array: self._weight(id(node), name, array),
            body,
            node.domain,
        )

    def _constant(self, node: OnnxNode) -> Value:
        """An array in the program: the owner's, if it may be weights."""
        ((kind, value),) = node.attributes.items() if len(node.attributes) == 1 else ((None, None),)
        if kind not in ("value", "value_float", "value_floats", "value_int", "value_ints"):
            call = self._call(node, [], {})
            raise call.refuse("holds no array of numbers.", "Strings and sparse arrays stay outside.")
        dtype = np.int64 if kind in ("value_int", "value_ints") else None if kind == "value" else np.float32
        array = np.asarray(value, dtype)
        plain = array.dtype.name in _PUBLIC or array.size <= 1 or bool(np.all(array == 0) or np.all(array == 1))
        quantised = node.outputs[0] in self._quantised
        return array if plain and not quantised else self._weight(id(node), node.name, array)


def _nodes(graph: OnnxGraph) -> list[OnnxNode]:
    """All nodes, those of graphs within, too."""
    found = []
    for node in graph.nodes:
        found.append(node)
        inner = [value for value in node.attributes.values() if isinstance(value, OnnxGraph)]
        for within in (*inner, *([node.function] if node.function else [])):
            found += _nodes(within)
    return found


def _several(results: Any) -> Sequence[Any]:
    return results if isinstance(results, (tuple, list)) else (results,)


def _value(result: Any) -> Value:
    return result if isinstance(result, (np.ndarray, Laid)) else Laid(result)


def _array(result: Any) -> np.ndarray:
    if isinstance(result, Laid):
        result = result.first
    return result if isinstance(result, np.ndarray) else np.asarray(result.numpy())
