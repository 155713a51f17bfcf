"""Real numbers as ring elements: x stands as round(x * 2^fractional_bits), in two's complement."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from shareflow.errors import EncodingError, in_graph

# Bits that exact-wrap truncation can hold: |z| < 2^62.
_VALUE_BITS = 62


@dataclass(frozen=True)
class FixedPoint:
    """How many bits stand behind the point.

    An encoded value is at most 2^(62 - 2 fractional_bits) in size, so that its product with a value of size 1,
    which has twice the fractional bits, still fits: 2^30 with the default 16 bits.

    Raises:
        EncodingError: fractional_bits is not within 8 .. 24.
    """

    fractional_bits: int = 16

    def __post_init__(self) -> None:
        if not isinstance(self.fractional_bits, int) or not 8 <= self.fractional_bits <= 24:
            raise EncodingError(
                f"fractional_bits is a whole number from 8 to 24; got {self.fractional_bits!r}. "
                "16 gives values up to 2^30 in steps of 1.5e-5."
            )

    @property
    def limit(self) -> float:
        """The largest size of a value that can be encoded."""
        return 2.0 ** (_VALUE_BITS - 2 * self.fractional_bits)

    def encode(self, value: tf.Tensor, fractional_bits: int | None = None) -> tf.Tensor:
        """int64 tensor round(value * 2^fractional_bits), to nearest; the default is this encoding's own.

        Raises:
            EncodingError: NaN, infinite, or beyond :attr:`limit`. Inside a traced function the check is part
                of the graph: it fails when the value is given, and nothing is sent.
        """
        bits = self.fractional_bits if fractional_bits is None else fractional_bits
        reals = tf.cast(value, tf.float64)
        # A value scaled further (a bias at the scale of a product) must itself stay in the ring.
        limit = min(self.limit, 2.0 ** (_VALUE_BITS - bits))
        if tf.executing_eagerly():
            self._check(reals.numpy(), limit)
        else:
            # NaN fails the comparison too.
            fits = tf.reduce_all(tf.abs(reals) <= limit)
            # The bare operation: tf.debugging.Assert would build a conditional around it.
            check = tf.raw_ops.Assert(condition=fits, data=[in_graph("Encoding: " + self._rule(limit))], summarize=1)
            with tf.control_dependencies([check]):
                reals = tf.identity(reals)
        return tf.cast(tf.round(reals * 2.0**bits), tf.int64)

    def encode_array(self, value: np.ndarray, fractional_bits: int) -> np.ndarray:
        """The same for a NumPy array that everyone knows."""
        reals = np.asarray(value, np.float64)
        self._check(reals, min(self.limit, 2.0 ** (_VALUE_BITS - fractional_bits)))
        return np.rint(reals * 2.0**fractional_bits).astype(np.int64)

    def decode(self, words: tf.Tensor, fractional_bits: int) -> tf.Tensor:
        """float64 tensor words / 2^fractional_bits."""
        return tf.cast(words, tf.float64) * 2.0**-fractional_bits

    def _rule(self, limit: float) -> str:
        return (
            f"with {self.fractional_bits} fractional bits a value is finite and at most {limit:g} in size; "
            "one or more given values are not. Rescale the data, or use fewer fractional bits."
        )

    def _check(self, reals: np.ndarray, limit: float) -> None:
        if np.all(np.abs(reals) <= limit):
            return
        nan, infinite = int(np.isnan(reals).sum()), int(np.isinf(reals).sum())
        beyond = int(np.sum(np.abs(reals) > limit)) - infinite
        found = ", ".join(
            f"{count} {what}" for count, what in ((nan, "NaN"), (infinite, "infinite"), (beyond, "too large")) if count
        )
        raise EncodingError(f"Encoding: {self._rule(limit)} Found among {reals.size}: {found}.")
