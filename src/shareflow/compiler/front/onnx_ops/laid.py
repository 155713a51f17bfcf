"""Tensors that know how they lie: with their axes as ONNX says, or with channels last.

ONNX has channels second, TensorFlow computes on channels last. A convolution leaves its result as it made it; what
works element by element takes it as it lies; whoever needs ONNX's order asks for it. So axes move at the ends of a
network alone, not around each layer.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

# Bytes of an array that is remembered as such, for places that need its value: axes, limits, exponents.
_REMEMBERED = 1 << 16
_WORDS = {2: "uint16", 4: "int32", 8: "int64"}


class Laid:
    """A tensor of known shape.

    Args:
        first: with the axes in ONNX's order, or None.
        last: with the second axis moved to the end, or None; one of both is given.
        array: the value of an initialiser, where it is known and small.
    """

    def __init__(
        self, first: tf.Tensor | None = None, last: tf.Tensor | None = None, array: np.ndarray | None = None
    ) -> None:
        self._first, self._last = first, last
        self.array = array if array is not None and array.nbytes <= _REMEMBERED else None

    @property
    def first(self) -> tf.Tensor:
        """With axes in ONNX's order."""
        if self._first is None:
            self._first = channels_first(self._last)
        return self._first

    @property
    def last(self) -> tf.Tensor:
        """With channels last."""
        if self._last is None:
            self._last = channels_last(self._first)
        return self._last

    @property
    def lies_last(self) -> bool:
        """Whether it was made with channels last, and not asked for otherwise since."""
        return self._first is None

    @property
    def shape(self) -> tuple[int, ...]:
        """In ONNX's order."""
        if self._first is not None:
            return tuple(self._first.shape)
        batch, *places, channels = self._last.shape  # type: ignore[union-attr]
        return (batch, channels, *places)

    @property
    def dtype(self) -> tf.DType:
        """TensorFlow's type."""
        return (self._last if self._first is None else self._first).dtype  # type: ignore[union-attr]


def channels_last(x: tf.Tensor) -> tf.Tensor:
    """The second axis at the end."""
    rank = len(x.shape)
    return tf.transpose(x, [0, *range(2, rank), 1]) if rank > 2 else x


def channels_first(x: tf.Tensor) -> tf.Tensor:
    """The last axis second."""
    rank = len(x.shape)
    return tf.transpose(x, [0, rank - 1, *range(1, rank - 1)]) if rank > 2 else x


def public_tensor(value: np.ndarray) -> tf.Tensor:
    """A public array as a tensor.

    Floating arrays go by their bits: one that stands in the code as such is read as weights, which are the owner's.
    """
    if value.dtype.kind == "f" and value.size > 1:
        words = _WORDS[value.dtype.itemsize]
        return tf.bitcast(tf.constant(np.ascontiguousarray(value).view(words).reshape(value.shape)), value.dtype)
    return tf.constant(value)
