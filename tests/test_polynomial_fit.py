import numpy as np
import pytest

from shareflow.nn.polynomial_fit import MAX_DEGREE, relu_polynomial


def nodes(degree, bound):
    return bound * np.cos(np.pi * (2 * np.arange(degree + 1) + 1) / (2 * (degree + 1)))


@pytest.mark.parametrize("bound", [0.5, 3.0, 8.0])
@pytest.mark.parametrize("degree", [1, 2, 3, 4, 7, 10])
def test_agrees_with_relu_at_the_chebyshev_nodes(degree, bound):
    x = nodes(degree, bound)
    coefficients = relu_polynomial(degree, bound)
    assert coefficients.shape == (degree + 1,)
    assert coefficients.dtype == np.float64
    np.testing.assert_allclose(np.polynomial.Polynomial(coefficients)(x), np.maximum(x, 0), atol=1e-9 * bound)


def test_degree_two_in_closed_form():
    # Nodes 0 and +-3 cos(pi/6): p(x) = x/2 + x^2 / (2 * 3 cos(pi/6)).
    expected = [0.0, 0.5, 1 / (6 * np.cos(np.pi / 6))]
    np.testing.assert_allclose(relu_polynomial(2, 3.0), expected, atol=1e-15)


def test_a_higher_even_degree_is_closer():
    x = np.linspace(-3, 3, 601)
    errors = [
        np.abs(np.polynomial.Polynomial(relu_polynomial(degree, 3.0))(x) - np.maximum(x, 0)).max()
        for degree in (2, 4, 8, 16)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] < 0.33


def test_odd_coefficients_above_the_first_are_exactly_zero():
    coefficients = relu_polynomial(7, 3.0)
    assert coefficients[1] == 0.5
    assert not coefficients[3::2].any()


@pytest.mark.parametrize("degree", [0, -1, MAX_DEGREE + 1, 2.0, True, None, "2"])
def test_refuses_a_degree_out_of_range(degree):
    with pytest.raises(ValueError, match="whole number from 1 to 16"):
        relu_polynomial(degree, 3.0)


@pytest.mark.parametrize("bound", [0.0, -3.0, float("inf"), float("nan")])
def test_refuses_a_bound_that_is_not_positive(bound):
    with pytest.raises(ValueError, match="positive finite number"):
        relu_polynomial(2, bound)
