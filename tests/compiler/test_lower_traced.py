"""Handlers inside traced programs: one plan of many ops passes the audit, and costs what is expected."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L  # noqa: N812
from lowering import reals, truths, wholes

import shareflow as sf
from shareflow.compiler.front.source import Argument
from shareflow.errors import UnsupportedModelError
from shareflow.plan_audit import audited


def tokens_model():
    tokens = keras.Input((4,), dtype="int32")
    return keras.Model(tokens, L.Dense(2)(L.Flatten()(L.Embedding(50, 3)(tokens))))


def test_tokens_choose_rows_by_vectors_that_their_owner_makes():
    """No comparison on shares: the client makes the one-hot vectors."""
    model = tokens_model()
    private = sf.private_model(model, owner="model-owner", protocol=sf.SPDZ())
    x = wholes(2, 4, low=0, high=50)
    got = private.predict(x, receiver="client")
    np.testing.assert_allclose(got, model(x), atol=1e-3)
    scopes = [message.scope for message in private.cost(2).messages]
    assert scopes and not any("compare" in scope for scope in scopes)
    assert private.cost(2).rounds <= 4


@pytest.mark.slow
def test_a_plan_of_a_token_model_passes_the_audit(tmp_path):
    model = tokens_model()
    plan = sf.compile_model(model, client="client", owner="model-owner", batch_sizes=(1, 2))
    assert audited(plan).passed


def mixed(x, y, c, i):
    """Ops of every family, on real numbers, truth values and places."""
    z = tf.where(c, x, tf.nn.relu(y))
    z = tf.concat([z, tf.reverse(z, [1]), tf.roll(z, 1, 0)], 1)
    z = tf.pad(tf.tile(z, [1, 2]), [[1, 0], [0, 1]], "REFLECT")
    z = tf.linalg.band_part(z, 2, 3) + tf.cumsum(z, 1, reverse=True)
    picked = tf.gather(z, i, axis=1)
    image = tf.reshape(z[:4, :24], [1, 4, 8, 3])
    image = tf.nn.max_pool2d(tf.image.resize(image, [8, 8]), 3, 2, "SAME")
    image = tf.nn.space_to_depth(tf.nn.avg_pool2d(image, 2, 1, "SAME"), 2)
    wide = tf.nn.conv2d_transpose(image, tf.ones([3, 3, 2, 12]) / 40, [1, 4, 4, 2], 2, "SAME")
    places = tf.argmax(picked, 1)
    best = tf.math.top_k(picked, 2).values
    logic = tf.cast(tf.reduce_any(picked > 2, 1) & tf.reduce_all(picked < 9, 1), tf.float32)
    divided = tf.cast(tf.round(picked) // 2, tf.float32) + tf.reduce_prod(picked * 0.5, 1, keepdims=True)
    return wide, places, best, logic, divided, tf.sin(picked), tf.linalg.diag(logic)


def mixed_inputs():
    return {"x": reals(4, 5), "y": reals(4, 5, seed=1), "c": truths(4, 5), "i": wholes(3, low=0, high=25)}


@pytest.mark.slow
def test_many_ops_in_one_traced_program():
    inputs = mixed_inputs()
    arguments = {
        name: Argument(array.shape, array.dtype.name, batched=False, party="bob" if name in "yc" else None)
        for name, array in inputs.items()
    }
    private = sf.private_model(
        tf.function(mixed, autograph=False), owner="model-owner", protocol=sf.SPDZ(), inputs=arguments
    )
    right = [np.asarray(v) for v in mixed(**{name: tf.constant(array) for name, array in inputs.items()})]
    got = private.predict(inputs, receiver="client")
    for name, value in zip(sorted(got, key=lambda n: int(n.rpartition("_")[2])), right, strict=True):
        np.testing.assert_allclose(got[name], value, atol=5e-3, err_msg=name)
    private.audit()


def test_what_a_party_alone_makes_of_whole_numbers_needs_no_handler():
    """The client counts its words in plaintext; only what meets the owner's weights is on shares."""
    weights = tf.Variable(reals(5, 2))

    def function(x):
        words, _ = tf.nn.top_k(tf.bitwise.bitwise_and(x, 7), 3)
        return tf.one_hot(words, 5) @ weights

    x = wholes(2, 6, low=0, high=40)
    inputs = {"x": Argument((2, 6), "int32", batched=False)}
    private = sf.private_model(tf.function(function), owner="model-owner", inputs=inputs)
    np.testing.assert_allclose(private.predict(x, receiver="client"), function(tf.constant(x)), atol=1e-3)


def test_what_needs_a_handler_is_found_before_anything_is_shared():
    for function in (lambda x: tf.linalg.inv(x), lambda x: tf.math.lgamma(x) + 1.0):
        with pytest.raises(UnsupportedModelError, match="no private form"):
            sf.private_model(
                tf.function(function, autograph=False), owner="owner", inputs={"x": Argument((3, 3), "float32", False)}
            )
    with pytest.raises(UnsupportedModelError, match="BitwiseAnd"):
        sf.private_model(
            tf.function(lambda x, y: tf.bitwise.bitwise_and(x, y), autograph=False),
            owner="owner",
            inputs={name: Argument((3,), "int32", False, party) for name, party in (("x", "alice"), ("y", "bob"))},
        )


def test_what_turns_out_to_be_public_while_a_program_is_traced():
    def function(x):
        finite = tf.logical_and(tf.math.is_finite(x), tf.math.is_finite(x * 2))
        return tf.where(tf.reduce_all(finite, 1, keepdims=True), tf.nn.relu(x), 0.0)

    inputs = {"x": Argument((3, 4), "float32", batched=False)}
    private = sf.private_model(tf.function(function, autograph=False), owner="model-owner", inputs=inputs)
    x = reals(3, 4)
    np.testing.assert_allclose(private.predict(x, receiver="client"), function(tf.constant(x)), atol=1e-4)
