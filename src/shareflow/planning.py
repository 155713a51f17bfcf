"""From Python functions to a plan: entries are traced to graphs that each party can check, and run its part of."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from shareflow.errors import PlacementError, PlanError, ShapeError
from shareflow.party.party import Party, as_party
from shareflow.protocol.choices import current_choices
from shareflow.protocol.default import current_protocol
from shareflow.protocol.placement import private_tensor
from shareflow.protocol.protocol import Protocol
from shareflow.protocol.spdz import SPDZ
from shareflow.protocol.tensor import PrivateTensor, PrivateValue
from shareflow.runtime.plan import Plan, Traced
from shareflow.runtime.program import build
from shareflow.share.known import Known
from shareflow.share.share import Share, template


@dataclass(frozen=True)
class Input:
    """A value that a party brings to an execution, in plaintext at that party.

    Args:
        party: whose it is.
        shape: known to all; in an entry with batch sizes it is the shape of one sample, without the batch axis.
        dtype: of the plaintext.
    """

    party: Party | str
    shape: Sequence[int]
    dtype: str = "float32"


@dataclass(frozen=True)
class Entry:
    """One named function of a plan.

    The function takes its inputs by name as private tensors, and states by name as they were kept. It returns a
    private tensor, or a dict of them: those named in ``keeps`` stay with the parties as state, all others are
    results and must be revealed to a party that is not one of the computing ones.

    Args:
        function: of private tensors.
        inputs: by the names of its parameters.
        keeps: names of the returned values that become state.
        uses: names of the states it takes; by default the parameters that are states.
        batch_sizes: the entry is traced once for each; every input and result then has a batch axis first, and rows
            must not depend on each other: rows of several requests are computed together.
    """

    function: Callable[..., Any]
    inputs: Mapping[str, Input] = field(default_factory=dict)
    keeps: Sequence[str] = ()
    uses: Sequence[str] | None = None
    batch_sizes: Sequence[int] = ()


@dataclass(frozen=True)
class _State:
    """What is known of a state before any execution."""

    form: Share
    fractional_bits: int
    specs: tuple[tf.TensorSpec, ...]

    @property
    def static(self) -> tuple[Any, ...]:
        return type(self.form), self.form.parties, self.fractional_bits, self.specs

    @property
    def text(self) -> str:
        shape = list(self.specs[0].shape)
        return f"{type(self.form).__name__.lower()} {shape} with {self.fractional_bits} fractional bits"

    def tensor(self, components: Sequence[tf.Tensor], protocol: Protocol) -> PrivateTensor:
        return PrivateTensor(self.form.with_components(components), self.fractional_bits, protocol)

    def declaration(self) -> dict[str, Any]:
        components = [
            {"party": party.job, "shape": list(spec.shape), "dtype": spec.dtype.name}
            for party, spec in zip(self.form.parties, self.specs, strict=True)
        ]
        return {
            "share": type(self.form).__name__,
            "fractional_bits": self.fractional_bits,
            "shape": list(self.specs[0].shape),
            "components": components,
        }


def plan(entries: Mapping[str, Entry], protocol: Protocol | None = None) -> Plan:
    """Traces entries to a plan, in the order given: a state is kept by an entry before another one uses it.

    Raises:
        PlanError: an entry that cannot stand in a plan; the text names it and the rule.
        UnsupportedModelError, ShapeError ...: what tracing the functions raises.
    """
    meeting = protocol or current_protocol()
    if not isinstance(meeting, SPDZ):
        raise PlanError(f"A plan is for parties on their own, and so for SPDZ; got {type(meeting).__name__}.")
    if not entries:
        raise PlanError("A plan has at least one entry; got none. Give {'predict': shareflow.Entry(...)}.")
    states: dict[str, _State] = {}
    graphs: list[Traced] = []
    declared: dict[str, dict[str, Any]] = {}
    # What parties have together after each entry that keeps something: one that uses no state begins anew.
    together: list[set[str]] = []
    for name, entry in entries.items():
        _check(name, entry)
        uses = _uses(name, entry, states)
        sufficient = [kept for kept in together if kept >= set(uses)]
        if uses and not sufficient:
            raise PlanError(
                f"Entry {name!r} uses {', '.join(uses)}, which no execution leaves together: an entry that uses no "
                "state begins anew. Keep them in one entry, or let the later one use what the earlier one kept."
            )
        if entry.keeps:
            together += [kept | set(entry.keeps) for kept in sufficient if uses] or [set(entry.keeps)]
        variants = []
        for batch in entry.batch_sizes or (None,):
            traced, kept = _trace(name, entry, batch, uses, states, meeting)
            variants.append(traced.name)
            graphs.append(traced)
            for kept_name, state in kept.items():
                before = states.setdefault(kept_name, state)
                if before.static != state.static:
                    raise PlanError(
                        f"State {kept_name!r} is kept in one form by all entries that keep it; entry {name!r} keeps it "
                        f"as {state.text}, one before as {before.text}. Use .reshape or "
                        f".at_scale({before.fractional_bits}), or keep it under another name."
                    )
        declared[name] = {
            "variants": variants,
            "batched": bool(entry.batch_sizes),
            "uses": list(uses),
            "keeps": list(entry.keeps),
        }
    return Plan.make(
        graphs,
        entries=declared,
        states={name: state.declaration() for name, state in states.items()},
        protocol={
            "name": type(meeting).__name__,
            "servers": [server.job for server in meeting.servers],
            "dealer": meeting.dealer.job,
            "fractional_bits": meeting.fixed_point.fractional_bits,
            "settings": _settings(meeting),
        },
    )


def _settings(protocol: SPDZ) -> str:
    table = current_choices().table
    made = f", choices={table!r}" if table else ""
    return f"truncation={protocol.truncation!r}, comparison={protocol.comparison!r}{made}"


def _check(name: str, entry: Entry) -> None:
    if not name.isidentifier():
        raise PlanError(f"An entry's name is an identifier, such as 'predict'; got {name!r}.")
    if any(not isinstance(batch, int) or batch < 1 for batch in entry.batch_sizes):
        raise PlanError(f"Batch sizes of entry {name!r} are whole numbers of at least 1; got {entry.batch_sizes}.")
    if len(set(entry.batch_sizes)) != len(tuple(entry.batch_sizes)):
        raise PlanError(f"Batch sizes of entry {name!r} are given once each; got {entry.batch_sizes}.")
    if entry.batch_sizes and 1 not in entry.batch_sizes:
        raise PlanError(
            f"Entry {name!r} has batch sizes {list(entry.batch_sizes)} without 1, which single requests need. Add it."
        )
    if entry.batch_sizes and entry.keeps:
        raise PlanError(
            f"Entry {name!r} keeps a state, so it is computed for one request at a time; leave batch_sizes out."
        )


def _uses(name: str, entry: Entry, states: Mapping[str, _State]) -> tuple[str, ...]:
    if entry.uses is not None:
        missing = [used for used in entry.uses if used not in states]
        if missing:
            raise PlanError(
                f"Entry {name!r} uses state {missing[0]!r}, which no entry before it keeps. There are: "
                f"{', '.join(states) or 'none'}. Put the entry that keeps it first."
            )
        return tuple(entry.uses)
    parameters = inspect.signature(entry.function).parameters
    open_ended = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    names = states if open_ended else parameters
    uses = tuple(n for n in names if n in states and n not in entry.inputs)
    unknown = [
        n
        for n, p in parameters.items()
        if n not in entry.inputs
        and n not in states
        and p.default is inspect.Parameter.empty
        and p.kind in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    ]
    if unknown:
        raise PlanError(
            f"Every parameter of entry {name!r} is an input or a state kept by an entry before it; {unknown[0]!r} is "
            f"neither. Inputs: {', '.join(entry.inputs) or 'none'}; states: {', '.join(states) or 'none'}."
        )
    return uses


def _trace(
    name: str,
    entry: Entry,
    batch: int | None,
    uses: tuple[str, ...],
    states: Mapping[str, _State],
    protocol: SPDZ,
) -> tuple[Traced, dict[str, _State]]:
    inputs = {n: (as_party(i.party), _shape(i, batch), tf.as_dtype(i.dtype)) for n, i in entry.inputs.items()}
    kept: dict[str, _State] = {}
    outputs: list[tuple[str, int | None, Party]] = []

    def body(*tensors: tf.Tensor) -> list[tf.Tensor]:
        waiting = list(tensors)
        arguments = {n: private_tensor(waiting.pop(0), owner) for n, (owner, _, _) in inputs.items()}
        for used in uses:
            count = len(states[used].specs)
            arguments[used] = states[used].tensor(waiting[:count], protocol)
            del waiting[:count]
        with protocol:
            returned = _returned(name, entry.function(**arguments))
            results = []
            for n, value in returned.items():
                if n in entry.keeps:
                    share, bits = _kept(value, protocol)
                    specs = tuple(tf.TensorSpec(part.shape, part.dtype) for part in share.components)
                    kept[n] = _State(template(share), bits, specs)
                    for number, (party, part) in enumerate(zip(share.parties, share.components, strict=True)):
                        outputs.append((n, number, party))
                        with party:
                            results.append(tf.identity(part))
                else:
                    receiver, plaintext = _revealed(name, n, value, protocol)
                    outputs.append((n, None, receiver))
                    with receiver:
                        results.append(tf.identity(plaintext))
        return results

    arguments = [(owner, tf.TensorSpec(shape, dtype)) for owner, shape, dtype in inputs.values()]
    arguments += [
        pair for used in uses for pair in zip(states[used].form.parties, states[used].specs, strict=True)
    ]
    program = build(body, arguments)
    missing = [n for n in entry.keeps if n not in kept]
    if missing:
        raise PlanError(
            f"Entry {name!r} keeps {missing[0]!r}, which its function does not return. It returns: "
            f"{', '.join(n for n, _, _ in outputs) or 'nothing'}."
        )
    if batch is not None:
        _check_batch(name, batch, outputs, program.outputs)
    bound: list[tuple[str, int | None, Party]] = [(n, None, owner) for n, (owner, _, _) in inputs.items()]
    bound += [(used, number, party) for used in uses for number, party in enumerate(states[used].form.parties)]
    graph_name = name if batch is None else f"{name}@{batch}"
    return Traced(graph_name, name, batch, program, tuple(bound), tuple(outputs)), kept


def _shape(given: Input, batch: int | None) -> tuple[int, ...]:
    shape = tuple(given.shape)
    if any(not isinstance(extent, (int, np.integer)) or extent < 1 for extent in shape):
        raise ShapeError(f"An input's shape is of whole numbers of at least 1, known to all; got {given.shape}.")
    return tuple(map(int, shape if batch is None else (batch, *shape)))


def _returned(entry: str, value: Any) -> dict[str, PrivateValue]:
    returned = value if isinstance(value, dict) else {"result": value}
    for name, item in returned.items():
        if not isinstance(item, PrivateValue):
            raise PlanError(
                f"Entry {entry!r} returns private tensors, one or a dict of them by name; {name!r} is "
                f"{type(item).__name__}. A public value needs no private computation."
            )
    return returned


def _kept(value: PrivateValue, protocol: SPDZ) -> tuple[Share, int]:
    tensor = value.read()
    if isinstance(tensor.share, Known) or tensor.protocol is None:
        tensor = tensor.shared(protocol)
    return protocol.reusable(tensor.share), tensor.fractional_bits


def _revealed(entry: str, name: str, value: PrivateValue, protocol: SPDZ) -> tuple[Party, tf.Tensor]:
    tensor = value.read()
    if not isinstance(tensor.share, Known):
        raise PlanError(
            f"A result is revealed to a party, or kept as state; {name!r} of entry {entry!r} is neither. Write "
            f"{name}.reveal('client'), or name it in keeps."
        )
    receiver = tensor.share.owner
    if receiver in protocol.computing_parties:
        raise PlacementError(
            f"Result {name!r} of entry {entry!r} goes to {receiver}, a computing party. Reveal it to another party, "
            "even if one organisation is both: its client then has its own name."
        )
    return receiver, tensor.plaintext


def _check_batch(
    entry: str, batch: int, outputs: Sequence[tuple[str, int | None, Party]], tensors: Sequence[tf.Tensor]
) -> None:
    for (name, _, _), tensor in zip(outputs, tensors, strict=True):
        if tensor.shape.rank == 0 or tensor.shape[0] != batch:
            raise PlanError(
                f"Entry {entry!r} has batch sizes, so a result has the batch axis first; {name!r} has shape "
                f"{list(tensor.shape)} at batch {batch}. Leave batch_sizes out, or return one row a sample."
            )


def array_inputs(arrays: Mapping[str, np.ndarray], party: Party | str) -> dict[str, Input]:
    """Inputs of a party in the form of arrays that it has."""
    return {name: Input(party, array.shape, array.dtype.name) for name, array in arrays.items()}
