"""A set of 64-bit indices, kept as ranges: indices are spent nearly in order, so millions fit in a few."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Growth:
    """What a set needs to hold more indices: ranges that go, by their first index, and ranges that come."""

    gone: tuple[int, ...]
    new: tuple[tuple[int, int], ...]


class IndexSet:
    """Disjoint ranges, first and last index included, no two of which touch."""

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        ordered = sorted(ranges)
        self._firsts = [first for first, _ in ordered]
        self._lasts = [last for _, last in ordered]

    def __contains__(self, index: int) -> bool:
        return self._slot(index) is not None

    def ranges(self) -> Iterator[tuple[int, int]]:
        return zip(self._firsts, self._lasts, strict=True)

    def growth(self, indices: Iterable[int]) -> Growth:
        """How the ranges change when these are added. Nothing is added yet: that is :meth:`grow`."""
        added = _merged((index, index) for index in sorted(set(indices)))
        touched: dict[int, int] = {}
        for first, last in added:
            slots = slice(bisect_left(self._lasts, first - 1), bisect_right(self._firsts, last + 1))
            touched.update(zip(self._firsts[slots], self._lasts[slots], strict=True))
        return Growth(tuple(touched), tuple(_merged(sorted([*touched.items(), *added]))))

    def grow(self, growth: Growth) -> None:
        for first in growth.gone:
            slot = bisect_left(self._firsts, first)
            del self._firsts[slot], self._lasts[slot]
        for first, last in growth.new:
            slot = bisect_left(self._firsts, first)
            self._firsts.insert(slot, first)
            self._lasts.insert(slot, last)

    def _slot(self, index: int) -> int | None:
        slot = bisect_right(self._firsts, index) - 1
        return slot if slot >= 0 and index <= self._lasts[slot] else None


def _merged(ordered: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The ranges, in order, with those that touch or overlap made one."""
    merged: list[tuple[int, int]] = []
    for first, last in ordered:
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return merged
