"""The steps of a party outside the computation, in the form that is evaluated without TensorFlow.

`shareflow_client.steps` evaluates them; docs/plan-format.md specifies them. What it cannot evaluate is found here, when
the plan is made, and not at the client.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from shareflow.errors import PlanError, from_graph
from shareflow.runtime.definition import node_name
from shareflow_client.manifest import DTYPE_BYTES, Step
from shareflow_client.operations import OPERATIONS
from shareflow_client.steps import ASSERT, CONST, UNIFORM, WAY_OUT, attributes_of, supported

_KEY = re.compile(r"(?:.*/)?key\.(?P<holder>[A-Za-z0-9_]+)\.(?P<peer>[A-Za-z0-9_]+)\.(?:_\d+)?")
_EXECUTION = re.compile(r"(?:.*/)?execution\.[A-Za-z0-9_]+\.(?:_\d+)?")
_PLACEHOLDER = "Placeholder"
_KIND_OF = {bool: "bool", str: "text"}


def steps_of(nodes: Iterable[Any], party: str) -> list[dict[str, Any]]:
    """The operations pinned to a party, and unpinned ones that these use, as steps of a plan's manifest.

    Args:
        nodes: NodeDefs of one GraphDef, inputs before those that use them.
        party: its job.

    Raises:
        PlanError: an operation that needs TensorFlow, or that makes of keys anything but streams; names the node.
    """
    graph = {node.name: node for node in nodes}
    steps = [_step(graph[name], graph, party) for name in reversed(_chosen(graph, party))]
    problems = supported(steps)
    if problems:
        raise PlanError(f"{party!r} computes without TensorFlow, but {'; '.join(problems)}. {WAY_OUT}")
    return [
        {"name": step.name, "op": step.op, "inputs": list(step.inputs), "attributes": dict(step.attributes)}
        for step in steps
    ]


def _chosen(graph: Mapping[str, Any], party: str) -> list[str]:
    """Names of the nodes that become steps, the last first: no input, and no constant that no step uses."""
    used: set[str] = set()
    chosen = []
    for name, node in reversed(list(graph.items())):
        wanted = name in used or (_job(node) == party and node.op != CONST)
        if wanted and _is_ours(node, party):
            chosen.append(name)
            used |= {node_name(reference) for reference in _references(node, graph, party)}
    return chosen


def _is_ours(node: Any, party: str) -> bool:
    """Whether the party evaluates the node: it is no input, and no other party's (such as what that one sent)."""
    return node.op != _PLACEHOLDER and _job(node) in (party, None)


def _step(node: Any, graph: Mapping[str, Any], party: str) -> Step:
    references = _references(node, graph, party)
    for reference in references:
        source = graph[node_name(reference)]
        if source.op == _PLACEHOLDER and (_KEY.fullmatch(source.name) or _EXECUTION.fullmatch(source.name)):
            raise PlanError(f"A key makes streams and nothing else; {node.name!r} ({node.op}) uses {source.name!r}.")
    return Step(node.name, node.op, tuple(map(_full, references)), _attributes(node, graph))


def _references(node: Any, graph: Mapping[str, Any], party: str) -> list[str]:
    """The inputs that matter here: a stream's are in its attributes, and an assertion's text too.

    TensorFlow orders all assertions of a graph among each other. A party waits for its own alone.
    """
    data = [reference for reference in node.input if not reference.startswith("^")]
    waits = [r for r in node.input if r.startswith("^") and _is_ours(graph[node_name(r)], party)]
    if node.op == UNIFORM:
        return waits
    return [*(data[:1] if node.op == ASSERT else data), *waits]


def _attributes(node: Any, graph: Mapping[str, Any]) -> dict[str, Any]:
    if node.op == CONST:
        return _constant(node)
    if node.op == ASSERT:
        return {"message": _message(node, graph)}
    if node.op == UNIFORM:
        key, _, number = (graph[node_name(reference)] for reference in node.input if not reference.startswith("^"))
        holder = _KEY.fullmatch(key.name)
        if key.op != _PLACEHOLDER or holder is None or number.op != CONST:
            raise PlanError(f"A stream is made of a key between two parties and a number; {node.name!r} is not.")
        value = int(tf.make_ndarray(number.attr["value"].tensor))
        return {"peer": holder["peer"], "stream": value, "shape": list(node.attr["shape"].list.i)}
    if node.op in OPERATIONS:
        for name, value in OPERATIONS[node.op].fixed.items():
            if _plain(node.attr[name], _KIND_OF[type(value)]) != value:
                raise PlanError(f"{node.name!r} ({node.op}) is computed with {name} = {value!r} alone. {WAY_OUT}")
    return {name: _plain(node.attr[name], kind) for name, kind in (attributes_of(node.op) or {}).items()}


def _plain(attribute: Any, kind: str) -> Any:
    """A NodeDef's attribute as a JSON value."""
    if kind == "dtype":
        return tf.as_dtype(attribute.type).name
    if kind == "ints":
        return [d.size for d in attribute.shape.dim] if attribute.HasField("shape") else list(attribute.list.i)
    return {"int": attribute.i, "bool": attribute.b, "float": attribute.f, "text": attribute.s.decode()}[kind]


def _constant(node: Any) -> dict[str, Any]:
    dtype = tf.as_dtype(node.attr["dtype"].type).name
    if dtype not in DTYPE_BYTES:
        return {"dtype": dtype, "shape": [], "data": ""}
    value = np.asarray(tf.make_ndarray(node.attr["value"].tensor))
    data = np.ascontiguousarray(value.astype(value.dtype.newbyteorder("<"))).tobytes()
    return {"dtype": dtype, "shape": list(value.shape), "data": base64.b64encode(data).decode("ascii")}


def _message(node: Any, graph: Mapping[str, Any]) -> str:
    """The text that is raised where an assertion does not hold: ours, if it has one."""
    for reference in node.input[1:]:
        source = graph[node_name(reference)]
        if source.op == CONST and source.attr["dtype"].type == tf.string.as_datatype_enum:
            text = b" ".join(np.ravel(tf.make_ndarray(source.attr["value"].tensor))).decode()
            return from_graph(text) or text
    return f"The values break a rule of the plan: {node.name}."


def _full(reference: str) -> str:
    """The name of a tensor with its number: "a" is "a:0"."""
    return reference if reference.startswith("^") or ":" in reference else f"{reference}:0"


def _job(node: Any) -> str | None:
    return node.device.removeprefix("/job:").partition("/")[0] if node.device else None
