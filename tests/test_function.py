"""`shareflow.function`: when it traces, that it computes what eager mode does, and that no mask repeats."""

from __future__ import annotations

import copy
import gc
import itertools
import subprocess
import sys
import textwrap
import threading
import weakref
from collections import namedtuple
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import shareflow as sf
from shareflow import nn
from shareflow.errors import RandomnessError
from shareflow.party.send import Kind
from shareflow.share.known import Known
from shareflow.share.masked import Masked

UNIT = 2.0**-16
X = np.array([[1.5, -2.25, 0.5], [3.0, 0.0, -1.0]])
W = np.array([[0.5, -1.0], [2.0, 0.25], [-0.75, 1.0]])


def known(value: Any, owner: str = "alice") -> sf.PrivateTensor:
    return sf.private_tensor(value, owner)


def shared(value: Any, owner: str = "alice", **options: Any) -> sf.PrivateTensor:
    return known(value, owner).shared(sf.SPDZ(**options))


def value(x: Any) -> np.ndarray:
    return x.reveal("receiver").numpy()


class Counted:
    """A function that counts how often it is traced."""

    def __init__(self, body: Any) -> None:
        self.traces = 0

        def counted(*arguments: Any, **options: Any) -> Any:
            self.traces += 1
            return body(*arguments, **options)

        self.function = sf.function(counted)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self.function(*arguments, **options)


# --- when it traces -------------------------------------------------------------------------------------------


def test_the_same_form_of_arguments_is_traced_once():
    f = Counted(lambda x, y, scale=1.0: (x * y * scale).reveal("receiver"))
    for _ in range(3):
        f(known(X), known(X, "bob"))
        f(known(X + 1), known(X - 1, "bob"))
    assert f.traces == 1
    # Parties are equal by name, '-' and '_' alike.
    f(known(X, sf.Party("alice")), known(X, "bob"))
    assert f.traces == 1


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("another shape", lambda: (known(X[:1]), known(X[:1], "bob"))),
        ("another owner", lambda: (known(X), known(X, "carol"))),
        ("another dtype", lambda: (known(X.astype(np.float32)), known(X, "bob"))),
        ("shared, no more known", lambda: (shared(X), known(X, "bob"))),
        ("a public argument", lambda: (known(X), X)),
        ("a number", lambda: (known(X), 2.0)),
        ("the owner as the other", lambda: (known(X), known(X))),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_another_form_is_traced_anew(name, arguments):
    f = Counted(lambda x, y: (x * y).reveal("receiver"))
    f(known(X), known(X, "bob"))
    f(*arguments())
    assert f.traces == 2
    f(*arguments())
    assert f.traces == 2


def test_another_scale_or_form_of_share_is_traced_anew():
    f = Counted(lambda x: (x + 0).reveal("receiver"))
    x = shared(X)
    f(x)
    f(x / 2)
    assert f.traces == 2, "17 fractional bits"
    f(shared(X, fixed_point=sf.FixedPoint(16)))
    assert f.traces == 2
    f(shared(X, truncation=sf.Optimistic()))
    assert f.traces == 3, "another protocol"
    f(x.reusable())
    assert f.traces == 4, "masked"
    np.testing.assert_array_equal(value(f(x / 2)), X / 2)


def test_a_tensor_that_was_masked_outside_comes_masked():
    seen = []
    f = sf.function(lambda x: seen.append(type(x.share)) or x.reveal("receiver"))
    x = shared(X)
    x.reusable()
    f(x)
    assert seen == [Masked]


def test_static_arguments_are_part_of_the_program():
    f = Counted(lambda x, k, name="receiver": (x * k).reveal(name))
    for k, traces in [(2, 1), (3, 2), (2, 2), (2.0, 3), (True, 4), (np.float64(2), 5)]:
        np.testing.assert_array_equal(f(known(X), k).numpy(), X * float(k))
        assert f.traces == traces
    assert str(f(known(X), 2, name="bob").share.owner) == "bob"
    assert f.traces == 6
    f(known(X), [2, 3][0])
    assert f.traces == 6


def test_equal_numbers_of_other_types_are_not_mistaken_for_each_other():
    power = sf.function(lambda x, n: (x**n).reveal("receiver"))
    power(known(X), 2)
    with pytest.raises(sf.errors.MissingRuleError, match="whole number"):
        power(known(X), 2.0)


def test_lists_of_numbers_strings_none_and_objects_are_static():
    class Thing:
        def __init__(self, k: int) -> None:
            self.k = k

    f = Counted(lambda x, numbers, thing, nothing: (x * sum(numbers) * thing.k).reveal("receiver"))
    two, three = Thing(2), Thing(3)
    np.testing.assert_array_equal(f(known(X), [1, 2], two, None).numpy(), X * 6)
    np.testing.assert_array_equal(f(known(X), [1, 2], two, None).numpy(), X * 6)
    assert f.traces == 1
    np.testing.assert_array_equal(f(known(X), [1, 2], three, None).numpy(), X * 9)
    np.testing.assert_array_equal(f(known(X), (1, 2), two, None).numpy(), X * 6)
    np.testing.assert_array_equal(f(known(X), [1, 3], two, None).numpy(), X * 8)
    assert f.traces == 4


def test_an_object_that_cannot_be_hashed_is_known_by_identity():
    f = Counted(lambda x, items: (x * len(items)).reveal("receiver"))
    for count in range(1, 6):
        # Each lives on with its graph: another at its place in memory would be taken for it.
        np.testing.assert_array_equal(f(known(X), set(range(count))).numpy(), X * count)
    assert f.traces == 5


@pytest.mark.parametrize("public", [np.array([1.0, 2.0, -4.0]), tf.constant([1.0, 2.0, -4.0])], ids=["array", "tensor"])
def test_arrays_and_tensors_are_public_arguments(public):
    f = Counted(lambda x, y: ((x * y).reveal("receiver"), (y - x).reveal("receiver"), (x > y).reveal("receiver")))
    for factor in (1, 3):
        wanted = np.asarray(public) * factor
        for x in (known(X), shared(X)):
            product, difference, greater = f(x, public * factor)
            np.testing.assert_array_equal(product.numpy(), X * wanted)
            np.testing.assert_array_equal(difference.numpy(), wanted - X)
            np.testing.assert_array_equal(greater.numpy(), wanted < X)
    assert f.traces == 2


def test_a_public_argument_out_of_range_is_an_error():
    f = sf.function(lambda x, y: (x * y).reveal("receiver"))
    x = shared(X)
    for bad in (np.nan, np.inf, 2.0**40):
        with pytest.raises(sf.errors.EncodingError, match="16 fractional bits"):
            f(x, np.full(3, bad))


def test_a_public_divisor_argument_has_the_precision_of_its_reciprocal():
    f = sf.function(lambda x, y: (x / y).reveal("receiver"))
    divisor = np.array([3.0, 0.5, 16.0])
    # The reciprocal is rounded to the grid: half a unit times x.
    assert np.max(np.abs(f(shared(X), divisor).numpy() - X / divisor)) <= 0.5 * UNIT * np.max(np.abs(X)) + 1e-12
    with pytest.raises(sf.errors.EncodingError):
        f(shared(X), np.zeros(3))


def test_keywords_tuples_and_dicts_go_in_and_out():
    Pair = namedtuple("Pair", ["first", "second"])

    @sf.function
    def f(pair, *, options):
        total = pair.first + pair.second * options["scale"]
        return {"total": total.reveal("receiver"), "rest": (total, [pair.first, None, 7, "text"]), "pair": pair}

    got = f(Pair(known(X), known(X, "bob")), options={"scale": 3, "bias": known(1.0)})
    np.testing.assert_array_equal(got["total"].numpy(), 4 * X)
    np.testing.assert_array_equal(value(got["rest"][0]), 4 * X)
    first, *others = got["rest"][1]
    assert others == [None, 7, "text"]
    np.testing.assert_array_equal(first.numpy(), X)
    assert isinstance(got["pair"], Pair)
    assert isinstance(got["pair"].second.share, Known)
    assert str(got["pair"].second.share.owner) == "bob"


def test_dicts_with_other_keys_are_other_forms():
    f = Counted(lambda d: sum(d.values()).reveal("receiver"))
    np.testing.assert_array_equal(f({"a": known(X), "b": known(X, "bob")}).numpy(), 2 * X)
    np.testing.assert_array_equal(f({"b": known(X, "bob"), "a": known(X)}).numpy(), 2 * X)
    assert f.traces == 1
    np.testing.assert_array_equal(f({"a": known(X), "c": known(X, "bob")}).numpy(), 2 * X)
    assert f.traces == 2


def test_shares_go_in_and_out_in_every_form():
    @sf.function
    def forms(x):
        product, bits = x * x, x > 0
        return x, product, bits, x.reusable(), x.reveal("bob"), sf.relu(product)

    for x in (shared(X), shared(X).reusable()):
        results = forms(x)
        for got, wanted in zip(results[1:4], [X * X, X > 0, X], strict=True):
            np.testing.assert_array_equal(value(got), wanted)
        np.testing.assert_array_equal(results[4].numpy(), X)
        # They can be used on outside of it.
        np.testing.assert_array_equal(value(results[1] + results[3]), X * X + X)
        assert np.max(np.abs(value(results[5]) - X * X)) <= UNIT
        np.testing.assert_array_equal(value(results[2] * results[3]), np.maximum(X, 0))


def test_nothing_may_be_returned():
    assert sf.function(lambda x: None)(known(X)) is None
    assert sf.function(lambda x: [])(known(X)) == []


def test_a_shape_that_is_not_known_is_refused():
    with pytest.raises(sf.errors.RandomnessError):
        tf.function(lambda t: sf.function(lambda x: x)(t)).get_concrete_function(tf.TensorSpec([None], tf.float64))


# --- functions in functions, and methods ----------------------------------------------------------------------


def test_a_function_inside_another_is_built_in_place():
    inner = Counted(lambda x: sf.relu(x))
    outer = Counted(lambda x: (inner(x) - inner(-x)).reveal("receiver"))
    np.testing.assert_array_equal(outer(shared(X)).numpy(), X)
    np.testing.assert_array_equal(outer(shared(X)).numpy(), X)
    assert (inner.traces, outer.traces) == (2, 1)
    np.testing.assert_array_equal(value(inner(shared(X))), np.maximum(X, 0))
    assert inner.traces == 3


class Model:
    traces = 0

    def __init__(self, factor: float) -> None:
        self.weights = sf.PrivateVariable(known(np.full(3, factor), "bob"))

    @sf.function
    def predict(self, x):
        Model.traces += 1
        return (x * self.weights).reveal("receiver")

    def _build(self, x):
        Model.traces += 1
        return x.reveal("receiver")

    other_name = sf.function(_build)


def test_methods_belong_to_their_instance():
    Model.traces = 0
    two, three = Model(2.0), Model(3.0)
    for _ in range(2):
        np.testing.assert_array_equal(two.predict(known(X)).numpy(), 2 * X)
        np.testing.assert_array_equal(three.predict(known(X)).numpy(), 3 * X)
    assert Model.traces == 2
    assert isinstance(Model.predict, sf.function(abs).__class__)


def test_a_method_under_another_name_is_traced_once():
    Model.traces = 0
    model = Model(2.0)
    model.other_name(known(X))
    model.other_name(known(X))
    assert Model.traces == 1
    assert model._build(known(X)).share.owner == sf.Party("receiver")


def test_a_copy_of_an_instance_uses_its_own_attributes():
    two = Model(2.0)
    two.predict(known(X))
    other = copy.copy(two)
    other.weights = sf.PrivateVariable(known(np.full(3, 5.0), "bob"))
    np.testing.assert_array_equal(other.predict(known(X)).numpy(), 5 * X)
    np.testing.assert_array_equal(two.predict(known(X)).numpy(), 2 * X)


def test_an_overridden_method_calls_its_parent_every_time():
    class Twice(Model):
        @sf.function
        def predict(self, x):
            return super().predict(x * 2)

    model = Twice(2.0)
    for _ in range(3):
        np.testing.assert_array_equal(model.predict(known(X)).numpy(), 4 * X)


def test_a_function_that_is_dropped_is_freed_with_its_graph():
    f = sf.function(lambda x: sf.relu(x).reveal("receiver"))
    f(known(X))
    graph = weakref.ref(f.trace(known(X)).program.graph)
    del f
    gc.collect()
    assert graph() is None


# --- eager and traced -----------------------------------------------------------------------------------------

PROGRAMS = {
    "two transposes": (lambda x, y: x.transpose(1, 0) @ y + (x.transpose(0, 1) @ y.T), 0),
    "one plus": (lambda x, y: 1 + x - y, 0),
    "masks used again": (lambda x, y: x * y + sf.relu(x) * y - x * x, 0),
    "relu of product": (lambda x, y: sf.relu(x @ y), 1),
    "comparisons": (lambda x, y: (x > y) * x + (x <= y) * y, 0),
    "power": (lambda x, y: x**3 - y, 12),
    "polynomial": (lambda x, y: nn.polynomial(x * y, [0.5, 0.25, 0.0, 1 / 64]), 8),
    "division": (lambda x, y: x / 2.5 + y / np.array([1.0, 4.0, -8.0]), 2),
    "constant arrays": (lambda x, y: np.eye(3) @ x * np.arange(3.0) - tf.constant(2.0) * y, 0),
    "slices": (lambda x, y: sf.concat([x[1:], y[:1]], 0) + sf.stack([x[0], y[0], x[2]]), 0),
    "a loop": (lambda x, y: sum((sf.relu(x - k) for k in range(3)), start=y), 0),
}
A = np.array([[1.5, -2.25, 0.5], [3.0, 0.0, -1.0], [0.25, -0.5, 2.0]])
B = np.array([[0.5, -1.0, 1.0], [2.0, 0.25, 0.0], [-0.75, 1.0, 2.0]])


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("form", ["known", "shared", "masked", "variable"])
def test_a_traced_function_computes_what_eager_mode_does(program, form):
    body, units = PROGRAMS[program]

    def operands() -> list[Any]:
        pair = [known(A), known(B, "bob")]
        if form == "variable":
            return [sf.PrivateVariable(x) for x in pair]
        pair = pair if form == "known" else [x.shared(sf.SPDZ()) for x in pair]
        return [x.reusable() for x in pair] if form == "masked" else pair

    eager = value(body(*operands()))
    traced = sf.function(lambda x, y: body(x, y).reveal("receiver"))
    inputs = operands()
    for _ in range(2):
        # Each is within its units of the exact result.
        assert np.max(np.abs(traced(*inputs).numpy() - eager)) <= 2 * units * UNIT
    with sf.Plain():
        exact = value(body(known(A).shared(sf.Plain()), known(B, "bob").shared(sf.Plain())))
    assert np.max(np.abs(eager - exact)) <= units * UNIT


def test_timed_gives_the_same_as_a_call():
    v = sf.PrivateVariable(known(W, "bob"))

    @sf.function
    def step(x):
        y = sf.relu(x @ v)
        v.assign(v + 1)
        return y.reveal("receiver"), v.read(), "static"

    first, _, _ = step(shared(X))
    np.testing.assert_array_equal(value(v), W + 1)
    (second, after, static), timing = step.timed(shared(X))
    assert np.max(np.abs(first.numpy() - np.maximum(X @ W, 0))) <= UNIT
    assert np.max(np.abs(second.numpy() - np.maximum(X @ (W + 1), 0))) <= UNIT
    np.testing.assert_array_equal(value(after), W + 2)
    np.testing.assert_array_equal(value(v), W + 2)
    assert static == "static"
    assert timing.offline > 0
    assert timing.online > 0


def test_timed_works_where_the_dealer_has_nothing_to_do():
    (result, timing) = sf.function(lambda x: (x + 1).reveal("receiver")).timed(shared(X))
    np.testing.assert_array_equal(result.numpy(), X + 1)
    assert timing.online > 0


# --- variables ------------------------------------------------------------------------------------------------


def test_a_variable_serves_several_functions_and_is_assigned_between_calls():
    v = sf.PrivateVariable(known(W, "bob"))
    product = sf.function(lambda x: (x @ v).reveal("receiver"))
    total = sf.function(lambda: v.sum().reveal("receiver"))
    for k in range(3):
        np.testing.assert_array_equal(product(known(X)).numpy(), X @ (W + k))
        np.testing.assert_array_equal(total().numpy(), (W + k).sum())
        v.assign(known(W + k + 1, ["bob", "carol", "alice"][k]))
    np.testing.assert_array_equal(value(v), W + 3)


def test_a_variable_is_read_as_it_is_at_that_place_of_the_function():
    v = sf.PrivateVariable(known([1.0, 2.0], "bob"))

    @sf.function
    def step(x):
        before = v * 1
        v.assign(v + x)
        squared = v * v
        v.assign(sf.relu(squared))
        return before.reveal("receiver"), squared.reveal("receiver"), (v * v).reveal("receiver")

    for start in ([1.0, 2.0], [-1.0, 0.5]):
        start = np.array(start)
        v.assign(known(start))
        before, squared, after = step(shared([1.0, -0.5]))
        moved = start + np.array([1.0, -0.5])
        np.testing.assert_array_equal(before.numpy(), start)
        np.testing.assert_array_equal(squared.numpy(), moved**2)
        assert np.max(np.abs(after.numpy() - moved**4)) <= 3 * moved.max() ** 2 * UNIT
        assert np.max(np.abs(value(v) - moved**2)) <= UNIT


VARIABLE_OPERATIONS = {
    "1 + v": (lambda v, w: 1 + v, lambda v, w: 1 + v),
    "-v": (lambda v, w: -v, lambda v, w: -v),
    "+v": (lambda v, w: +v, lambda v, w: v),
    "v / 2.5": (lambda v, w: v / 2.5, lambda v, w: v / 2.5),
    "v / w": (lambda v, w: v / w, lambda v, w: v / w),
    "w * v": (lambda v, w: w * v, lambda v, w: w * v),
    "w - v": (lambda v, w: w - v, lambda v, w: w - v),
    "tensor * v": (lambda v, w: tf.constant(w) * v, lambda v, w: w * v),
    "v @ w.T": (lambda v, w: v @ w.T, lambda v, w: v @ w.T),
    "w.T @ v": (lambda v, w: w.T @ v, lambda v, w: w.T @ v),
    "v * v": (lambda v, w: v * v, lambda v, w: v * v),
    "v ** 2": (lambda v, w: v**2, lambda v, w: v**2),
    "v > w": (lambda v, w: v > w, lambda v, w: v > w),
    "w >= v": (lambda v, w: w >= v, lambda v, w: w >= v),
    "v == v": (lambda v, w: v == v, lambda v, w: v == v),
    "v.T and v": (lambda v, w: v.T @ v, lambda v, w: v.T @ v),
    "two transposes": (
        lambda v, w: v.reshape(1, 2, 3).transpose(0, 2, 1) @ v.reshape(1, 2, 3).transpose(0, 1, 2),
        lambda v, w: v.T[None] @ v[None],
    ),
    "v[0]": (lambda v, w: v[0], lambda v, w: v[0]),
    "v.sum(0)": (lambda v, w: v.sum(0), lambda v, w: v.sum(0)),
}


@pytest.mark.parametrize("name", VARIABLE_OPERATIONS)
def test_operators_of_variables(name):
    ours, theirs = VARIABLE_OPERATIONS[name]
    w = np.array([[2.0, -1.0, 4.0], [0.5, 8.0, -0.25]])
    v = sf.PrivateVariable(known(X, "bob"))
    wanted = np.asarray(theirs(X, w), float)
    for got in (value(ours(v, w)), sf.function(lambda: ours(v, w).reveal("receiver"))().numpy()):
        np.testing.assert_allclose(got, wanted, rtol=0, atol=2 * UNIT)


def test_a_variable_as_an_argument_is_part_of_the_program():
    f = Counted(lambda x, v: (x * v).reveal("receiver"))
    one, two = (sf.PrivateVariable(known(np.full(3, k), "bob")) for k in (1.0, 2.0))
    for v, k in [(one, 1), (two, 2), (one, 1)]:
        np.testing.assert_array_equal(f(known(X), v).numpy(), k * X)
    assert f.traces == 2
    one.assign(known(np.full(3, 7.0)))
    np.testing.assert_array_equal(f(known(X), one).numpy(), 7 * X)


def test_a_tensorflow_variable_is_public_and_read_at_each_call():
    public = tf.Variable(2.0, dtype=tf.float64)
    f = Counted(lambda x: (x * public).reveal("receiver"))
    np.testing.assert_array_equal(f(known(X)).numpy(), 2 * X)
    public.assign(3.0)
    np.testing.assert_array_equal(f(shared(X)).numpy(), 3 * X)
    public.assign(5.0)
    np.testing.assert_array_equal(f(shared(X)).numpy(), 5 * X)
    assert f.traces == 2


def test_a_variable_is_masked_once_for_all_its_uses():
    v = sf.PrivateVariable(known(W, "bob"))

    @sf.function
    def f(x):
        with sf.crossings() as seen:
            for _ in range(3):
                x = sf.relu(x @ v) @ v.T
        return x.reveal("receiver"), [c.value for c in seen if c.kind is Kind.OPENING and c.value.shape == W.shape]

    assert f(shared(X))[1] == []


def test_a_variable_keeps_its_shape_and_is_made_outside():
    v = sf.PrivateVariable(known(W, "bob"))
    with pytest.raises(sf.errors.ShapeError, match="keeps its shape"):
        v.assign(known(X))
    with pytest.raises(sf.errors.ShapeError, match="assigned a private tensor"):
        v.assign(W)
    with pytest.raises(sf.errors.ShapeError, match="owner="):
        sf.PrivateVariable(W)
    with pytest.raises(sf.errors.PlacementError, match="outside of any function"):
        sf.function(lambda x: sf.PrivateVariable(x).reveal("receiver"))(shared(X))
    with pytest.raises(sf.errors.MixedProtocolsError):
        v.assign(shared(W, truncation=sf.Optimistic()))


# --- no mask repeats ------------------------------------------------------------------------------------------

# Results are padded too: with a fresh share of zero.
MASKED_KINDS = (Kind.INPUT, Kind.OPENING, Kind.CORRECTION, Kind.RESULT)


def messages(seen: list[Any]) -> list[Any]:
    return [crossing.value for crossing in seen if crossing.kind in MASKED_KINDS]


def no_word_repeats(*runs: Any) -> None:
    words = np.concatenate([np.asarray(message).ravel() for message in tf.nest.flatten(runs)])
    assert words.dtype == np.int64
    assert words.size > 20
    # Of n uniform 64-bit words two are equal with probability n^2 / 2^65: below 2^-35 for all sizes here.
    values, counts = np.unique(words, return_counts=True)
    assert counts.max() == 1, f"{np.sum(counts > 1)} of {words.size} words crossed more than once"
    assert 0 not in values


BATCH = np.random.default_rng(1).uniform(-2, 2, (4, 3))


def layer(x: Any, weights: Any) -> Any:
    """All that sends messages: sharing, masking, truncation, sign, selection, bits to numbers, powers."""
    y = sf.relu(x @ weights)
    return nn.polynomial(y, [0.0, 0.5, 0.25]) + (x > 0).sum(1, keepdims=True) + (y**3).sum()


@pytest.mark.parametrize("truncation", [sf.ExactWrap(), sf.Optimistic()], ids=["exact", "optimistic"])
def test_two_calls_of_a_function_share_no_message(truncation):
    with sf.SPDZ(truncation=truncation):
        weights = sf.PrivateVariable(known(W, "bob"))

        @sf.function
        def f(x):
            with sf.crossings() as seen:
                result = layer(x, weights).reveal("receiver")
            return result, messages(seen)

        x = known(BATCH)
        no_word_repeats(*(f(x)[1] for _ in range(4)), f.timed(x)[0][1])


def test_a_python_loop_in_a_function_repeats_no_message():
    @sf.function
    def f(x, weights):
        with sf.crossings() as seen:
            results = [layer(known_again, weights).reveal("receiver") for known_again in [x] * 3]
        return results, messages(seen)

    no_word_repeats(f(shared(BATCH), shared(W, "bob"))[1], f(shared(BATCH), shared(W, "bob"))[1])


def test_functions_that_share_a_variable_and_eager_uses_of_it_repeat_no_message():
    with sf.crossings() as first:
        weights = sf.PrivateVariable(known(W, "bob"))

    def body(x):
        with sf.crossings() as seen:
            layer(x, weights).reveal("receiver")
            weights.assign(weights * 0.5)
        return messages(seen)

    functions = [sf.function(body), sf.function(body)]
    runs = [f(known(BATCH)) for f in (*functions, *functions)]
    with sf.crossings() as eagerly:
        layer(known(BATCH), weights).reveal("receiver")
        weights.assign(known(W))
        layer(known(BATCH), weights).reveal("receiver")
    no_word_repeats(messages(first), runs, messages(eagerly), functions[0](known(BATCH)))


def test_retracing_at_another_batch_size_repeats_no_message():
    weights = sf.PrivateVariable(known(W, "bob"))

    @sf.function
    def f(x):
        with sf.crossings() as seen:
            layer(x, weights).reveal("receiver")
        return messages(seen)

    runs = [f(known(BATCH[:n])) for n in (4, 1, 2, 4, 1)]
    no_word_repeats(*runs)


def test_nested_functions_repeat_no_message():
    inner = sf.function(lambda x: sf.relu(x * x))

    @sf.function
    def outer(x):
        with sf.crossings() as seen:
            (inner(x) + inner(x)).reveal("receiver")
        return messages(seen)

    x = shared(BATCH)
    no_word_repeats(outer(x), outer(x))


def test_a_tensor_from_outside_is_masked_anew_at_each_run():
    x = shared(BATCH)

    @sf.function
    def captured():
        with sf.crossings() as seen:
            sf.relu(x * x).reveal("receiver")
        return messages(seen)

    with sf.crossings() as eagerly:
        sf.relu(x * x).reveal("receiver")
    no_word_repeats(captured(), captured(), messages(eagerly))


def test_results_used_on_outside_repeat_no_message():
    f = sf.function(lambda x: x * x)
    runs = []
    for _ in range(3):
        y = f(shared(BATCH))
        with sf.crossings() as seen:
            sf.relu(y - y[0]).reveal("receiver")
        runs.append(messages(seen))
    no_word_repeats(*runs)


def test_threads_of_one_session_repeat_no_message(session):
    runs: list[Any] = []

    def work():
        with session, sf.crossings() as seen:
            for _ in range(3):
                sf.relu(shared(BATCH) * 0.5).reveal("receiver")
            runs.append(messages(seen))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(runs) == 4, "a session may be entered by several threads"
    no_word_repeats(*runs)


def test_two_sessions_have_keys_of_their_own():
    @sf.function
    def f(x):
        with sf.crossings() as seen:
            x = x.shared(sf.SPDZ())
            sf.relu(x * x).reveal("receiver")
        return messages(seen)

    runs = []
    for _ in range(2):
        with sf.Session():
            runs.append(f(known(BATCH)))
    no_word_repeats(*runs)


def test_a_seeded_session_repeats_bit_by_bit_and_the_check_above_sees_it():
    @sf.function
    def f(x):
        with sf.crossings() as seen:
            x = x.shared(sf.SPDZ())
            sf.relu(x * x).reveal("receiver")
        return messages(seen)

    runs = []
    for _ in range(2):
        with sf.insecure_session(seed=5):
            runs.append(f(known(BATCH)))
    for one, other in zip(*runs, strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(AssertionError, match="crossed more than once"):
        no_word_repeats(*runs)
    with sf.insecure_session(seed=6):
        no_word_repeats(runs[0], f(known(BATCH)))


# --- where private operations cannot stand --------------------------------------------------------------------


def in_cond(x):
    # The condition is a tensor of the graph: TensorFlow traces both branches.
    return tf.cond(x.plaintext[0] > 0, lambda: (sf.relu(x.shared(sf.SPDZ()))).share.parts, lambda: (0, 0))


def in_map(x):
    return tf.map_fn(lambda t: known(t).shared(sf.SPDZ()).share.parts[0], x.plaintext, fn_output_signature=tf.int64)


def in_nested_function(x):
    return tf.function(lambda: x.shared(sf.SPDZ()).share.parts[0])()


def in_while(x):
    return tf.while_loop(
        lambda i, t: i < 3, lambda i, t: (i + 1, t + x.shared(sf.SPDZ()).share.parts[0]), [0, tf.zeros(3, tf.int64)]
    )


@pytest.mark.parametrize("body", [in_while, in_cond, in_map, in_nested_function], ids=lambda f: f.__name__)
def test_a_graph_that_runs_many_times_is_refused_inside_a_function(body):
    with pytest.raises(RandomnessError, match="Use a Python loop") as caught:
        sf.function(body)(known(np.array([1.0, -2.0, 3.0])))
    for name in ("tf.while_loop", "tf.cond", "tf.map_fn", "nested tf.function"):
        assert name in str(caught.value)


def test_a_function_after_a_failed_trace_works():
    fail = [True]

    @sf.function
    def f(x):
        y = sf.relu(x)
        if fail[0]:
            in_nested_function(known(X))
        return y.reveal("receiver")

    with pytest.raises(RandomnessError):
        f(shared(X))
    fail[0] = False
    np.testing.assert_array_equal(f(shared(X)).numpy(), np.maximum(X, 0))
    np.testing.assert_array_equal(value(sf.relu(shared(X))), np.maximum(X, 0))


def test_a_private_operation_in_a_tensorflow_function_is_refused():
    x = shared(X)
    for body in (lambda: (x * x).reveal("receiver").plaintext, lambda: sf.relu(x).share.parts[0]):
        with pytest.raises(RandomnessError, match=r"Decorate the outermost function with shareflow\.function"):
            tf.function(body, autograph=False)()
    with tf.Graph().as_default(), pytest.raises(RandomnessError, match=r"tf\.function or tf\.Graph"):
        known(X).shared(sf.SPDZ())


def test_a_shareflow_function_in_a_tensorflow_function_is_refused():
    f = sf.function(lambda x: (x + 1).reveal("receiver"))
    f(known(X))
    for body in (lambda: f(known(X)).plaintext, lambda: f.timed(known(X))[0].plaintext):
        with pytest.raises(RandomnessError, match=r"decorate the outer function with shareflow\.function"):
            tf.function(body, autograph=False)()
    with pytest.raises(RandomnessError, match=r"inside a tf\.function"):
        sf.function(lambda x: tf.function(lambda: f(x), autograph=False)())(known(X))


def test_what_one_party_knows_may_use_any_tensorflow():
    @sf.local_computation("alice")
    def total(x):
        return tf.while_loop(lambda i, t: i < 3, lambda i, t: (i + 1, t + x), [0, tf.zeros_like(x)])[1]

    f = sf.function(lambda x: total(x).reveal("bob"))
    np.testing.assert_array_equal(f(known(X)).numpy(), 3 * X)


def test_reading_inside_a_function_is_refused():
    with pytest.raises(sf.errors.NotRevealedError, match="being traced"):
        sf.function(lambda x: x.reveal("receiver").numpy())(known(X))


def test_an_error_in_a_function_names_the_rule_and_not_the_value():
    sent = []

    @sf.function
    def f(x):
        with sf.crossings() as seen:
            y = x.shared(sf.SPDZ()) * 2
        sent.extend(seen)
        return y.reveal("receiver")

    for bad in (np.nan, np.inf, -np.inf, 2.0**31 + 0.123):
        with pytest.raises(sf.errors.EncodingError) as caught:
            f(known([1.0, bad]))
        text = str(caught.value)
        assert "16 fractional bits" in text
        assert "1.07374e+09" in text
        assert "Rescale" in text
        assert "2147483648" not in text
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__
    # The check is made before the value is encoded: what is sent waits for it.
    assert sent
    (sending,) = (c.value.op for c in sent if c.kind is Kind.INPUT)
    before, queue = set(), [sending]
    while queue:
        operation = queue.pop()
        if operation.name not in before:
            before.add(operation.name)
            queue += [t.op for t in operation.inputs] + list(operation.control_inputs)
    assert any(sending.graph.get_operation_by_name(name).type == "Assert" for name in before)
    np.testing.assert_array_equal(f(known([1.0, 2.0])).numpy(), [2.0, 4.0])


FORK = """
    import os, sys
    import shareflow as sf
    from shareflow.party.session import current_session

    parent = sf.Session()
    parent.next_index(), current_session().next_index(), parent.eager
    child = os.fork()
    if not child:
        wrong = 0
        for session in (parent, current_session()):
            try:
                session.next_index()
                wrong += 1
            except sf.errors.RandomnessError as error:
                wrong += "after a fork" not in str(error) or "shareflow.Session()" not in str(error)
            try:
                session.eager
                wrong += 1
            except sf.errors.RandomnessError:
                pass
        with sf.Session() as own:
            wrong += own.next_index() != 1
        os._exit(wrong)
    _, status = os.waitpid(child, 0)
    assert parent.next_index() == 3
    sys.exit(os.waitstatus_to_exitcode(status))
"""


def test_a_forked_process_must_begin_a_session_of_its_own():
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(FORK)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]


def test_an_index_is_never_given_twice():
    session = sf.Session()
    indices: list[int] = []
    threads = [
        threading.Thread(target=lambda: indices.extend(session.next_index() for _ in range(500))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(indices) == list(range(1, 2001))
    assert all(a != b for a, b in itertools.pairwise(sorted(indices)))
