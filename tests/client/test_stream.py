"""The client's streams against those of the parties: the same bits."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from shareflow.ring import kernels, reference
from shareflow_client.stream import uniform

KEY = bytes.fromhex("000102030405060708090a0b0c0d0e0f")


def signed(word: int) -> np.int64:
    return np.array(word, np.uint64).view(np.int64)[()]


def oracle(make, key: bytes, execution: int, stream: int, shape) -> np.ndarray:
    words = tf.constant(np.frombuffer(key, "<i8"))
    return make(words, tf.constant(signed(execution)), tf.constant(np.int64(stream)), tuple(shape)).numpy()


@pytest.mark.parametrize("make", [reference.uniform, kernels.uniform], ids=["reference", "kernel"])
@pytest.mark.parametrize("shape", [(), (0,), (1,), (2,), (3,), (5, 0, 2), (1, 7), (2, 3, 4, 5)])
@pytest.mark.parametrize(
    ("execution", "stream"), [(0, 0), (2**64 - 1, 2**31 - 1), (1 << 63, 1), (0x0123456789ABCDEF, 70)]
)
def test_bits_are_the_parties(make, shape, execution, stream):
    ours = uniform(KEY, execution, stream, shape)
    assert ours.dtype == np.int64
    assert ours.shape == shape
    np.testing.assert_array_equal(ours, oracle(make, KEY, execution, stream, shape))


@given(st.binary(min_size=16, max_size=16), st.integers(0, 2**64 - 1), st.integers(0, 2**31 - 1), st.integers(0, 40))
@settings(max_examples=50, deadline=None)
def test_any_key_execution_and_stream(key, execution, stream, count):
    np.testing.assert_array_equal(
        uniform(key, execution, stream, (count,)), oracle(kernels.uniform, key, execution, stream, (count,))
    )


@pytest.mark.parametrize("count", [2 * 2**14 - 1, 2 * 2**14, 2 * 2**14 + 1, 4 * 2**14 + 3, 1_000_001])
def test_long_streams(count):
    np.testing.assert_array_equal(uniform(KEY, 3, 5, (count,)), oracle(kernels.uniform, KEY, 3, 5, (count,)))


def test_the_published_cipher():
    # AES-128 of zero bytes under a zero key: test case 2 of the GCM specification gives this H.
    assert uniform(bytes(16), 0, 0, (2,)).tobytes().hex() == "66e94bd4ef8a2c3b884cfa59ca342b2e"


def test_a_shorter_stream_is_the_beginning_of_a_longer():
    whole = uniform(KEY, 9, 9, (1000,))
    for count in (1, 2, 3, 999):
        np.testing.assert_array_equal(uniform(KEY, 9, 9, (count,)), whole[:count])


def test_each_argument_matters():
    made = {
        uniform(key, execution, stream, (4,)).tobytes()
        for key in (KEY, bytes(16))
        for execution in (0, 1, 1 << 63)
        for stream in (0, 1, 1 << 30)
    }
    assert len(made) == 18


def test_the_array_is_the_callers_own():
    one = uniform(KEY, 1, 1, (4,))
    one += 1
    np.testing.assert_array_equal(uniform(KEY, 1, 1, (4,)) + 1, one)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((b"secretsecretsec", 0, 0, (1,)), "key is 16 bytes"),
        ((b"secretsecretsecre", 0, 0, (1,)), "key is 16 bytes"),
        (("secretsecretsecr", 0, 0, (1,)), "key is 16 bytes"),
        ((KEY, -1, 0, (1,)), "execution index is from 0 to 2.64 - 1, not -1"),
        ((KEY, 1 << 64, 0, (1,)), "execution index"),
        ((KEY, 0, -1, (1,)), "stream's number is from 0 to 2.31 - 1, not -1"),
        ((KEY, 0, 1 << 31, (1,)), "stream's number"),
        ((KEY, 0, 0, (-1,)), r"shape of 0 to 2.33 elements, not \[-1\]"),
        ((KEY, 0, 0, (-1, -1)), "shape of 0 to"),
        ((KEY, 0, 0, (1 << 33, 2)), "shape of 0 to"),
    ],
)
def test_what_is_out_of_bounds_is_refused(arguments, error):
    with pytest.raises(ValueError, match=error) as raised:
        uniform(*arguments)
    assert "secret" not in str(raised.value)
