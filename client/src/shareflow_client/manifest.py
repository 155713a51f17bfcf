"""The manifest of a plan: who takes part, what they can run, which tensors they give and get.

A plan comes from another organisation. What is here was checked whole: each value has its type and bounds, each name
stands for something that exists. docs/plan-format.md describes the fields.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NoReturn, TypeVar

from shareflow_client.errors import PlanError

MANIFEST_FORMAT = 1
DTYPE_BYTES = MappingProxyType(
    {
        "bool": 1,
        "int8": 1,
        "int16": 2,
        "int32": 4,
        "int64": 8,
        "uint8": 1,
        "uint16": 2,
        "uint32": 4,
        "uint64": 8,
        "float16": 2,
        "float32": 4,
        "float64": 8,
    }
)
"""Bytes of an element of every dtype that a plan's tensors can have; the names are NumPy's and TensorFlow's."""
RANK_LIMIT = 32
TENSOR_LIMIT = 1 << 36
"""The largest tensor in bytes."""

T = TypeVar("T")
_PARTY = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,62}")
_NAME = re.compile(r"[\x21-\x7e]{1,200}")
_NODE = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_.\\/>-]{0,999}")
_TENSOR = re.compile(_NODE.pattern + r":(?:0|[1-9][0-9]{0,3})")
_ANEW = "Have the plan compiled anew by a released version of shareflow."


@dataclass(frozen=True)
class Protocol:
    """Which protocol computes, at which parties. ``dealer`` is None for a protocol that needs none."""

    name: str
    servers: tuple[str, ...]
    dealer: str | None
    fractional_bits: int
    settings: str


@dataclass(frozen=True)
class Shaped:
    """Shape and dtype of a value."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Its size in bytes."""
        return self.elements * DTYPE_BYTES[self.dtype]


@dataclass(frozen=True)
class TensorInfo(Shaped):
    """An input or result of a graph: its name, whose it is, and the graph's tensor."""

    name: str
    party: str
    tensor: str


@dataclass(frozen=True)
class Message(Shaped):
    """A value that an external party sends to ``peer`` or gets from it."""

    peer: str
    tensor: str


@dataclass(frozen=True)
class Component(Shaped):
    """One component of a state, and the party that keeps it."""

    party: str


@dataclass(frozen=True)
class StateInfo:
    """What parties keep between executions: a shared value, in components."""

    name: str
    share: str
    fractional_bits: int
    shape: tuple[int, ...]
    components: tuple[Component, ...]


@dataclass(frozen=True)
class StateTensor:
    """The tensor of a graph that is one component of a state."""

    state: str
    component: int
    party: str
    tensor: str


@dataclass(frozen=True)
class Step:
    """One operation of an external party. ``inputs`` are tensors ``node:k`` or, as ``^node``, what runs before."""

    name: str
    op: str
    inputs: tuple[str, ...]
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class ExternalPart:
    """What an external party does in one execution of a graph. ``results`` are tensors by the result's name."""

    party: str
    sends: tuple[Message, ...]
    receives: tuple[Message, ...]
    results: Mapping[str, str]
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Entry:
    """A function of the plan, and its graphs."""

    name: str
    variants: tuple[str, ...]
    batched: bool
    uses: tuple[str, ...]
    keeps: tuple[str, ...]
    receivers: tuple[str, ...]


@dataclass(frozen=True)
class GraphInfo:
    """One graph of an entry. ``batch`` is its number of rows, None where the entry is not batched."""

    name: str
    entry: str
    batch: int | None
    inputs: tuple[TensorInfo, ...]
    results: tuple[TensorInfo, ...]
    state_in: tuple[StateTensor, ...]
    state_out: tuple[StateTensor, ...]
    external: Mapping[str, ExternalPart]


@dataclass(frozen=True)
class Manifest:
    """A plan's manifest, checked. ``shareflow`` is the version that wrote it."""

    shareflow: str
    protocol: Protocol
    parties: tuple[str, ...]
    entries: Mapping[str, Entry]
    states: Mapping[str, StateInfo]
    graphs: Mapping[str, GraphInfo]

    @property
    def computing(self) -> tuple[str, ...]:
        """The servers, and the dealer if there is one."""
        dealer = self.protocol.dealer
        return (*self.protocol.servers, *(() if dealer is None else (dealer,)))

    @property
    def external(self) -> tuple[str, ...]:
        """All other parties: they give inputs and get results."""
        return tuple(party for party in self.parties if party not in self.computing)


def parse_manifest(value: Any) -> Manifest:
    """The manifest of these JSON values.

    Raises:
        PlanError: something breaks a rule; the text says where and what.
    """
    top = _Value(value, "")
    fields = top.fields("format", "shareflow", "protocol", "parties", "receivers", "entries", "states", "graphs")
    fields["format"].integer(MANIFEST_FORMAT, MANIFEST_FORMAT)
    parties = fields["parties"].distinct(_Value.party_name)
    protocol = _protocol(fields["protocol"], parties)
    states = {name: _state(name, state, parties) for name, state in fields["states"].named()}
    receivers = dict(fields["receivers"].named())
    entries = {}
    for name, entry in fields["entries"].named():
        if name not in receivers:
            fields["receivers"].fail(f"must name the receivers of each entry; there are none for {name!r}")
        entries[name] = _entry(name, entry, receivers.pop(name), parties, states)
    for name, at in receivers.items():
        at.fail(f"must belong to an entry; there is no entry {name!r}")
    graphs = {name: _graph(name, graph, parties, protocol, entries, states) for name, graph in fields["graphs"].named()}
    manifest = Manifest(
        fields["shareflow"].text(),
        protocol,
        parties,
        MappingProxyType(entries),
        MappingProxyType(states),
        MappingProxyType(graphs),
    )
    _check_variants(fields["entries"], manifest)
    return manifest


class _Value:
    """One JSON value and where it stands."""

    def __init__(self, value: Any, path: str) -> None:
        self.value = value
        self.path = path

    def fail(self, rule: str) -> NoReturn:
        where = f"The manifest's {self.path}" if self.path else "The manifest"
        raise PlanError(f"{where} {rule}. {_ANEW}")

    def given(self) -> str:
        """What stands here, short enough to print."""
        text = repr(self.value)
        return text if len(text) <= 60 else f"{text[:57]}..."

    def at(self, key: str | int) -> _Value:
        inner = f"[{key!r}]" if isinstance(key, int) or not key.isidentifier() else f".{key}"
        return _Value(self.value[key], (self.path + inner).removeprefix("."))

    def mapping(self) -> dict[str, Any]:
        if not isinstance(self.value, dict):
            self.fail(f"must be an object, not {self.given()}")
        return self.value

    def fields(self, *names: str) -> dict[str, _Value]:
        """Just these fields, no more and no less."""
        mapping = self.mapping()
        missing = [name for name in names if name not in mapping]
        extra = sorted(set(mapping) - set(names))
        if missing:
            self.fail(f"must have the key {missing[0]!r}; it has {sorted(mapping)[:12]}")
        if extra:
            self.fail(f"has the unknown key {extra[0][:60]!r}; known are {', '.join(names)}")
        return {name: self.at(name) for name in names}

    def named(self) -> Iterator[tuple[str, _Value]]:
        """The items of an object whose keys are names of our own choice."""
        for name in self.mapping():
            if not _NAME.fullmatch(name):
                self.fail(f"has names of 1 to 200 printable ASCII characters without spaces, not {name[:60]!r}")
            yield name, self.at(name)

    def items(self) -> list[_Value]:
        if not isinstance(self.value, list):
            self.fail(f"must be a list, not {self.given()}")
        return [self.at(i) for i in range(len(self.value))]

    def distinct(self, read: Callable[[_Value], str]) -> tuple[str, ...]:
        """A list of texts, none twice."""
        found = tuple(read(item) for item in self.items())
        repeated = sorted({name for name in found if found.count(name) > 1})
        if repeated:
            self.fail(f"must name each once; {repeated[0]!r} is there twice")
        return found

    def text(self, pattern: re.Pattern[str] | None = None, rule: str = "") -> str:
        if not isinstance(self.value, str) or len(self.value) > 2000:
            self.fail(f"must be text of at most 2000 characters, not {self.given()}")
        if pattern is not None and not pattern.fullmatch(self.value):
            self.fail(f"must be {rule}, not {self.given()}")
        return self.value

    def integer(self, low: int, high: int) -> int:
        if type(self.value) is not int or not low <= self.value <= high:
            bounds = f"{low}" if low == high else f"a whole number from {low} to {high}"
            self.fail(f"must be {bounds}, not {self.given()}")
        return self.value

    def boolean(self) -> bool:
        if type(self.value) is not bool:
            self.fail(f"must be true or false, not {self.given()}")
        return self.value

    def one_of(self, known: Sequence[str] | Mapping[str, Any], what: str) -> str:
        if not isinstance(self.value, str) or self.value not in known:
            self.fail(f"must be {what} ({', '.join(list(known)[:20]) or 'there is none'}), not {self.given()}")
        return self.value

    def party_name(self) -> str:
        return self.text(_PARTY, "a party: letters, digits and '_', a letter first, at most 63")

    def tensor(self) -> str:
        return self.text(_TENSOR, "a tensor's name like 'node:0'")

    def node(self) -> str:
        return self.text(_NODE, "a node's name")

    def dtype(self) -> str:
        return self.one_of(DTYPE_BYTES, "a dtype that a plan can hold")

    def shape(self) -> tuple[int, ...]:
        if not isinstance(self.value, list) or len(self.value) > RANK_LIMIT:
            self.fail(f"must be a list of at most {RANK_LIMIT} dimensions, not {self.given()}")
        shape = tuple(item.integer(0, (1 << 31) - 1) for item in self.items())
        if math.prod(shape) > TENSOR_LIMIT:
            self.fail(f"must be a shape of at most {TENSOR_LIMIT} elements, not {self.given()}")
        return shape


def _shaped(fields: dict[str, _Value]) -> tuple[tuple[int, ...], str]:
    shape, dtype = fields["shape"].shape(), fields["dtype"].dtype()
    if math.prod(shape) * DTYPE_BYTES[dtype] > TENSOR_LIMIT:
        fields["shape"].fail(f"must be that of at most {TENSOR_LIMIT} bytes of {dtype}, not {fields['shape'].given()}")
    return shape, dtype


def _protocol(at: _Value, parties: Sequence[str]) -> Protocol:
    fields = at.fields("name", "servers", "dealer", "fractional_bits", "settings")
    servers = fields["servers"].distinct(lambda item: item.one_of(parties, "a party of the plan"))
    if len(servers) < 2:
        fields["servers"].fail(f"must be two parties or more, not {fields['servers'].given()}")
    dealer = None
    if fields["dealer"].value is not None:
        dealer = fields["dealer"].one_of(parties, "a party of the plan")
        if dealer in servers:
            fields["dealer"].fail(f"must be another party than the servers, not {dealer!r}")
    bits = fields["fractional_bits"].integer(0, 62)
    return Protocol(fields["name"].text(_NAME, "a name"), servers, dealer, bits, fields["settings"].text())


def _state(name: str, at: _Value, parties: Sequence[str]) -> StateInfo:
    fields = at.fields("share", "fractional_bits", "shape", "components")
    components = []
    for item in fields["components"].items():
        inner = item.fields("party", "shape", "dtype")
        components.append(Component(*_shaped(inner), inner["party"].one_of(parties, "a party of the plan")))
    if not components:
        fields["components"].fail("must not be empty: a state is kept by someone")
    return StateInfo(
        name,
        fields["share"].text(_NAME, "the name of a kind of share"),
        fields["fractional_bits"].integer(0, 62),
        fields["shape"].shape(),
        tuple(components),
    )


def _entry(
    name: str, at: _Value, receivers: _Value, parties: Sequence[str], states: Mapping[str, StateInfo]
) -> Entry:
    fields = at.fields("variants", "batched", "uses", "keeps")

    def of_states(field: _Value) -> tuple[str, ...]:
        return field.distinct(lambda item: item.one_of(states, "a state of the plan"))

    variants = fields["variants"].distinct(_Value.text)
    if not variants:
        fields["variants"].fail("must name a graph or more")
    return Entry(
        name,
        variants,
        fields["batched"].boolean(),
        of_states(fields["uses"]),
        of_states(fields["keeps"]),
        receivers.distinct(lambda item: item.one_of(parties, "a party of the plan")),
    )


def _graph(
    name: str,
    at: _Value,
    parties: Sequence[str],
    protocol: Protocol,
    entries: Mapping[str, Entry],
    states: Mapping[str, StateInfo],
) -> GraphInfo:
    fields = at.fields("entry", "batch", "inputs", "results", "state_in", "state_out", "external")
    entry = entries[fields["entry"].one_of(entries, "an entry of the plan")]
    if name not in entry.variants:
        at.fail(f"must be one of the variants of its entry {entry.name!r}, which are {', '.join(entry.variants)}")
    batch = fields["batch"].integer(1, 1 << 20) if entry.batched else None
    if not entry.batched and fields["batch"].value is not None:
        fields["batch"].fail(f"must be null, as its entry {entry.name!r} is not batched, not {fields['batch'].given()}")
    inputs = _tensors(fields["inputs"], parties, "a party of the plan")
    results = _tensors(fields["results"], entry.receivers, f"a receiver of {entry.name!r}")
    computing = (*protocol.servers, protocol.dealer)
    outside = [party for party in parties if party not in computing]
    external = {}
    for party, part in fields["external"].named():
        if party not in outside:
            fields["external"].fail(f"must be of parties that do not compute ({', '.join(outside)}), not {party!r}")
        external[party] = _external(party, part, [p for p in computing if p is not None], inputs, results)
    for info in (*inputs, *results):
        if info.party in outside and info.party not in external:
            fields["external"].fail(f"must have the part of {info.party!r}, whose {info.name!r} the graph has")
    return GraphInfo(
        name,
        entry.name,
        batch,
        inputs,
        results,
        _state_tensors(fields["state_in"], entry.uses, states, f"uses of {entry.name!r}"),
        _state_tensors(fields["state_out"], entry.keeps, states, f"keeps of {entry.name!r}"),
        MappingProxyType(external),
    )


def _tensors(at: _Value, parties: Sequence[str], what: str) -> tuple[TensorInfo, ...]:
    found = []
    for item in at.items():
        fields = item.fields("name", "party", "shape", "dtype", "tensor")
        name = fields["name"].text(_NAME, "a name")
        found.append(
            TensorInfo(*_shaped(fields), name, fields["party"].one_of(parties, what), fields["tensor"].tensor())
        )
    _once(at, [info.name for info in found], "name")
    return tuple(found)


def _state_tensors(
    at: _Value, wanted: Sequence[str], states: Mapping[str, StateInfo], what: str
) -> tuple[StateTensor, ...]:
    found = []
    for item in at.items():
        fields = item.fields("state", "component", "party", "tensor")
        state = states[fields["state"].one_of(wanted, f"one of the {what}")]
        component = fields["component"].integer(0, len(state.components) - 1)
        party = fields["party"].one_of((state.components[component].party,), "the party that keeps the component")
        found.append(StateTensor(state.name, component, party, fields["tensor"].tensor()))
    given = [f"{info.state}, component {info.component}" for info in found]
    _once(at, given, "component")
    for name in wanted:
        for component in range(len(states[name].components)):
            if f"{name}, component {component}" not in given:
                at.fail(f"must have each component of the {what}; {name!r}, component {component}, is missing")
    return tuple(found)


def _external(
    party: str, at: _Value, peers: Sequence[str], inputs: Sequence[TensorInfo], results: Sequence[TensorInfo]
) -> ExternalPart:
    fields = at.fields("sends", "receives", "results", "steps")
    receives = _messages(fields["receives"], "from", peers)
    steps = tuple(_step(item) for item in fields["steps"].items())
    _once(fields["steps"], [step.name for step in steps], "node")
    # Each step may use what was given, what was received and what stands before it: so it can be evaluated at all.
    given = {info.tensor for info in inputs if info.party == party} | {message.tensor for message in receives}
    nodes: set[str] = set()

    def made(name: str) -> bool:
        return name in given or _node_of(name) in nodes

    for position, step in enumerate(steps):
        for name in step.inputs:
            if not made(name):
                fields["steps"].at(position).fail(f"({step.name!r}) uses {name!r}, which nothing before it makes")
        nodes.add(step.name)

    def known(item: _Value) -> str:
        tensor = item.tensor()
        if not made(tensor):
            item.fail(f"must be made by a step or be given, not {tensor!r}")
        return tensor

    sends = _messages(fields["sends"], "to", peers)
    for item in fields["sends"].items():
        known(item.at("tensor"))
    named = {}
    for item in fields["results"].items():
        inner = item.fields("name", "tensor")
        named[inner["name"].text(_NAME, "a name")] = known(inner["tensor"])
    own = {info.name: info.tensor for info in results if info.party == party}
    if named != own or len(fields["results"].items()) != len(own):
        fields["results"].fail(f"must be the results of {party!r} in the graph, {own}, not {fields['results'].given()}")
    return ExternalPart(party, sends, receives, MappingProxyType(named), steps)


def _node_of(name: str) -> str:
    """The node that makes a tensor 'node:0', or that is meant by '^node'."""
    return name[1:] if name.startswith("^") else name.rpartition(":")[0]


def _messages(at: _Value, direction: str, peers: Sequence[str]) -> tuple[Message, ...]:
    found = []
    for item in at.items():
        fields = item.fields(direction, "tensor", "shape", "dtype")
        peer = fields[direction].one_of(peers, "a party that computes")
        found.append(Message(*_shaped(fields), peer, fields["tensor"].tensor()))
    _once(at, [message.tensor for message in found], "tensor")
    return tuple(found)


def _step(at: _Value) -> Step:
    fields = at.fields("name", "op", "inputs", "attributes")
    inputs = []
    for item in fields["inputs"].items():
        name = item.text()
        if not (_NODE.fullmatch(name[1:]) if name.startswith("^") else _TENSOR.fullmatch(name)):
            item.fail(f"must be a tensor like 'node:0' or '^node', not {item.given()}")
        inputs.append(name)
    attributes = MappingProxyType(fields["attributes"].mapping())
    return Step(fields["name"].node(), fields["op"].text(_NAME, "an operation"), tuple(inputs), attributes)


def _check_variants(at: _Value, manifest: Manifest) -> None:
    """Each variant is a graph of this entry, and the graphs of a batched entry differ in their batch."""
    for entry in manifest.entries.values():
        for name in entry.variants:
            if name not in manifest.graphs or manifest.graphs[name].entry != entry.name:
                at.at(entry.name).fail(f"must name graphs of its own as variants; {name!r} is none")
        batches = [manifest.graphs[name].batch for name in entry.variants]
        if entry.batched and len(set(batches)) < len(batches):
            at.at(entry.name).fail(f"must have variants of different batches, not {batches}")


def _once(at: _Value, names: Sequence[str], what: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            at.fail(f"must have each {what} once; {name!r} is there twice")
        seen.add(name)
