"""The audit proves the views of honest programs, and finds leaks that are planted in them."""

import numpy as np
import pytest
import tensorflow as tf

import shareflow as sf
from shareflow import nn
from shareflow.party.send import Kind, send
from shareflow.protocol.tensor import PrivateTensor
from shareflow.share.additive import Additive
from shareflow.share.known import Known
from shareflow.share.stream import shared_stream

S0, S1, DEALER, EVE = (sf.Party(name) for name in ("server0", "server1", "dealer", "eve"))


def alice(*shape):
    return sf.private_tensor(np.ones(shape or (3, 2)), "alice")


def bob(*shape):
    return sf.private_tensor(np.ones(shape or (2, 2)), "bob")


HONEST = {
    "product": lambda x, w: x @ w,
    "relu": lambda x, w: sf.relu(x @ w),
    "square": lambda x, w: (x @ w) ** 2,
    "comparison": lambda x, w: (x @ w) > 0.5,
    "logic": lambda x, w: ((x @ w) > 0.5) & ((x @ w) < 2),
    "polynomial": lambda x, w: nn.polynomial(x @ w, [1, 2, 3]),
    "maximum": lambda x, w: nn.reduce_max(x @ w, -1),
    "argmax": lambda x, w: nn.argmax(x @ w),
    "sort": lambda x, w: nn.sort(x @ w),
    "one hot": lambda x, w: nn.one_hot(nn.argmax(x @ w), 2),
    "floor": lambda x, w: nn.floor(x @ w),
    "exp": lambda x, w: nn.exp(x @ w),
    "divide": lambda x, w: nn.divide(x @ w, w[:1] + 2),
    "sqrt": lambda x, w: nn.sqrt(x @ w),
    "gelu": lambda x, w: nn.gelu(x @ w),
    "softmax": lambda x, w: nn.softmax(x @ w),
    "layer norm": lambda x, w: nn.layer_norm(x @ w),
}


@pytest.mark.parametrize("name", HONEST)
@pytest.mark.parametrize("protocol", [sf.SPDZ(), sf.SPDZ(truncation=sf.Optimistic())], ids=["exact", "optimistic"])
def test_every_message_of_an_honest_program_is_accounted_for(name, protocol):
    with protocol:
        program = sf.function(lambda x, w: HONEST[name](x, w).reveal("carol"))
        audit = program.audit(alice(), bob())
        cost = program.cost(alice(), bob())
    assert audit.passed, audit.findings
    views = {view.party: view for view in audit.views}
    # Nobody but the servers and the receiver is sent anything, and the servers learn nothing.
    assert set(views) == {"carol", "server0", "server1"}
    assert not views["server0"].learned and not views["server1"].learned
    assert len(views["carol"].learned) == 2 and not views["carol"].removed
    counted = {m.to for m in cost.messages}
    assert counted == set(views)


def test_private_models_pass():
    import keras

    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(3, 3, activation="relu"),
            keras.layers.MaxPooling2D(2),
            keras.layers.Flatten(),
            keras.layers.Dense(4, activation="tanh"),
            keras.layers.Dense(2),
        ]
    )
    assert sf.private_model(model, owner="owner").audit().passed


def test_a_receiver_that_computes_learns_its_result_alone():
    audit = sf.function(lambda x, w: sf.relu(x @ w).reveal("server0")).audit(alice(), bob())
    assert audit.passed
    assert {view.party: len(view.learned) for view in audit.views} == {"server0": 1, "server1": 0}


def test_plaintext_that_is_handed_on_is_listed():
    audit = sf.function(lambda x: x.reveal("carol")).audit(alice())
    assert audit.passed
    (view,) = audit.views
    assert view.party == "carol" and len(view.learned) == 1


# --- planted leaks


def parts(x):
    share = x.shared(sf.SPDZ()).share
    assert isinstance(share, Additive)
    return share.parts


def at(party, value):
    return PrivateTensor(Known(party, tf.cast(value, tf.float64)))


def findings(program, *arguments):
    audit = sf.function(program).audit(*arguments)
    assert not audit.passed
    return {(finding.party, finding.why) for finding in audit.findings}


def test_an_unmasked_send_is_found():
    def leak(x):
        part0, part1 = parts(x)
        with S0:
            bare = part0 * 3
        got = send(bare, S0, S1, Kind.OPENING)
        with S1:
            return at(S1, part1 + got)

    assert ("server1", "it is hidden under no stream: the receiver sees the value") in findings(leak, alice())


def test_both_shares_to_one_party_are_found():
    def leak(x):
        part0, part1 = parts(x)
        got = send(part0, S0, EVE, Kind.OPENING), send(part1, S1, EVE, Kind.OPENING)
        with EVE:
            return at(EVE, got[0] + got[1])

    assert {party for party, _ in findings(leak, alice())} == {"eve"}


def test_a_mask_used_twice_is_found():
    def leak(x, y):
        stream = shared_stream(S0, DEALER, x.shape)
        (x0, _), (y0, _) = parts(x), parts(y)
        with S0:
            first, second = x0 - stream.at(S0), y0 - stream.at(S0)
        got = send(first, S0, S1, Kind.OPENING), send(second, S0, S1, Kind.OPENING)
        with S1:
            return at(S1, got[0] - got[1])

    whys = [why for party, why in findings(leak, alice(), alice()) if party == "server1"]
    assert any("reaches the receiver by another message too" in why for why in whys)


def test_a_stream_whose_key_the_receiver_holds_is_found():
    def leak(x):
        stream = shared_stream(S0, S1, x.shape)
        part0, _ = parts(x)
        with S0:
            masked = part0 - stream.at(S0)
        got = send(masked, S0, S1, Kind.OPENING)
        with S1:
            return at(S1, got)

    assert any("whose key the receiver holds" in why for _, why in findings(leak, alice()))


def test_a_stream_smaller_than_what_it_hides_is_found():
    def leak(x):
        stream = shared_stream(S0, DEALER, (1, 1))
        part0, _ = parts(x)
        with S0:
            masked = part0 - stream.at(S0)
        got = send(masked, S0, S1, Kind.OPENING)
        with S1:
            return at(S1, got)

    assert any("hidden under no stream" in why for _, why in findings(leak, alice()))


def test_a_pad_that_is_sent_after_its_message_is_found():
    def leak(x):
        stream = shared_stream(S0, DEALER, x.shape)
        part0, _ = parts(x)
        with S0:
            masked = part0 - stream.at(S0)
        got = send(masked, S0, S1, Kind.OPENING), send(stream.at(DEALER), DEALER, S1, Kind.CORRECTION)
        with S1:
            return at(S1, got[0] + got[1])

    assert {party for party, _ in findings(leak, alice())} == {"server1"}


def test_a_value_used_without_being_sent_is_found():
    def leak(x):
        part0, part1 = parts(x)
        with S0:
            bare = part0 * 3
        with S1:
            return at(S1, bare + part1)

    assert ("server1", "a value of server0 is used by server1 and was not sent to it") in findings(leak, alice())


def test_a_result_to_the_wrong_receiver_is_found():
    from shareflow.audit.view import audit

    program = sf.function(lambda x, w: (x @ w).reveal("eve"))
    graph = program.trace(alice(), bob()).program.graph
    assert audit(graph, receivers=["eve"]).passed
    found = audit(graph, receivers=["carol"])
    assert not found.passed
    assert {finding.party for finding in found.findings} == {"eve"}
