"""What goes together in one execution: by property, over orders of arrival, sizes and clients."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shareflow.runtime.queue import Queue
from shareflow.runtime.requests import Request, RequestKey

SIZES = (1, 4, 8)


def manifest():
    graphs = {f"predict@{size}": SimpleNamespace(batch=size, external={"client": None}) for size in SIZES}
    graphs |= {
        "load": SimpleNamespace(batch=None, external={"owner": None}),
        "meet@1": SimpleNamespace(batch=1, external={"client": None, "owner": None}),
        "meet@4": SimpleNamespace(batch=4, external={"client": None, "owner": None}),
    }
    entries = {
        "predict": SimpleNamespace(variants=tuple(f"predict@{size}" for size in SIZES), batched=True),
        "load": SimpleNamespace(variants=("load",), batched=False),
        "meet": SimpleNamespace(variants=("meet@1", "meet@4"), batched=True),
    }
    return SimpleNamespace(graphs=graphs, entries=entries)


def request(number, client="ann", rows=1, entry="predict", acts_as="client", label="", since=None):
    key = RequestKey(client, "s" * 32, number)
    return Request(key, entry, acts_as, label, rows, number * 100, None, 8, since=number if since is None else since)


def drain(queue, entry="predict"):
    """All batches of an entry, each of the graph that is tried first."""
    batches = []
    while queue.waiting(entry):
        graph, _ = next(queue.variants(entry))
        batches.append(queue.take(entry, graph))
    return batches


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 11)), max_size=12), st.booleans())
def test_every_row_is_computed_once_and_clients_stay_apart(asked, mix):
    queue = Queue(manifest(), mix)
    requests = [request(i, client, rows) for i, (client, rows) in enumerate(asked, 1)]
    for item in requests:
        assert queue.add(item) is None
    batches = drain(queue)
    rows = [row for batch in batches for row in batch.rows["client"]]
    assert sorted((r.request.key.number, r.number) for r in rows) == [
        (item.key.number, row) for item in requests for row in range(item.rows)
    ]
    for batch in batches:
        assert 1 <= len(batch.rows["client"]) <= int(batch.graph.partition("@")[2])
        if not mix:
            assert len({r.request.key.client for r in batch.rows["client"]}) == 1
    for client in "abc":
        # Each client's rows go in the order in which they came.
        own = [(r.request.key.number, r.number) for r in rows if r.request.key.client == client]
        assert own == sorted(own)


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 9)), min_size=1, max_size=8), st.booleans())
def test_the_one_that_waits_longest_is_in_the_next_batch(asked, mix):
    queue = Queue(manifest(), mix)
    for i, (client, rows) in enumerate(asked, 1):
        queue.add(request(i, client, rows))
    while queue.waiting("predict"):
        oldest = min(r.key.number for r in queue.requests())
        assert queue.oldest("predict") == oldest
        batch = queue.take("predict", next(queue.variants("predict"))[0])
        assert oldest in {item.key.number for item in batch.requests}


@settings(deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.data())
def test_what_is_put_back_is_next_again(sizes, data):
    queue = Queue(manifest(), True)
    for i, rows in enumerate(sizes, 1):
        queue.add(request(i, rows=rows))
    graph = data.draw(st.sampled_from([f"predict@{size}" for size in SIZES]))
    batch = queue.take("predict", graph)
    waiting = queue.waiting("predict")
    queue.put_back(batch)
    assert queue.waiting("predict") == waiting + len(batch.rows["client"])
    assert queue.take("predict", graph).rows == batch.rows


@pytest.mark.parametrize(
    ("waiting", "graphs"),
    [
        (1, ["predict@1", "predict@4", "predict@8"]),
        (3, ["predict@4", "predict@1", "predict@8"]),
        (4, ["predict@4", "predict@1", "predict@8"]),
        (5, ["predict@8", "predict@4", "predict@1"]),
        (30, ["predict@8", "predict@4", "predict@1"]),
    ],
)
def test_the_graph_that_wastes_least_is_tried_first(waiting, graphs):
    queue = Queue(manifest(), False)
    queue.add(request(1, rows=waiting))
    assert [graph for graph, _ in queue.variants("predict")] == graphs


def test_a_request_that_is_over_is_left_out():
    queue = Queue(manifest(), False)
    first, second = request(1, rows=3), request(2, rows=2)
    queue.add(first)
    queue.add(second)
    first.over = True
    assert queue.waiting("predict") == 2 and queue.oldest("predict") == 2
    assert [row.request for row in queue.take("predict", "predict@4").rows["client"]] == [second, second]


def test_parties_meet_under_a_label_alone():
    queue = Queue(manifest(), True)
    for item in (
        request(1, entry="meet", label="one"),
        request(2, entry="meet", label="two"),
        request(3, "owner", entry="meet", acts_as="owner", label="two"),
    ):
        queue.add(item)
    assert queue.waiting("meet") == 1
    # One request of each party is one row, whatever larger graphs there are.
    assert [graph for graph, _ in queue.variants("meet")] == ["meet@1"]
    batch = queue.take("meet", "meet@1")
    assert {party: row.request.key.number for party, (row,) in batch.rows.items()} == {"client": 2, "owner": 3}
    assert queue.waiting("meet") == 0 and [r.key.number for r in queue.requests()] == [1]


def test_a_later_request_takes_the_place_of_an_earlier_one_under_a_label():
    queue = Queue(manifest(), True)
    first, second = request(1, entry="meet", label="x"), request(2, entry="meet", label="x")
    assert queue.add(first) is None
    assert queue.add(second) is first


def test_an_entry_without_batches_takes_one_request_at_a_time():
    queue = Queue(manifest(), True)
    queue.add(request(1, "owner", entry="load", acts_as="owner"))
    queue.add(request(2, "owner", entry="load", acts_as="owner"))
    assert [len(batch.requests) for batch in drain(queue, "load")] == [1, 1]
