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
        added = set(indices)
        touched: dict[int, int] = {}
        for index in added:
            for near in (index - 1, index, index + 1):
                slot = self._slot(near)
                if slot is not None:
                    touched[self._firsts[slot]] = self._lasts[slot]
        merged: list[tuple[int, int]] = []
        for first, last in sorted([*touched.items(), *((index, index) for index in added)]):
            if merged and first <= merged[-1][1] + 1:
                merged[-1] = (merged[-1][0], max(merged[-1][1], last))
            else:
                merged.append((first, last))
        return Growth(tuple(touched), tuple(merged))

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
