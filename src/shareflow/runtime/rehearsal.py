"""All parties of one execution in one process, each with its own part: what the network runs, without a network.

For tests and for trying a plan. It holds every party's keys, so it protects nothing: hence its name.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

import numpy as np
import tensorflow as tf

from shareflow.errors import PlanError
from shareflow.party.party import Party
from shareflow.party.session import Session
from shareflow.runtime.cut import Message, Part, cut
from shareflow.runtime.part import Exchange, PartProgram, reading_of, tensors_of
from shareflow.runtime.plan import Plan
from shareflow_client import steps
from shareflow_client.stream import uniform

# State of all parties: by party, then by "name/component".
State = Mapping[str, Mapping[str, tf.Tensor]]


@dataclass(frozen=True)
class Rehearsal:
    """What came of an execution: results by name, the state that is kept, and who sent whom how many messages."""

    results: dict[str, np.ndarray]
    state: dict[str, dict[str, tf.Tensor]]
    messages: list[tuple[str, str, int, bytes]] = field(repr=False)


def insecure_rehearsal(
    plan: Plan, graph: str, inputs: Mapping[str, Any], session: Session, state: State | None = None
) -> Rehearsal:
    """Runs one graph of a plan, part by part: the dealer first, then the servers side by side.

    Args:
        plan: whose parts are cut just as for the network.
        graph: such as "predict@1".
        inputs: plaintext, by name.
        session: gives the keys of all pairs, and the execution's index.
        state: what earlier executions kept, if the graph uses state.

    Raises:
        PlanError: an input is missing, or is none of the graph's.
    """
    info = plan.manifest.graphs[graph]
    unknown = {*inputs} ^ {tensor.name for tensor in info.inputs}
    if unknown:
        raise PlanError(f"The inputs of {graph!r} are {[t.name for t in info.inputs]}; missing or unknown: {unknown}.")
    post = _Post()
    index = session.next_index()
    kept: dict[str, dict[str, tf.Tensor]] = {}
    outside = {}
    for party in info.external:
        part = steps.Part(info, party)
        own = {name: inputs[name] for name in part.inputs}

        def stream(peer: str, number: int, shape: tuple[int, ...], party: str = party) -> np.ndarray:
            return _stream(session, party, peer, index, number, shape)

        outside[party] = part.start(own, stream)
        sent = outside[party].sends()
        for message in part.sends:
            post.put(party, message.peer, 0, _bytes(sent[message.tensor]))

    def compute(party: str) -> None:
        part = cut(plan, graph, party)
        values = _start(part, session, index, (state or {}).get(party, {}), post)
        try:
            dealt = b"" if part.corrections is None else post.take(part.corrections.peer, part.party, 0)
            exchange = _Local(party, post)
            ends = PartProgram(part).run(values, exchange, reading_of(part.corrections, dealt))
            exchange.deal()
        except BaseException as error:
            post.fail(error)
            raise
        kept[party] = {f"{name}/{number}": ends[tensor] for tensor, (name, number, _) in part.state_out.items()}
        for message in part.results:
            post.put(party, message.peer, -1, b"".join(_bytes(ends[v.tensor].numpy()) for v in message.values))

    dealer = plan.manifest.protocol.dealer
    if dealer is not None:
        compute(dealer)
    with ThreadPoolExecutor(len(plan.manifest.protocol.servers)) as pool:
        for done in [pool.submit(compute, server) for server in plan.manifest.protocol.servers]:
            done.result()
    results: dict[str, np.ndarray] = {}
    for party, execution in outside.items():
        received = {}
        for server in plan.manifest.protocol.servers:
            wanted = [m for m in info.external[party].receives if m.peer == server]
            if wanted:
                received.update(_cut_up(wanted, post.take(server, party, -1)))
        results |= execution.results(received)
    return Rehearsal(results, kept, post.log)


def _stream(
    session: Session, holder: str, peer: str, index: int, number: int, shape: Sequence[int]
) -> np.ndarray:
    key = session.key(Party(holder), Party(peer)).numpy().astype("<i8").tobytes()
    return uniform(key, index, number, shape)


def _start(
    part: Part, session: Session, index: int, state: Mapping[str, tf.Tensor], post: _Post
) -> dict[str, tf.Tensor]:
    """What a computing party has at the start."""
    here = Party(part.party)
    values = {tensor: state[f"{name}/{number}"] for tensor, (name, number, _) in part.state_in.items()}
    values.update({value.tensor: session.key(here, Party(peer)) for value, peer in part.keys})
    if part.index is not None:
        values[part.index.tensor] = tf.constant(index, tf.int64)
    for message in part.inputs:
        values.update(tensors_of(message, b"".join(post.take(message.peer, part.party, 0) for _ in message.values)))
    for pad in part.pads:
        made = _stream(session, part.party, pad.peer, index, pad.stream, pad.value.shape)
        values[pad.value.tensor] = tf.constant(made)
    return values


def _bytes(array: np.ndarray) -> bytes:
    data = np.ascontiguousarray(array).tobytes()
    return data + bytes(-len(data) % 8)


def _cut_up(messages: Sequence[Any], payload: bytes) -> dict[str, np.ndarray]:
    found, position = {}, 0
    for message in messages:
        count = int(np.prod(message.shape, dtype=np.int64))
        found[message.tensor] = np.frombuffer(payload, message.dtype, count, position).reshape(message.shape)
        position += -(-message.nbytes // 8) * 8
    return found


class _Post:
    """Messages between the parties, by sender, receiver and round; of those of one, first come, first served."""

    def __init__(self) -> None:
        self._boxes: dict[tuple[str, str, int], SimpleQueue[Any]] = {}
        self._lock = threading.Lock()
        self._failure: BaseException | None = None
        self.log: list[tuple[str, str, int, bytes]] = []

    def _box(self, key: tuple[str, str, int]) -> SimpleQueue[Any]:
        with self._lock:
            return self._boxes.setdefault(key, SimpleQueue())

    def put(self, source: str, to: str, round_: int, payload: bytes) -> None:
        self.log.append((source, to, round_, payload))
        self._box((source, to, round_)).put(payload)

    def take(self, source: str, to: str, round_: int) -> bytes:
        box = self._box((source, to, round_))
        if self._failure is not None:
            raise PlanError(f"{source} failed, so {to} gets no message of round {round_}.")
        item = box.get()
        if isinstance(item, BaseException):
            raise PlanError(f"{source} failed, so {to} gets no message of round {round_}.") from item
        return item

    def fail(self, error: BaseException) -> None:
        """Wakes whoever waits."""
        with self._lock:
            self._failure = error
            boxes = list(self._boxes.values())
        for box in boxes:
            box.put(error)


class _Local(Exchange):
    def __init__(self, party: str, post: _Post) -> None:
        self._party, self._post = party, post
        self._dealt: dict[str, list[bytes]] = {}

    def send(self, message: Message, payload: memoryview) -> None:
        if message.round == 0:
            # A dealer makes its messages part by part.
            self._dealt.setdefault(message.peer, []).append(bytes(payload))
        else:
            self._post.put(self._party, message.peer, message.round, bytes(payload))

    def receive(self, message: Message) -> memoryview:
        return memoryview(self._post.take(message.peer, self._party, message.round))

    def deal(self) -> None:
        """Sends what the dealer made."""
        for server, parts in self._dealt.items():
            self._post.put(self._party, server, 0, b"".join(parts))
