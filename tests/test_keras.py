"""Keras models made private: the same predictions as Keras', within a bound; errors that name the layer."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import shareflow as sf
from shareflow.compiler import passes
from shareflow.errors import EncodingError, PlacementError, ShapeError, UnsupportedModelError
from shareflow.keras_layers import PolynomialReLU

# Outputs here are of size 1 to 10, sums of at most some hundred products, each operand off by at most 2^-17.
BOUND = 0.01


def randomise(model, rng):
    """Weights of a usual size, and statistics and scales of batch normalisation as after training."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            randomise(layer, rng)
            continue
        for variable in layer.weights:
            shape, name = variable.shape, variable.name
            if name == "moving_variance":
                variable.assign(rng.uniform(0.3, 2.0, shape))
            elif name == "gamma":
                variable.assign(rng.uniform(0.5, 1.5, shape))
            elif name in ("beta", "moving_mean", "bias"):
                variable.assign(rng.normal(size=shape) * 0.3)
            elif "seed" not in name:
                fan_in = np.prod(shape[:-1]) if "depthwise" not in layer.name else np.prod(shape[:2])
                variable.assign(rng.normal(size=shape) / np.sqrt(fan_in))
    return model


def check(model, seed=0, count=3, bound=BOUND, batch_size=2, **options):
    """The private model, after its predictions were compared with Keras'."""
    rng = np.random.default_rng(seed)
    randomise(model, rng)
    x = rng.normal(size=(count, *model.input_shape[1:])).astype(np.float32)
    private = sf.private_model(model, owner="model-owner", **options)
    found = private.predict(x, receiver="client", batch_size=batch_size)
    wanted = model(x, training=False).numpy()
    assert found.shape == wanted.shape
    assert found.dtype == np.float32
    # Something is computed: an output of zeros would agree with anything small.
    assert np.abs(wanted).max() > 5 * bound
    np.testing.assert_allclose(found, wanted, atol=bound, rtol=0.002)
    return private


def chain(*parts, shape=(9, 8, 4)):
    return keras.Sequential([keras.Input(shape), *parts])


# --- layers ---------------------------------------------------------------------------------------------------

LAYERS = {
    "conv valid": lambda: [layers.Conv2D(6, 3)],
    "conv same": lambda: [layers.Conv2D(6, 3, padding="same")],
    "conv even kernel, same": lambda: [layers.Conv2D(6, (2, 4), padding="same")],
    "conv strides": lambda: [layers.Conv2D(6, 3, strides=(2, 3))],
    "conv strides, same": lambda: [layers.Conv2D(6, 3, strides=2, padding="same")],
    "conv dilation": lambda: [layers.Conv2D(6, 3, dilation_rate=2)],
    "conv dilation, same": lambda: [layers.Conv2D(6, 3, dilation_rate=(1, 2), padding="same")],
    "conv groups": lambda: [layers.Conv2D(6, 3, groups=2)],
    "conv groups, same, no bias": lambda: [layers.Conv2D(8, 3, groups=4, padding="same", use_bias=False)],
    "conv 1x1": lambda: [layers.Conv2D(6, 1)],
    "conv relu": lambda: [layers.Conv2D(6, 3, activation="relu")],
    "depthwise": lambda: [layers.DepthwiseConv2D(3)],
    "depthwise multiplier, same": lambda: [layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same")],
    "depthwise strides": lambda: [layers.DepthwiseConv2D(3, strides=2, activation="relu")],
    "depthwise dilation": lambda: [layers.DepthwiseConv2D(3, dilation_rate=2, use_bias=False)],
    "dense on images": lambda: [layers.Dense(5)],
    "flatten, dense": lambda: [layers.Flatten(), layers.Dense(7)],
    "dense without bias": lambda: [layers.Flatten(), layers.Dense(7, use_bias=False)],
    "reshape": lambda: [layers.Reshape((12, 24)), layers.Dense(3)],
    "reshape, one extent open": lambda: [layers.Reshape((6, -1)), layers.Dense(3)],
    "zero padding": lambda: [layers.ZeroPadding2D(((1, 2), (0, 3))), layers.Conv2D(3, 3)],
    "average pooling": lambda: [layers.AveragePooling2D(2)],
    "average pooling, not a power of two": lambda: [layers.AveragePooling2D(3)],
    "average pooling, same": lambda: [layers.AveragePooling2D(3, strides=2, padding="same")],
    "max pooling": lambda: [layers.MaxPooling2D(2)],
    "max pooling, overlapping": lambda: [layers.MaxPooling2D(3, strides=2)],
    "max pooling, same": lambda: [layers.MaxPooling2D((3, 2), strides=2, padding="same")],
    "max pooling of negative values, same": lambda: [layers.Dense(4), layers.MaxPooling2D(3, padding="same")],
    "global average": lambda: [layers.GlobalAveragePooling2D(), layers.Dense(3)],
    "global average, axes kept": lambda: [layers.GlobalAveragePooling2D(keepdims=True)],
    "relu": lambda: [layers.ReLU()],
    "relu 6": lambda: [layers.Conv2D(4, 3), layers.ReLU(6)],
    "activation relu6": lambda: [layers.Activation("relu6")],
    "activation linear": lambda: [layers.Activation("linear")],
    "activation of tensorflow": lambda: [layers.Dense(4, activation=tf.nn.relu)],
    "activation sigmoid": lambda: [layers.Conv2D(4, 3), layers.Activation("sigmoid")],
    "dense sigmoid": lambda: [layers.Flatten(), layers.Dense(4, activation="sigmoid")],
    "elu": lambda: [layers.Dense(4, activation="elu")],
    "elu layer": lambda: [layers.ELU(0.5)],
    "gelu": lambda: [layers.Dense(4, activation="gelu")],
    "hard sigmoid": lambda: [layers.Dense(4, activation="hard_sigmoid")],
    "hard silu": lambda: [layers.Dense(4, activation="hard_silu")],
    "leaky relu": lambda: [layers.Dense(4, activation="leaky_relu")],
    "leaky relu layer": lambda: [layers.LeakyReLU(0.2)],
    "silu": lambda: [layers.Activation("silu")],
    "softplus": lambda: [layers.Activation("softplus")],
    "tanh": lambda: [layers.Flatten(), layers.Dense(6, activation="tanh"), layers.Dense(2)],
    "softmax inside": lambda: [layers.Flatten(), layers.Dense(6, activation="softmax"), layers.Dense(2)],
    "polynomial": lambda: [layers.BatchNormalization(), PolynomialReLU(2)],
    "polynomial of degree 4": lambda: [layers.BatchNormalization(), PolynomialReLU(4, 4.0)],
    "dropout": lambda: [layers.Dropout(0.5), layers.SpatialDropout2D(0.5), layers.Conv2D(3, 3), layers.Dropout(0.3)],
    "softmax over the last axis by number": lambda: [layers.Flatten(), layers.Dense(5), layers.Softmax(axis=1)],
    "softmax layer": lambda: [layers.Flatten(), layers.Dense(5), layers.Softmax()],
    "softmax activation": lambda: [layers.Flatten(), layers.Dense(5, activation="softmax")],
    "softmax as activation layer": lambda: [layers.Flatten(), layers.Dense(5), layers.Activation("softmax")],
    "softmax of images": lambda: [layers.Conv2D(3, 3, activation="softmax")],
    "nested": lambda: [keras.Sequential([layers.Conv2D(4, 3), layers.ReLU()]), layers.Flatten(), layers.Dense(3)],
    "nested twice": lambda: [
        keras.Sequential([keras.Sequential([layers.Conv2D(4, 3), layers.BatchNormalization()]), layers.ReLU()]),
        layers.GlobalAveragePooling2D(),
    ],
    "norm first": lambda: [layers.BatchNormalization(), layers.Conv2D(4, 3, padding="same")],
    "norm after convolution": lambda: [layers.Conv2D(4, 3), layers.BatchNormalization()],
    "norm after grouped convolution": lambda: [layers.Conv2D(8, 3, groups=2), layers.BatchNormalization()],
    "norm after depthwise": lambda: [layers.DepthwiseConv2D(3, depth_multiplier=3), layers.BatchNormalization()],
    "norm after dense": lambda: [layers.Flatten(), layers.Dense(6, use_bias=False), layers.BatchNormalization()],
    "norm after pooling": lambda: [layers.Conv2D(4, 3), layers.AveragePooling2D(2), layers.BatchNormalization()],
    "norm after max pooling": lambda: [layers.Conv2D(4, 3), layers.MaxPooling2D(2), layers.BatchNormalization()],
    "norm after activation": lambda: [layers.Conv2D(4, 3, activation="relu"), layers.BatchNormalization()],
    "norm after relu layer": lambda: [layers.Conv2D(4, 3), layers.ReLU(), layers.BatchNormalization()],
    "norm after padding": lambda: [layers.Conv2D(4, 3), layers.ZeroPadding2D(1), layers.BatchNormalization()],
    "norm after flatten": lambda: [layers.Flatten(), layers.BatchNormalization(), layers.Dense(3)],
    "norm after dropout": lambda: [layers.Conv2D(4, 3), layers.Dropout(0.5), layers.BatchNormalization()],
    "norm after norm": lambda: [layers.Conv2D(4, 3), layers.BatchNormalization(), layers.BatchNormalization()],
    "norms first": lambda: [layers.BatchNormalization(), layers.BatchNormalization()],
    "norm without scale": lambda: [layers.Conv2D(4, 3), layers.BatchNormalization(scale=False)],
    "norm without offset": lambda: [layers.Conv2D(4, 3), layers.BatchNormalization(center=False, epsilon=0.1)],
    "norm, axis by number": lambda: [layers.ReLU(), layers.BatchNormalization(axis=3)],
    "norm in nested": lambda: [keras.Sequential([layers.ReLU(), layers.BatchNormalization()]), layers.Conv2D(2, 3)],
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_predicts_as_keras(name):
    check(chain(*LAYERS[name]()), seed=len(name))


@pytest.mark.parametrize("name", [name for name in LAYERS if name.startswith("norm after ")])
def test_a_norm_folds_into_the_linear_layer_before_it(name):
    linear = ("convolution", "dense", "depthwise", "dropout", "norm after norm")
    private = sf.private_model(chain(*LAYERS[name]()), owner="model-owner")
    if any(word in name for word in linear):
        assert not any("Mul" in ops for _, ops in private.layers)


@pytest.mark.parametrize("activation", ["relu", "relu6"])
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_pooling_comes_before_relu_for_the_same_result_in_fewer_bytes(activation, padding, monkeypatch):
    model = chain(layers.Conv2D(4, 3), layers.Activation(activation), layers.MaxPooling2D(2, padding=padding))
    exchanged = check(model)
    monkeypatch.setattr(passes, "passes", tuple(p for p in passes.passes if p is not passes.pool_before_relu))
    as_written = check(model)

    def order(model):
        return [op for _, ops in model.layers for op in ops if op.startswith(("Relu", "MaxPool"))]

    assert [op[:4] for op in order(exchanged)] == ["MaxP", "Relu"]
    assert [op[:4] for op in order(as_written)] == ["Relu", "MaxP"]
    before, after = as_written.cost(2), exchanged.cost(2)
    assert after.online_bytes < 0.9 * before.online_bytes
    assert after.offline_bytes < 0.9 * before.offline_bytes
    x = np.random.default_rng(3).normal(size=(2, 9, 8, 4))
    found = [m.predict(x, receiver="client") for m in (exchanged, as_written)]
    # Both are maxima of the same products; each truncates them once.
    np.testing.assert_allclose(*found, atol=2 * 2.0**-16)


@pytest.mark.parametrize(("activation", "last"), [("tanh", "Tanh"), ("sigmoid", "Sigmoid"), ("silu", "MaxPool")])
def test_pooling_stays_behind_what_may_fall(activation, last):
    # tanh and sigmoid never fall but within their rounding; silu does.
    private = check(chain(layers.Conv2D(2, 3), layers.Activation(activation), layers.MaxPooling2D(2)))
    assert [op for _, ops in private.layers for op in ops][-1] == last


# --- whole models ---------------------------------------------------------------------------------------------


def random_parts(rng):
    """Layers on images, then on vectors; the choice is the generator's."""
    size, parts = 10, []
    for _ in range(rng.integers(1, 5)):
        kind = rng.choice(["conv", "depthwise", "norm", "relu", "relu6", "average", "max", "pad", "dropout", "nested"])
        same = "same" if rng.random() < 0.5 else "valid"
        if kind == "conv":
            stride = int(rng.integers(1, 3))
            activation = rng.choice([None, "relu"])
            conv = layers.Conv2D(4 * int(rng.integers(1, 3)), 3, stride, same, activation=activation, groups=1)
            parts.append(conv)
            size = -(-size // stride) if same == "same" else (size - 3) // stride + 1
        elif kind == "depthwise":
            parts.append(layers.DepthwiseConv2D(2, padding=same))
            size -= same == "valid"
        elif kind in ("average", "max"):
            pool = layers.AveragePooling2D if kind == "average" else layers.MaxPooling2D
            parts.append(pool(2, padding=same))
            size = -(-size // 2) if same == "same" else size // 2
        elif kind == "nested":
            parts.append(keras.Sequential([layers.Conv2D(4, 1), layers.BatchNormalization(), layers.ReLU()]))
        else:
            make = {
                "norm": layers.BatchNormalization,
                "relu": layers.ReLU,
                "relu6": lambda: layers.ReLU(6),
                "pad": lambda: layers.ZeroPadding2D(1),
                "dropout": lambda: layers.Dropout(0.2),
            }
            parts.append(make[kind]())
            size += 2 * (kind == "pad")
        if size < 4:
            break
    parts.append(layers.Flatten() if rng.random() < 0.6 else layers.GlobalAveragePooling2D())
    for _ in range(rng.integers(0, 3)):
        parts += [layers.Dense(int(rng.integers(4, 20)))]
        parts += [layers.BatchNormalization()] * int(rng.random() < 0.5)
        parts += [layers.Activation(str(rng.choice(["relu", "linear", "relu6"])))]
    parts.append(layers.Dense(5, activation=rng.choice([None, "softmax"])))
    return parts


@pytest.mark.parametrize("seed", range(20))
def test_a_random_model_predicts_as_keras(seed):
    rng = np.random.default_rng(100 + seed)
    parts = random_parts(rng)
    if seed % 2:
        first = tensor = keras.Input((10, 10, 3))
        for part in parts:
            tensor = part(tensor)
        model = keras.Model(first, tensor)
    else:
        model = chain(*parts, shape=(10, 10, 3))
    check(model, seed, bound=0.03)


def small():
    parts = [layers.Conv2D(4, 3), layers.BatchNormalization(), layers.ReLU(), layers.Flatten(), layers.Dense(5)]
    return chain(*parts, shape=(6, 6, 2))


def test_a_saved_and_loaded_model(tmp_path):
    model = chain(
        layers.Conv2D(4, 3), layers.BatchNormalization(), PolynomialReLU(4), layers.Flatten(), layers.Dense(3)
    )
    randomise(model, np.random.default_rng(0))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    x = np.random.default_rng(1).normal(size=(3, 9, 8, 4))
    found = sf.private_model(loaded, owner="model-owner").predict(x, receiver="client")
    np.testing.assert_allclose(found, model(x).numpy(), atol=BOUND)


def test_a_compiled_and_trained_model():
    model = small()
    model.compile("adam", "mse")
    rng = np.random.default_rng(2)
    model.fit(rng.normal(size=(64, 6, 6, 2)), rng.normal(size=(64, 5)), epochs=2, verbose=0)
    x = rng.normal(size=(4, 6, 6, 2))
    found = sf.private_model(model, owner="model-owner").predict(x, receiver="client")
    np.testing.assert_allclose(found, model(x, training=False).numpy(), atol=BOUND)


def test_a_layer_used_twice_in_a_chain():
    first = keras.Input((6,))
    shared, norm = layers.Dense(6), layers.BatchNormalization()
    model = keras.Model(first, norm(shared(layers.ReLU()(norm(shared(first))))))
    check(model)


def test_a_model_in_two_models():
    inner = keras.Sequential([keras.Input((6,)), layers.Dense(6), layers.BatchNormalization(), layers.ReLU()])
    check(keras.Sequential([keras.Input((6,)), inner, layers.Dense(3)]))
    check(keras.Sequential([keras.Input((6,)), layers.Dense(6), inner]))
    check(inner)


@pytest.mark.parametrize("fractional_bits", [10, 16, 20])
def test_more_fractional_bits_are_more_exact(fractional_bits):
    protocol = sf.SPDZ(fixed_point=sf.FixedPoint(fractional_bits))
    check(small(), bound=200 * 2.0**-fractional_bits, protocol=protocol)


@pytest.mark.parametrize("protocol", [sf.SPDZ(truncation=sf.Optimistic()), sf.Plain()], ids=["optimistic", "plain"])
def test_other_protocols(protocol):
    check(small(), protocol=protocol)


@pytest.mark.parametrize(("count", "batch_size"), [(1, 1), (5, 1), (5, 2), (5, 5), (5, 100), (8, 4), (7, 3)])
def test_batches_and_a_last_one_that_is_not_full(count, batch_size):
    check(small(), count=count, batch_size=batch_size)


def test_batches_do_not_mix():
    private = sf.private_model(randomise(small(), np.random.default_rng(0)), owner="model-owner")
    x = np.random.default_rng(1).normal(size=(7, 6, 6, 2))
    together = private.predict(x, receiver="client", batch_size=7)
    np.testing.assert_allclose(private.predict(x, receiver="client", batch_size=3), together, atol=BOUND)
    np.testing.assert_allclose(private.predict(x[::-1], receiver="client", batch_size=4)[::-1], together, atol=BOUND)


def test_no_samples_are_no_predictions():
    assert sf.private_model(small(), owner="model-owner").predict(np.zeros((0, 6, 6, 2)), receiver="c").shape == (0, 5)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "uint8", "int32", "bool"])
def test_samples_of_every_type_of_numbers(dtype):
    model = randomise(small(), np.random.default_rng(0))
    x = np.random.default_rng(1).integers(0, 3, (3, 6, 6, 2)).astype(dtype)
    found = sf.private_model(model, owner="model-owner").predict(x, receiver="client")
    np.testing.assert_allclose(found, model(x.astype("float32")).numpy(), atol=BOUND)


def test_the_model_is_a_function_of_private_tensors():
    model = randomise(small(), np.random.default_rng(0))
    private = sf.private_model(model, owner="model-owner")
    x = np.random.default_rng(1).normal(size=(3, 6, 6, 2)).astype(np.float32)
    scores = private(sf.private_tensor(x, "client")) * 2
    np.testing.assert_allclose(scores.reveal("client").numpy(), 2 * model(x).numpy(), atol=2 * BOUND)
    assert [line.split(":")[0] for line in private.summary().splitlines()] == [name for name, _ in private.layers]


def test_weights_are_a_copy():
    # Of the moment of loading: training goes on at the owner, and the private model stays.
    model = randomise(small(), np.random.default_rng(0))
    private = sf.private_model(model, owner="model-owner")
    x = np.ones((1, 6, 6, 2))
    before = model(x).numpy()
    randomise(model, np.random.default_rng(1))
    np.testing.assert_allclose(private.predict(x, receiver="client"), before, atol=BOUND)


# --- errors -----------------------------------------------------------------------------------------------------


def leaky(x):
    return keras.ops.maximum(x, 0.1 * x)


def impostor(x):
    return keras.ops.maximum(x, 0.1 * x)


impostor.__name__ = "relu"


slightly_leaky = functools.partial(keras.activations.relu, negative_slope=0.1)


class Doubling(layers.Dense):
    def call(self, inputs):
        return 2 * super().call(inputs)


class Centred(layers.BatchNormalization):
    def call(self, inputs, **options):
        return super().call(inputs, **options) - 0.5


# What a table of layers cannot know, the graph says: functions of anyone, subclasses, lambdas.
FREE = {
    "lambda": lambda: chain(layers.Lambda(lambda x: 2 * x, name="it")),
    "subclass of a layer": lambda: chain(layers.Flatten(), Doubling(3, name="it")),
    "subclass of a norm": lambda: chain(Centred(name="it")),
    "softmax in the middle": lambda: chain(layers.Flatten(), layers.Softmax(name="it"), layers.Dense(2)),
    "a function": lambda: chain(layers.Dense(2, activation=leaky, name="it")),
    "a function called relu": lambda: chain(layers.Dense(2, activation=impostor, name="it")),
    "a part of a function": lambda: chain(layers.Dense(2, activation=slightly_leaky, name="it")),
    "a layer as activation": lambda: chain(layers.Dense(2, activation=layers.LeakyReLU(), name="it")),
    "sloped relu": lambda: chain(layers.ReLU(negative_slope=0.1, name="it")),
    "relu to 4": lambda: chain(layers.ReLU(4, name="it")),
    "relu from 1": lambda: chain(layers.ReLU(threshold=1, name="it")),
    "norm over axis 1": lambda: chain(layers.BatchNormalization(axis=1, name="it")),
}


@pytest.mark.parametrize("name", FREE)
def test_what_a_layer_does_counts_and_not_its_name(name):
    check(FREE[name]())


class Inverting(layers.Layer):
    def call(self, x):
        return tf.linalg.inv(tf.matmul(x, x, transpose_a=True))


class Noisy(layers.Layer):
    def call(self, x):
        return x + tf.random.normal(tf.shape(x))


UNSUPPORTED = {
    "an inverse": (lambda: chain(Inverting(name="it"), shape=(4, 3)), "MatrixInverse"),
    "noise": (lambda: chain(Noisy(name="it")), "random"),
    "statistics of the batch": (lambda: chain(layers.Lambda(in_training, name="it")), "training"),
}


def in_training(x):
    return tf.compat.v1.nn.fused_batch_norm(x, tf.ones(x.shape[-1]), tf.zeros(x.shape[-1]), is_training=True)[0]


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_an_unsupported_op_is_named_with_its_layer(name):
    make, word = UNSUPPORTED[name]
    with pytest.raises(UnsupportedModelError) as caught:
        sf.private_model(make(), owner="model-owner")
    text = str(caught.value)
    assert word in text
    assert "it" in text


def two_inputs():
    one, two = keras.Input((4,)), keras.Input((4,))
    return keras.Model([one, two], layers.Dense(2)(layers.Add()([one, two])))


def two_outputs():
    one = keras.Input((4,))
    return keras.Model(one, [layers.Dense(2)(one), layers.Dense(3)(one)])


def branches():
    one = keras.Input((4,))
    return keras.Model(one, layers.Add(name="residual")([layers.Dense(4)(one), one]))


class Subclass(keras.Model):
    def __init__(self):
        super().__init__(name="mine")
        self.dense = layers.Dense(3)

    def call(self, x):
        return self.dense(x)


def subclass():
    model = Subclass()
    model(np.zeros((1, 4)))
    return model


@pytest.mark.parametrize("make", [branches, subclass, lambda: keras.Sequential([keras.Input((4,)), subclass()])])
def test_models_of_any_topology(make):
    model = randomise(make(), np.random.default_rng(0))
    x = np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)
    found = sf.private_model(model, owner="model-owner").predict(x, receiver="client")
    np.testing.assert_allclose(found, model(x).numpy(), atol=BOUND)


def test_several_inputs_and_results():
    model = two_inputs()
    one, two = np.random.default_rng(0).normal(size=(2, 5, 4)).astype(np.float32)
    private = sf.private_model(model, owner="model-owner")
    names = list(private.model.source.inputs)
    found = private.predict(dict(zip(names, (one, two), strict=True)), receiver="client", batch_size=2)
    np.testing.assert_allclose(found, model([one, two]).numpy(), atol=BOUND)
    with pytest.raises(ShapeError, match="dict"):
        private.predict(one, receiver="client")
    with pytest.raises(ShapeError, match="as many"):
        private.predict({names[0]: one, names[1]: two[:2]}, receiver="client")
    with pytest.raises(ShapeError, match=names[1]):
        private.predict({names[0]: one}, receiver="client")
    model = two_outputs()
    found = sf.private_model(model, owner="model-owner").predict(one, receiver="client")
    for value, wanted in zip(found.values(), model(one), strict=True):
        np.testing.assert_allclose(value, wanted.numpy(), atol=BOUND)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: keras.Sequential([layers.Dense(3)], name="blank"), ["blank", "keras.Input"]),
        (lambda: Subclass(), ["mine"]),
        (lambda: chain(layers.Conv2D(2, 3), shape=(None, None, 3)), ["None"]),
        (lambda: np.zeros(3), ["ndarray"]),
        (lambda: layers.Dense(3), ["inputs="]),
        (lambda: None, ["NoneType"]),
    ],
)
def test_an_unsupported_model_is_explained(make, words):
    with pytest.raises(UnsupportedModelError) as caught:
        sf.private_model(make(), owner="model-owner")
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 2.0**31, -1e30])
@pytest.mark.parametrize("which", ["kernel", "bias"])
def test_weights_that_cannot_be_encoded(value, which):
    model = small()
    weight = getattr(model.layers[-1], which)
    array = weight.numpy()
    array[..., 0] = value
    weight.assign(array)
    with pytest.raises(EncodingError) as caught:
        sf.private_model(model, owner="model-owner")
    assert "finite" in str(caught.value)


@pytest.fixture(scope="module")
def private():
    return sf.private_model(small(), owner="model-owner")


@pytest.mark.parametrize("shape", [(6, 6, 2), (3, 6, 6), (3, 6, 6, 3), (3, 72), (), (1, 3, 6, 6, 2)])
def test_samples_of_another_shape(private, shape):
    with pytest.raises(ShapeError, match=r"\(6, 6, 2\)"):
        private.predict(np.zeros(shape), receiver="client")


@pytest.mark.parametrize("samples", [np.full((1, 6, 6, 2), "a"), np.zeros((1, 6, 6, 2), complex), np.array(None)])
def test_samples_that_are_no_real_numbers(private, samples):
    with pytest.raises(ShapeError, match="numbers"):
        private.predict(samples, receiver="client")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 2.0**31])
def test_samples_that_cannot_be_encoded(private, value):
    x = np.zeros((5, 6, 6, 2))
    x[4, 3, 2, 1] = value
    for batch_size in (1, 2, 5):
        with pytest.raises(EncodingError, match="finite"):
            private.predict(x, receiver="client", batch_size=batch_size)
    # And the model serves on.
    assert private.predict(np.zeros((1, 6, 6, 2)), receiver="client").shape == (1, 5)


@pytest.mark.parametrize("batch_size", [0, -1, 2.0, "8", None])
def test_a_batch_size_that_is_none(private, batch_size):
    with pytest.raises(ShapeError, match="batch_size"):
        private.predict(np.zeros((1, 6, 6, 2)), receiver="client", batch_size=batch_size)


@pytest.mark.parametrize("receiver", [None, "", "1st", 7])
def test_a_receiver_that_is_no_party(private, receiver):
    with pytest.raises(PlacementError):
        private.predict(np.zeros((1, 6, 6, 2)), receiver=receiver)


def test_samples_that_are_private_already(private):
    x = sf.private_tensor(np.zeros((1, 6, 6, 2)), "client")
    with pytest.raises(PlacementError, match="plaintext"):
        private.predict(x, receiver="client")
    with pytest.raises(ShapeError, match=r"\[N, 6, 6, 2\]"):
        private(x[0])


def test_no_error_shows_a_secret(private):
    x = np.full((1, 6, 6, 2), 3.0**40)
    with pytest.raises(EncodingError) as caught:
        private.predict(x, receiver="client")
    assert str(3.0**40)[:6] not in str(caught.value)
