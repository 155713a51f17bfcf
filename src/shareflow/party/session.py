"""Sessions and executions: which keys the parties share, and that no stream is ever used twice.

A *session* gives every pair of parties one fresh key. An *execution* is one run of one graph in a session,
or the eager operations of a session; it has an index that never repeats, and numbers its streams. A stream
is PRG(pair key, execution index, stream number): both parties of the pair can make it, no one else can.
"""

from __future__ import annotations

import abc
import hashlib
import itertools
import os
import secrets
import threading
import weakref
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import tensorflow as tf

from shareflow.errors import PlacementError, RandomnessError
from shareflow.party.party import Party
from shareflow.party.send import Kind

# ring/uniform.py numbers the streams of an execution with 31 bits.
STREAMS = 2**31 - 1


class Session:
    """Fresh pairwise keys and a count of executions.

    There is always one: a default session begins with the process. ``with Session():`` begins another, with
    keys of its own, for what runs inside the block.
    """

    def __init__(self) -> None:
        self._process = os.getpid()
        self._keys: dict[frozenset[Party], tf.Tensor] = {}
        self._indices = itertools.count(1)
        self._lock = threading.Lock()
        self._eager: EagerExecution | None = None

    def key(self, one: Party, other: Party) -> tf.Tensor:
        """The key that two parties share, as int64[2]; drawn at its first use."""
        pair = frozenset((one, other))
        if len(pair) != 2:
            raise PlacementError(f"A pair key belongs to two parties; got {one} twice.")
        with self._lock:
            if pair not in self._keys:
                with tf.init_scope():
                    words = [int.from_bytes(self._draw(pair)[i : i + 8], "little", signed=True) for i in (0, 8)]
                    self._keys[pair] = tf.constant(words, tf.int64)
            return self._keys[pair]

    def _draw(self, pair: frozenset[Party]) -> bytes:
        return secrets.token_bytes(16)

    def next_index(self) -> int:
        """An execution index that this session has never given before.

        Raises:
            RandomnessError: the process was forked since the session began: both would give the same indices.
        """
        if os.getpid() != self._process:
            raise RandomnessError(
                "A session belongs to the process that began it: after a fork both would use the same masks. "
                "Begin one in this process: with shareflow.Session(): ..."
            )
        with self._lock:
            return next(self._indices)

    @property
    def eager(self) -> EagerExecution:
        """The execution that operations outside of any traced function belong to."""
        if self._eager is None or self._eager.exhausted or os.getpid() != self._process:
            self._eager = EagerExecution(self)
        return self._eager

    def run(self, fetches: Any, *arguments: Any) -> Any:
        """The value of what an output function returned, or of a function called with the arguments.

        A private tensor is given as its revealed value; lists, tuples and dicts of fetches come back as such.
        Operations run at once, as everywhere in TensorFlow 2: what is fetched was computed before.
        """
        if callable(fetches) and not isinstance(fetches, tf.Tensor):
            with self:
                return self.run(fetches(*arguments))
        return tf.nest.map_structure(lambda x: x.numpy() if hasattr(x, "numpy") else x, fetches)

    def __enter__(self) -> Session:
        _entered.set((*_entered.get(), self))
        return self

    def __exit__(self, *exception: Any) -> None:
        _entered.set(_entered.get()[:-1])


class _SeededSession(Session):
    def __init__(self, seed: int) -> None:
        super().__init__()
        self._seed = seed

    def _draw(self, pair: frozenset[Party]) -> bytes:
        text = f"{self._seed} {sorted(party.job for party in pair)}"
        return hashlib.sha256(text.encode()).digest()[:16]


def insecure_session(seed: int) -> Session:
    """A session whose keys follow from a seed, so that a test can repeat it. Hides nothing from anybody."""
    return _SeededSession(seed)


# Innermost last. Each thread has its own, so threads may use one session.
_entered: ContextVar[tuple[Session, ...]] = ContextVar("sessions", default=())
_default = Session()


def current_session() -> Session:
    """The innermost ``with Session():``, or the process's default session."""
    return _entered.get()[-1] if _entered.get() else _default


class Execution(abc.ABC):
    """One use of a session's keys. Streams are numbered in the order in which they are asked for."""

    def __init__(self) -> None:
        self._streams = itertools.count()
        self._load: dict[tuple[Kind, Party], int] = {}

    @abc.abstractmethod
    def key(self, holder: Party, peer: Party) -> tf.Tensor:
        """The key of holder and peer, as int64[2], at the holder."""

    @abc.abstractmethod
    def index(self, holder: Party) -> tf.Tensor:
        """This execution's index, as an int64 scalar, at the holder."""

    def fresh_stream(self) -> int:
        """A stream number that this execution has not used."""
        number = next(self._streams)
        if number >= STREAMS:
            raise RandomnessError(
                f"One execution has {STREAMS:,} streams and this one has used them all. Trace smaller functions."
            )
        return number

    def lighter(self, parties: tuple[Party, Party], weight: int, kind: Kind) -> Party:
        """Of two parties the one that was given less of a kind so far; the weight is then its own.

        It decides to which server the dealer sends a correction, so that both links carry half. It depends
        on shapes alone: all parties decide alike.
        """
        choice = min(parties, key=lambda party: self._load.get((kind, party), 0))
        self._load[kind, choice] = self._load.get((kind, choice), 0) + weight
        return choice


class EagerExecution(Execution):
    """Operations run one by one, outside of any traced function."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self._index = tf.constant(session.next_index(), tf.int64)
        self._used = 0

    @property
    def exhausted(self) -> bool:
        """Whether the next operation needs a new execution."""
        return self._used >= STREAMS // 2

    def fresh_stream(self) -> int:
        self._used = super().fresh_stream() + 1
        return self._used - 1

    def key(self, holder: Party, peer: Party) -> tf.Tensor:
        return self._session.key(holder, peer)

    def index(self, holder: Party) -> tf.Tensor:
        return self._index


class GraphExecution(Execution):
    """The execution of a graph that is being traced: keys and index are inputs, given anew at each run."""

    def __init__(self) -> None:
        super().__init__()
        self.keys: dict[tuple[Party, Party], tf.Tensor] = {}
        self.indices: dict[Party, tf.Tensor] = {}
        # Operations that each run carries out though no result depends on them.
        self.effects: list[tf.Operation] = []

    def key(self, holder: Party, peer: Party) -> tf.Tensor:
        if (holder, peer) not in self.keys:
            self.keys[holder, peer] = _input(holder, [2], f"key.{holder.job}.{peer.job}.")
        return self.keys[holder, peer]

    def index(self, holder: Party) -> tf.Tensor:
        if holder not in self.indices:
            self.indices[holder] = _input(holder, [], f"execution.{holder.job}.")
        return self.indices[holder]

    def parties(self) -> tuple[Party, ...]:
        """All parties that use randomness in this graph."""
        return tuple(self.indices)


def _input(holder: Party, shape: list[int], name: str) -> tf.Tensor:
    # Outside of any name scope: the name says all.
    graph = tf.compat.v1.get_default_graph()
    with tf.control_dependencies(None), graph.name_scope(None), holder:
        return tf.compat.v1.placeholder(tf.int64, shape, name=name)


_traces: weakref.WeakKeyDictionary[tf.Graph, GraphExecution] = weakref.WeakKeyDictionary()


def trace(build: Callable[..., Any]) -> tuple[Callable[..., Any], GraphExecution]:
    """``build``, to be called while a graph is traced, and the execution that this graph will be."""
    execution = GraphExecution()

    def traced(*arguments: Any) -> Any:
        graph = tf.compat.v1.get_default_graph()
        _traces[graph] = execution
        try:
            return build(*arguments)
        finally:
            # An execution holds tensors of its graph: kept here, no graph would ever be freed.
            del _traces[graph]

    return traced, execution


def current_execution() -> Execution:
    """The execution that operations built now belong to.

    Raises:
        RandomnessError: a graph is being built that is not a shareflow function's own: its masks would repeat.
    """
    if tf.executing_eagerly():
        return current_session().eager
    graph = tf.compat.v1.get_default_graph()
    if graph in _traces:
        return _traces[graph]
    outer = getattr(graph, "outer_graph", None)
    while outer is not None and outer not in _traces:
        outer = getattr(outer, "outer_graph", None)
    if outer is not None:
        raise RandomnessError(
            "Private operations cannot stand inside tf.while_loop, tf.cond, tf.map_fn or a nested tf.function: "
            "their graph runs many times and would use the same masks each time. Use a Python loop, or call a "
            "shareflow.function, which is built in place."
        )
    raise RandomnessError(
        "Private operations inside a tf.function or tf.Graph would use the same masks at each run. "
        "Decorate the outermost function with shareflow.function instead of tf.function."
    )


def add_effect(operation: tf.Operation) -> None:
    """Has each run of the graph being traced carry out an operation that no result depends on."""
    execution = current_execution()
    if isinstance(execution, GraphExecution):
        execution.effects.append(operation)


def in_trace() -> bool:
    """Whether a shareflow function is being traced just now."""
    return not tf.executing_eagerly() and tf.compat.v1.get_default_graph() in _traces
