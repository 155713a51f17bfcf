"""Keras layers for models that are to be made private."""

from __future__ import annotations

import functools
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from shareflow.compiler.mark import mark
from shareflow.nn.polynomial_fit import relu_polynomial


@keras.saving.register_keras_serializable(package="shareflow")
class PolynomialReLU(keras.layers.Layer):
    """A polynomial in place of ReLU: products only, no comparison, hence cheaper on secret shares.

    It interpolates ReLU at the Chebyshev nodes of [-bound, bound] (see `relu_polynomial`) and is meant to
    stand after batch normalisation, which keeps its inputs inside. Any shape in, the same shape out. A model
    holding it is saved and loaded like any other once `shareflow.keras_layers` is imported.

    Args:
        degree: the degree of the polynomial, 1 to 16.
        bound: the half width of the interval on which it follows ReLU.

    Raises:
        EncodingError: degree or bound is not in its range.
    """

    def __init__(self, degree: int = 2, bound: float = 3.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # Checked by relu_polynomial before anything is converted: int(2.5) would hide a mistake.
        self._coefficients = relu_polynomial(degree, bound)
        self.degree = int(degree)
        self.bound = float(bound)

    @property
    def coefficients(self) -> NDArray[np.float64]:
        """The coefficients, float64 of shape [degree + 1], lowest power first (a copy)."""
        return self._coefficients.copy()

    def call(self, inputs: Any) -> Any:
        """p(x) by Horner's rule, element by element; the shape and dtype of `inputs`."""
        coefficients = tuple(float(c) for c in self._coefficients)
        if isinstance(inputs, tf.Tensor):
            # As one function with a mark, so that the compiler sees the polynomial and not its steps.
            return _marked(coefficients, self.bound)(inputs)
        return _horner(coefficients, inputs)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The shape of the input."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """What `from_config` needs to build the layer again."""
        return {**super().get_config(), "degree": self.degree, "bound": self.bound}


def _horner(coefficients: tuple[float, ...], x: Any) -> Any:
    result: Any = coefficients[-1]
    for coefficient in coefficients[-2::-1]:
        result = result * x + coefficient
    return result


@functools.cache
def _marked(coefficients: tuple[float, ...], bound: float) -> Any:
    text = mark("shareflow.polynomial", coefficients=list(coefficients), bound=bound)
    return tf.function(functools.partial(_horner, coefficients), autograph=False, experimental_implements=text)
