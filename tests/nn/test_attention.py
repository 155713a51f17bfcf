"""Looking up by private index and attention, against Keras with the same weights."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from benchmarks.functions import on_grid
from nearness import BITS, KINDS, SETTINGS, check, check_setting, check_traced, private, protocol, value
from nearness import ROWS as ALL

import shareflow as sf
from shareflow import nn
from shareflow.errors import ShapeError

UNIT = 2.0**-16
LOOK_UP = ALL["embedding(x, table), 16 rows of 8"]


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_look_up_is_exact(kind, bits):
    check(LOOK_UP, protocol(kind, bits))


def test_a_function_of_it():
    check_traced(LOOK_UP)


@pytest.mark.parametrize("setting", SETTINGS)
def test_other_settings(setting):
    check_setting(LOOK_UP, setting)


@pytest.mark.parametrize("shape", [(), (1,), (65,), (2, 7)], ids=str)
@pytest.mark.parametrize("table", ["private", "owned", "public"])
def test_embedding_as_keras(shape, table, rng):
    layer = keras.layers.Embedding(11, 6)
    layer.build(shape)
    words = on_grid(rng.normal(size=(11, 6)), 16)
    layer.set_weights([words])
    places = rng.integers(0, 11, shape)
    given = {
        "private": lambda: private(words),
        "owned": lambda: sf.private_tensor(words, "bob"),
        "public": lambda: words,
    }
    got = value(nn.embedding(private(places, scale=0), given[table]()))
    np.testing.assert_array_equal(got, words[places])
    np.testing.assert_allclose(got, layer(tf.constant(places)).numpy(), atol=1e-6)


@pytest.mark.parametrize("shape", [(3,), (), (2, 3, 4)])
def test_a_table_of_another_form(shape):
    with pytest.raises(ShapeError, match=r"An embedding table has the shape \[n, d\]; got"):
        nn.embedding(private([0.0]), np.ones(shape))


@pytest.mark.parametrize("lengths", [(1, 1), (5, 5), (3, 7)])
@pytest.mark.parametrize("masked", [False, True])
def test_scaled_dot_product_attention(lengths, masked, rng):
    queries, keys = lengths
    query, key, values = (on_grid(rng.normal(size=(2, n, 4)), 16) for n in (queries, keys, keys))
    mask = np.tril(np.ones((queries, keys))) if masked else None
    scores = query @ key.transpose(0, 2, 1) / 2
    weights = tf.nn.softmax(scores if mask is None else np.where(mask, scores, -np.inf)).numpy()
    got = value(nn.scaled_dot_product_attention(private(query), private(key), private(values), mask))
    # A score may be off by two units, a weight by 4 more.
    assert np.max(np.abs(got - weights @ values)) <= 8 * UNIT * keys
    if masked:
        # What is masked has no weight at all: another value there changes nothing but the last digit.
        other = values.copy()
        other[:, -1] += 100.0
        again = value(nn.scaled_dot_product_attention(private(query), private(key), private(other), mask))
        if keys > 1:
            assert np.max(np.abs(again[:, 0] - got[:, 0])) <= 8 * UNIT * keys


def attention_of_keras(heads, size, features, bias, value_size=None):
    layer = keras.layers.MultiHeadAttention(heads, size, use_bias=bias)
    layer.build((None, None, features), (None, None, features))
    rng = np.random.default_rng(7)
    layer.set_weights([on_grid(rng.normal(size=w.shape) / np.sqrt(features), 16) for w in layer.get_weights()])
    weights = layer.get_weights()
    kernels, biases = (weights[::2], weights[1::2]) if bias else (weights, None)
    flat = [k.reshape(features, heads * size) for k in kernels[:3]] + [kernels[3].reshape(heads * size, features)]
    return layer, flat, None if biases is None else [b.reshape(-1) for b in biases]


@pytest.mark.parametrize("heads", [1, 2, 4])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("masked", [False, True])
def test_multi_head_attention_as_keras(heads, bias, masked, rng):
    layer, kernels, biases = attention_of_keras(heads, 4, 8, bias)
    query, values = (on_grid(rng.normal(size=(2, n, 8)), 16) for n in (5, 6))
    mask = np.tril(np.ones((5, 6)), 1) if masked else None
    wanted = layer(query, values, attention_mask=None if mask is None else mask[None].astype(bool)).numpy()
    shares = [private(k) for k in kernels], None if biases is None else [private(b) for b in biases]
    got = value(nn.multi_head_attention(private(query), private(values), *shares, heads, mask=mask))
    assert got.shape == wanted.shape == (2, 5, 8)
    assert np.abs(wanted).max() > 0.2
    np.testing.assert_allclose(got, wanted, atol=100 * UNIT)


def test_a_key_of_its_own(rng):
    layer, kernels, biases = attention_of_keras(2, 4, 8, True)
    query, values, key = (on_grid(rng.normal(size=(1, n, 8)), 16) for n in (3, 4, 4))
    wanted = layer(query, values, key).numpy()

    @sf.function
    def attend(query, values, key):
        return nn.multi_head_attention(query, values, kernels, biases, 2, key=key).reveal("receiver")

    np.testing.assert_allclose(attend(*map(private, (query, values, key))).numpy(), wanted, atol=100 * UNIT)
    assert np.max(np.abs(layer(query, values).numpy() - wanted)) > 0.01


def test_heads_that_do_not_divide_the_width():
    x = private(np.ones((1, 2, 4)))
    kernels = (np.ones((4, 6)),) * 3 + (np.ones((6, 4)),)
    with pytest.raises(ShapeError, match=r"A width of 6 does not divide into 4 heads"):
        nn.multi_head_attention(x, x, kernels, None, 4)
