"""Mish, GELU made of tanh and RMS normalisation against float64."""

import numpy as np
import pytest
from nearness import BITS, KINDS, private, protocol, value

import shareflow as sf
from shareflow import nn
from shareflow.errors import ShapeError


def gelu_by_tanh(x):
    return x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) / 2


def mish(x):
    return x * np.tanh(np.logaddexp(0, x))


FUNCTIONS = {"gelu by tanh": (lambda x: nn.gelu(x, approximate=True), gelu_by_tanh), "mish": (nn.mish, mish)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_splines_are_within_two_units(name, bits, kind):
    private_form, plain = FUNCTIONS[name]
    x = np.concatenate([np.linspace(-30, 30, 301), [0.0, 1000.0, -1000.0, 2.0**-bits, -(2.0**-bits)]])
    x = np.rint(x * 2.0**bits) / 2.0**bits
    found, wanted = value(private_form(private(x, bits, protocol(kind, bits)))), plain(x)
    assert np.all(np.abs(found - wanted) <= 2 * 2.0**-bits * np.maximum(1, np.abs(wanted)))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_one_party_knows_it_computes_in_plaintext(name):
    private_form, plain = FUNCTIONS[name]
    x = np.linspace(-3, 3, 7)
    known = private_form(sf.private_tensor(x, "alice"))
    assert np.allclose(known.numpy(), plain(x), atol=1e-6)


def test_the_two_forms_of_gelu_are_two():
    x = private([2.0])
    assert abs(value(nn.gelu(x)) - value(nn.gelu(x, approximate=True)))[0] > 2.0**-14


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("axis", [-1, 0, (0, 1)])
def test_rms_norm(kind, axis, rng):
    x, scale = rng.normal(size=(3, 16)) * 4, rng.normal(size=16)
    wanted = x / np.sqrt(np.mean(x**2, axis=axis, keepdims=True) + 1e-6)
    for given, factor in ((None, 1), (scale, scale)):
        found = value(nn.rms_norm(private(x, where=protocol(kind)), given, axis))
        assert np.all(np.abs(found - wanted * factor) <= 6 * 2.0**-16 * np.maximum(1, np.abs(wanted * factor)))


def test_rms_norm_of_zeros_is_zero():
    assert np.array_equal(value(nn.rms_norm(private(np.zeros((2, 4))))), np.zeros((2, 4)))


def test_rms_norm_needs_an_axis_that_there_is():
    with pytest.raises(ShapeError):
        nn.rms_norm(private(np.ones((2, 4))), axis=2)
