"""Maxima of ranges along one axis, where ranges overlap: each comparison serves all ranges that hold its two parts.

A range is split in two until single elements are left. A maximum does not mind an element that is in both parts, so
that there are several ways to split one, of which the one with the fewest comparisons is taken.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

from shareflow.nn.selection import maximum
from shareflow.protocol.arithmetic import concat
from shareflow.protocol.tensor import PrivateTensor

Range = tuple[int, int]
Split = Callable[[int, int, int], tuple[Range, Range]]

# The two parts of a range from a to b, of at most p elements each.
_SPLITS: tuple[Split, ...] = (
    lambda a, b, p: ((a, a + p), (a + p, b)),
    lambda a, b, p: ((a, b - p), (b - p, b)),
    lambda a, b, p: ((a, a + p), (b - p, b)),
)


@dataclass(frozen=True)
class Level:
    """Places of the two sides of each comparison, and of what goes on to the next level as it is."""

    left: tuple[int, ...]
    right: tuple[int, ...]
    kept: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """Levels of comparisons, and where each range's maximum stands after them."""

    levels: tuple[Level, ...]
    places: tuple[int, ...]

    @property
    def comparisons(self) -> int:
        """How many there are for one line along the axis."""
        return sum(len(level.left) for level in self.levels)


@functools.cache
def plan_for(ranges: tuple[Range, ...]) -> Plan:
    """The plan of the fewest comparisons for ranges (first, behind the last), each of one element or more.

    It takes ceil(log2(n)) levels for ranges of up to n elements.
    """
    return min((_plan(ranges, split) for split in _SPLITS), key=lambda plan: plan.comparisons)


def _plan(ranges: tuple[Range, ...], split: Split) -> Plan:
    # From the whole ranges down to single elements.
    wanted = list(dict.fromkeys(ranges))
    layers: list[tuple[list[Range], dict[Range, tuple[Range, Range]]]] = []
    part = 1
    while part < max(b - a for a, b in ranges):
        part *= 2
    while part > 1:
        part //= 2
        halves = {(a, b): split(a, b, part) for a, b in wanted if b - a > part}
        layers.append((wanted, halves))
        wanted = sorted({half for one in wanted for half in halves.get(one, (one,))})
    # And up again: after each level the maxima stand in the order of `stands`.
    stands = {one: one[0] for one in wanted}
    levels = []
    for above, halves in reversed(layers):
        pairs = [halves[one] for one in above if one in halves]
        kept = [one for one in above if one not in halves]
        left, right = (tuple(stands[pair[side]] for pair in pairs) for side in (0, 1))
        levels.append(Level(left, right, tuple(stands[one] for one in kept)))
        stands = {one: place for place, one in enumerate([*(one for one in above if one in halves), *kept])}
    return Plan(tuple(levels), tuple(stands[one] for one in ranges))


def maxima(x: PrivateTensor, ranges: tuple[Range, ...], axis: int, bound: float | None = None) -> PrivateTensor:
    """The maximum of each range along an axis. Rounds: ceil(log2(n)) times masking and three, for n elements."""
    plan = plan_for(ranges)
    for level in plan.levels:
        best = maximum(taken(x, level.left, axis), taken(x, level.right, axis), bound)
        x = concat([best, taken(x, level.kept, axis)], axis) if level.kept else best
    return taken(x, plan.places, axis)


def taken(x: PrivateTensor, places: tuple[int, ...], axis: int) -> PrivateTensor:
    """The entries at these places, or x itself where that is all of them in order."""
    if places == tuple(range(x.shape[axis])):
        return x
    if places and places == tuple(range(places[0], places[-1] + 1)):
        return x[(slice(None),) * axis + (slice(places[0], places[-1] + 1),)]
    return x.take(places, axis)
