"""Declared bounds: right within, cheaper, checked in a mode for tests; and many thresholds from one opening."""

import math

import numpy as np
import pytest
from benchmarks.functions import on_grid
from hypothesis import given, settings
from hypothesis import strategies as st
from nearness import private, protocol, value

import shareflow as sf
from shareflow import nn
from shareflow.errors import EncodingError
from shareflow.protocol.compare import at_least, non_negative
from shareflow.protocol.functionality.comparison import layout_for

UNIT = 2.0**-16
N = 256
BOUNDS = [UNIT, 0.5, 1.0, 3.0, 4.0, 1000.0, 2.0**30, 2.0**46, 2.0**47]

# Each function of one tensor x, and how far the values that it compares may be apart for |x| < 1.
FUNCTIONS = {
    "relu": (lambda x, bound: nn.relu(x, bound=bound), lambda x: np.maximum(x, 0), 1.0),
    "absolute": (nn.absolute, np.abs, 1.0),
    "sign": (nn.sign, np.sign, 1.0 + UNIT),
    "maximum": (lambda x, bound: nn.maximum(x, 0.25, bound), lambda x: np.maximum(x, 0.25), 1.25),
    "minimum": (lambda x, bound: nn.minimum(x, 0.25, bound), lambda x: np.minimum(x, 0.25), 1.25),
    "reduce_max": (lambda x, bound: nn.reduce_max(x, -1, bound=bound), lambda x: x.max(-1), 2.0),
    "reduce_min": (lambda x, bound: nn.reduce_min(x, -1, bound=bound), lambda x: x.min(-1), 2.0),
    "argmax": (lambda x, bound: nn.argmax(x, -1, bound), lambda x: x.argmax(-1), 2.0),
    "argmin": (lambda x, bound: nn.argmin(x, -1, bound), lambda x: x.argmin(-1), 2.0),
    "sort": (lambda x, bound: nn.sort(x, bound=bound), lambda x: np.sort(x), 2.0),
    "top_k": (lambda x, bound: nn.top_k(x, 3, bound=bound)[0], lambda x: -np.sort(-x)[:, :3], 2.0),
}  # fmt: skip
NAMES = pytest.mark.parametrize("name", FUNCTIONS)


def values(rng):
    """[n, 5], of size below 1, with the values next to it and ties."""
    edge = np.array([1 - UNIT, UNIT - 1, 0, UNIT, -UNIT])
    return np.concatenate([on_grid(rng.uniform(-1, 1, (40, 5)), 16) * (1 - UNIT), [edge, edge[::-1], edge * 0]])


@NAMES
@pytest.mark.parametrize("prefer", ["balanced", "latency", "bandwidth"])
def test_a_function_is_right_within_its_bound(name, prefer, rng):
    ours, real, bound = FUNCTIONS[name]
    x = on_grid(values(rng), 16)
    where = protocol("spdz", comparison=sf.MaskedCarry(prefer=prefer))
    np.testing.assert_array_equal(value(ours(private(x, where=where), bound)), real(x))


@pytest.mark.parametrize("bound", BOUNDS)
def test_a_sign_is_right_up_to_its_bound(bound):
    top = bound - UNIT
    x = np.unique(on_grid(np.concatenate([np.linspace(-top, top, 65), [0, UNIT, -UNIT, top, -top]]), 16))
    x = x[np.abs(x) < min(bound, 2.0**30)]
    np.testing.assert_array_equal(value(non_negative(private(x), bound)), x >= 0)


def test_beyond_its_bound_a_sign_is_wrong():
    # Else nothing would be saved: 4 = 2^2 looks as negative.
    got = value(non_negative(private([3.0, 4.0, 7.0, -4.0, -5.0]), 4.0))
    np.testing.assert_array_equal(got, [1, 0, 0, 0, 1])


@pytest.mark.parametrize("bits", [1, 2, 7, 8, 16, 24, 32, 48, 62])
def test_the_cost_is_that_of_the_bounds_bits(bits):
    c = sf.function(lambda x: non_negative(x, 2.0 ** (bits - 16))).cost(private(np.zeros(N)).reusable())
    plan = layout_for(bits, "balanced")
    assert c.online_bytes == 2 * N * plan.online_bits / 8
    assert c.offline_bytes == N * plan.offline_bits / 8
    assert c.rounds == plan.rounds


def test_the_cost_falls_in_proportion():
    costs = [sf.function(lambda x, b=b: nn.relu(x, bound=2.0 ** (b - 16))).cost(private(np.zeros(N)).reusable())
             for b in (8, 16, 24, 32, 48, 63)]  # fmt: skip
    online = [c.online_bytes for c in costs]
    assert online == sorted(online)
    # The selection's 16 bytes an element do not fall.
    compared = [c.online_bytes + c.offline_bytes - 16 * N for c in costs]
    assert compared == sorted(set(compared))
    for bits, size in zip((8, 16, 24, 32, 48), compared, strict=False):
        assert size <= compared[-1] * bits / 63 * 1.25


@NAMES
def test_a_bound_saves_bytes(name):
    ours, _, bound = FUNCTIONS[name]
    x = private(np.zeros((N, 5)))
    bounded = sf.function(lambda x: ours(x, bound)).cost(x)
    free = sf.function(lambda x: ours(x, None)).cost(x)
    assert bounded.online_bytes < free.online_bytes
    assert bounded.offline_bytes < free.offline_bytes
    assert bounded.rounds <= free.rounds


# --- checked --------------------------------------------------------------------------------------------------


@NAMES
def test_checked_bounds_let_values_within_pass(name, rng):
    ours, real, bound = FUNCTIONS[name]
    x = on_grid(values(rng), 16)
    with sf.insecure_checked_bounds():
        np.testing.assert_array_equal(value(ours(private(x), bound)), real(x))


@NAMES
@pytest.mark.parametrize("traced", [False, True])
def test_checked_bounds_raise_beyond(name, traced, rng):
    ours, real, bound = FUNCTIONS[name]
    x = on_grid(values(rng), 16)
    x[-1, 2] = 4.5

    def program(x):
        return ours(x, bound).reveal("receiver")

    compute = sf.function(program) if traced else program
    with sf.insecure_checked_bounds():
        with pytest.raises(EncodingError, match=f"beyond its declared bound of {bound:g}.*Declare a larger bound"):
            compute(private(x)).numpy()
        x[-1, 2] = 0.0
        np.testing.assert_array_equal(compute(private(x)).numpy(), real(x))


@pytest.mark.parametrize("sign", [1, -1])
def test_the_check_is_exact_to_a_unit(sign):
    with sf.insecure_checked_bounds():
        non_negative(private([sign * (2.0 - UNIT)]), 2.0)
        with pytest.raises(EncodingError, match=r"bound of 2"):
            non_negative(private([sign * (2.0 + UNIT)]), 2.0)
        with pytest.raises(EncodingError, match=r"bound of 2"):
            non_negative(private([2.0]), 2.0)


def test_without_the_mode_nothing_is_checked_or_revealed():
    x = private([100.0])
    with sf.crossings() as crossed:
        nn.relu(x, bound=1.0)
    assert not any(c.kind.value == "result" for c in crossed)
    with sf.insecure_checked_bounds():
        pass
    nn.relu(x, bound=1.0)


def test_every_threshold_is_checked():
    with sf.insecure_checked_bounds():
        at_least(private([0.0, 1.0]), (-1.0, 0.0, 1.5), bound=2.5)
        with pytest.raises(EncodingError, match=r"bound of 2.25"):
            at_least(private([0.0, 1.5]), (-1.0, 0.0, 1.5), bound=2.25)


def test_an_owned_value_has_no_bound_to_keep():
    with sf.insecure_checked_bounds():
        np.testing.assert_array_equal(nn.relu(sf.private_tensor([5.0], "alice"), bound=1.0).numpy(), [5])


@pytest.mark.parametrize("bound", [0, -1, math.inf, math.nan])
def test_a_bound_that_is_none(bound):
    for call in (nn.relu, nn.absolute, nn.sign):
        with pytest.raises(EncodingError, match=r"A bound is a positive number that no value reaches in size; got"):
            call(private([1.0]), bound=bound)


# --- many thresholds ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefer", ["balanced", "latency", "bandwidth"])
@pytest.mark.parametrize("bound", [None, 8.0])
def test_further_thresholds_cost_their_gates_and_no_rounds(prefer, bound):
    where = protocol("spdz", comparison=sf.MaskedCarry(prefer=prefer))
    x = private(np.zeros(N), where=where).reusable()
    plan = layout_for(63 if bound is None else 19, prefer)
    counts = (1, 2, 3, 10)
    costs = [sf.function(lambda x, n=n: at_least(x, [0.25 * i for i in range(n)], bound)).cost(x) for n in counts]
    assert {c.rounds for c in costs} == {plan.rounds}
    for n, c in zip(counts, costs, strict=True):
        assert c.online_bytes == 2 * N * n * plan.online_bits / 8
        assert c.offline_bytes == N * (plan.offline_bits + (n - 1) * plan.gate_bits) / 8


def test_thresholds_are_masked_once():
    c = sf.function(lambda x: at_least(x, [0.0, 1.0, 2.0])).cost(private(np.zeros(N)))
    assert c.bytes_by_link(offline=False)["server0", "server1"] == (8 + 3 * 5.125) * N


FEW = settings(derandomize=True, deadline=None, max_examples=20)
WORDS = st.integers(-(2**40), 2**40)


@FEW
@given(st.lists(WORDS, min_size=1, max_size=70), st.lists(WORDS, min_size=1, max_size=7))
def test_thresholds_are_compared_exactly(words, thresholds):
    x, knots = np.array(words) * UNIT, np.array(thresholds) * UNIT
    # One of the values meets each threshold, and one is a unit below.
    x = np.concatenate([x, knots, knots - UNIT])
    bits = at_least(private(x), knots)
    for knot, bit in zip(knots, bits, strict=True):
        np.testing.assert_array_equal(value(bit), x >= knot)
    bits = at_least(private(x), knots, bound=2.0**26)
    for knot, bit in zip(knots, bits, strict=True):
        np.testing.assert_array_equal(value(bit), x >= knot)
    known = at_least(sf.private_tensor(x, "alice"), knots)
    for knot, bit in zip(knots, known, strict=True):
        np.testing.assert_array_equal(bit.numpy(), x >= knot)
