"""CONTROL messages between parties: JSON objects with a type, each field checked before use."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from shareflow_client.errors import PeerError
from shareflow_client.wire import Buffer

MOST_BYTES = 1 << 20
"""The largest CONTROL message that a party takes."""
_LARGEST = (1 << 64) - 1


def encode(type_: str, **fields: Any) -> bytes:
    """The bytes of a message."""
    return json.dumps({"type": type_, **fields}, separators=(",", ":"), allow_nan=False).encode("utf-8")


class Control:
    """A message of a peer. Its methods give a field, and raise PeerError where it is not what it must be."""

    def __init__(self, peer: str, fields: Mapping[str, Any]) -> None:
        self.peer, self._fields = peer, fields
        self.type = self.text("type", 32)

    @classmethod
    def decode(cls, payload: Buffer, peer: str) -> Control:
        """The message in these bytes.

        Raises:
            PeerError: they are no JSON object with a type.
        """
        try:
            value = json.loads(bytes(payload))
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise PeerError(f"a CONTROL message is a JSON object in UTF-8, {peer} sent something else")
        return cls(peer, value)

    def unknown(self) -> PeerError:
        """What to raise for a type that this peer may not send here."""
        return PeerError(f"{self.peer} sent a message of type {self.type!r}, which has no place on this link")

    def text(self, name: str, most: int = 4096) -> str:
        """Text of at most ``most`` characters."""
        value = self._fields.get(name)
        if not isinstance(value, str) or len(value) > most or not value.isprintable():
            raise self._wrong(name, f"text of at most {most} printable characters")
        return value

    def number(self, name: str, low: int = 0, high: int = _LARGEST) -> int:
        """A whole number in these bounds, both allowed."""
        return self._number(self._fields.get(name), name, low, high)

    def numbers(self, name: str) -> list[int]:
        """A list of whole numbers of 64 bits."""
        return [self._number(item, name, 0, _LARGEST) for item in self._list(name)]

    def counts(self, name: str) -> list[tuple[str, int, int]]:
        """A list of [graph, version, count]."""
        found = []
        for item in self._list(name):
            if not isinstance(item, list) or len(item) != 3 or not isinstance(item[0], str):
                raise self._wrong(name, "a list of [graph, version, count]")
            version, count = (self._number(value, name, 0, _LARGEST) for value in item[1:])
            found.append((item[0], version, count))
        return found

    def _list(self, name: str) -> list[Any]:
        value = self._fields.get(name)
        if not isinstance(value, list):
            raise self._wrong(name, "a list")
        return value

    def _number(self, value: Any, name: str, low: int, high: int) -> int:
        if type(value) is not int or not low <= value <= high:
            raise self._wrong(name, f"a whole number from {low} to {high}")
        return value

    def _wrong(self, name: str, rule: str) -> PeerError:
        # What was sent is not repeated: it may be anything.
        return PeerError(f"{name!r} of a CONTROL message must be {rule}; {self.peer} sent something else")
