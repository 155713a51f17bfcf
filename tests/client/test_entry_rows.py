"""An entry as one party sees it, and the order of requests: what the client rests on, without any server."""

from __future__ import annotations

import threading
import tracemalloc

import numpy as np
import pytest
from tests.client.small_plan import small_plan
from tests.runtime.channel.pairs import GUARD

from shareflow_client.entry_rows import EntryRows
from shareflow_client.errors import PeerError, PlanError, RequestError
from shareflow_client.order import Order
from shareflow_client.plan_file import PlanFile

KEYS = {"server0": bytes(16), "server1": b"1" * 16}


def changed(change) -> EntryRows:
    plan = small_plan()
    manifest = plan.manifest
    change(manifest)
    return EntryRows(PlanFile(manifest, {name: b"" for name in manifest["graphs"]}).contents, "double", "client")


def test_turns_are_taken_in_the_order_they_were_given_out():
    order = Order()
    first, second, third = (order.turn(rows) for rows in (5, 1, 2))
    assert [(t.number, t.first_row) for t in (first, second, third)] == [(1, 0), (2, 5), (3, 6)]
    taken = []

    def take(turn, gives_up):
        with turn:
            if not gives_up:
                turn.wait()
                taken.append(turn.number)

    threads = [threading.Thread(target=take, args=(turn, turn is second)) for turn in (third, second)]
    for thread in threads:
        thread.start()
    threads[1].join(0.05)
    assert taken == []  # a turn that is given up does not let later ones pass before earlier ones
    take(first, False)
    for thread in threads:
        thread.join(GUARD)
    assert taken == [1, 3]


def test_masks_are_those_of_the_row_and_of_the_link():
    entry = changed(lambda manifest: None)
    x = {"x": np.ones((1, 2, 3))}

    def sent(row: int, keys=KEYS) -> bytes:
        return b"".join(entry.message("server0", entry.start(x, 1, row, keys)))

    assert sent(7) == sent(7)
    assert len({sent(7), sent(8), sent(7, {**KEYS, "server1": b"2" * 16})}) == 3


def test_results_of_another_size_are_refused():
    entry = changed(lambda manifest: None)
    started = entry.start({"x": np.ones((1, 2, 3))}, 1, 0, KEYS)
    with pytest.raises(PeerError, match="server0 sends 48 bytes of results; it sent 40"):
        entry.finish(started, {"server0": memoryview(bytes(40))})


def test_a_plan_without_a_graph_of_one_row_is_refused():
    with pytest.raises(PlanError, match="'double' has no graph of one row"):
        changed(lambda manifest: manifest["graphs"]["double"].update(batch=2))


def test_a_plan_that_has_clients_talk_to_the_dealer_is_refused():
    def to_dealer(manifest):
        manifest["graphs"]["double"]["external"]["client"]["sends"][0]["to"] = "server2"

    with pytest.raises(PlanError, match="has it talk to server2 too"):
        changed(to_dealer)


def test_checking_rows_needs_no_masks_and_names_the_row():
    entry = changed(lambda manifest: None)
    x = np.zeros((5, 2, 3))
    entry.check_rows({"x": x}, 5)
    x[3, 1, 1] = -2e9
    with pytest.raises(RequestError, match="Row 3 of 'x' for entry 'double': A value is at most"):
        entry.check_rows({"x": x}, 5)


def test_what_is_not_needed_any_more_is_forgotten():
    entry = EntryRows(small_plan().contents, "load", "model_owner")
    inputs = {"kernel": np.ones((300, 50)), "bias": np.ones(2)}
    entry.start(inputs, 1, 0, KEYS)
    tracemalloc.start()
    try:
        started = entry.start(inputs, 1, 1, KEYS)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert entry.send_size("server0", 1) == 8 * 300 * 50 + 16
    assert held < 1.5 * entry.send_size("server0", 1)  # the message; not its encoding, nor its masks
    assert len(started) == 1
