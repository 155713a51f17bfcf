"""What every front end gives: a model that can be traced at any batch size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Argument:
    """One input of a model: the shape of one sample where ``batched``, else of the whole.

    ``party``: who brings it; the client, where not said.
    """

    shape: tuple[int, ...]
    dtype: str
    batched: bool = True
    party: str | None = None

    def full_shape(self, batch: int) -> tuple[int, ...]:
        """With the batch axis."""
        return (batch, *self.shape) if self.batched else self.shape


@dataclass(frozen=True)
class Source:
    """A model before it is compiled.

    Args:
        name: for people.
        inputs: by name, in the order of the traced function's arguments.
        outputs: names of the results, in order.
        trace: the concrete function for a batch size.
        layer_of: the layer of a scope of TensorFlow's names.
        arrays_are_public: whether floating arrays in its code may stand in a plan.
    """

    name: str
    inputs: Mapping[str, Argument]
    outputs: tuple[str, ...]
    trace: Callable[[int], Any]
    layer_of: Callable[[str], str]
    arrays_are_public: bool = False

    @property
    def batched(self) -> bool:
        """Whether its inputs have a batch axis."""
        return any(argument.batched for argument in self.inputs.values())
