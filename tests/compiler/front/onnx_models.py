"""Small ONNX models for tests: made with onnx.helper, computed by onnx's own reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from shareflow.compiler.evaluate import evaluate
from shareflow.compiler.front.onnx_source import onnx_source
from shareflow.compiler.graph import Graph
from shareflow.compiler.model import Model
from shareflow.ring.fixed_point import FixedPoint


def node(op: str, inputs: Sequence[str], outputs: Sequence[str] = ("y",), domain: str = "", **attributes: Any) -> Any:
    """One node."""
    return helper.make_node(op, list(inputs), list(outputs), domain=domain, **attributes)


def model(
    nodes: Sequence[Any],
    inputs: Mapping[str, np.ndarray],
    arrays: Mapping[str, Any] | None = None,
    outputs: Sequence[str] = ("y",),
    opset: int = 17,
    batch: str | None = None,
    functions: Sequence[Any] = (),
) -> Any:
    """A model on inputs of these shapes and types; ``batch``: the name of the first extent, which stays open."""

    def info(name: str, value: np.ndarray) -> Any:
        shape = [batch, *value.shape[1:]] if batch else list(value.shape)
        return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), shape)

    results = [onnx.ValueInfoProto(name=name) for name in outputs]
    for result in results:
        result.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
        result.type.tensor_type.shape.SetInParent()
    initialisers = [numpy_helper.from_array(np.asarray(value), name) for name, value in (arrays or {}).items()]
    graph = helper.make_graph(
        list(nodes), "net", [info(name, value) for name, value in inputs.items()], results, initialisers
    )
    domains = {n.domain for n in nodes} - {""}
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(name, 1) for name in sorted(domains))]
    made = helper.make_model(graph, opset_imports=opsets, functions=list(functions))
    made.ir_version = min(made.ir_version, 10)
    return made


def reference(made: Any, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """What onnx itself computes."""
    return [np.asarray(value) for value in ReferenceEvaluator(made).run(None, dict(inputs))]


def read(made: Any, folder: Path, batch: int = 1) -> Graph:
    """The model through a file, as a graph."""
    path = folder / "model.onnx"
    onnx.save(made, str(path))
    return Model(onnx_source(path), "owner", "client", FixedPoint()).read(batch)


def check(made: Any, inputs: Mapping[str, np.ndarray], folder: Path, tolerance: float = 1e-5) -> Graph:
    """The graph computes in plain TensorFlow what the reference does, with the same types; gives the graph."""
    wanted = reference(made, inputs)
    graph = read(made, folder)
    names = dict(zip((i.attributes["name"] for i in graph.inputs), inputs.values(), strict=True))
    found = evaluate(graph, names)
    for output, value in zip(graph.outputs.values(), wanted, strict=True):
        assert found[output].shape == value.shape
        assert found[output].dtype.kind == value.dtype.kind
        np.testing.assert_allclose(found[output], value, rtol=tolerance, atol=tolerance)
    return graph
