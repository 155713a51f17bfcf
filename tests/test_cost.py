"""Rounds and bytes: as declared at each operation, as counted from its graph, and as measured when it runs."""

import math
from collections import Counter

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import shareflow as sf
from shareflow import networks
from shareflow.party.send import Kind

PROTOCOL = sf.SPDZ()
N = 256  # a multiple of 64: every packed word is full
UP, DOWN = ("server0", "server1"), ("server1", "server0")


def private(*shape, owner="alice", protocol=PROTOCOL):
    """Shares of something; the sharing is not part of what is then counted."""
    return sf.private_tensor(np.linspace(-1.0, 1.0, math.prod(shape)).reshape(shape), owner).shared(protocol)


def masked(*shape):
    return private(*shape).reusable()


def cost(program, *arguments):
    return sf.function(program).cost(*arguments)


def online(c):
    return c.bytes_by_link(offline=False)


def both_ways(size):
    """What the servers send each other by openings of this size."""
    return {UP: size, DOWN: size}


# --- one operation ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (1,), (7,), (4, 5), (2, 3, 4, 5)])
def test_sharing_an_input_is_eight_bytes_an_element_to_one_server(shape):
    c = cost(lambda x: x.shared(PROTOCOL), sf.private_tensor(np.zeros(shape), "alice"))
    n = math.prod(shape)
    assert online(c) == {("alice", "server0"): 8 * n}
    assert (c.rounds, c.offline_bytes) == (1, 0)


def test_inputs_are_spread_over_the_servers():
    c = cost(lambda x, y: (x.shared(PROTOCOL), y.shared(PROTOCOL)), *(sf.private_tensor(np.zeros(N), "alice"),) * 2)
    assert online(c) == {("alice", "server0"): 8 * N, ("alice", "server1"): 8 * N}
    assert c.rounds == 1


@pytest.mark.parametrize("owner", ["server0", "server1"])
def test_a_server_shares_its_own_input_for_nothing(owner):
    c = cost(lambda x: x.shared(PROTOCOL), sf.private_tensor(np.zeros(N), owner))
    assert (c.rounds, c.messages) == (0, ())


def test_the_dealer_shares_its_own_input_like_anyone():
    c = cost(lambda x: x.shared(PROTOCOL), sf.private_tensor(np.zeros(N), "dealer"))
    assert online(c) == {("dealer", "server0"): 8 * N}


def test_masking_is_one_round_and_eight_bytes_an_element_each_way():
    c = cost(lambda x: x.reusable(), private(N))
    assert online(c) == both_ways(8 * N)
    assert (c.rounds, c.offline_bytes) == (1, 0)


def test_revealing_is_one_round_and_eight_bytes_an_element_from_each_server():
    c = cost(lambda x: x.reveal("client"), private(3, 5))
    assert online(c) == {("server0", "client"): 8 * 15, ("server1", "client"): 8 * 15}
    assert (c.rounds, c.offline_bytes) == (1, 0)
    assert set(c.bytes_by_kind()) == {Kind.RESULT}


def test_revealing_to_a_server_takes_one_message():
    c = cost(lambda x: x.reveal("server1"), private(N))
    assert online(c) == {UP: 8 * N}


LINEAR = {
    "add": lambda x: x + x,
    "subtract a constant": lambda x: 2.5 - x,
    "whole multiple": lambda x: x * 3,
    "fraction": lambda x: x * 0.3,
    "slice": lambda x: x[2:7],
    "transpose": lambda x: x.reshape(2, -1).T,
    "sum": lambda x: x.sum(),
    "mean": lambda x: x.mean(),
    "concat": lambda x: sf.concat([x, x], 0),
    "pad": lambda x: x.pad([(1, 2)]),
    "average pooling": lambda x: sf.nn.avg_pool2d(x.reshape(1, 16, 16, 1), 2),
    "public matrix": lambda x: sf.matmul(x.reshape(16, 16), np.full((16, 3), 0.5)),
}


@pytest.mark.parametrize("name", LINEAR)
@pytest.mark.parametrize("make", [private, masked])
def test_linear_operations_are_free(name, make):
    assert cost(LINEAR[name], make(N)).messages == ()


BILINEAR = {
    "multiply": ((N,), (N,), lambda x, y: x * y, N),
    "multiply, broadcast": ((8, 1), (1, 6), lambda x, y: x * y, 48),
    "matmul": ((5, 7), (7, 3), sf.matmul, 15),
    "conv2d": ((2, 6, 6, 3), (3, 3, 3, 4), lambda x, w: sf.nn.conv2d(x, w, padding="SAME"), 2 * 6 * 6 * 4),
    "conv2d, strided": ((2, 6, 6, 3), (3, 3, 3, 4), lambda x, w: sf.nn.conv2d(x, w, strides=3), 2 * 2 * 2 * 4),
    "depthwise": ((2, 6, 6, 3), (3, 3, 3, 2), sf.nn.depthwise_conv2d, 2 * 4 * 4 * 6),
}


@pytest.mark.parametrize("name", BILINEAR)
def test_a_bilinear_operation_is_a_correction_of_its_results_size(name):
    left, right, operation, result = BILINEAR[name]
    c = cost(operation, masked(*left), masked(*right))
    assert (c.rounds, c.online_bytes, c.offline_bytes) == (0, 0, 8 * result)
    c = cost(operation, private(*left), private(*right))
    assert online(c) == both_ways(8 * (math.prod(left) + math.prod(right)))
    assert (c.rounds, c.offline_bytes) == (1, 8 * result)


def test_a_square_opens_its_operand_once():
    c = cost(lambda x: x * x, private(N))
    assert online(c) == both_ways(8 * N)


def test_exact_truncation():
    product = private(N) * private(N)
    c = cost(lambda z: z.ready(), product)
    assert online(c) == both_ways(8 * N)
    assert (c.rounds, c.offline_bytes) == (1, 16 * N)
    c = cost(lambda z: z.ready(), product.reusable())
    assert (c.rounds, c.online_bytes, c.offline_bytes) == (0, 0, 16 * N)


def test_optimistic_truncation_is_free():
    protocol = sf.SPDZ(truncation=sf.Optimistic())
    product = private(N, protocol=protocol) * private(N, protocol=protocol)
    assert cost(lambda z: z.ready(), product).messages == ()


# Bytes an element: openings of 32 and 8 bits and of the result; corrections of 240, 88 and 15 bits.
COMPARISON_ONLINE, COMPARISON_OFFLINE = 4 + 1 + 1 / 8, 30 + 11 + 15 / 8


@pytest.mark.parametrize("blocks", [1, 4, 50])
def test_exact_relu(blocks):
    n = 64 * blocks
    c = cost(sf.relu, private(n))
    assert online(c) == both_ways(13.125 * n)
    assert (c.rounds, c.offline_bytes) == (4, (COMPARISON_OFFLINE + 16) * n)
    c = cost(sf.relu, masked(n))
    assert online(c) == both_ways(5.125 * n)
    assert c.rounds == 3


@pytest.mark.parametrize("blocks", [1, 4])
def test_exact_relu_truncates_in_the_same_openings(blocks):
    n = 64 * blocks
    product = private(n) * private(n)
    c = cost(sf.relu, product)
    # The truncated value is compared: 46 bits, as 12 groups of 4 and gates of 3 and 4.
    assert online(c) == both_ways((8 + 3 + 1 + 0.125) * n)
    assert (c.rounds, c.offline_bytes) == (4, (180 + 4 * 8 + 15) / 8 * n + 40 * n)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.integers(1, 300))
def test_bits_are_packed_in_words_of_64(n):
    c = cost(sf.relu, private(n))
    words = math.ceil(n / 64)
    assert online(c) == both_ways(8 * n + 8 * words * (32 + 8 + 1))
    assert c.offline_bytes == 16 * n + 8 * words * (240 + 88 + 15)


@pytest.mark.parametrize(
    ("comparison", "rounds"),
    [(sf.MaskedCarry(), 3), (sf.MaskedCarry(2, (8, 4)), 3), (sf.MaskedCarry(2, (2, 4, 4)), 4)],
)
def test_comparison_takes_a_round_for_each_gate_and_one_for_the_sign(comparison, rounds):
    protocol = sf.SPDZ(comparison=comparison)
    x = private(N, protocol=protocol)
    assert cost(lambda x: x >= 0.5, x).rounds == 1 + rounds
    assert cost(lambda x: x >= 0.5, x.reusable()).rounds == rounds


def test_comparison():
    c = cost(lambda x: x >= 0, private(N))
    assert online(c) == both_ways((8 + COMPARISON_ONLINE) * N)
    assert (c.rounds, c.offline_bytes) == (4, COMPARISON_OFFLINE * N)


def test_a_comparisons_bit_becomes_a_number_by_one_correction():
    c = cost(lambda x: (x >= 0) + 1, private(N))
    assert (c.rounds, c.offline_bytes) == (4, (COMPARISON_OFFLINE + 8) * N)


def test_many_comparisons_share_one_opening():
    def compare(x):
        x = x.reusable()
        return [x >= threshold for threshold in (-1.0, 0.0, 1.0, 2.0)]

    c = cost(compare, private(N))
    assert online(c) == both_ways((8 + 4 * COMPARISON_ONLINE) * N)
    assert c.rounds == 4


@pytest.mark.parametrize(("window", "levels"), [(1, 0), (2, 2), (3, 4), (4, 4)])
def test_max_pooling_takes_a_comparison_a_level_and_masks_what_it_compares(window, levels):
    assert levels == math.ceil(math.log2(window**2))
    c = cost(lambda x: sf.nn.max_pool2d(x, window), private(2, 12, 12, 16))
    # Three rounds a level, and one to mask the differences.
    assert c.rounds == 4 * levels


def test_max_pooling_of_masked_images_needs_no_opening_for_the_first_level():
    c = cost(lambda x: sf.nn.max_pool2d(x.reusable(), 2), private(2, 8, 8, 16))
    # x, and the differences of the second level.
    assert c.rounds == 8
    images, pooled = 2 * 8 * 8 * 16, 2 * 4 * 4 * 16
    assert online(c) == both_ways(8 * images + COMPARISON_ONLINE * 3 * pooled + 8 * pooled)


def test_max_pooling_in_bytes():
    pooled = 2 * 4 * 4 * 16
    c = cost(lambda x: sf.nn.max_pool2d(x, 2), private(2, 8, 8, 16))
    # Two comparisons at once, then one of their results. Only differences are masked.
    assert online(c) == both_ways((8 + COMPARISON_ONLINE) * 3 * pooled)
    assert c.offline_bytes == (COMPARISON_OFFLINE + 16) * 3 * pooled


def test_a_polynomial_of_degree_two_opens_its_argument_and_its_result():
    c = cost(lambda x: sf.polynomial(x, [0.1, 0.5, 0.25]), private(N))
    # The argument, and the value when it is truncated; corrections of a^2, and of the truncation.
    assert online(c) == both_ways(16 * N)
    assert (c.rounds, c.offline_bytes) == (2, (8 + 16) * N)
    optimistic = sf.SPDZ(truncation=sf.Optimistic())
    c = cost(lambda x: sf.polynomial(x, [0.1, 0.5, 0.25]), private(N, protocol=optimistic))
    assert online(c) == both_ways(8 * N)
    assert (c.rounds, c.offline_bytes) == (1, 8 * N)


@pytest.mark.parametrize("degree", [3, 4, 5, 8, 15])
def test_powers_are_multiplied_in_logarithmically_many_steps(degree):
    few = cost(lambda x: sf.polynomial(x, [0.1] * (degree + 1)), private(N)).rounds
    # A step is an opening of the factors, and one of the product, which is truncated.
    assert few <= 2 * (math.ceil(math.log2(degree)) + 1)
    assert cost(lambda x: sf.polynomial(x, [0.1] * (degree + 1)), private(4 * N)).rounds == few


def test_batches_and_independent_operations_share_rounds():
    def two(x, y):
        return sf.relu(x), sf.relu(y), x * y

    assert cost(two, private(N), private(N)).rounds == 4
    assert cost(lambda x: sf.relu(sf.relu(x)), private(N)).rounds == 8


# --- nothing twice ------------------------------------------------------------------------------------------------


def used_often(x, y):
    products = [x * y, x * x, x * y, sf.matmul(x.reshape(16, 16), y.reshape(16, 16))]
    return [*products, sf.relu(x), x >= 0, sf.polynomial(y, [0.0, 0.0, 1.0]), x + y]


def test_a_tensor_is_masked_once_however_often_it_is_used():
    c = cost(used_often, private(N), private(N))
    comparisons = 2 * COMPARISON_ONLINE
    # The two operands, and the polynomial's value when it is truncated.
    assert online(c) == both_ways((8 * 3 + comparisons) * N)


def test_an_operand_that_a_party_knows_is_shared_once_and_masked_once():
    x, y = (sf.private_tensor(np.zeros(N), owner) for owner in ("alice", "bob"))
    c = cost(lambda x, y: [x * y, y * x, x + y], x, y)
    assert online(c) == {("alice", "server0"): 8 * N, ("bob", "server1"): 8 * N, **both_ways(16 * N)}


def test_what_was_masked_before_a_function_is_not_masked_inside():
    x = private(N)
    x * x
    assert cost(lambda x: x * x, x).online_bytes == 0


def test_eager_operations_mask_once_too():
    x, y = private(N), private(N)
    with sf.crossings() as seen:
        used_often(x, y)
    assert sum(c.value.shape == (N,) for c in seen if c.kind is Kind.OPENING) == 2 * 3


def test_weights_are_masked_when_they_are_loaded_and_not_when_they_are_used():
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(128, activation="relu"), keras.layers.Dense(64)])
    weights = 64 * 128 + 128 * 64
    with sf.crossings() as seen:
        loaded = sf.private_model(model, owner="model-owner")
    sizes = Counter()
    for crossing in seen:
        sizes[crossing.kind] += int(np.prod(crossing.value.shape))
    # Biases too; openings go both ways.
    assert sizes == {Kind.INPUT: weights + 128 + 64, Kind.OPENING: 2 * (weights + 128 + 64)}

    c = loaded.cost(1)
    assert c.bytes_by_link()["client", "server0"] == 8 * 64
    # The input, the ReLU's argument, the second layer's operand.
    assert c.bytes_by_link(offline=False)[UP] == 8 * 64 + 12.125 * 128 + 8 * 128
    assert c.rounds == 1 + 1 + 4 + 1 + 1
    # Eagerly, when nothing of it is traced, just as much.
    for _ in range(2):
        with sf.crossings() as seen:
            loaded(sf.private_tensor(np.zeros((1, 64)), "client"))
        assert (64, 128) not in [tuple(c.value.shape) for c in seen if c.kind in (Kind.INPUT, Kind.OPENING)]


def test_assigning_a_variable_masks_it_and_reading_does_not():
    variable = sf.PrivateVariable(private(N))
    with sf.crossings() as seen:
        variable.assign(private(N))
        assigned = Counter(c.kind for c in seen)
        variable.read() * variable.read()
    assert assigned == {Kind.INPUT: 1, Kind.OPENING: 2}
    assert Counter(c.kind for c in seen) == {**assigned, Kind.CORRECTION: 1}


# --- a whole program --------------------------------------------------------------------------------------------


def counted(messages):
    return Counter((m.kind, m.source, m.to, m.bytes) for m in messages)


def measured(crossings):
    return Counter((c.kind, c.source.job, c.to.job, int(c.value.numpy().nbytes)) for c in crossings)


def mixed(x, w):
    y = sf.nn.conv2d(x, w, padding="SAME")
    z = sf.nn.max_pool2d(sf.relu(y), 2)
    p = sf.polynomial(z, [0.1, 0.5, 0.2, 0.05, 0.1])
    return [p.reveal("client"), (sf.sigmoid(x) * (x > 0.25)).reveal("alice"), x.mean().reveal("bob")]


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_a_programs_counted_cost_is_what_crosses_when_it_runs(batch):
    rng = np.random.default_rng(0)
    x = sf.private_tensor(rng.normal(size=(batch, 6, 6, 3)), "alice")
    w = sf.private_tensor(rng.normal(size=(3, 3, 3, 4)), "bob")

    def program(x, w):
        return mixed(x.shared(PROTOCOL), w.shared(PROTOCOL))

    # A session of its own: the dealer's balance begins at zero, as in a graph.
    with sf.insecure_session(1), sf.crossings() as seen:
        program(x, w)
    assert counted(cost(program, x, w).messages) == measured(seen)


@pytest.mark.parametrize("make", [networks.network_a, networks.network_b])
@pytest.mark.parametrize("activation", ["relu", "polynomial"])
def test_a_networks_counted_cost_is_what_crosses_when_it_runs(make, activation):
    private_network = sf.private_model(make(activation), owner="model-owner")
    x = sf.private_tensor(np.zeros((2, 28, 28, 1)), "client")
    with sf.insecure_session(1), sf.crossings() as seen:
        private_network(x).reveal("client")
    c = private_network.cost(2)
    assert counted(c.messages) == measured(seen)
    assert sum(c.bytes_by_kind().values()) == c.online_bytes + c.offline_bytes


@pytest.mark.parametrize("make", networks.NETWORKS.values())
@pytest.mark.parametrize("activation", ["relu", "polynomial"])
def test_the_dealers_links_carry_half_each(make, activation):
    links = sf.private_model(make(activation), owner="model-owner").cost(10).bytes_by_link(offline=True)
    assert set(links) == {("dealer", "server0"), ("dealer", "server1")}
    assert abs(links["dealer", "server0"] - links["dealer", "server1"]) < 0.1 * sum(links.values())


def test_cost_grows_with_the_batch_and_rounds_do_not():
    model = sf.private_model(networks.network_a(), owner="model-owner")
    small, large = model.cost(64), model.cost(128)
    assert small.rounds == large.rounds
    assert large.online_bytes == 2 * small.online_bytes
    assert large.offline_bytes == 2 * small.offline_bytes


def test_rounds_of_network_a():
    # Input; a mask for each of three products, comparisons in three rounds under two masks; the result.
    assert sf.private_model(networks.network_a("relu"), owner="model-owner").cost(1).rounds == 1 + 3 + 2 * 4 + 1
    # Truncation of the product, the argument, and the value: three openings each.
    assert sf.private_model(networks.network_a("polynomial"), owner="model-owner").cost(1).rounds == 1 + 3 + 2 * 3 + 1


def test_a_layers_cost_is_that_of_its_name_scope():
    model = sf.private_model(networks.network_b(), owner="model-owner")
    whole = model.cost(1)
    layers = [whole.within(name) for name, _ in model.layers]
    assert sum(c.online_bytes for c in layers) == whole.online_bytes - 8 * 784 - 2 * 8 * 10
    assert sum(c.offline_bytes for c in layers) == whole.offline_bytes
    assert whole.within("no such layer").messages == ()


def test_a_report_has_the_counted_bytes():
    model = sf.private_model(networks.network_a(), owner="model-owner")
    report, whole = model.report(4, repeats=1), model.cost(4)
    total = report.total
    assert (total.rounds, total.online_bytes, total.offline_bytes) == (
        whole.rounds,
        whole.online_bytes,
        whole.offline_bytes,
    )
    # What is masked for one layer serves the next: layer by layer it can only be more.
    assert sum(layer.offline_bytes for layer in report.layers) >= whole.offline_bytes
    assert sum(layer.online_bytes for layer in report.layers) >= whole.online_bytes
    assert [layer.name for layer in report.layers] == ["input", *(name for name, _ in model.layers), "reveal"]


def test_counting_runs_nothing():
    with sf.insecure_session(1) as session:
        x = private(N)
        before = session.next_index()
        cost(lambda x: x * x, x)
        assert session.next_index() == before + 1
