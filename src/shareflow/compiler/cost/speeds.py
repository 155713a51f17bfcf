"""How fast a machine computes: seconds for each kind of work, measured by `shareflow calibrate`.

A table of a machine lies in the user's cache directory. Where there is none, the one that comes with shareflow is used;
``Speeds.source`` says which. Seconds of one party are the sum of its work times these, and a part for being started.
"""

from __future__ import annotations

import functools
import json
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shareflow.compiler.cost.work import KINDS, Vector
from shareflow.errors import DataError

SHIPPED = Path(__file__).with_name("speeds.json")
_FORMAT = 1


@dataclass(frozen=True)
class Speeds:
    """Seconds by kind of work.

    Args:
        seconds: for one of each kind, in the order of KINDS; none below zero.
        start: seconds of starting one party's part.
        message: seconds that a round takes between processes of one machine, where the network takes none.
        request: seconds that a client's request takes there besides its rounds.
        machine: where it was measured, in words.
        source: the file that it is from, or how it was made.
    """

    seconds: tuple[float, ...]
    start: float
    message: float
    request: float
    machine: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        values = (*self.seconds, self.start, self.message, self.request)
        good = all(isinstance(value, (int, float)) and 0 <= value < math.inf for value in values)
        if len(self.seconds) != len(KINDS) or not good:
            raise DataError(
                f"Speeds are seconds of zero or more for each of {', '.join(KINDS)}, a start, a message and a request; "
                f"got {values}. Measure them anew: shareflow calibrate."
            )

    def of(self, work: Vector) -> float:
        """The seconds that work takes, without the start."""
        return float(np.dot(self.seconds, work))

    def write(self, path: Path) -> None:
        """Writes it as JSON; folders that are missing are made."""
        path.parent.mkdir(parents=True, exist_ok=True)
        described = asdict(self)
        del described["source"]
        described["seconds"] = dict(zip(KINDS, self.seconds, strict=True))
        temporary = path.with_name(path.name + ".new")
        temporary.write_text(json.dumps({"format": _FORMAT, **described}, indent=2) + "\n", encoding="utf-8")
        temporary.replace(path)

    @classmethod
    def read(cls, path: Path) -> Speeds:
        """A table that was written before.

        Raises:
            DataError: the file is not there, or is none.
        """
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"'{path}' is no table of speeds: {error}. Make one with `shareflow calibrate`.") from None
        if not isinstance(found, dict) or found.get("format") != _FORMAT:
            raise DataError(f"'{path}' is no table of speeds of format {_FORMAT}. Make one with `shareflow calibrate`.")
        return cls._made_of(found, path)

    @classmethod
    def _made_of(cls, found: dict[str, Any], path: Path) -> Speeds:
        try:
            seconds = tuple(found["seconds"][kind] for kind in KINDS)
            return cls(seconds, found["start"], found["message"], found["request"], str(found["machine"]), str(path))
        except (KeyError, TypeError):
            raise DataError(f"'{path}' lacks a part of a table of speeds. Make one: `shareflow calibrate`.") from None


def calibrated_path() -> Path:
    """Where this user's table lies: shareflow/speeds.json in $XDG_CACHE_HOME, or in ~/.cache."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "shareflow" / "speeds.json"


def current_speeds() -> Speeds:
    """This user's table, or the one that comes with shareflow.

    Raises:
        DataError: the user's table is there and is none: it is not passed over.
    """
    path = calibrated_path()
    return _kept(path, path.stat().st_mtime_ns) if path.exists() else shipped_speeds()


def shipped_speeds() -> Speeds:
    """The table that comes with shareflow."""
    return _kept(SHIPPED, 0)


def is_shipped(speeds: Speeds) -> bool:
    """Whether it was measured elsewhere."""
    return speeds.source == str(SHIPPED)


@functools.lru_cache(maxsize=8)
def _kept(path: Path, changed: int) -> Speeds:
    del changed
    return Speeds.read(path)
