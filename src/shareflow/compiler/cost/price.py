"""Rounds, bytes and work of the steps that comparisons, maxima and sorting are made of, by closed formulas.

Rounds and bytes are those that :mod:`shareflow.audit.cost` counts in a traced graph; tests hold them equal for every
variant. Work is what :mod:`shareflow.compiler.cost.work` counts, up to operations that move words without a sum.

Names: n values, packed in w = ceil(n / 64) words for each of T thresholds; G groups of g bits; a layout's levels l.
"""

from __future__ import annotations

import abc
import functools
import math
from dataclasses import dataclass, field

import numpy as np

from shareflow.compiler.cost.work import KINDS, Vector
from shareflow.nn.ranking import NETWORK, Maximum, Sorting, group_sizes
from shareflow.nn.reduction import sorting_network
from shareflow.protocol.functionality.comparison import Compared, Layout, layouts_for
from shareflow.ring import kernels

_WORD = 8


def _none() -> Vector:
    return np.zeros(len(KINDS))


@dataclass(frozen=True, eq=False)
class Price:
    """What a step takes, with no network and no machine in it.

    Args:
        rounds: openings that wait for each other.
        online: bytes that both servers send together.
        offline: the dealer's bytes.
        computing: work of both servers together, in the order of KINDS.
        dealing: the dealer's work.
    """

    rounds: int = 0
    online: int = 0
    offline: int = 0
    computing: Vector = field(default_factory=_none)
    dealing: Vector = field(default_factory=_none)

    def __add__(self, after: Price) -> Price:
        """One step after the other."""
        return self._with(after, self.rounds + after.rounds)

    def beside(self, other: Price) -> Price:
        """Both at once: the rounds are those of the longer one."""
        return self._with(other, max(self.rounds, other.rounds))

    def without(self, part: Price) -> Price:
        """The same without what nobody needs, whose rounds are those of something else."""
        return Price(
            self.rounds,
            self.online - part.online,
            self.offline - part.offline,
            self.computing - part.computing,
            self.dealing - part.dealing,
        )

    def _with(self, other: Price, rounds: int) -> Price:
        return Price(
            rounds,
            self.online + other.online,
            self.offline + other.offline,
            self.computing + other.computing,
            self.dealing + other.dealing,
        )


def _work(**counts: float) -> Vector:
    return np.array([float(counts.get(kind, 0)) for kind in KINDS])


def mask(n: int) -> Price:
    """<<x>> of <x>: one opening."""
    return Price(
        1,
        2 * _WORD * n,
        0,
        _work(operations=6, random=2 * n, words=4 * n),
        _work(operations=3, random=2 * n, words=n),
    )


def select(n: int) -> Price:
    """A bit times a masked value: l and a l are dealt."""
    return Price(
        0,
        0,
        2 * _WORD * n,
        _work(operations=4, random=2 * n, words=10 * n),
        _work(operations=6, random=2 * n, words=3 * n, packing=n),
    )


def to_ring(n: int) -> Price:
    """A bit as a ring element: l is dealt."""
    return Price(
        0,
        0,
        _WORD * n,
        _work(operations=11, random=n, words=9 * n, packing=2 * n),
        _work(operations=3, random=n, words=n, packing=n),
    )


def compare(site: Compared, layout: Layout) -> Price:
    """[x >= t] for each threshold t, of a masked x."""
    n, thresholds = site.elements, site.thresholds
    w = -(-n // 64)
    w_all = thresholds * w
    groups = math.prod(layout.gates)
    # Products that the dealer corrects, and bits that the servers open under masks, in words.
    grouped = ((1 << layout.group) - 1) * groups * w
    gated, opened, left = 0, 0, groups
    for level, radix in enumerate(layout.gates, 1):
        opened += 2 * left * w_all
        left //= radix
        gated += left * kernels.gate_product_count(radix=radix, last=level == len(layout.gates)) * w_all
    levels = len(layout.gates)
    random = grouped + gated + 2 * (opened + w_all)
    return Price(
        layout.rounds,
        2 * _WORD * (opened + w_all),
        _WORD * (grouped + gated),
        _work(
            operations=9 * levels + 10 + 7 * thresholds,
            random=random,
            gates=2 * (thresholds * (n + grouped) + gated + w_all) + 6 * opened,
            packing=thresholds * n,
            words=4 * (opened + w_all) + thresholds * n + (4 * groups * w_all if thresholds > 1 else 0),
        ),
        _work(
            operations=6 * levels + 8 + 2 * thresholds,
            random=random,
            gates=n + grouped + gated + opened,
            packing=thresholds * n,
            words=grouped + gated + opened + thresholds * n,
        ),
    )


@functools.cache
def layouts_to_weigh(bits: int, thresholds: int) -> tuple[Layout, ...]:
    """Those of which no other is at least as good in rounds, online and offline bytes.

    One of them takes the least time whatever a round and a byte cost, as more bytes are more work, too.
    """
    size = 64
    priced = [(compare(Compared(bits, size, thresholds), layout), layout) for layout in layouts_for(bits)]
    costs = {(p.rounds, p.online, p.offline): layout for p, layout in reversed(priced)}
    kept = []
    for cost, layout in costs.items():
        worse = (all(a <= b for a, b in zip(other, cost, strict=True)) and other != cost for other in costs)
        if not any(worse):
            kept.append(layout)
    return tuple(kept)


class Comparisons(abc.ABC):
    """How comparisons inside maxima and sorting are priced: each with a layout of its own."""

    @abc.abstractmethod
    def price(self, site: Compared) -> Price:
        """The price of a comparison in the layout that it will have."""


def largest(count: int, lines: int, bits: int, places: bool, comparisons: Comparisons) -> Price:
    """The largest of ``count``, by ranks, and its place or not."""
    n, pairs = count * lines, count * (count - 1) // 2 * lines
    price = mask(n) + comparisons.price(Compared(bits, pairs)) + _ranks(count, lines)
    price = price + mask(n) + comparisons.price(Compared(small_bits(max(count - 1, 2)), n)) + select(n)
    return price.beside(_chosen_places(n)) if places else price


def _ranks(count: int, lines: int) -> Price:
    pairs, all_pairs = count * (count - 1) // 2 * lines, count * (count - 1) * lines
    # Both sides of each pair, and their difference, in each of four components and the mask; then the sums.
    moved = Price(0, 0, 0, _work(operations=30, words=12 * pairs + 4 * all_pairs), _work(operations=3, words=3 * pairs))
    return to_ring(pairs) + moved


def binary(n: int, bits: int, places: bool, comparisons: Comparisons) -> Price:
    """One level of n comparisons of two."""
    moved = Price(0, 0, 0, _work(operations=16, words=18 * n), _work())
    price = mask(n) + comparisons.price(Compared(bits, n)) + select(n) + moved
    return price.beside(_chosen_places(n)) if places else price


def _chosen_places(n: int) -> Price:
    """Places are masked beside the values, in a round that there is already."""
    return mask(n) + select(n)


def small_bits(bound: int) -> int:
    """Bits of comparing whole numbers below a bound in size."""
    return max(math.ceil(math.log2(bound)), 1)


def level(count: int, width: int, lines: int, bits: int, places: bool, comparisons: Comparisons) -> Price:
    """One level of a maximum by groups of a size. Where only the place is wanted, the last one chooses no value."""
    price = Price()
    for groups, size in group_sizes(count, width):
        if size == 2:
            price = price.beside(binary(groups * lines, bits, places, comparisons))
        elif size > 2:
            price = price.beside(largest(size, groups * lines, bits, places, comparisons))
    if places and width >= count:
        price = price.without(select(lines if count == 2 else count * lines))
    return price


def maximum(site: Maximum, widths: tuple[int, ...], comparisons: Comparisons) -> Price:
    """A maximum by groups of such sizes; () for neighbours in twos, of which an odd one waits."""
    price, count = Price(), site.count
    while not widths and count > 1:
        price = price + binary(count // 2 * site.lines, site.bits, site.places, comparisons)
        count = -(-count // 2)
    for width in widths:
        price = price + level(count, width, site.lines, site.bits, site.places, comparisons)
        count = -(-count // width)
    return price if widths or not site.places or site.count == 1 else price.without(select(site.lines))


def sorting(site: Sorting, variant: str, comparisons: Comparisons) -> Price:
    """Sorting by a network, or by ranks."""
    count, lines = site.count, site.lines
    if variant == NETWORK:
        price = Price()
        for low, _ in sorting_network(count):
            price = price + binary(len(low) * lines, site.bits, site.places, comparisons)
        return price
    n, pairs = count * lines, count * (count - 1) // 2 * lines
    thresholds = min(site.first, count - 1)
    price = mask(n) + comparisons.price(Compared(site.bits, pairs)) + _ranks(count, lines)
    price = price + mask(n) + comparisons.price(Compared(small_bits(count), n, thresholds))
    for _ in range(thresholds):
        # Places are public here: they take the bits alone.
        price = price.beside(select(n))
        price = price.beside(to_ring(n)) if site.places else price
    return price
