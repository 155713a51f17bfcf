"""A program's graph as a cluster runs it: every node at a worker, and what it captured kept at the workers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from shareflow.errors import PlacementError
from shareflow.party.send import Kind, parse
from shareflow.runtime.definition import node_name, nodes, rename_functions
from shareflow.runtime.program import Program

# What reads a variable and leaves it as it is.
_READS = {"ReadVariableOp", "VariableShape", "ResourceGather", "ResourceGatherNd"}


@dataclass(frozen=True)
class Kept:
    """What a program captured, a variable or a tensor, as it is kept at one device.

    ``assign`` names the node that assigns the variable that keeps it there, and ``value`` the placeholder of what is
    assigned. Where the program changes it, ``after`` names the node that reads it when all is done.
    """

    dtype: tf.DType
    assign: str
    value: str
    after: str | None


@dataclass(frozen=True)
class Placed:
    """A GraphDef with a device for each node, and the names in it of what a run feeds and fetches."""

    definition: Any
    feeds: tuple[str, ...]
    outputs: tuple[str, ...]
    effects: tuple[str, ...]
    kept: tuple[Kept, ...]


def computing_jobs(program: Program) -> set[str]:
    """The parties that take part in the protocol: they deal, open, or hold shares of what is opened.

    Others bring inputs or receive results, and compute on nothing but their own.
    """
    jobs: set[str] = set()
    for operation in program.graph.get_operations():
        crossing = parse(operation.name)
        if crossing and crossing[0] in (Kind.OPENING, Kind.CORRECTION):
            jobs.update(crossing[1:])
        elif crossing and crossing[0] is Kind.INPUT:
            jobs.add(crossing[2])
        elif crossing and crossing[0] is Kind.RESULT:
            jobs.add(crossing[1])
    return jobs


def uses_native_ops(program: Program) -> bool:
    """Whether the graph has operations that TensorFlow alone does not."""
    return any(operation.type.startswith("Shareflow") for operation in program.graph.get_operations())


def place(
    program: Program, prefix: str, device_of: Callable[[str], str], kept_name: Callable[[tf.Tensor, str], str]
) -> Placed:
    """Pins a program's graph to the devices of a cluster.

    Args:
        program: what is to run.
        prefix: of the names of its functions, as a session has one library for all its graphs.
        device_of: the device of a party's job; of "" for what belongs to nobody.
        kept_name: what a captured tensor is called at a device, the same for all programs that captured it.

    Raises:
        PlacementError: a variable is changed at one party and used at another, or a capture is no dense tensor.
    """
    definition = program.graph.as_graph_def()
    rename_functions(definition, lambda function: f"{prefix}_{function}")
    for node in nodes(definition):
        if job := tf.DeviceSpec.from_string(node.device).job:
            node.device = device_of(job)
    for node in definition.node:
        # Within a function, what has no device is computed where the function is called; here it is nobody's.
        node.device = node.device or device_of("")
    users: dict[str, dict[str, list[Any]]] = {}  # by name of a node and device, who uses its output there
    for node in definition.node:
        for name in dict.fromkeys(map(node_name, node.input)):
            users.setdefault(name, {}).setdefault(node.device, []).append(node)
    captured = {inside.op.name: outside for outside, inside in program.captures}
    effects = tuple(operation.name for operation in program.effects)
    kept: list[Kept] = []
    placed: list[Any] = []
    for node in definition.node:
        if node.name in captured:
            outside = captured[node.name]
            at = users.get(node.name, {})
            _check_written(outside, node.name, at)
            for device, here in at.items():
                made = _keep(outside, node.name, device, here, kept_name(outside, device), effects, len(kept))
                kept.append(made[0])
                placed += made[1]
            continue
        at = users.get(node.name, {})
        if node.op == "Const" and not node.input and len(at) > 1:
            placed += _copies(node, at)
        elif node.op in ("Placeholder", "Const") and not node.input and len(at) == 1:
            # What the driver feeds, or what is the same everywhere, goes straight to the one who needs it.
            (node.device,) = at
        placed.append(node)
    result = tf.compat.v1.GraphDef(versions=definition.versions, library=definition.library, node=placed)
    feeds = tuple(tensor.name for tensor in program.feeds if tensor.op.name not in captured)
    return Placed(result, feeds, tuple(tensor.name for tensor in program.outputs), effects, tuple(kept))


def _copies(constant: Any, users: dict[str, list[Any]]) -> list[Any]:
    """A constant of all parties at each of them, rather than sent to each at each run."""
    copies = []
    for number, (device, here) in enumerate(users.items()):
        copy = tf.compat.v1.NodeDef()
        copy.CopyFrom(constant)
        copy.name, copy.device = f"{constant.name}/copy{number}", device
        _redirect(here, constant.name, copy.name)
        copies.append(copy)
    return copies


def _redirect(users: list[Any], name: str, new: str) -> None:
    """Lets nodes take their input from another node, whose output 0 is meant."""
    for user in users:
        for position, reference in enumerate(user.input):
            if node_name(reference) == name:
                user.input[position] = ("^" if reference.startswith("^") else "") + new


def _keep(
    outside: tf.Tensor, name: str, device: str, users: list[Any], shared: str, effects: tuple[str, ...], number: int
) -> tuple[Kept, list[Any]]:
    """A variable at a device in place of a capture: what is kept, and its nodes."""
    data = _contents(outside, name)
    variable = outside.dtype == tf.resource
    handle, read, assign, value, after = (
        f"kept{number}/{part}" for part in ("handle", "read", "assign", "value", "after")
    )
    made = [
        _node(handle, "VarHandleOp", device, [], dtype=data.dtype, shape=data.shape, shared_name=shared),
        _node(value, "Placeholder", device, [], dtype=data.dtype, shape=data.shape),
        _node(assign, "AssignVariableOp", device, [handle, value], dtype=data.dtype),
    ]
    if not variable:
        made.append(_node(read, "ReadVariableOp", device, [handle], dtype=data.dtype))
    written = variable and _writes(users)
    if written:
        done = [f"^{effect}" for effect in effects]
        made.append(_node(after, "ReadVariableOp", device, [handle, *done], dtype=data.dtype))
    _redirect(users, name, handle if variable else read)
    return Kept(data.dtype, assign, value, after if written else None), made


def _check_written(outside: tf.Tensor, name: str, users: dict[str, list[Any]]) -> None:
    if outside.dtype == tf.resource and len(users) > 1 and any(map(_writes, users.values())):
        raise PlacementError(
            f"On a cluster a variable that a function changes is used by one party alone; '{name}' is used by "
            f"{len(users)}. Give each party a variable of its own, or use a shareflow.PrivateVariable."
        )


def _writes(users: list[Any]) -> bool:
    return any(user.op not in _READS for user in users)


def _contents(outside: tf.Tensor, name: str) -> tf.TensorSpec:
    """Shape and dtype of a captured tensor, or of what a captured variable holds."""
    if outside.dtype == tf.variant:
        known = None
    elif outside.dtype != tf.resource:
        known = tf.TensorSpec(outside.shape, outside.dtype)
    else:
        # TensorFlow has no public name for what a handle's tensor knows of its variable.
        data = getattr(outside, "_handle_data", None)
        entry = data.shape_and_type[0] if data is not None and data.is_set and data.shape_and_type else None
        known = None if entry is None else tf.TensorSpec(tf.TensorShape(entry.shape), tf.dtypes.as_dtype(entry.dtype))
    if known is None:
        raise PlacementError(
            f"On a cluster a function can use variables and tensors from outside; '{name}' is another resource, as "
            "a table or an iterator. Use it outside of the function, and give the function what it yields."
        )
    return known


def _node(name: str, op: str, device: str, inputs: list[str], **attributes: Any) -> Any:
    node = tf.compat.v1.NodeDef(name=name, op=op, device=device, input=inputs)
    for key, value in attributes.items():
        if isinstance(value, tf.DType):
            node.attr[key].type = value.as_datatype_enum
        elif isinstance(value, tf.TensorShape):
            node.attr[key].shape.CopyFrom(value.as_proto())
        else:
            node.attr[key].s = value.encode()
    return node
