import keras
import numpy as np
import pytest

from shareflow import networks
from shareflow.data import Digits
from shareflow.keras_layers import PolynomialReLU
from shareflow.nn.polynomial_fit import relu_polynomial


def kinds(model):
    return [type(layer).__name__ for layer in model.layers]


def kernels(model):
    return [layer.kernel.shape for layer in model.layers if hasattr(layer, "kernel")]


CONVOLUTIONAL = [
    *("Conv2D", "BatchNormalization", "ReLU", "AveragePooling2D"),
    *("Conv2D", "BatchNormalization", "ReLU", "AveragePooling2D"),
    *("Flatten", "Dense", "BatchNormalization", "ReLU", "Dense"),
]
FIGURE_3 = {
    "A": (
        ["Flatten", *2 * ("Dense", "BatchNormalization", "ReLU"), "Dense"],
        [(784, 128), (128, 128), (128, 10)],
    ),
    "B": (CONVOLUTIONAL, [(5, 5, 1, 16), (5, 5, 16, 16), (256, 100), (100, 10)]),
    "C": (CONVOLUTIONAL, [(5, 5, 1, 20), (5, 5, 20, 50), (800, 500), (500, 10)]),
}


@pytest.mark.parametrize("letter", FIGURE_3)
def test_networks_are_those_of_figure_3(letter):
    model = networks.NETWORKS[letter]()
    layers, shapes = FIGURE_3[letter]
    assert kinds(model) == layers
    assert kernels(model) == shapes
    assert model.input_shape == (None, 28, 28, 1)
    assert model.output_shape == (None, 10)
    assert model.layers[-1].activation is keras.activations.linear


def test_variants():
    model = networks.network_b("polynomial", degree=4, pooling="max")
    activations = [layer for layer in model.layers if isinstance(layer, PolynomialReLU)]
    assert [layer.degree for layer in activations] == [4, 4, 4]
    assert [layer.bound for layer in activations] == [3.0, 3.0, 3.0]
    assert kinds(model).count("MaxPooling2D") == 2


@pytest.mark.parametrize("build", networks.NETWORKS.values())
@pytest.mark.parametrize("wrong", [{"activation": "gelu"}, {"pooling": "min"}])
def test_unknown_variants_are_refused(build, wrong):
    with pytest.raises(ValueError, match="is one of"):
        build(**wrong)


@pytest.mark.parametrize("degree", [1, 2, 4, 7])
def test_polynomial_relu_evaluates_the_polynomial(degree):
    x = np.linspace(-4, 4, 33, dtype=np.float32).reshape(3, 11)
    layer = PolynomialReLU(degree=degree, bound=2.5)
    expected = np.polynomial.Polynomial(relu_polynomial(degree, 2.5))(x)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(layer(x)), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(layer.coefficients, relu_polynomial(degree, 2.5))


@pytest.mark.parametrize("wrong", [{"degree": 0}, {"degree": 2.5}, {"bound": -1.0}])
def test_polynomial_relu_refuses_wrong_parameters(wrong):
    with pytest.raises(ValueError, match="ReLU polynomial"):
        PolynomialReLU(**wrong)


def test_a_model_with_polynomials_is_saved_and_loaded(tmp_path):
    model = networks.network_a("polynomial", degree=4)
    model.save(tmp_path / "a.keras")
    again = keras.saving.load_model(tmp_path / "a.keras")
    x = np.random.default_rng(0).random((3, 28, 28, 1), dtype=np.float32)
    np.testing.assert_array_equal(model.predict(x, verbose=0), again.predict(x, verbose=0))
    assert again.layers[3].get_config()["degree"] == 4


def stripes(seed, count):
    """Digits that can be learned at once: a bright band whose height is the label."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, count)
    images = rng.random((count, 28, 28, 1), dtype=np.float32) * 0.2
    for image, label in zip(images, labels, strict=True):
        image[2 * label + 3 : 2 * label + 6] += 0.8
    return images, labels


@pytest.fixture(scope="module")
def digits():
    return Digits(*stripes(1, 1024), *stripes(2, 128), source="stripes")


@pytest.mark.parametrize("activation", ["relu", "polynomial"])
def test_training_learns(digits, activation):
    keras.utils.set_random_seed(1)
    model = networks.network_a(activation)
    accuracy = networks.train(model, digits, epochs=6, batch_size=64)
    assert accuracy > 0.9
    assert accuracy == networks.accuracy(model, digits)


def test_training_is_repeatable(digits):
    logits = []
    for _ in range(2):
        keras.utils.set_random_seed(3)
        model = networks.network_a()
        networks.train(model, digits, epochs=1, seed=4)
        logits.append(model.predict(digits.x_test, verbose=0))
    np.testing.assert_allclose(logits[0], logits[1], atol=1e-3)


def test_training_for_no_epochs_is_refused(digits):
    with pytest.raises(ValueError, match="at least 1 epoch"):
        networks.train(networks.network_a(), digits, epochs=0)
