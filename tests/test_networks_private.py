"""The paper's networks A, B and C made private, against Keras."""

import keras
import numpy as np
import pytest

import shareflow as sf
from shareflow import networks
from shareflow.data import load_digits

# Logits are of size 1 to 20; at 16 bits each of some hundred products a layer is off by 2^-17, and a polynomial of
# values up to 6 magnifies what comes in.
BOUNDS = {"relu": 0.01, "polynomial": 0.03}


def trained_looking(letter, activation, degree=2, pooling="average"):
    """A network with weights as at the beginning of training, and statistics as after it."""
    keras.utils.set_random_seed(ord(letter))
    rng = np.random.default_rng(ord(letter))
    model = networks.NETWORKS[letter](activation, degree, pooling)
    images = rng.random((64, 28, 28, 1)).astype(np.float32)
    tensor = images
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            # What follows keeps its inputs where a polynomial follows ReLU, as training would.
            values = np.asarray(tensor).reshape(-1, tensor.shape[-1])
            layer.moving_mean.assign(values.mean(0) + 0.1 * rng.normal(size=values.shape[1]))
            layer.moving_variance.assign(values.var(0) * rng.uniform(0.8, 1.3, values.shape[1]) + 1e-3)
            layer.gamma.assign(rng.uniform(0.7, 1.2, values.shape[1]))
            layer.beta.assign(0.2 * rng.normal(size=values.shape[1]))
        tensor = layer(tensor, training=False)
    return model, images


@pytest.mark.parametrize("letter", networks.NETWORKS)
@pytest.mark.parametrize("activation", ["relu", "polynomial"])
def test_logits_are_keras(letter, activation):
    model, images = trained_looking(letter, activation)
    private = sf.private_model(model, owner="model-owner")
    found = private.predict(images[:6], receiver="client", input_owner="client", batch_size=4)
    wanted = model(images[:6], training=False).numpy()
    assert np.ptp(wanted) > 0.5
    np.testing.assert_allclose(found, wanted, atol=BOUNDS[activation])


@pytest.mark.parametrize("letter", ["B", "C"])
def test_logits_with_max_pooling(letter):
    model, images = trained_looking(letter, "relu", pooling="max")
    found = sf.private_model(model, owner="model-owner").predict(images[:2], receiver="client")
    np.testing.assert_allclose(found, model(images[:2], training=False).numpy(), atol=BOUNDS["relu"])


@pytest.mark.parametrize("letter", ["A", "B"])
def test_logits_with_a_polynomial_of_degree_four(letter):
    model, images = trained_looking(letter, "polynomial", degree=4)
    found = sf.private_model(model, owner="model-owner").predict(images[:4], receiver="client")
    np.testing.assert_allclose(found, model(images[:4], training=False).numpy(), atol=BOUNDS["polynomial"])


def test_normalisation_costs_nothing():
    for activation in ("relu", "polynomial"):
        layers = sf.private_model(networks.network_b(activation), owner="o").layers
        ops = [op for _, names in layers for op in names]
        assert "Mul" not in ops
        assert ops.count("Conv2D") == ops.count("MatMul") == 2



def test_one_image_and_many_agree():
    model, images = trained_looking("B", "relu")
    private = sf.private_model(model, owner="model-owner")
    one = np.concatenate([private.predict(images[i : i + 1], receiver="client") for i in range(3)])
    many = private.predict(images, receiver="client", batch_size=64)
    np.testing.assert_allclose(one, many[:3], atol=BOUNDS["relu"])


def test_a_network_trained_on_digits_agrees_with_keras():
    pytest.importorskip("sklearn")
    digits = load_digits()
    keras.utils.set_random_seed(1)
    model = networks.network_a("relu")
    assert networks.train(model, digits, epochs=3) > 0.8
    private = sf.private_model(model, owner="model-owner")
    images = digits.x_test[:300]
    found = private.predict(images, receiver="client", batch_size=100)
    wanted = model.predict(images, verbose=0)
    np.testing.assert_allclose(found, wanted, atol=BOUNDS["relu"])
    assert (found.argmax(1) == wanted.argmax(1)).mean() >= 0.99


@pytest.mark.slow
@pytest.mark.parametrize("letter", networks.NETWORKS)
@pytest.mark.parametrize("activation", ["relu", "polynomial"])
def test_real_digits(shared_data, letter, activation):
    digits = load_digits(shared_data / "mnist.npz")
    keras.utils.set_random_seed(1)
    model = networks.NETWORKS[letter](activation)
    accuracy = networks.train(model, digits, epochs=1)
    assert accuracy > 0.95
    images = digits.x_test[:2000]
    found = sf.private_model(model, owner="model-owner").predict(images, receiver="client", batch_size=100)
    wanted = model.predict(images, verbose=0)
    # One image of 2,000 may lie on a border between two digits.
    assert (found.argmax(1) == wanted.argmax(1)).mean() >= 0.9995
    assert (
        abs((found.argmax(1) == digits.y_test[:2000]).mean() - (wanted.argmax(1) == digits.y_test[:2000]).mean()) < 1e-3
    )
    inside = np.abs(wanted).max(1) < 50
    assert inside.mean() > 0.95
    np.testing.assert_allclose(found[inside], wanted[inside], atol=10 * BOUNDS[activation])
