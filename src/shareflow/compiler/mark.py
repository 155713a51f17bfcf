"""Marks: how a layer says what several TensorFlow ops of it mean as a whole.

A ``tf.function`` traced with ``experimental_implements=mark("shareflow.polynomial", ...)`` is read as one op of that
name.
"""

from __future__ import annotations

import ast
import re
from typing import Any


def mark(op: str, **attributes: Any) -> str:
    """Op and attributes (numbers, or lists of numbers) as one text."""
    return " ".join([op, *(f"{name}={value!r}" for name, value in attributes.items())])


def parse_mark(text: str) -> tuple[str, dict[str, Any]]:
    """Op and attributes of :func:`mark`."""
    op, _, rest = text.partition(" ")
    pairs = re.findall(r"(\w+)=(\[[^\]]*\]|\S+)", rest)
    return op, {name: ast.literal_eval(value) for name, value in pairs}
