"""Fixed point in the clear that watches how large its ring values would be, if the ring had no end.

What wraps is silent in a real protocol, and its result is wrong. Here each operation is computed in floating point
beside the ring, on the ring's own operands, so that a value beyond is seen where it arises, inside of a layer, too.
For samples of one's own: nothing is secret here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf

from shareflow.protocol.op import BILINEAR, LINEAR, POWERS, RELU, SHIFT_RIGHT, TRUNCATE, Op
from shareflow.protocol.plain import Plain
from shareflow.share.share import Share

# Truncation takes |z| < 2^62, the ring holds |z| < 2^63.
TRUNCATED_BITS, RING_BITS = 62, 63


@dataclass(frozen=True)
class Sizes:
    """What was seen: ring values without wraps.

    Args:
        largest: any result's size.
        truncated: the largest operand of a truncation.
        truncated_sum: the sum of |z| over all that was truncated by one operation or another.
    """

    largest: float = 0.0
    truncated: float = 0.0
    truncated_sum: float = 0.0

    @property
    def bits(self) -> float:
        """log2 of the largest, a value that need only fit the ring counted one bit less: below 62 all is right."""
        most = max(self.truncated, self.largest * 2.0 ** (TRUNCATED_BITS - RING_BITS))
        return math.log2(most) if most > 0 else 0.0


class Watch:
    """Collects sizes since they were last taken."""

    def __init__(self) -> None:
        self._sizes = Sizes()

    def taken(self) -> Sizes:
        """What was seen since the last call."""
        found, self._sizes = self._sizes, Sizes()
        return found

    def see(self, op: Op, operands: list[tf.Tensor], attributes: dict[str, Any]) -> None:
        """One operation on ring values in the clear."""
        reals = [tf.cast(value, tf.float64) for value in operands]
        if not all(value.shape.num_elements() for value in reals):
            return
        before = self._sizes
        largest, truncated, total = before.largest, before.truncated, before.truncated_sum
        if op.kind in (LINEAR, BILINEAR) or op is POWERS:
            largest = max(largest, _size(op.real(*reals, **attributes)))
        if op is SHIFT_RIGHT or (op in (TRUNCATE, RELU) and attributes["bits"]):
            truncated = max(truncated, _size(reals[0]))
            # Exact shifts do without the chance that optimistic truncation takes.
            if op is not SHIFT_RIGHT:
                total += float(tf.reduce_sum(tf.abs(reals[0])))
        self._sizes = Sizes(largest, truncated, total)


def _size(value: tf.Tensor) -> float:
    return float(tf.reduce_max(tf.abs(value))) if value.shape.num_elements() else 0.0


@dataclass(frozen=True)
class Watched(Plain):
    """:class:`Plain`, operation by operation, under a watch. Not for traced functions: it looks at values."""

    watch: Watch = field(default_factory=Watch, compare=False)

    def apply(self, op: Op, *shares: Share, **attributes: Any) -> Share:
        """Carries out the operation, and looks at what its result would be without a wrap."""
        self.watch.see(op, [share.value for share in shares], attributes)  # type: ignore[attr-defined]
        return super().apply(op, *shares, **attributes)
