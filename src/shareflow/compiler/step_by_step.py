"""A compiled graph step by step, each result in view: for calibration and checks on data of one's own.

A private program never shows what it computes on the way. What does is here and named insecure; it works in this
process alone, on values as they are computed, so it can stand in no plan and on no other machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf

from shareflow.compiler.graph import CONSTANT, INPUT, Node, Output
from shareflow.compiler.lower.handler import Value
from shareflow.compiler.private_graph import PrivateGraph, compute_node
from shareflow.compiler.sharing import shared_inputs
from shareflow.errors import PlacementError
from shareflow.party.party import Party
from shareflow.protocol.placement import private_tensor
from shareflow.protocol.protocol import Protocol
from shareflow.protocol.tensor import PrivateTensor
from shareflow.runtime.current import current_runtime
from shareflow.share.known import Known

_ONLOOKER = Party("insecure-onlooker")


def shared_parameters(
    compiled: PrivateGraph, values: Mapping[str, np.ndarray], owner: Party, protocol: Protocol
) -> dict[str, PrivateTensor]:
    """The owner's values as shares, each at its scale."""
    return {
        name: private_tensor(values[name], owner).shared(protocol, parameter.fractional_bits)
        for name, parameter in compiled.parameters.items()
    }


def insecure_steps(
    compiled: PrivateGraph,
    inputs: Mapping[str, PrivateTensor],
    parameters: Mapping[str, PrivateTensor],
    protocol: Protocol,
) -> Iterator[tuple[Node, Sequence[Value]]]:
    """Each step that computes something, and its results as they come, before what later steps make of them.

    Raises:
        PlacementError: inside a traced program, or where calls run on other machines.
    """
    if not tf.executing_eagerly() or current_runtime() is not None:
        raise PlacementError(
            "Looking at every step works in this process alone, on values: it was asked for inside a traced function "
            "or where calls run on a cluster. Call it outside, on samples of your own."
        )
    shared = shared_inputs(compiled.graph, inputs, protocol)
    values = compiled.begin(shared, parameters)
    last: dict[Output, Node] = {value: node for node in compiled.steps for value in node.inputs}
    for node in compiled.steps:
        if node.op in (CONSTANT, INPUT):
            continue
        with protocol:
            results = compute_node(node, [values[value] for value in node.inputs])
        yield node, results
        for output, result in zip(node.outputs, results, strict=True):
            values[output] = compiled.kept(output, result)
        for value in set(node.inputs):
            if last[value] is node:
                values.pop(value, None)


def insecure_value(value: Value) -> np.ndarray:
    """What a step computed, in plaintext."""
    if not isinstance(value, PrivateTensor):
        return np.asarray(value)
    if isinstance(value.share, Known):
        return value.numpy()
    return value.reveal(_ONLOOKER).numpy()
