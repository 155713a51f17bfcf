"""Keras models of all kinds as sources: subclasses, nested ones, several inputs, whole numbers, saved files."""

import io
import json
import zipfile

import h5py
import keras
import numpy as np
import pytest
from keras import layers

import shareflow as sf
from shareflow.errors import UnsupportedModelError

BOUND = 1e-3
X = np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)


def made(model, **options):
    return sf.private_model(model, owner="model-owner", protocol=sf.Plain(), **options)


def agree(model, given, **options):
    found = made(model, **options).predict(given, receiver="client")
    np.testing.assert_allclose(found, np.asarray(model(given)), atol=BOUND)


@keras.saving.register_keras_serializable("shareflow-tests")
class Gate(keras.Model):
    """A subclass with a subclass within."""

    def __init__(self, units=4, **options):
        super().__init__(**options)
        self.units = units
        self.inner = layers.Dense(units, activation="relu")
        self.gate = layers.Dense(units, activation="sigmoid")

    def call(self, x):
        return self.inner(x) * self.gate(x)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


class Outer(keras.Model):
    def __init__(self):
        super().__init__()
        self.parts = [Gate(4), Gate(4)]

    def call(self, x):
        for part in self.parts:
            x = part(x) + x
        return x


def test_subclasses_that_were_built_by_a_call():
    model = Outer()
    with pytest.raises(UnsupportedModelError, match="Call it"):
        made(model)
    model(X)
    agree(model, X)


def test_nested_models():
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(4, activation="relu"), layers.Dense(4)])
    x = keras.Input((4,))
    agree(keras.Model(x, layers.Add()([inner(x), Gate(4)(x)])), X)


def test_inputs_as_a_dict():
    one, two = keras.Input((4,), name="first"), keras.Input((2,), name="second")
    model = keras.Model({"b": one, "a": two}, layers.Dense(3)(layers.Concatenate()([one, two])))
    private = made(model)
    assert list(private.model.source.inputs) == ["a", "b"]
    given = {"a": X[:, :2], "b": X}
    np.testing.assert_allclose(private.predict(given, receiver="c"), model(given).numpy(), atol=BOUND)


def test_a_shared_layer_is_shared_once():
    one, two = keras.Input((4,)), keras.Input((4,))
    tower = layers.Dense(3, activation="tanh")
    model = keras.Model([one, two], layers.Subtract()([tower(one), tower(two)]))
    assert sorted(value.shape for value in sf.parameters_of(model).values()) == [(3,), (4, 3)]


def test_token_ids():
    model = keras.Sequential(
        [keras.Input((5,), dtype="int32"), layers.Embedding(7, 4), layers.GlobalAveragePooling1D(), layers.Dense(2)]
    )
    tokens = np.random.default_rng(0).integers(0, 7, (3, 5)).astype(np.int32)
    agree(model, tokens)
    assert made(model).model.source.inputs["x"].dtype == "int32"


def test_a_subclass_may_be_told_what_it_takes():
    class Tokens(keras.Model):
        def __init__(self):
            super().__init__()
            self.table, self.dense = layers.Embedding(7, 4), layers.Dense(2)

        def call(self, x):
            return self.dense(self.table(x)[:, 0])

    model = Tokens()
    tokens = np.random.default_rng(0).integers(0, 7, (3, 5)).astype(np.int32)
    model(tokens)
    agree(model, tokens, inputs={"x": sf.Argument((5,), "int32")})
    with pytest.raises(UnsupportedModelError, match="no input 'ids'; its inputs are x"):
        made(model, inputs={"ids": sf.Argument((5,), "int32")})


def test_layers_that_prepare_numbers():
    normal = layers.Normalization()
    normal.adapt(X)
    model = keras.Sequential([keras.Input((4,)), layers.Rescaling(0.5, offset=1.0), normal, layers.Dense(2)])
    agree(model, X)
    assert all(value.shape != () for value in sf.parameters_of(model).values())


@pytest.mark.parametrize("kind", ["vectorise", "look up strings", "look up numbers"])
def test_layers_that_prepare_texts_stay_outside(kind):
    if kind == "vectorise":
        layer, dtype = layers.TextVectorization(vocabulary=["a", "b"]), "string"
    elif kind == "look up strings":
        layer, dtype = layers.StringLookup(vocabulary=["a", "b"]), "string"
    else:
        layer, dtype = layers.IntegerLookup(vocabulary=[3, 5]), "int64"
    model = keras.Sequential([keras.Input((1,), dtype=dtype), layer])
    with pytest.raises(UnsupportedModelError, match="outside of a private computation"):
        made(model)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.filterwarnings("ignore:.*HDF5")
def test_saved_files(suffix, tmp_path):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(4, activation="elu"), layers.BatchNormalization()])
    model.save(tmp_path / f"model{suffix}")
    found = made(tmp_path / f"model{suffix}").predict(X, receiver="client")
    np.testing.assert_allclose(found, model(X).numpy(), atol=BOUND)


def test_a_saved_subclass(tmp_path):
    model = Gate(4)
    model(X)
    model.save(tmp_path / "model.keras")
    found = made(str(tmp_path / "model.keras")).predict(X, receiver="client")
    np.testing.assert_allclose(found, model(X).numpy(), atol=BOUND)


def layer(kind, name, **config):
    return {"module": "keras.layers", "class_name": kind, "config": {"name": name, **config}, "registered_name": None}


def test_a_file_that_says_nothing_of_a_backend(tmp_path):
    """As Keras on JAX or PyTorch writes it: layers by their names, arrays by their places."""
    kernel, bias = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)[:, :, :3]
    bias = bias[0]
    config = {
        "module": "keras",
        "class_name": "Sequential",
        "config": {
            "name": "net",
            "layers": [
                layer("InputLayer", "x", batch_shape=[None, 4], dtype="float32"),
                layer("Dense", "scores", units=3, activation="sigmoid"),
            ],
        },
        "registered_name": None,
    }
    weights = io.BytesIO()
    with h5py.File(weights, "w") as file:
        file["layers/dense/vars/0"], file["layers/dense/vars/1"] = kernel, bias
    with zipfile.ZipFile(tmp_path / "net.keras", "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.5.0", "date_saved": "2025-01-01@00:00:00"}))
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("model.weights.h5", weights.getvalue())
    found = made(tmp_path / "net.keras").predict(X, receiver="client")
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-(X @ kernel + bias))), atol=BOUND)
