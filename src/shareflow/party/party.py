"""Who computes, and where: the only place that pins TensorFlow operations to a party."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf

from shareflow.errors import PlacementError

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_entered = threading.local()


@dataclass(frozen=True)
class Party:
    """One organisation, or one machine of it, that computes or holds data.

    ``with alice:`` pins the operations built inside to Alice. In a traced graph that is
    ``tf.device("/job:alice")``; run eagerly, in one process, it changes nothing.

    Names are letters, digits, ``-`` and ``_``, and begin with a letter. As TensorFlow's job names have no
    dash, ``-`` and ``_`` count as one letter: ``model-owner`` and ``model_owner`` are the same party.

    Raises:
        PlacementError: the name is not of this form.
    """

    name: str = field(compare=False)
    job: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise PlacementError(
                "A party's name is letters, digits, '-' and '_' and begins with a letter; "
                f"{self.name!r} is not. Name the party like 'model-owner'."
            )
        object.__setattr__(self, "job", self.name.replace("-", "_"))

    @property
    def device(self) -> str:
        """The TensorFlow device that stands for this party in a traced graph."""
        return f"/job:{self.job}"

    def __enter__(self) -> Party:
        stack = _entered.__dict__.setdefault("stack", [])
        scope: Any = contextlib.nullcontext() if tf.executing_eagerly() else tf.device(self.device)
        scope.__enter__()
        stack.append(scope)
        return self

    def __exit__(self, *exception: Any) -> None:
        _entered.stack.pop().__exit__(*exception)

    def __str__(self) -> str:
        return self.name


def as_party(party: Party | str) -> Party:
    """The party itself, or the one of that name."""
    if isinstance(party, Party):
        return party
    if isinstance(party, str):
        return Party(party)
    raise PlacementError(
        f"A party is given as a Party or by its name; got {type(party).__name__}. Write for example 'server0'."
    )


def at_each(parties: Iterable[Party], compute: Callable[..., tf.Tensor], *parts: Iterable[Any]) -> tuple[Any, ...]:
    """``compute(*parts of party)`` at every party: the same local step, each on its own values."""
    results = []
    for party, *own in zip(parties, *parts, strict=True):
        with party:
            results.append(compute(*own))
    return tuple(results)
