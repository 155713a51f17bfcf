"""Which runtime runs a traced program: this process, unless a ``with`` block names another."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any, TypeVar

import tensorflow as tf

from shareflow.runtime.program import Program

R = TypeVar("R", bound="Runtime")


class Runtime(abc.ABC):
    """Runs programs somewhere else. ``with runtime:`` makes it the one of all calls inside the block."""

    @property
    @abc.abstractmethod
    def width(self) -> int:
        """How many executions it computes side by side."""

    @abc.abstractmethod
    def run(self, program: Program, values: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """The outputs of one execution, of the values that :meth:`Program.values` gave for it.

        It may be called from several threads at once.
        """

    def __enter__(self: R) -> R:
        _entered.set((*_entered.get(), self))
        return self

    def __exit__(self, *exception: Any) -> None:
        _entered.set(_entered.get()[:-1])


# Innermost last. Each thread has its own.
_entered: ContextVar[tuple[Runtime, ...]] = ContextVar("runtimes", default=())


def current_runtime() -> Runtime | None:
    """The runtime of the innermost block, or None: programs run in this process."""
    return _entered.get()[-1] if _entered.get() else None
