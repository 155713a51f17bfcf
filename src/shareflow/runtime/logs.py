"""What a party process writes to standard error: one line for each event, as JSON or as text.

Logs never hold keys, shares, inputs or results. A log call gives a text and values for its places, and of these only
names, numbers and the errors of this software are written: of bytes, arrays, tensors and of errors of other software,
whose texts may quote data, only the kind is. A traceback is written as places in the source.
"""

from __future__ import annotations

import datetime
import json
import logging
import os
import sys
import traceback
from collections.abc import Mapping
from types import TracebackType
from typing import Any, TextIO

from shareflow.errors import ShareflowError

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_SHOWN = (str, int, float, bool, type(None), os.PathLike, ShareflowError)
# Tables of names and counts are shown item by item, and no longer than this.
_MOST_ITEMS, _MOST_TEXT = 24, 4000


def start_logging(party: str, level: str = "info", form: str = "json", stream: TextIO | None = None) -> logging.Handler:
    """Sends the logs of this process, of Python's warnings too, to standard error.

    Args:
        party: whose process it is; stands in each line.
        level: "debug", "info", "warning" or "error".
        form: "json", one object a line, or "text".
        stream: where to instead.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines(party) if form == "json" else TextLines(party))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for own in ("shareflow", "shareflow_client"):
        logging.getLogger(own).setLevel(_LEVELS[level])
    logging.captureWarnings(True)
    return handler


class _Lines(logging.Formatter):
    """The parts of a line, with nothing in them that a log may not hold."""

    def __init__(self, party: str) -> None:
        super().__init__()
        self.party = party

    def time(self, record: logging.LogRecord) -> str:
        """UTC, with milliseconds."""
        at = datetime.datetime.fromtimestamp(record.created, datetime.timezone.utc)
        return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def event(self, record: logging.LogRecord) -> str:
        """The text, with values in its places."""
        arguments = record.args
        text = str(record.msg) if isinstance(record.msg, _SHOWN) else _withheld(record.msg)
        try:
            if isinstance(arguments, Mapping):
                return text % {name: shown(value) for name, value in arguments.items()}
            return text % tuple(map(shown, arguments)) if arguments else text
        except (TypeError, ValueError):
            # Such as %d of something withheld.
            return text

    def fields(self, record: logging.LogRecord) -> dict[str, Any]:
        """Values by name, given as ``extra={"fields": {...}}``."""
        given = getattr(record, "fields", {})
        return {str(name): shown(value) for name, value in given.items()} if isinstance(given, Mapping) else {}

    def trace(self, record: logging.LogRecord) -> dict[str, Any]:
        """What went wrong, and where."""
        if not record.exc_info or record.exc_info[1] is None:
            return {}
        return {"error": shown(record.exc_info[1]), "trace": _places(record.exc_info[2])}


class JsonLines(_Lines):
    """``{"time", "level", "party", "source", "event", ...}``, then fields by name, then "error" and "trace"."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": self.time(record),
            "level": record.levelname.lower(),
            "party": self.party,
            "source": record.name,
            "event": self.event(record),
        }
        # No field takes the place of these.
        rest = {**self.fields(record), **self.trace(record)}
        line |= {name: value for name, value in rest.items() if name not in line}
        return json.dumps(line, ensure_ascii=False)


class TextLines(_Lines):
    """The same for people."""

    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {name}={value}" for name, value in self.fields(record).items())
        line = f"{self.time(record)} {record.levelname.lower():7} {self.party}: {self.event(record)}{fields}"
        trace = self.trace(record)
        if trace:
            line += f" ({trace['error']})" + "".join(f"\n    {place}" for place in trace["trace"])
        return line


def shown(value: Any) -> Any:
    """The value where a log may hold it, else its kind."""
    if isinstance(value, (bool, int, float, type(None))):
        return value
    if isinstance(value, _SHOWN):
        text = os.fspath(value) if isinstance(value, os.PathLike) else str(value)
        text = text if isinstance(text, str) else _withheld(text)
        return text if len(text) <= _MOST_TEXT else f"{text[:_MOST_TEXT]}..."
    if isinstance(value, OSError):
        return f"{type(value).__name__}: {value.strerror}"
    if isinstance(value, Mapping) and len(value) <= _MOST_ITEMS:
        return {str(shown(name)): shown(item) for name, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset, range)) and len(value) <= _MOST_ITEMS:
        # Names and a few numbers; a long row of numbers may be data.
        return [shown(item) for item in value]
    return _withheld(value)


def _withheld(value: Any) -> str:
    return f"<{type(value).__name__}>"


def _places(trace: TracebackType | None) -> list[str]:
    return [f"{frame.filename}:{frame.lineno} in {frame.name}" for frame in traceback.extract_tb(trace)]
