"""An entry of the plan as one external party sees it: rows of inputs become messages, messages become results.

A batched entry is evaluated row by row, with the graph of one row; what is not batched is one row as a whole. Every
row has masks of its own: those of its number on the link to each server.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from shareflow_client.errors import PeerError, PlanError, RequestError
from shareflow_client.manifest import Manifest, Message, TensorInfo
from shareflow_client.steps import Execution, Part
from shareflow_client.stream import uniform

WORD = 8
"""Every tensor of a message is filled up to a multiple of so many bytes."""


class EntryRows:
    """What one party gives to an entry and gets from it. Thread-safe: it holds nothing of any request.

    Args:
        manifest: of the plan.
        name: of the entry.
        party: that the client acts as.

    Raises:
        RequestError: the plan has no such entry, or the party has no part in it.
        PlanError: the party's part is none that a client can do.
    """

    def __init__(self, manifest: Manifest, name: str, party: str) -> None:
        if name not in manifest.entries:
            raise RequestError(f"The plan's entries are {', '.join(manifest.entries)}; there is no {name!r}.")
        entry = manifest.entries[name]
        graphs = [manifest.graphs[variant] for variant in entry.variants]
        if entry.batched:
            graphs = [graph for graph in graphs if graph.batch == 1]
            if not graphs:
                raise PlanError(f"Entry {name!r} has no graph of one row. Have the plan compiled with batch size 1.")
        graph = graphs[0]
        if party not in graph.external:
            raise RequestError(
                f"Entry {name!r} has a part for {', '.join(graph.external) or 'no party outside the computation'}; "
                f"this client acts as {party!r}. Ask for another entry, or set acts_as."
            )
        self.name = name
        self.batched = entry.batched
        self.keeps_state = bool(entry.keeps)
        self.parties = tuple(graph.external)
        self._part = Part(graph, party)
        self.inputs: Mapping[str, TensorInfo] = self._part.inputs
        self.results = tuple(info for info in graph.results if info.party == party)
        servers = manifest.protocol.servers
        self._receives = {s: [m for m in self._part.receives.values() if m.peer == s] for s in servers}
        self._sends = {s: [m for m in self._part.sends if m.peer == s] for s in servers}
        talked_to = {m.peer for m in (*self._part.receives.values(), *self._part.sends)}
        talked_to |= {peer for peer, _, _ in self._part.streams}
        if talked_to - set(servers):
            raise PlanError(
                f"A client talks to the servers {', '.join(servers)}; entry {name!r} has it talk to "
                f"{', '.join(sorted(talked_to - set(servers)))} too. Have the plan compiled anew."
            )

    def check_label(self, label: str) -> None:
        """A label says which inputs of several parties belong together; raises RequestError where it is not right."""
        if len(self.parties) > 1 and not label:
            raise RequestError(
                f"Entry {self.name!r} takes inputs of {', '.join(self.parties)}: give all of them the same label."
            )
        if len(self.parties) == 1 and label:
            raise RequestError(f"A label is for entries of several parties; {self.name!r} has one. Leave it out.")
        if len(label) > 200 or not label.isprintable():
            raise RequestError("A label is printable text of at most 200 characters. Give a shorter one.")

    def checked(self, inputs: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], int]:
        """The inputs as arrays, and how many rows they have; 1 where the entry is not batched.

        Raises:
            RequestError: an input is missing, unknown, of another shape or dtype, or not finite.
        """
        unknown = [name for name in inputs if name not in self.inputs]
        missing = [name for name in self.inputs if name not in inputs]
        if unknown or missing:
            raise RequestError(
                f"Entry {self.name!r} takes {_named(self.inputs)}; missing: {_named(missing)}, unknown: "
                f"{_named(unknown)}. Give each input by its name."
            )
        arrays = {name: self._array(info, inputs[name]) for name, info in self.inputs.items()}
        if not self.batched:
            return arrays, 1
        counts = {name: len(array) for name, array in arrays.items()}
        if len(set(counts.values())) > 1:
            given = ", ".join(f"{name!r} has {count}" for name, count in counts.items())
            raise RequestError(f"All inputs of entry {self.name!r} have as many rows: {given}. Give one row a sample.")
        if not counts:
            raise RequestError(f"{self._part.party!r} gives no input to entry {self.name!r}. Ask for another entry.")
        return arrays, next(iter(counts.values()))

    def _array(self, info: TensorInfo, given: Any) -> np.ndarray:
        try:
            array = np.asarray(given)
        except ValueError:
            raise RequestError(f"Input {info.name!r} is an array: give rows of equal length.") from None
        if not np.can_cast(array.dtype, info.dtype, "same_kind"):
            raise RequestError(
                f"Input {info.name!r} is {info.dtype}; {array.dtype} was given. Convert it with astype({info.dtype!r})."
            )
        wanted = ("n", *info.shape[1:]) if self.batched else info.shape
        # A batch may have any number of rows.
        alike = array.shape[1:] == info.shape[1:] if self.batched else array.shape == info.shape
        if array.ndim != len(info.shape) or not alike:
            raise RequestError(
                f"Input {info.name!r} has the shape {_shape(wanted)}; {_shape(array.shape)} was given. Reshape it."
            )
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            where = np.argwhere(~np.isfinite(array))
            raise RequestError(
                f"Input {info.name!r} is finite; {len(where)} of its {array.size} numbers are NaN or infinite, the "
                f"first at {where[0].tolist()}. Replace or leave out what is not known."
            )
        return array

    def check_rows(self, inputs: Mapping[str, np.ndarray], rows: int) -> None:
        """Finds what :meth:`start` would refuse in any of these rows, before one of them is sent.

        Raises:
            RequestError: names the row.
        """
        for row in range(rows):
            with self._naming(row, rows):
                self._part.check(self._row(inputs, row))

    def start(
        self, inputs: Mapping[str, np.ndarray], rows: int, first_row: int, keys: Mapping[str, bytes]
    ) -> list[Execution]:
        """Evaluates what is sent for these rows, whose numbers begin at ``first_row``; keys are by server.

        Raises:
            RequestError: a number breaks a rule of the plan, such as the range of what can be encoded.
        """
        started = []
        for row in range(rows):

            def stream(peer: str, number: int, shape: tuple[int, ...], row: int = first_row + row) -> np.ndarray:
                return uniform(keys[peer], row, number, shape)

            with self._naming(row, rows):
                started.append(self._part.start(self._row(inputs, row), stream))
        return started

    def _row(self, inputs: Mapping[str, np.ndarray], row: int) -> Mapping[str, np.ndarray]:
        return {name: array[row : row + 1] for name, array in inputs.items()} if self.batched else inputs

    @contextmanager
    def _naming(self, row: int, rows: int) -> Iterator[None]:
        try:
            yield
        except RequestError as error:
            which = f"Row {row} of " if self.batched and rows > 1 else ""
            given = ", ".join(map(repr, self.inputs))
            raise RequestError(f"{which}{given} for entry {self.name!r}: {error} Nothing was sent.") from None

    def send_size(self, server: str, rows: int) -> int:
        """Bytes that go to a server for so many rows."""
        return rows * sum(map(_filled, self._sends[server]))

    def receive_size(self, server: str, rows: int) -> int:
        """Bytes that come from a server for so many rows."""
        return rows * sum(map(_filled, self._receives[server]))

    def message(self, server: str, started: list[Execution]) -> Iterator[memoryview]:
        """What goes to a server, in pieces."""
        for execution in started:
            sends = execution.sends()
            for message in self._sends[server]:
                value = sends[message.tensor]
                if value.nbytes:
                    yield value.reshape(-1).view(np.uint8).data
                if value.nbytes % WORD:
                    yield memoryview(bytes(-value.nbytes % WORD))

    def finish(self, started: list[Execution], data: Mapping[str, memoryview]) -> dict[str, np.ndarray]:
        """The results by name, of what came from each server; rows one after the other where the entry is batched.

        Raises:
            PeerError: a server sent another size than the plan says.
        """
        rows = len(started)
        for server in self._receives:
            size = len(data.get(server, b""))
            if size != self.receive_size(server, rows):
                raise PeerError(f"{server} sends {self.receive_size(server, rows)} bytes of results; it sent {size}.")
        position = dict.fromkeys(self._receives, 0)
        made = []
        for execution in started:
            received = {}
            for server, messages in self._receives.items():
                for message in messages:
                    received[message.tensor] = _tensor(message, data[server], position[server])
                    position[server] += _filled(message)
            made.append(execution.results(received))
        if not self.batched:
            return made[0]
        return {info.name: np.concatenate([results[info.name] for results in made]) for info in self.results}

    def no_rows(self) -> dict[str, np.ndarray]:
        """The results of no rows at all."""
        return {info.name: np.zeros((0, *info.shape[1:]), info.dtype) for info in self.results}


def _filled(message: Message) -> int:
    return -(-message.nbytes // WORD) * WORD


def _tensor(message: Message, data: memoryview, position: int) -> np.ndarray:
    dtype = np.dtype(message.dtype)
    array = np.frombuffer(data, dtype.newbyteorder("<"), message.elements, position)
    return array.astype(dtype, copy=False).reshape(message.shape)


def _shape(shape: tuple[Any, ...]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def _named(names: Any) -> str:
    return ", ".join(map(repr, names)) or "none"
