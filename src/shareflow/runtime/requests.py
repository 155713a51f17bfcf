"""What clients ask of a server: their parts of inputs, row by row, and the parts of results that go back to them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from shareflow.errors import RequestError
from shareflow.runtime.cut import Message, Part, Value
from shareflow.runtime.part import tensor_of
from shareflow_client.stream import uniform

# What a client's row streams are numbered under: the same label at both ends of its link.
ROW_KEY = b"rows"


class RequestKey(NamedTuple):
    """Names a request at both servers: the client's authenticated name, its session, its number there."""

    client: str
    session: str
    number: int


@dataclass(eq=False)
class Request:
    """One request of a client at one server."""

    key: RequestKey
    entry: str
    acts_as: str
    label: str
    rows: int
    first_row: int
    link: Any
    expects: int  # bytes of its input part at this server
    since: float = field(default_factory=time.monotonic)
    data: memoryview | None = None
    parts: list[bytes | None] = field(default_factory=list)  # of results, by row
    versions: set[int] = field(default_factory=set)  # of the state that rows were computed with
    progress: float = 0.0  # when it came, or a row of it was computed
    over: bool = False
    queued: bool = False  # at the leader: both servers have its input
    misses: int = 0  # at the leader: executions of it whose material could not be used
    begun: set[int] = field(default_factory=set)  # at the follower: rows that the leader began

    def __post_init__(self) -> None:
        self.parts = [None] * self.rows
        self.progress = self.since

    @property
    def complete(self) -> bool:
        """Whether its input is here."""
        return self.data is not None

    @property
    def answered(self) -> bool:
        """Whether all rows have their results."""
        return all(part is not None for part in self.parts)


class Row(NamedTuple):
    """One row of a request; None stands for a row of zeros that fills a batch up."""

    request: Request
    number: int


def row_size(part: Part, party: str) -> int:
    """Bytes that a party outside sends this server for one row (or one request of an entry without batches)."""
    return sum(message.nbytes for message in part.inputs if message.peer == party)


def given_values(part: Part, single: Part, rows: Mapping[str, Sequence[Row | None]]) -> dict[str, tf.Tensor]:
    """Inputs and pads of an execution, put together from rows of many requests.

    Args:
        part: this server's part of the graph that runs.
        single: its part of the graph of one row, whose form the requests have.
        rows: by party outside, in the order of the batch.
    """
    values: dict[str, tf.Tensor] = {}
    for message, one in zip(part.inputs, single.inputs, strict=True):
        position = 0
        for whole, value in zip(message.values, one.values, strict=True):
            begin, end = position, position + value.nbytes
            position = end

            def given(row: Row, begin: int = begin, end: int = end) -> memoryview:
                return _input(row, begin, end)

            values[whole.tensor] = _stacked(whole, value, rows[message.peer], given)
    for pad, one_pad in zip(part.pads, single.pads, strict=True):
        value = one_pad.value

        def made(row: Row, stream: int = one_pad.stream, shape: tuple[int, ...] = value.shape) -> np.ndarray:
            return uniform(row.request.link.key(ROW_KEY), row.request.first_row + row.number, stream, shape)

        values[pad.value.tensor] = _stacked(pad.value, value, rows[pad.peer], made)
    return values


def _input(row: Row, begin: int, end: int) -> memoryview:
    data = row.request.data
    if data is None:
        raise RequestError(f"The input of {row.request.key.client} is gone: the request was given up.", retry=True)
    size = len(data) // row.request.rows
    return data[row.number * size + begin : row.number * size + end]


def _stacked(whole: Value, one: Value, rows: Sequence[Row | None], make: Callable[[Row], Any]) -> tf.Tensor:
    if len(rows) == 1 and rows[0] is not None and whole.shape == one.shape:
        made = make(rows[0])
        return tf.constant(made) if isinstance(made, np.ndarray) else tensor_of(one, made)
    array = np.zeros(whole.shape, whole.dtype.as_numpy_dtype)
    for position, row in enumerate(rows):
        if row is not None:
            made = make(row)
            if not isinstance(made, np.ndarray):
                made = np.frombuffer(made, array.dtype, int(np.prod(one.shape))).reshape(one.shape)
            array[position : position + 1] = made
    return tf.constant(array)


def result_parts(message: Message, values: Mapping[str, tf.Tensor], rows: int | None) -> list[bytes]:
    """A result message cut by rows, each value of a row filled up to whole words; in one piece with None."""
    arrays = [np.ascontiguousarray(values[value.tensor].numpy()) for value in message.values]
    if rows is None:
        return [b"".join(_padded(array.tobytes()) for array in arrays)]
    return [b"".join(_padded(array[row].tobytes()) for array in arrays) for row in range(rows)]


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 8)
