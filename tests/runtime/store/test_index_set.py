"""Ranges of indices against a plain set."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from shareflow.runtime.store.index_set import IndexSet

LARGEST = 2**64 - 1
INDICES = st.one_of(st.integers(0, 40), st.integers(LARGEST - 8, LARGEST))


@given(st.lists(st.sets(INDICES, max_size=12), max_size=8))
def test_as_a_set(batches):
    ours, oracle, rows = IndexSet(), set(), {}
    for batch in batches:
        growth = ours.growth(batch)
        assert all((i in ours) == (i in oracle) for i in batch), "growth changes nothing"
        ours.grow(growth)
        oracle |= batch
        for first in growth.gone:
            del rows[first]
        rows.update(growth.new)
        assert all((i in ours) == (i in oracle) for i in (*range(43), *range(LARGEST - 10, LARGEST + 1)))
        ranges = list(ours.ranges())
        assert dict(ranges) == rows, "the rows on the disk follow"
        assert all(last + 1 < first for (_, last), (first, _) in pairwise(ranges)), "none touch"
    assert list(IndexSet(rows.items()).ranges()) == list(ours.ranges())


def test_nothing_to_add():
    growth = IndexSet([(3, 5)]).growth([])
    assert growth.gone == growth.new == ()
