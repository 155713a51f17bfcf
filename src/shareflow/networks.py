"""Networks A, B and C of the tf-encrypted paper (Figure 3) as plaintext Keras models, and their training.

All take images float32 [n, 28, 28, 1] in 0..1 and give logits float32 [n, 10]: as in the paper, softmax and
argmax are left to the receiver. Batch normalisation stands before each activation, so that it can be folded
into the layer before it and its outputs stay where a polynomial follows ReLU. The figure writes "Conv (5, 16,
1, 1)" with padding 1 last, but FC (256, 100) and FC (800, 500) behind it hold only without padding (28 -> 24
-> 12 -> 8 -> 4; 4*4*16 = 256, 4*4*50 = 800), so there is none.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import keras

from shareflow.data import Digits
from shareflow.keras_layers import PolynomialReLU

Activation = Literal["relu", "polynomial"]
Pooling = Literal["average", "max"]

IMAGE_SHAPE = (28, 28, 1)
CLASSES = 10

# The running statistics of batch normalisation forget within tens of steps, not hundreds as by Keras' default
# of 0.99: training is a few epochs, on the small data set a few dozen steps.
_NORM_MOMENTUM = 0.9

_ACTIVATIONS: dict[str, Callable[[int], keras.layers.Layer]] = {
    "relu": lambda degree: keras.layers.ReLU(),
    "polynomial": lambda degree: PolynomialReLU(degree=degree),
}
_POOLINGS: dict[str, Callable[[], keras.layers.Layer]] = {
    "average": lambda: keras.layers.AveragePooling2D(2),
    "max": lambda: keras.layers.MaxPooling2D(2),
}


def network_a(activation: Activation = "relu", degree: int = 2, pooling: Pooling = "average") -> keras.Model:
    """Network A: FC (784, 128), FC (128, 128), FC (128, 10); 119,818 weights counting the statistics of the
    normalisation.

    Args:
        activation: "relu", or "polynomial" for PolynomialReLU on [-3, 3].
        degree: of the polynomial; not used with "relu".
        pooling: has no effect here, since A does not pool; taken so that all three networks are called alike.

    Returns:
        An untrained Sequential, images [n, 28, 28, 1] to logits [n, 10].

    Raises:
        ValueError: an activation or pooling of another name, or a degree out of range.
    """
    _choose(_POOLINGS, "pooling", pooling)
    return _network(
        "network_a",
        [
            keras.layers.Flatten(),
            keras.layers.Dense(128),
            *_normalised(activation, degree),
            keras.layers.Dense(128),
            *_normalised(activation, degree),
            keras.layers.Dense(CLASSES),
        ],
    )


def network_b(activation: Activation = "relu", degree: int = 2, pooling: Pooling = "average") -> keras.Model:
    """Network B: two convolutions 5x5 of 16 channels, each normalised, activated and pooled by 2; FC (256,
    100), FC (100, 10).

    Args, returns and raises as `network_a`; `pooling` is "average" as in the paper, or "max".
    """
    return _convolutional("network_b", 16, 16, 100, activation, degree, pooling)


def network_c(activation: Activation = "relu", degree: int = 2, pooling: Pooling = "average") -> keras.Model:
    """Network C: convolutions 5x5 of 20 and 50 channels, each normalised, activated and pooled by 2; FC (800,
    500), FC (500, 10).

    Args, returns and raises as `network_a`; `pooling` is "average" as in the paper, or "max".
    """
    return _convolutional("network_c", 20, 50, 500, activation, degree, pooling)


NETWORKS: dict[str, Callable[..., keras.Model]] = {"A": network_a, "B": network_b, "C": network_c}
"""The three networks by the letter the paper gives them."""


def train(
    model: keras.Model,
    digits: Digits,
    epochs: int,
    *,
    seed: int = 1,
    batch_size: int = 128,
    learning_rate: float = 2e-3,
    callbacks: list[keras.callbacks.Callback] | None = None,
    verbose: int = 0,
) -> float:
    """Trains a network in plaintext, in place: Adam with a cosine schedule down to zero, gradients clipped to
    norm 1.

    The seed sets Keras' global one (`keras.utils.set_random_seed`) and so fixes the order of the images. It
    cannot fix the weights the model already has: for the same model twice, set the seed before building it as
    well. Clipping is there for the polynomials, whose gradient grows with inputs outside their interval,
    where early batches fall.

    Args:
        model: a classifier with logits as output; its optimizer and loss are replaced.
        digits: its x_train [n, 28, 28, 1] and y_train [n] are used for training, x_test and y_test for the
        result. epochs: passes over the training images, at least 1.
        seed: for the shuffling.
        batch_size: images a step.
        learning_rate: of the first step; the schedule lowers it to zero at the last.
        callbacks: passed on to Keras, for showing progress.
        verbose: passed on to Keras: 0 is silent.

    Returns:
        The accuracy on the test images, 0..1.

    Raises:
        ValueError: epochs is below 1.
    """
    if epochs < 1:
        raise ValueError(f"training takes at least 1 epoch, got {epochs}")
    keras.utils.set_random_seed(seed)
    steps = epochs * math.ceil(len(digits.x_train) / batch_size)
    model.compile(
        optimizer=keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(learning_rate, steps), clipnorm=1.0
        ),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(
        digits.x_train,
        digits.y_train,
        batch_size=batch_size,
        epochs=epochs,
        shuffle=True,
        callbacks=callbacks,
        verbose=verbose,
    )
    return accuracy(model, digits)


def accuracy(model: keras.Model, digits: Digits) -> float:
    """The share of test images whose largest logit is at their label, 0..1."""
    logits = model.predict(digits.x_test, batch_size=500, verbose=0)
    return float((logits.argmax(axis=1) == digits.y_test).mean())


def _convolutional(
    name: str, first: int, second: int, hidden: int, activation: str, degree: int, pooling: str
) -> keras.Model:
    """The frame that networks B and C share: `first` and `second` channels, then `hidden` units."""
    pool = _choose(_POOLINGS, "pooling", pooling)
    return _network(
        name,
        [
            keras.layers.Conv2D(first, 5),
            *_normalised(activation, degree),
            pool(),
            keras.layers.Conv2D(second, 5),
            *_normalised(activation, degree),
            pool(),
            keras.layers.Flatten(),
            keras.layers.Dense(hidden),
            *_normalised(activation, degree),
            keras.layers.Dense(CLASSES),
        ],
    )


def _network(name: str, layers: list[keras.layers.Layer]) -> keras.Model:
    return keras.Sequential([keras.Input(IMAGE_SHAPE), *layers], name=name)


def _normalised(activation: str, degree: int) -> list[keras.layers.Layer]:
    """Batch normalisation and the activation behind it."""
    make = _choose(_ACTIVATIONS, "activation", activation)
    return [keras.layers.BatchNormalization(momentum=_NORM_MOMENTUM), make(degree)]


def _choose(table: dict[str, Callable[..., Any]], kind: str, name: str) -> Callable[..., Any]:
    if name not in table:
        raise ValueError(f"{kind} is one of {', '.join(sorted(table))}; got {name!r}")
    return table[name]
