"""A plan: the graphs of a private program as a file that all parties check and none can change.

It holds graphs and what must be known to run them, and no weights. Parties compare its fingerprint before anything
else; what is not in the plan is not computed. The container is :mod:`shareflow_client.plan_file`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from shareflow.errors import PlanError
from shareflow.party.party import Party
from shareflow.party.send import Kind, parse
from shareflow.runtime.definition import called_functions, needed, node_name, rename_functions
from shareflow.runtime.external import steps_of
from shareflow.runtime.program import Program
from shareflow_client import __version__
from shareflow_client.manifest import Manifest
from shareflow_client.plan_file import LIMIT, PlanFile, read_plan_file


@dataclass(frozen=True)
class Traced:
    """One graph of an entry, before it is written.

    ``arguments`` and ``outputs`` name the program's, in order: (name, None, party) of an input or result,
    (name, number of the component, party) of a state.
    """

    name: str
    entry: str
    batch: int | None
    program: Program
    arguments: tuple[tuple[str, int | None, Party], ...]
    outputs: tuple[tuple[str, int | None, Party], ...]


class Plan:
    """Graphs and manifest of a private program. Made by :func:`shareflow.plan`, or read from a file."""

    def __init__(self, file: PlanFile) -> None:
        self.file = file
        self._definitions: dict[str, Any] = {}

    @property
    def manifest(self) -> Manifest:
        """Parties, entries, graphs, states: what is known of the plan without running it."""
        return self.file.contents

    @property
    def fingerprint(self) -> str:
        """What parties compare: 64 hexadecimal digits."""
        return self.file.fingerprint

    @classmethod
    def read(cls, path: str | os.PathLike[str], limit: int = LIMIT) -> Plan:
        """The plan in a file.

        Raises:
            PlanError: it cannot be read, is damaged, newer than this version, or larger than ``limit`` bytes.
        """
        return cls(read_plan_file(path, limit))

    def write(self, path: str | os.PathLike[str]) -> None:
        """Writes the file, whole or not at all."""
        self.file.write(path)

    def definition(self, graph: str) -> Any:
        """The GraphDef of one graph. It is kept: do not change it.

        Raises:
            PlanError: it cannot be parsed.
        """
        if graph not in self._definitions:
            try:
                self._definitions[graph] = tf.compat.v1.GraphDef.FromString(self.file.graphs[graph])
            except Exception as error:
                raise PlanError(f"Graph {graph!r} is no TensorFlow GraphDef: {error}. Compile the plan anew.") from None
        return self._definitions[graph]

    def graph(self, name: str) -> tf.Graph:
        """One graph, its nodes pinned to their parties.

        Raises:
            PlanError: TensorFlow refuses it.
        """
        graph = tf.Graph()
        try:
            with graph.as_default():
                tf.graph_util.import_graph_def(self.definition(name), name="")
        except (ValueError, TypeError, tf.errors.OpError) as error:
            raise PlanError(f"TensorFlow refuses graph {name!r} of the plan: {error}. Compile it anew.") from None
        return graph

    @classmethod
    def make(
        cls,
        graphs: Sequence[Traced],
        *,
        entries: Mapping[str, Mapping[str, Any]],
        states: Mapping[str, Mapping[str, Any]],
        protocol: Mapping[str, Any],
    ) -> Plan:
        """Puts traced entries together.

        Raises:
            PlanError: a graph that uses values from outside, or does more than its results need.
        """
        computing = {*protocol["servers"], protocol["dealer"]}
        definitions = {traced.name: _definition(traced) for traced in graphs}
        infos = {traced.name: _info(traced, definitions[traced.name], computing) for traced in graphs}
        parties = set(computing)
        receivers: dict[str, set[str]] = {name: set() for name in entries}
        for info in infos.values():
            parties |= {item["party"] for item in (*info["inputs"], *info["results"])}
            receivers[info["entry"]] |= {item["party"] for item in info["results"]}
        manifest = {
            "format": 1,
            "shareflow": __version__,
            "protocol": dict(protocol),
            "parties": sorted(parties),
            "receivers": {name: sorted(found) for name, found in receivers.items()},
            "entries": {name: dict(entry) for name, entry in entries.items()},
            "states": {name: dict(state) for name, state in states.items()},
            "graphs": infos,
        }
        return cls(
            PlanFile(manifest, {n: d.SerializeToString(deterministic=True) for n, d in definitions.items()})
        )


def _definition(traced: Traced) -> Any:
    """What the outputs need of the traced graph, in a form that depends on nothing but the program."""
    program = traced.program
    if program.captures:
        outside = program.captures[0][0]
        raise PlanError(
            f"A plan holds no values from outside its functions; entry {traced.entry!r} captures one of shape "
            f"{list(outside.shape)} ({outside.dtype.name}). Make it an input of its owner, a state that an earlier "
            "entry keeps, or a NumPy array if everyone may know it."
        )
    whole = program.graph.as_graph_def(add_shapes=True)
    fetches = needed(whole, [output.op.name for output in program.returned])
    # A check of an input that nothing uses comes from TensorFlow, not from the program, and is left out.
    asked = set(program.execution.effects)
    idle = [
        e.name for e in program.effects if e.name not in fetches and (e in asked or e.type != "Assert")
    ]
    if idle:
        raise PlanError(
            f"In a plan all that runs leads to a result or a state; operation {idle[0]!r} of entry {traced.entry!r} "
            "leads to none. Leave it out (prints, assignments, checks of insecure_checked_bounds)."
        )
    # An input that nothing depends on is still given.
    fetches |= {argument.op.name for argument in program.arguments}
    definition = tf.compat.v1.GraphDef(versions=whole.versions)
    definition.node.extend(node for node in whole.node if node.name in fetches)
    definition.library.CopyFrom(whole.library)
    # Outside of the graph its functions have names with counters of the process.
    kept = called_functions(definition)
    del definition.library.function[:]
    definition.library.function.extend(f for f in whole.library.function if f.signature.name in kept)
    order = {f.signature.name: f"function_{i}" for i, f in enumerate(definition.library.function)}
    rename_functions(definition, order.__getitem__)
    owners = {
        argument.op.name: party.device
        for argument, (_, _, party) in zip(program.arguments, traced.arguments, strict=True)
    }
    for node in definition.node:
        node.device = owners.get(node.name, node.device)
        # TensorFlow finds the other shapes itself; of native operations it cannot read the attributes that say them.
        if not node.op.startswith("Shareflow"):
            node.attr.pop("_output_shapes", None)
    _drop_waits_across(definition)
    return definition


def _drop_waits_across(definition: Any) -> None:
    """Takes the control edges between parties away: TensorFlow puts all checks in one order, whosever they are."""
    device = {node.name: node.device for node in definition.node}
    for node in definition.node:
        kept = [
            reference
            for reference in node.input
            if not reference.startswith("^") or device[node_name(reference)] == node.device
        ]
        if len(kept) < len(node.input):
            del node.input[:]
            node.input.extend(kept)


def _info(traced: Traced, definition: Any, computing: set[str]) -> dict[str, Any]:
    program = traced.program
    arguments = list(zip(program.arguments, traced.arguments, strict=True))
    outputs = list(zip(program.returned, traced.outputs, strict=True))
    inputs = [_tensor(t, n, party) for t, (n, number, party) in arguments if number is None]
    results = [_tensor(t, n, party) for t, (n, number, party) in outputs if number is None]
    external = sorted({item["party"] for item in (*inputs, *results)} - computing)
    return {
        "entry": traced.entry,
        "batch": traced.batch,
        "inputs": inputs,
        "results": results,
        "state_in": [_component(t, n, number, party) for t, (n, number, party) in arguments if number is not None],
        "state_out": [_component(t, n, number, party) for t, (n, number, party) in outputs if number is not None],
        "external": {party: _external(traced, definition, party, results) for party in external},
    }


def _tensor(tensor: tf.Tensor, name: str, party: Party) -> dict[str, Any]:
    return {"name": name, "party": party.job, "tensor": tensor.name, **_form(tensor)}


def _form(tensor: tf.Tensor) -> dict[str, Any]:
    return {"shape": list(tensor.shape), "dtype": tensor.dtype.name}


def _component(tensor: tf.Tensor, state: str, number: int, party: Party) -> dict[str, Any]:
    return {"state": state, "component": number, "party": party.job, "tensor": tensor.name}


def _external(traced: Traced, definition: Any, party: str, results: list[dict[str, Any]]) -> dict[str, Any]:
    """What a party outside the computation does: the operations pinned to it, and what it sends and gets."""
    sends, receives = [], []
    sent: set[str] = set()
    for node in definition.node:
        crossing = parse(node.name)
        if crossing is None or party not in crossing[1:]:
            continue
        kind, source, to = crossing
        tensor = traced.program.graph.get_tensor_by_name(f"{node.name}:0")
        message = {"tensor": tensor.name, **_form(tensor)}
        if source == party:
            sends.append({"to": to, **message})
            sent.add(node.name)
        else:
            receives.append({"from": source, **message})
        if kind is Kind.PLAINTEXT or {source, to} == {party}:
            raise PlanError(
                f"Entry {traced.entry!r} hands plaintext from {source} to {to} within a private program. Hand it over "
                "outside of the program, or reveal the result to both."
            )
    first = needed(definition, sent)
    waits = [message["tensor"] for message in receives if node_name(message["tensor"]) in first]
    if waits:
        raise PlanError(
            f"A party outside the computation sends all its inputs before it gets a result; in entry "
            f"{traced.entry!r} {party} sends what depends on {waits[0]}. Make two entries of it."
        )
    return {
        "sends": sends,
        "receives": receives,
        "results": [{"name": r["name"], "tensor": r["tensor"]} for r in results if r["party"] == party],
        "steps": steps_of(definition.node, party),
    }
