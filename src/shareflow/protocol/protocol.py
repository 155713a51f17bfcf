"""What every protocol is: parties, an encoding, and a table of rules."""

from __future__ import annotations

import abc
from contextvars import ContextVar
from typing import Any, ClassVar

import tensorflow as tf

from shareflow.party.party import Party
from shareflow.protocol.op import Op
from shareflow.protocol.rules import Rules
from shareflow.ring.fixed_point import FixedPoint
from shareflow.share.known import Known
from shareflow.share.share import Share


class Protocol(abc.ABC):
    """A protocol is a frozen dataclass that holds its parties, encoding and functionalities.

    ``with protocol:`` makes it the one that inputs of parties meet in, inside the block.
    """

    rules: ClassVar[Rules]
    fixed_point: FixedPoint

    @property
    @abc.abstractmethod
    def computing_parties(self) -> tuple[Party, ...]:
        """All parties that take part in a computation."""

    @abc.abstractmethod
    def share(self, known: Known, fractional_bits: int) -> Share:
        """An owner's value, encoded and given to the computing parties."""

    @abc.abstractmethod
    def reveal(self, share: Share, receiver: Party) -> tf.Tensor:
        """The ring value, at the receiver and nowhere else."""

    @abc.abstractmethod
    def reusable(self, share: Share) -> Share:
        """The form in which a value serves any number of uses with no more communication."""

    def apply(self, op: Op, *shares: Share, **attributes: Any) -> Share:
        """Carries out an operation by this protocol's rule for these kinds of shares."""
        return self.rules.apply(self, op, *shares, **attributes)

    def __enter__(self) -> Protocol:
        _entered.set((*_entered.get(), self))
        return self

    def __exit__(self, *exception: Any) -> None:
        _entered.set(_entered.get()[:-1])


# Innermost last; each thread has its own.
_entered: ContextVar[tuple[Protocol, ...]] = ContextVar("protocols", default=())


def innermost_protocol() -> Protocol | None:
    """The protocol of the innermost ``with protocol:``, if any."""
    return _entered.get()[-1] if _entered.get() else None
