"""The only way a value changes party.

In a traced graph a crossing is an identity node at the sender whose name says what it is, for example
``dense/send.opening.server0.server1.``: the audit, the cost tables and the cut into parties' segments read
it from there. Run eagerly, a crossing is seen only by those who asked (:func:`crossings`).
"""

from __future__ import annotations

import contextlib
import enum
import re
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass

import tensorflow as tf

from shareflow.party.party import Party


class Kind(enum.Enum):
    """Why a value crosses. Each is a one-time pad away from saying anything, except a result."""

    INPUT = "input"  # an owner's share of its input, to one server
    OPENING = "opening"  # a masked value, between the computing parties
    CORRECTION = "correction"  # the dealer's: offline, independent of every input
    RESULT = "result"  # a share of a result, to the receiver that the program names
    PLAINTEXT = "plaintext"  # a party hands a value of its own to a receiver it names


@dataclass(frozen=True)
class Crossing:
    """One value on its way from one party to another."""

    kind: Kind
    source: Party
    to: Party
    value: tf.Tensor


_observers: ContextVar[tuple[list[Crossing], ...]] = ContextVar("observers", default=())
_NAME = re.compile(r"(?:.*/)?send\.(?P<kind>[a-z]+)\.(?P<source>[A-Za-z0-9_]+)\.(?P<to>[A-Za-z0-9_]+)\.(?:_\d+)?")


def send(value: tf.Tensor, source: Party, to: Party, kind: Kind) -> tf.Tensor:
    """The value as party ``to`` gets it from ``source``. Nothing crosses when both are one."""
    if source == to:
        return value
    with source:
        sent = tf.identity(value, name=f"send.{kind.value}.{source.job}.{to.job}.")
    for seen in _observers.get():
        seen.append(Crossing(kind, source, to, sent))
    return sent


def parse(node_name: str) -> tuple[Kind, str, str] | None:
    """Kind, sending job and receiving job of a graph's node, or None where it is no crossing."""
    match = _NAME.fullmatch(node_name)
    return (Kind(match["kind"]), match["source"], match["to"]) if match else None


def claims_to_cross(node_name: str) -> bool:
    """Whether a node's name begins like that of a crossing. In a graph of others it may be one that there is not."""
    return node_name.rpartition("/")[2].startswith("send.")


@contextlib.contextmanager
def crossings() -> Iterator[list[Crossing]]:
    """A list of all that crosses inside the block, in the order of sending."""
    seen: list[Crossing] = []
    token = _observers.set((*_observers.get(), seen))
    try:
        yield seen
    finally:
        _observers.reset(token)
