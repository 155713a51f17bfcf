"""What every front end gives: a model that can be traced at any batch size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from shareflow.errors import UnsupportedModelError
from shareflow.party.party import Party


@dataclass(frozen=True)
class Argument:
    """One input of a model.

    Args:
        shape: of one sample where ``batched``, else of the whole.
        dtype: of real or whole numbers or truth values; "float32" and the like.
        batched: whether it has a batch axis before that.
        party: who brings it; the client, where not said.

    Raises:
        UnsupportedModelError: extents that are not known, or values that are no numbers.
    """

    shape: tuple[int, ...]
    dtype: str = "float32"
    batched: bool = True
    party: Party | str | None = None

    def __post_init__(self) -> None:
        try:
            shape = tuple(int(extent) for extent in self.shape)
        except (TypeError, ValueError):
            shape = (-1,)
        if any(extent < 0 for extent in shape):
            raise UnsupportedModelError(
                f"An input has a shape of whole numbers, such as (28, 28, 1); got {self.shape!r}. All extents but the "
                "batch, which stays out, must be known."
            )
        kind = tf.as_dtype(self.dtype)
        if not (kind.is_floating or kind.is_integer or kind.is_bool):
            raise UnsupportedModelError(
                f"An input has real or whole numbers or truth values; got {kind.name}. Texts and look-ups stay outside "
                "of a private computation: turn them into numbers before, in plaintext at whose they are."
            )
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "dtype", kind.name)

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
