"""Sine and cosine: the polynomial in whole numbers, the split between opening and mask, and laws."""

import math

import numpy as np
import pytest
import tensorflow as tf
from benchmarks.functions import limit, on_grid
from hypothesis import given, settings
from hypothesis import strategies as st
from nearness import BITS, private, value

import shareflow as sf
from shareflow import nn
from shareflow.errors import EncodingError, PlacementError
from shareflow.ring.sine import sine

UNIT = 2.0**-16
FEW = settings(derandomize=True, deadline=None, max_examples=30)
WORDS = st.integers(-(2**63), 2**63 - 1)


@pytest.mark.parametrize("bits", [32, 40, 62, 63, 64])
@pytest.mark.parametrize("result_bits", [12, 24, 30])
def test_the_sine_of_words(bits, result_bits, rng):
    turns = np.concatenate(
        [rng.uniform(-0.5, 0.5, 5000), np.arange(-4, 4) / 8, [2.0**-30, -(2.0**-30), 0.25 - 2.0**-30]]
    )
    words = np.rint(turns * 2.0**bits).astype(np.float64)
    words = np.where(words >= 2.0**63, words - 2.0**64, words).astype(np.int64)
    got = sine(tf.constant(words), bits=bits, result_bits=result_bits).numpy() * 2.0**-result_bits
    wanted = np.sin(2 * math.pi * turns)
    assert np.max(np.abs(got - wanted)) <= 0.5 * 2.0**-result_bits + 5 * 2.0**-30


@FEW
@given(WORDS, st.integers(-9, 9))
def test_whole_turns_do_not_count(word, turns):
    moved = (word + (turns << 62) + 2**63) % 2**64 - 2**63
    first, second = sine(tf.constant([word, moved], tf.int64), bits=62, result_bits=24).numpy()
    assert first == second


def test_the_sine_of_words_is_the_same_in_a_graph(rng):
    words = tf.constant(rng.integers(-(2**63), 2**63 - 1, 4097))
    eager = sine(words, bits=62, result_bits=20)
    traced = tf.function(lambda x: sine(x, bits=62, result_bits=20))(words)
    one_by_one = tf.concat([sine(words[i : i + 1], bits=62, result_bits=20) for i in range(0, 4097, 64)], 0)
    np.testing.assert_array_equal(eager, traced)
    np.testing.assert_array_equal(eager[::64], one_by_one)


@FEW
@given(st.lists(st.integers(-(2**40), 2**40), min_size=1, max_size=9))
def test_laws(words):
    x = np.array(words) * UNIT
    a = private(x)
    s, c = value(nn.sin(a)), value(nn.cos(a))
    assert np.max(np.abs(s * s + c * c - 1)) <= 8 * UNIT
    np.testing.assert_allclose(value(nn.sin(-a)), -s, atol=4 * UNIT)
    np.testing.assert_allclose(value(nn.cos(-a)), c, atol=4 * UNIT)
    np.testing.assert_allclose(value(nn.sin(a * 2)), 2 * s * c, atol=8 * UNIT)


@pytest.mark.parametrize("bits", BITS)
def test_far_from_0(bits):
    x = on_grid(np.linspace(-1, 1, 999) * limit(bits), bits)
    # Up to four times the range that 2 units are stated for.
    assert np.max(np.abs(value(nn.sin(private(x, bits))) - np.sin(x))) <= 5 * 2.0**-bits


def test_a_masked_angle_takes_no_round():
    x = private(np.linspace(-9, 9, 64)).reusable()
    for function in (nn.sin, nn.cos):
        cost = sf.function(function).cost(x)
        assert (cost.rounds, cost.online_bytes, cost.offline_bytes) == (0, 0, 16 * 64)


def test_the_opened_angle_says_nothing():
    # Of one and the same angle, under fresh masks, words all over the ring are opened.
    with sf.crossings() as crossed:
        for _ in range(8):
            nn.sin(private(np.full(64, 1.25)))
    opened = np.concatenate([c.value.numpy().ravel() for c in crossed if c.kind.value == "opening"])
    assert opened.size == 2 * 8 * 64
    assert len(set(opened.tolist())) == opened.size
    assert abs(np.mean(opened > 0) - 0.5) < 0.1
    assert abs(np.mean(opened & 1) - 0.5) < 0.1


def test_more_than_20_fractional_bits_are_refused():
    for function in (nn.sin, nn.cos, nn.tan):
        with pytest.raises(EncodingError, match=r"at most 20 fractional bits"):
            function(private([1.0], 24))


def test_public_values_are_refused():
    for function in (nn.sin, nn.cos, nn.tan):
        with pytest.raises(PlacementError, match=r"takes a private tensor"):
            function(np.ones(3))
