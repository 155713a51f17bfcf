"""Inputs, local computations and outputs; who sees what; sessions."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import sys
import textwrap
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import shareflow as sf
from shareflow.errors import PlacementError
from shareflow.party.send import Kind
from shareflow.party.session import current_session
from shareflow.share.additive import Additive
from shareflow.share.known import Known

X = np.array([[1.5, -2.25, 0.5], [3.0, 0.0, -1.0]])


def known(value: Any, owner: Any = "alice") -> sf.PrivateTensor:
    return sf.private_tensor(value, owner)


def owner_of(x: sf.PrivateTensor) -> str:
    assert isinstance(x.share, Known)
    return str(x.share.owner)


def links(seen: list[Any]) -> set[tuple[str, str, str]]:
    return {(c.kind.value, str(c.source), str(c.to)) for c in seen}


# --- Figure 1 -------------------------------------------------------------------------------------------------

# As printed in Dahl et al. 2018, but for the import and tf.print.
FIGURE_1 = """
    import tensorflow as tf
    import shareflow as tfe

    @tfe.private_input('model-owner')
    def provide_weights():
        w = {w}
        return w

    @tfe.private_input('data-owner')
    def provide_input():
        x = {x}
        return x

    @tfe.private_output('result-receiver')
    def receive_output(logits):
        return tf.print(logits)

    w = provide_weights()
    x = provide_input()

    y = tfe.sigmoid(tfe.matmul(x, w))

    prediction_op = receive_output(y)

    with tfe.Session() as sess:
        sess.run(prediction_op)
"""
WEIGHTS = [[0.5], [-1.25], [2.0]]
INPUT = [[1.0, 2.0, 0.5], [-1.0, 0.25, 1.5], [4.0, -3.0, 2.0]]


def test_figure_1_prints_the_prediction():
    text = FIGURE_1.format(w=f"tf.constant({WEIGHTS})", x=f"tf.constant({INPUT})")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(text)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    # tf.print writes to the error stream; only it writes brackets.
    printed = "\n".join(line for line in done.stderr.splitlines() if re.match(r"\s*\[", line))
    numbers = [float(number) for number in re.findall(r"-?\d+\.?\d*(?:e-?\d+)?", printed)]
    wanted = 1 / (1 + np.exp(-np.array(INPUT) @ np.array(WEIGHTS)))
    assert len(numbers) == 3
    assert np.max(np.abs(np.array(numbers) - wanted.ravel())) < 2.5e-3


def test_figure_1_inside_a_function():
    received = []

    @sf.private_input("model-owner")
    def weights():
        return tf.constant(WEIGHTS)

    @sf.private_output("result-receiver")
    def receive(logits):
        received.append(logits)
        return logits

    @sf.function
    def predict(x):
        return receive(sf.sigmoid(sf.matmul(x, weights())))

    result = predict(known(INPUT, "data-owner"))
    assert owner_of(result) == "result-receiver"
    wanted = 1 / (1 + np.exp(-np.array(INPUT) @ np.array(WEIGHTS)))
    assert np.max(np.abs(result.numpy() - wanted)) < 2.5e-3
    assert isinstance(received[0], tf.Tensor), "the receiver's function gets a plain tensor"


def test_printing_in_a_function_happens_at_each_call(capfd):
    @sf.private_output("receiver")
    def show(x):
        return tf.print("shown", x)

    f = sf.function(lambda x: show(x + 1))
    assert f(known([1.0]).shared(sf.SPDZ())) is None
    f(known([2.0]).shared(sf.SPDZ()))
    assert re.findall(r"shown \[(\d)\]", capfd.readouterr().err) == ["2", "3"]


# --- decorators -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("party", ["model-owner", sf.Party("model-owner"), "model_owner"])
def test_private_input_belongs_to_its_owner(party):
    @sf.private_input(party)
    def weights(scale, *, offset=0.0):
        """Gives weights."""
        return {"w": tf.ones([2]) * scale + offset, "more": (np.arange(3), [1.0, 2.0]), "none": None}

    given = weights(2.0, offset=1.0)
    assert weights.__name__ == "weights"
    assert weights.__doc__ == "Gives weights."
    assert given["w"].share.owner == sf.Party("model-owner")
    np.testing.assert_array_equal(given["w"].numpy(), [3.0, 3.0])
    np.testing.assert_array_equal(given["more"][0].numpy(), [0, 1, 2])
    assert all(isinstance(number, sf.PrivateTensor) for number in given["more"][1])
    assert given["none"] is None


@pytest.mark.parametrize("decorator", [sf.private_input, sf.private_output, sf.local_computation])
def test_a_decorator_names_its_party(decorator):
    with pytest.raises(PlacementError) as caught:

        @decorator
        def data():
            return 1.0

    assert "party" in str(caught.value).lower()
    for party in (None, 3, "", "no spaces", "9lives", "ü", "a/b"):
        with pytest.raises(PlacementError, match=r"[Pp]arty"):
            decorator(party)


def test_a_local_computation_is_ordinary_tensorflow_at_one_party():
    @sf.local_computation("alice")
    def normalise(x, mean, *, scale):
        assert isinstance(x, tf.Tensor)
        return (x - mean) / scale, tf.argmax(x, axis=1)

    with sf.crossings() as seen:
        normal, best = normalise(known(X), 0.5, scale=known(2.0))
    assert seen == []
    assert owner_of(normal) == owner_of(best) == "alice"
    np.testing.assert_array_equal(normal.numpy(), (X - 0.5) / 2)
    np.testing.assert_array_equal(best.numpy(), X.argmax(axis=1))


def test_a_local_computation_takes_only_what_its_party_knows():
    compute = sf.local_computation("alice")(lambda x: x)
    shared = known(X).shared(sf.SPDZ())
    for given, holder in [(known(X, "bob"), "bob"), (shared, "shares"), (sf.PrivateVariable(shared), "shares")]:
        with pytest.raises(PlacementError) as caught:
            compute(given)
        text = str(caught.value)
        assert "computes at alice on what alice knows" in text
        assert f"known to {holder}" in text
        assert "x.reveal('alice')" in text
        assert "1.5" not in text
    np.testing.assert_array_equal(compute(shared.reveal("alice")).numpy(), X)


def test_a_local_computation_may_return_what_it_got_private():
    compute = sf.local_computation("alice")(lambda: known(X, "bob"))
    assert owner_of(compute()) == "bob"


def test_private_output_reveals_all_its_arguments_to_one_receiver():
    got = {}

    @sf.private_output("receiver")
    def receive(first, rest, *, last):
        got.update(first=first, rest=rest, last=last)
        return first * 2

    shared = known(X).shared(sf.SPDZ())
    with sf.crossings() as seen:
        result = receive(shared, [shared + 1, "text", 3], last={"x": known(X, "bob")})
    assert owner_of(result) == "receiver"
    np.testing.assert_array_equal(result.numpy(), 2 * X)
    np.testing.assert_array_equal(got["rest"][0].numpy(), X + 1)
    assert got["rest"][1:] == ["text", 3]
    np.testing.assert_array_equal(got["last"]["x"].numpy(), X)
    assert links(seen) == {
        ("result", "server0", "receiver"),
        ("result", "server1", "receiver"),
        ("plaintext", "bob", "receiver"),
    }


def test_an_output_without_a_result():
    assert sf.private_output("receiver")(lambda x: None)(known(X)) is None


# --- inputs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        1,
        -2.5,
        True,
        [1.0, 2.0],
        ((1, 2), (3, 4)),
        np.arange(4, dtype=np.uint8),
        np.float16(0.5),
        np.zeros((0, 3)),
        tf.constant([1.5], tf.bfloat16),
        tf.Variable([1.0, 2.0]),
        tf.constant([True, False]),
        X[::-1, ::2],
    ],
    ids=str,
)
def test_any_real_numbers_are_an_input(value):
    x = known(value)
    wanted = np.asarray(tf.convert_to_tensor(value), np.float64)
    assert x.shape == wanted.shape
    np.testing.assert_array_equal(np.asarray(x.numpy(), np.float64), wanted)
    np.testing.assert_array_equal(x.shared(sf.SPDZ()).reveal("receiver").numpy(), wanted)


@pytest.mark.parametrize("value", [2.0**29 + 2**-16, [2.0**24 + 1, 2.0**-16], (0.1, 123456.7), 2**29 + 1])
def test_numbers_of_python_keep_their_precision(value):
    got = known(value).shared(sf.SPDZ()).reveal("receiver").numpy()
    assert np.max(np.abs(got - np.asarray(value))) <= 2.0**-17


def test_a_list_of_tensors_is_an_input_in_a_function_too():
    wanted = np.array([1.5, 2.5])
    traced = sf.function(lambda: known([tf.constant(1.5), tf.constant(2.5)]).shared(sf.SPDZ()).reveal("receiver"))
    np.testing.assert_array_equal(traced().numpy(), wanted)
    np.testing.assert_array_equal(known([tf.constant(1.5), tf.constant(2.5)]).numpy(), wanted)


def test_an_input_is_not_private_yet():
    for private in (known(X), known(X).shared(sf.SPDZ()), sf.PrivateVariable(known(X))):
        with pytest.raises(PlacementError, match="private already"):
            sf.private_tensor(private, "bob")
    with pytest.raises(PlacementError):
        sf.private_tensor(X, None)


def test_nothing_is_sent_until_values_of_two_parties_meet():
    with sf.crossings() as seen:
        x = known(X)
        y = (x * 2 - 1) @ x.T / 3
        z = sf.relu(y).sum() + sf.concat([x, X], 0).mean() + sf.nn.sigmoid(x).sum() + (x > 0.5).sum() + x[0] ** 2
        assert owner_of(z) == "alice"
        w = known(np.ones(3), "bob") * 2
        assert seen == []
        total = z + w
    assert isinstance(total.share, Additive)
    assert {c.kind for c in seen} == {Kind.INPUT}
    assert {str(c.source) for c in seen} == {"alice", "bob"}


def test_a_received_result_is_its_receivers_own_plaintext():
    x = (known(X) + known(X, "bob")).reveal("carol")
    with sf.crossings() as seen:
        y = x * 2 + known(1.0, "carol")
    assert seen == []
    assert owner_of(y) == "carol"
    np.testing.assert_array_equal(y.numpy(), 4 * X + 1)
    with sf.crossings() as seen:
        again = (y + known(X)).reveal("alice")
    assert links(seen) >= {("result", "server0", "alice"), ("result", "server1", "alice")}
    np.testing.assert_array_equal(again.numpy(), 5 * X + 1)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_any_number_of_owners_and_receivers(count):
    inputs = [known(X + i, f"owner-{i}") for i in range(count)]
    total = sum((x.shared(sf.SPDZ()) for x in inputs[1:]), start=inputs[0].shared(sf.SPDZ()))
    with sf.crossings() as seen:
        for i in range(count):
            result = total.reveal(f"receiver-{i}")
            assert owner_of(result) == f"receiver-{i}"
            np.testing.assert_array_equal(result.numpy(), sum(X + k for k in range(count)))
    assert len(seen) == 2 * count
    # Fresh shares of zero: two receivers together see no part twice.
    words = np.concatenate([c.value.numpy().ravel() for c in seen])
    assert len(set(words.tolist())) == words.size


@pytest.mark.parametrize("receiver", ["server0", "server1", "dealer", "alice", "stranger"])
def test_reveal_to_any_party(receiver):
    x = known(X).shared(sf.SPDZ())
    with sf.crossings() as seen:
        result = x.reveal(receiver)
    assert owner_of(result) == receiver
    np.testing.assert_array_equal(result.numpy(), X)
    assert links(seen) == {("result", s, receiver) for s in ("server0", "server1") if s != receiver}
    assert result.numpy().dtype == np.float64


@pytest.mark.parametrize("owner", ["server0", "server1", "dealer"])
def test_a_computing_party_may_own_inputs(owner):
    with sf.crossings() as seen:
        result = (known(X, owner) * known(X, "alice")).reveal("receiver")
    np.testing.assert_array_equal(result.numpy(), X * X)
    sent = {(c.source, c.to) for c in seen if c.kind is Kind.INPUT and str(c.source) == owner}
    # A server shares with the other by a stream: nothing crosses.
    assert len(sent) == (owner == "dealer")


def test_handing_on_what_one_party_knows_is_plaintext_to_that_receiver_alone():
    with sf.crossings() as seen:
        x = known(X).reveal("bob")
        assert owner_of(x) == "bob"
        known(X).reveal("alice")
    assert links(seen) == {("plaintext", "alice", "bob")}


def test_an_input_goes_to_one_server_and_says_nothing():
    for owner in ("alice", "bob"):
        with sf.crossings() as seen:
            known(np.zeros(1000), owner).shared(sf.SPDZ())
        (crossing,) = seen
        assert crossing.kind is Kind.INPUT
        words = crossing.value.numpy()
        # Zeros arrive as uniform words: half of all bits are set.
        ones = np.unpackbits(words.view(np.uint8)).mean()
        assert abs(ones - 0.5) < 4 * 0.5 / np.sqrt(64 * 1000)
        assert len(set(words.tolist())) == 1000


def test_the_protocol_of_the_block_is_the_one_in_which_inputs_meet():
    outer, inner = sf.SPDZ(servers=("a", "b"), dealer="c"), sf.Plain()
    x, y = known(X), known(X, "bob")
    with outer:
        assert (x + y).protocol is outer
        with inner:
            assert (x + y).protocol is inner
        assert (x + y).protocol is outer
        with pytest.raises(ZeroDivisionError), inner:
            _ = 1 / 0
        assert (x + y).protocol is outer
    assert (x + y).protocol == sf.SPDZ()


# --- sessions -------------------------------------------------------------------------------------------------


def test_sessions_nest_and_end(session):
    assert current_session() is session
    with sf.Session() as outer:
        assert current_session() is outer
        with sf.Session() as inner, outer:
            assert current_session() is outer
        assert current_session() is outer
        with contextlib.suppress(ZeroDivisionError), inner:
            _ = 1 / 0
        assert current_session() is outer
    assert current_session() is session


def test_values_of_one_session_are_used_in_another():
    with sf.Session():
        x = known(X).shared(sf.SPDZ()).reusable()
        v = sf.PrivateVariable(known(X, "bob"))
    with sf.Session():
        np.testing.assert_array_equal((x * v).reveal("receiver").numpy(), X * X)
    np.testing.assert_array_equal((x * v).reveal("receiver").numpy(), X * X)


def test_keys_belong_to_a_pair_of_a_session():
    alice, bob, carol = map(sf.Party, ("alice", "bob", "carol"))
    one, other = sf.Session(), sf.Session()
    keys = [s.key(*pair).numpy().tobytes() for s in (one, other) for pair in ((alice, bob), (alice, carol))]
    assert len(set(keys)) == 4
    assert one.key(alice, bob).numpy().tobytes() == one.key(bob, alice).numpy().tobytes()
    assert keys[0] == one.key(alice, bob).numpy().tobytes()
    with pytest.raises(PlacementError, match="two parties"):
        one.key(alice, sf.Party("alice"))


def test_an_insecure_session_repeats():
    def opened(seed):
        with sf.insecure_session(seed), sf.crossings() as seen:
            known(X).shared(sf.SPDZ())
        return seen[0].value.numpy().tobytes()

    assert opened(1) == opened(1)
    assert opened(1) != opened(2)


def test_run_gives_plain_values():
    x = known(X).shared(sf.SPDZ()).reveal("receiver")
    with sf.Session() as session:
        np.testing.assert_array_equal(session.run(x), X)
        got = session.run({"a": [x, tf.constant(2.0)], "b": (None, "text")})
        np.testing.assert_array_equal(got["a"][0], X)
        assert got["a"][1] == 2.0
        assert got["b"] == (None, "text")
        np.testing.assert_array_equal(session.run(lambda y: y + 1, x), X + 1)
        with pytest.raises(sf.errors.NotRevealedError):
            session.run(known(X).shared(sf.SPDZ()))


# --- parties --------------------------------------------------------------------------------------------------


def test_a_dash_is_an_underscore():
    assert sf.Party("model-owner") == sf.Party("model_owner")
    assert hash(sf.Party("model-owner")) == hash(sf.Party("model_owner"))
    assert str(sf.Party("model-owner")) == "model-owner"
    assert sf.Party("a") != sf.Party("A")
    with sf.crossings() as seen:
        known(X, "model-owner").reveal("model_owner")
    assert seen == []


def test_operations_in_a_party_are_pinned_to_it():
    @sf.function
    def f(x, y):
        return (x * y).reveal("receiver")

    graph = f.trace(known(X), known(X, "bob")).program.graph
    devices = {op.device for op in graph.get_operations() if op.device}
    assert devices == {f"/job:{name}" for name in ("alice", "bob", "server0", "server1", "dealer", "receiver")}


def test_the_text_of_a_tensor_holds_no_secret():
    x = known([1234.5])
    for tensor in (x, x.shared(sf.SPDZ()), x.shared(sf.SPDZ()).reusable(), sf.PrivateVariable(x)):
        stream = io.StringIO()
        print(tensor, [tensor], file=stream)
        assert "1234" not in stream.getvalue()
        assert "(1,)" in stream.getvalue()
    assert "known to alice" in repr(x)
    assert "server0, server1" in repr(x.shared(sf.SPDZ()))
