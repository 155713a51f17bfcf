"""What the owner shares: the values that meet private ones, computed from the model's variables in plaintext."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from shareflow.compiler.evaluate import parameter_values
from shareflow.compiler.graph import INPUT, Graph, Node, Output
from shareflow.compiler.scales import scales_of
from shareflow.errors import UnsupportedModelError
from shareflow.ring.fixed_point import FixedPoint

# Ops that make a small value larger: they are done after sharing, on shares, where they cost nothing.
_WIDENING = ("BroadcastTo", "Tile")
_ROLES = {
    **dict.fromkeys(("MatMul", "BatchMatMulV2", "BatchMatMulV3"), "kernel"),
    **dict.fromkeys(("Conv2D", "Conv3D", "DepthwiseConv2dNative"), "kernel"),
    **dict.fromkeys(("AddV2", "Add", "BiasAdd", "Sub"), "bias"),
    "Mul": "scale",
    "GatherV2": "table",
    "Einsum": "kernel",
}


@dataclass(frozen=True)
class Parameter:
    """One value that the owner shares, at so many fractional bits."""

    output: Output
    fractional_bits: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return self.output.shape


def parameters_of_graph(
    graph: Graph, owner: str, point: FixedPoint, narrowed: Mapping[str, int] | None = None
) -> dict[str, Parameter]:
    """By name: the layer that uses it, and what for. Those in ``narrowed`` are kept with the bits that stand there."""
    frontier = _frontier(graph, owner)
    counts: Counter[str] = Counter()
    outputs: dict[str, Output] = {}
    for output, user in frontier.items():
        role = _ROLES.get(user.op, user.op.lower())
        name = f"{user.layer}/{role}" if user.layer else role
        counts[name] += 1
        outputs[name if counts[name] == 1 else f"{name}_{counts[name]}"] = output
    given = {outputs[name]: bits for name, bits in (narrowed or {}).items()}
    bits = scales_of(graph, frontier, point, given)
    return {name: Parameter(output, bits[output]) for name, output in outputs.items()}


def values_of(graph: Graph, parameters: Mapping[str, Parameter]) -> dict[str, np.ndarray]:
    """Their values, computed by the owner."""
    values = parameter_values(graph, [parameter.output for parameter in parameters.values()])
    return dict(zip(parameters, values, strict=True))


def _frontier(graph: Graph, owner: str) -> dict[Output, Node]:
    """What the owner knows beforehand and others' values meet, each with the first node that takes it."""
    brought: set[Output] = set()
    for node in graph.nodes:
        if node.op == INPUT or any(value in brought for value in node.inputs):
            brought.update(node.outputs)
    found: dict[Output, Node] = {}

    def before(value: Output) -> bool:
        return graph.knowledge[value] == {owner} and value not in brought

    for node in graph.nodes:
        if all(before(value) or not graph.knowledge[value] for value in node.inputs):
            continue
        for value in node.inputs:
            if before(value):
                found.setdefault(_narrow(value), node)
    return found


def _narrow(value: Output) -> Output:
    while value.node.op in _WIDENING:
        value = value.node.inputs[0]
    return value

def check_same_parameters(parameters: Mapping[str, Parameter], other: Mapping[str, Parameter], batch: int) -> None:
    """Raises an UnsupportedModelError where a batch size needs other parameters than a single sample."""
    one, many = ({name: (p.shape, p.fractional_bits) for name, p in found.items()} for found in (parameters, other))
    if one != many:
        differ = sorted(name for name in {*one, *many} if one.get(name) != many.get(name))
        raise UnsupportedModelError(
            f"Parameter '{differ[0]}' depends on the batch size: {one.get(differ[0])} for one sample, "
            f"{many.get(differ[0])} for {batch}. Give batch_sizes=[1], or let the model not use its batch size."
        )
