"""Maxima and sorting by comparing all pairs at once: many comparisons, few rounds.

The rank of an element is how many others go before it: those that are larger, and those before it that are equal. All
pairs are compared in one step, and a rank is a sum of bits: local. The one of rank 0 is the largest; the element of
rank j is found as the sum over i of ([rank_i >= j] - [rank_i >= j + 1]) x_i, where ranks are small numbers, which take
few bits to compare.

Which way is cheaper depends on the network and on the size; sites and variants of these functions stand here.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from shareflow.errors import ProtocolError
from shareflow.nn.selection import chosen, comparable
from shareflow.protocol.arithmetic import concat
from shareflow.protocol.choices import Site
from shareflow.protocol.compare import at_least, non_negative
from shareflow.protocol.tensor import PrivateTensor

NETWORK, RANKING = "network", "ranking"
# Groups of two by one comparison each, without ranks.
BINARY: tuple[int, ...] = ()


@dataclass(frozen=True)
class Maximum(Site):
    """The largest of ``count`` values for each of ``lines``, by comparing ``bits`` bits, with its place or without.

    Variants: the sizes of the groups whose largest elements go on, level by level, until one is left. A group of two is
    one comparison, a larger one is ranked. () is groups of two all the way.
    """

    count: int
    lines: int
    bits: int
    places: bool

    def require(self, variant: object) -> None:
        good = isinstance(variant, tuple) and all(type(width) is int and width >= 2 for width in variant)
        left = self.count
        for width in variant if good and isinstance(variant, tuple) else ():
            good, left = good and left > 1, -(-left // width)
        if not good or (variant and left != 1):
            raise ProtocolError(
                f"A maximum of {self.count} takes the sizes of groups, each 2 or more, that leave one element in the "
                f"end, such as ({self.count},), or () for groups of two; got {variant!r}."
            )

    def __str__(self) -> str:
        return f"{'place of ' if self.places else ''}maximum of {self.count}, {self.lines} times, {self.bits} bits"


@dataclass(frozen=True)
class Sorting(Site):
    """The ``first`` largest of ``count`` values in order, for each of ``lines``; variants: "network" or "ranking"."""

    count: int
    lines: int
    bits: int
    first: int
    places: bool

    def require(self, variant: object) -> None:
        if variant not in (NETWORK, RANKING):
            raise ProtocolError(f"Sorting goes by {NETWORK!r} or by {RANKING!r}; got {variant!r}.")

    def __str__(self) -> str:
        return f"the {self.first} largest of {self.count} in order, {self.lines} times, {self.bits} bits"


def ranks(values: PrivateTensor, bound: float | None = None) -> PrivateTensor:
    """How many elements of the first axis go before each in descending order, without fractional bits.

    Of equals the first goes first, so that ranks are all different. ``values`` are masked. Rounds: a comparison.
    """
    count, rest = values.shape[0], values.shape[1:]
    first, second = np.triu_indices(count, 1)
    wins = non_negative(values.take(first.tolist()) - values.take(second.tolist()), bound)
    number = np.zeros((count, count), np.int64)
    number[first, second] = number[second, first] = np.arange(first.size)
    others = ~np.eye(count, dtype=bool)
    # [x_i >= x_j] for i < j puts i before j; otherwise j goes before i.
    before = np.where(np.arange(count)[:, None] > np.arange(count)[None], 1.0, -1.0)[others].reshape(count, count - 1)
    each = wins.take(number[others].tolist()).reshape(count, count - 1, *rest)
    along = (count, count - 1, *[1] * len(rest))
    certain = np.arange(count - 1, -1, -1.0).reshape(count, *[1] * len(rest))
    return each.times(np.broadcast_to(before.reshape(along), each.shape), 0).sum(1) + certain


def largest(values: PrivateTensor, places: Any, bound: float | None = None) -> tuple[PrivateTensor, Any]:
    """The largest along the first axis of two or more, the first among equals, and its place.

    Rounds: masking, a comparison, masking ranks, and a comparison of their few bits.
    """
    values = comparable(values)
    # Ranks from 0 on, of which only the first is below 1.
    top = ~non_negative(ranks(values, bound) - 1, float(max(values.shape[0] - 1, 2)))
    return chosen(top, values).sum(0), None if places is None else chosen(top, places).sum(0)


def in_order(values: PrivateTensor, places: Any, first: int, bound: float | None = None) -> tuple[PrivateTensor, Any]:
    """The ``first`` largest along the first axis, largest first, and their places; of equals the first goes first.

    Rounds: as :func:`largest`.
    """
    count = values.shape[0]
    values = comparable(values)
    behind = at_least(ranks(values, bound), range(1, min(first + 1, count)), float(count))

    def by_rank(x: Any) -> PrivateTensor:
        # Sums over those that have at least each rank; nobody has rank `count`.
        sums = [x.sum(0)[None], *(chosen(bits, x).sum(0)[None] for bits in behind)]
        if first == count:
            sums.append(sums[0] * 0)
        return concat([above - below for above, below in itertools.pairwise(sums)], 0)

    return by_rank(values), None if places is None else by_rank(places)


def tournament(
    values: PrivateTensor, places: Any, widths: tuple[int, ...], bound: float | None = None
) -> tuple[PrivateTensor, Any]:
    """The largest along the first axis and its place, by groups of such sizes; see :class:`Maximum`."""
    for width in widths:
        values, places = _level(values, places, width, bound)
    return values[0], None if places is None else places[0]


def group_sizes(count: int, width: int) -> list[tuple[int, int]]:
    """(how many groups, of how many elements) of ceil(count / width) groups of about the same size, largest first."""
    groups = -(-count // width)
    small, larger = divmod(count, groups)
    return [pair for pair in ((larger, small + 1), (groups - larger, small)) if pair[0]]


def _level(values: PrivateTensor, places: Any, width: int, bound: float | None) -> tuple[PrivateTensor, Any]:
    rest, begin = values.shape[1:], 0
    best: list[PrivateTensor] = []
    best_places: list[Any] = []
    for groups, size in group_sizes(values.shape[0], width):
        part = slice(begin, begin + groups * size)
        begin += groups * size
        own, own_places = (
            None if x is None else x[part].reshape(groups, size, math.prod(rest)).transpose(1, 0, 2)
            for x in (values, places)
        )
        winner, place = _winners(own, own_places, bound)
        best.append(winner.reshape(groups, *rest))
        best_places.append(None if place is None else place.reshape(groups, *rest))
    return concat(best, 0), None if places is None else concat(best_places, 0)


def _winners(values: Any, places: Any, bound: float | None) -> tuple[PrivateTensor, Any]:
    if values.shape[0] == 1:
        return values[0], None if places is None else places[0]
    if values.shape[0] > 2:
        return largest(values, places, bound)
    wins, winner = larger(values[0], values[1], bound)
    return winner, None if places is None else places[1] + chosen(wins, places[0] - places[1])


def larger(left: PrivateTensor, right: PrivateTensor, bound: float | None) -> tuple[PrivateTensor, PrivateTensor]:
    """([left >= right], the larger)."""
    difference = comparable(left - right)
    wins = non_negative(difference, bound)
    return wins, right + chosen(wins, difference)
