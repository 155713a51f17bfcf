"""Sample inputs of a model, checked, and cut into batches of one size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from shareflow.compiler.front.source import Argument
from shareflow.errors import EncodingError, ShapeError


@dataclass(frozen=True)
class Samples:
    """Arrays by the names of a model's inputs, and how many samples they are."""

    arguments: Mapping[str, Argument]
    arrays: Mapping[str, np.ndarray]
    count: int

    @classmethod
    def of(cls, arguments: Mapping[str, Argument], given: Any, count: int | None = None) -> Samples:
        """Samples of a model with these inputs, the first ``count`` of them.

        Args:
            given: arrays by input name, samples along the first axis; an array alone, where there is one input. An
                input that has no batch axis may be one array for all samples.

        Raises:
            ShapeError: an input is missing, or shapes and numbers of samples do not go together.
            EncodingError: a value is NaN or infinite.
        """
        arrays = given if isinstance(given, Mapping) else {next(iter(arguments)): given}
        if set(arrays) != set(arguments):
            raise ShapeError(
                f"Samples are given for each input of the model: {', '.join(arguments)}; got "
                f"{', '.join(map(str, arrays)) or 'none'}. Give an array for each name, and no others."
            )
        found, counts = {}, {}
        for name, argument in arguments.items():
            array = _checked(name, arrays[name])
            if array.shape[1:] == argument.shape and array.ndim == len(argument.shape) + 1:
                counts[name] = len(array)
            elif argument.batched or array.shape != argument.shape:
                raise ShapeError(
                    f"Samples of input {name!r} are an array [n, {', '.join(map(str, argument.shape))}]; got shape "
                    f"{list(array.shape)}."
                )
            found[name] = array.astype(argument.dtype)
        numbers = set(counts.values()) or {1}
        if len(numbers) > 1 or numbers == {0}:
            raise ShapeError(
                "All inputs have one number of samples, at least 1; got "
                f"{', '.join(f'{number} of {name!r}' for name, number in counts.items())}."
            )
        total = numbers.pop()
        return cls(arguments, found, total if count is None else min(count, total))

    def batches(self, size: int) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        """(how many are new, inputs by name) until all were given; the last batch is filled up with the first samples.

        A model whose inputs have no batch axis takes one sample at a time.
        """
        if not any(argument.batched for argument in self.arguments.values()):
            for at in range(self.count):
                yield 1, {name: self._one(name, at) for name in self.arguments}
            return
        for at in range(0, self.count, size):
            places = np.arange(at, at + size) % self.count
            inputs = {
                name: self.arrays[name][places] if argument.batched else self.arrays[name]
                for name, argument in self.arguments.items()
            }
            yield min(size, self.count - at), inputs

    def number_of_batches(self, size: int) -> int:
        """How many :meth:`batches` gives."""
        return -(-self.count // size) if any(a.batched for a in self.arguments.values()) else self.count

    def _one(self, name: str, at: int) -> np.ndarray:
        array = self.arrays[name]
        return array if array.shape == self.arguments[name].shape else array[at]


def _checked(name: str, value: Any) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise ShapeError(f"Samples are numbers; input {name!r} has {array.dtype}. Convert it to float32.")
    if array.dtype.kind == "f" and not np.all(np.isfinite(array)):
        raise EncodingError(
            f"Samples are finite numbers; {int(np.sum(~np.isfinite(array)))} of input {name!r} are NaN or infinite. "
            "Replace them first."
        )
    return array
