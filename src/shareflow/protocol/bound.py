"""Declared bounds, and a mode for tests that catches a value beyond one.

A comparison that is told |x| < bound looks at the low bits alone: a value beyond gives a wrong bit, and nobody can see
it. While a program is developed, :func:`insecure_checked_bounds` compares each such value in full as well and raises
where it lies beyond. That reveals one bit for each comparison, so it is for tests and calibration on data of one's own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

import tensorflow as tf

from shareflow.errors import EncodingError, in_graph
from shareflow.party.session import add_effect

_checked: ContextVar[bool] = ContextVar("checked", default=False)


@contextlib.contextmanager
def insecure_checked_bounds() -> Iterator[None]:
    """Inside the block, a value beyond its declared bound raises an EncodingError. Reveals whether there is one."""
    token = _checked.set(True)
    try:
        yield
    finally:
        _checked.reset(token)


def bounds_are_checked() -> bool:
    """Whether the innermost block asks for it."""
    return _checked.get()


def check_zero(count: tf.Tensor, text: str) -> None:
    """Raises an EncodingError of that text unless the count is 0; when the graph runs, if one is being traced."""
    if tf.executing_eagerly():
        if count.numpy():
            raise EncodingError(text)
        return
    add_effect(tf.raw_ops.Assert(condition=tf.equal(count, 0), data=[in_graph(text)], summarize=1))
