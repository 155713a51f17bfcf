"""What makes large models fit: memory used again, material read as it is needed, the dealer's messages in parts."""

import gc
import platform
import subprocess
import sys
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
from benchmarks.deployment import deployed, environment
from tests.runtime.fake_servers import small_plan

import shareflow as sf
from shareflow.errors import StoreError
from shareflow.runtime import cut as cutting
from shareflow.runtime import part as parts
from shareflow.runtime.cut import cut
from shareflow.runtime.part import PartProgram
from shareflow.runtime.reading_ahead import ReadingAhead
from shareflow.runtime.rehearsal import insecure_rehearsal
from shareflow.runtime.store import Store
from shareflow_client.aligned import ALIGNMENT, Pool
from shareflow_client.client import Client

MIB = 1 << 20


@pytest.fixture(scope="module")
def the_plan():
    return small_plan()


# --- memory -----------------------------------------------------------------------------------------------------


def address(view):
    return np.frombuffer(view, np.uint8).ctypes.data


@pytest.mark.parametrize("size", [0, 1, 1000, MIB - 1, MIB, 3 * MIB + 5])
def test_memory_has_its_size_is_aligned_and_can_be_written(size):
    view = Pool().memory(size)
    assert (view.nbytes, view.readonly) == (size, False)
    if size:
        assert address(view) % ALIGNMENT == 0


def test_memory_comes_back_only_when_its_last_user_is_gone():
    pool = Pool()
    view = pool.memory(MIB)
    where, words = address(view), np.frombuffer(view[8:], np.int64)[5:].reshape(-1, 2)
    del view
    gc.collect()
    assert pool.unused == 0
    assert address(pool.memory(MIB)) != where
    del words
    gc.collect()
    assert address(pool.memory(MIB - 100)) == where


def test_a_tensor_that_lies_in_memory_holds_it():
    pool = Pool()
    words = np.frombuffer(pool.memory(MIB), np.int64)
    words[:] = 7
    tensor = tf.experimental.dlpack.from_dlpack(words.__dlpack__())
    where = words.ctypes.data
    del words
    gc.collect()
    others = [np.frombuffer(pool.memory(MIB), np.int64) for _ in range(4)]
    for other in others:
        other[:] = 0
    assert where not in [other.ctypes.data for other in others]
    assert np.all(tensor.numpy() == 7)


ARENAS = """
import ctypes, re, sys, tempfile, threading
from shareflow.runtime.arenas import keep_arenas_few
if sys.argv[1] == "few":
    keep_arenas_few()
library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p
barrier = threading.Barrier(8)
def use():
    library.malloc(100_000)
    barrier.wait()
threads = [threading.Thread(target=use) for _ in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
library.fopen.restype = ctypes.c_void_p
with tempfile.NamedTemporaryFile() as file:
    stream = ctypes.c_void_p(library.fopen(file.name.encode(), b"w"))
    library.malloc_info(0, stream)
    library.fclose(stream)
    print(len(re.findall("<heap nr", open(file.name).read())))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no arenas")
def test_threads_share_few_arenas():
    def arenas(how):
        return int(subprocess.check_output([sys.executable, "-c", ARENAS, how], env=environment()).split()[-1])

    assert arenas("few") <= 2 < arenas("many")


def test_no_more_is_kept_than_was_said():
    pool = Pool(kept=3 * MIB)
    views = [pool.memory(MIB) for _ in range(8)]
    del views
    gc.collect()
    assert 0 < pool.unused <= 3 * MIB


def test_many_threads_never_share_memory():
    pool, wrong = Pool(), []

    def use(number):
        for size in (MIB, 2 * MIB, MIB // 2) * 20:
            array = np.frombuffer(pool.memory(size), np.uint8)
            array[:] = number
            if not np.all(array == number):
                wrong.append(number)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# --- material that is read while it is used -------------------------------------------------------------------------


@pytest.fixture
def large(tmp_path):
    """(material, its content): 6 MB, from a store."""
    data = np.random.default_rng(1).bytes(6 * MIB + 24)
    with Store.open(tmp_path / "store", bytes(range(32)), plan_fingerprint="ab" * 32, party="server0") as store:
        store.put_material("predict@1", 0, 1, b"k" * 16, [data])
        (material,) = store.take("predict@1", 0, [1])
        yield material, data


def test_pieces_are_read_ahead_in_any_order(large):
    material, data = large
    pieces = [(0, 8), (8, 3 * MIB), (5 * MIB, MIB + 24), (3 * MIB + 8, 2 * MIB - 8), (16, 0)]
    with ReadingAhead(material, pieces) as reading:
        for begin, size in pieces:
            assert reading.read(begin, size) == data[begin : begin + size]


def test_what_is_not_read_any_more_holds_up_nobody(large):
    material, data = large
    before = threading.active_count()
    with ReadingAhead(material, [(0, 6 * MIB)] * 50) as reading:
        assert reading.read(0, 6 * MIB) == data[: 6 * MIB]
    assert threading.active_count() == before


def test_a_failure_to_read_reaches_who_takes(large):
    material, _ = large
    material.close()
    with ReadingAhead(material, [(0, 8), (MIB, 8)]) as reading, pytest.raises(StoreError):
        reading.read(0, 8)


# --- the parts of a plan --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at_once", [0, 1 << 18])
@pytest.mark.parametrize("server", ["server0", "server1"])
def test_each_correction_is_read_once_and_at_its_place(the_plan, server, at_once, monkeypatch):
    monkeypatch.setattr(parts, "_AT_ONCE", at_once)
    for graph in the_plan.manifest.graphs:
        program = PartProgram(cut(the_plan, graph, server))
        size = program.part.corrections.nbytes if program.part.corrections else 0
        pieces = sorted(program.pieces)
        assert [begin for begin, _ in pieces] == [sum(n for _, n in pieces[:i]) for i in range(len(pieces))]
        assert sum(n for _, n in pieces) == size
        assert not at_once or len(pieces) == bool(size)


def test_what_is_read_in_pieces_computes_the_same(the_plan, monkeypatch):
    weights = np.linspace(-1, 1, 12).reshape(4, 3).astype(np.float32)
    found = []
    for at_once in (0, 1 << 18):
        monkeypatch.setattr(parts, "_AT_ONCE", at_once)
        session = sf.insecure_session(6)
        state = insecure_rehearsal(the_plan, "load", {"w": weights}, session).state
        found.append(insecure_rehearsal(the_plan, "predict@1", {"x": np.ones((1, 4), np.float32)}, session, state))
    assert sorted(found[0].messages) == sorted(found[1].messages)
    np.testing.assert_array_equal(found[0].results["result"], found[1].results["result"])


def test_a_dealer_makes_the_same_in_many_steps(the_plan, monkeypatch):
    weights = np.linspace(-1, 1, 12).reshape(4, 3).astype(np.float32)
    x = np.array([[1, -2, 0.5, 3]], np.float32)
    found = []
    for size in (1 << 40, 8):
        monkeypatch.setattr(cutting, "_DEALT_AT_ONCE", size)
        session = sf.insecure_session(5)
        state = insecure_rehearsal(the_plan, "load", {"w": weights}, session).state
        run = insecure_rehearsal(the_plan, "predict@1", {"x": x}, session, state)
        part = cut(the_plan, "predict@1", "dealer")
        sent = [message for message in run.messages if message[0] == "dealer"]
        found.append((len(part.steps), part.deals, sent, run.results["result"]))
    (few, deals, dealt, result), (many, same_deals, same_dealt, same_result) = found
    assert few == 1 < many
    assert deals == same_deals
    assert dealt == same_dealt
    np.testing.assert_array_equal(result, same_result)


def test_functions_run_on_zeros_before_the_first_request(the_plan):
    for party in the_plan.manifest.computing:
        for graph in the_plan.manifest.graphs:
            program = PartProgram(cut(the_plan, graph, party))
            assert program.warm_up() is program


@pytest.mark.slow
def test_a_network_with_large_messages_runs_on_three_processes(tmp_path):
    layers = keras.layers
    keras.utils.set_random_seed(3)
    image = keras.Input((64, 64, 3))
    x = layers.Conv2D(24, 3, padding="same", activation="relu", kernel_initializer="he_normal")(image)
    y = layers.Conv2D(24, 3, padding="same", activation="relu", kernel_initializer="he_normal")(x)
    x = layers.MaxPooling2D(2)(layers.Add()([x, y]))
    x = layers.Conv2D(48, 3, strides=2, activation="relu", kernel_initializer="he_normal")(x)
    model = keras.Model(image, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))
    plan = sf.compile_model(model, owner="owner", client="client", batch_sizes=(1,))
    parts = [cut(plan, "predict@1", server) for server in plan.manifest.protocol.servers]
    # Read while it is used, written as it comes, made in several steps.
    assert min(part.corrections.nbytes for part in parts) > 8 * MIB
    assert len(cut(plan, "predict@1", plan.manifest.protocol.dealer).steps) > 2
    plan.write(tmp_path / "model.plan")
    samples = np.random.default_rng(4).uniform(0, 1, (4, 64, 64, 3)).astype(np.float32)
    folder = tmp_path / "parties"
    folder.mkdir()
    with deployed(folder, tmp_path / "model.plan", {"hospital": "client", "owner-1": "owner"}) as parties:
        with Client(parties.config("owner-1")) as client:
            assert client.load(sf.parameters_of(model)) > 0
        with Client(parties.config("hospital")) as client:
            found = [client.predict(samples[:2]), client.predict(samples[2:])]
        np.testing.assert_allclose(np.concatenate(found), model(samples), atol=2e-2)
        # The dealer is killed in the middle of its work, and goes on when it is back.
        parties.kill("dealer")
        parties.start("dealer")
        parties.await_links()
        with Client(parties.config("hospital")) as client:
            np.testing.assert_allclose(client.predict(samples), model(samples), atol=2e-2)
