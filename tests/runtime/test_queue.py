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
        turn = queue.turns()[0]
        batches.append(queue.take(turn, next(queue.variants(turn))[0]))
    assert queue.turns() == []
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
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 9)), max_size=12), st.booleans(), st.data())
def test_no_client_waits_for_two_batches_of_another(asked, mix, data):
    """However much that one asks for, and whenever it does."""
    queue, asked = Queue(manifest(), mix), list(enumerate(asked, 1))
    since = {}  # batches of others since a client was served, or came
    while asked or queue.waiting("predict"):
        if asked and (not queue.waiting("predict") or data.draw(st.booleans())):
            number, (client, rows) = asked.pop(0)
            queue.add(request(number, client, rows))
            since.setdefault(client, [])
            continue
        turn = queue.turns()[0]
        batch = queue.take(turn, next(queue.variants(turn))[0])
        served = {item.key.client for item in batch.requests}
        left = {item.key.client for item in queue.requests()}
        for client in left - served:
            since[client] += served
            assert all(since[client].count(other) <= 1 for other in "abc"), (client, since)
        since.update({client: [] for client in served})
        since = {client: others for client, others in since.items() if client in left}


def test_a_flood_of_one_client_and_one_row_of_another():
    for mix in (False, True):
        queue = Queue(manifest(), mix)
        for number in range(1, 100):
            queue.add(request(number, "flood", 30))
        queue.take(queue.turns()[0], "predict@8")
        queue.add(request(100, "ann"))
        turn = queue.turns()[0]
        rows = queue.take(turn, next(queue.variants(turn))[0]).rows["client"]
        assert "ann" in {row.request.key.client for row in rows}
        assert len(rows) == (8 if mix else 1)


def test_clients_take_turns_over_entries_too():
    queue = Queue(manifest(), False)
    for number in range(1, 10):
        queue.add(request(number, "flood", 8))
    queue.take(queue.turns()[0], "predict@8")
    queue.add(request(10, "owner", entry="load", acts_as="owner"))
    assert queue.turns() == [("load", None), ("predict", "flood")]


def test_rows_of_all_clients_are_in_a_batch_in_turn():
    queue = Queue(manifest(), True)
    queue.add(request(1, "flood", 20))
    queue.add(request(2, "ann", 2))
    queue.add(request(3, "bob", 1))
    (turn,) = queue.turns()
    assert (turn, queue.together(turn), queue.since(turn)) == (("predict", None), 23, 1)
    rows = queue.take(turn, "predict@8").rows["client"]
    assert [row.request.key.client for row in rows] == ["flood", "ann", "bob", "flood", "ann", *["flood"] * 3]


def test_what_is_full_need_not_wait_for_company():
    for mix in (False, True):
        queue = Queue(manifest(), mix)
        queue.add(request(1, "ann", 5))
        queue.add(request(2, "bob", 5))
        assert [queue.full(turn) for turn in queue.turns()] == ([True] if mix else [False, False])
        queue.add(request(3, "bob", 3))
        assert {turn.client: queue.full(turn) for turn in queue.turns()} == (
            {None: True} if mix else {"ann": False, "bob": True}
        )
    # Inputs that were joined never get company.
    queue.add(request(4, "ann", entry="meet"))
    queue.add(request(5, "owner", entry="meet", acts_as="owner"))
    assert [queue.full(turn) for turn in queue.turns() if turn.entry == "meet"] == [True]


@settings(deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.data())
def test_what_is_put_back_is_next_again(sizes, data):
    queue = Queue(manifest(), True)
    for i, rows in enumerate(sizes, 1):
        queue.add(request(i, rows=rows))
    graph = data.draw(st.sampled_from([f"predict@{size}" for size in SIZES]))
    batch = queue.take(queue.turns()[0], graph)
    waiting = queue.waiting("predict")
    queue.put_back(batch)
    queue.add(request(100, "bob"))
    assert queue.waiting("predict") == waiting + len(batch.rows["client"]) + 1
    mixed = queue.take(queue.turns()[0], graph).rows["client"]
    own = [row for row in mixed if row.request.key.client == "ann"]
    assert own == batch.rows["client"][: len(own)]
    assert mixed[0] == own[0] and len(mixed) - len(own) <= 1


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
    assert [graph for graph, _ in queue.variants(queue.turns()[0])] == graphs


def test_a_request_that_is_over_is_left_out():
    queue = Queue(manifest(), False)
    first, second = request(1, rows=3), request(2, rows=2)
    queue.add(first)
    queue.add(second)
    first.over = True
    assert queue.waiting("predict") == 2
    (turn,) = queue.turns()
    assert queue.since(turn) == 2
    assert [row.request for row in queue.take(turn, "predict@4").rows["client"]] == [second, second]


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
    (turn,) = queue.turns()
    assert [graph for graph, _ in queue.variants(turn)] == ["meet@1"]
    batch = queue.take(turn, "meet@1")
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
