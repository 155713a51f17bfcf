"""What Keras layers emit, through all passes and on shares, against the layers themselves."""

import keras
import numpy as np
import pytest
from keras import layers as L  # noqa: N812
from lowering import check_model, reals, wholes

SEQUENCE, IMAGE, VOLUME, VECTOR = (6, 4), (8, 8, 3), (5, 6, 4, 2), (7,)

# name: (layer or function of a Keras tensor, shape of a sample, units)
LAYERS = {
    "Dense": (lambda: L.Dense(5, activation="relu"), VECTOR, 4),
    "Dense on sequences": (lambda: L.Dense(5, use_bias=False), SEQUENCE, 4),
    "EinsumDense": (lambda: L.EinsumDense("abc,cd->abd", output_shape=(None, 5), bias_axes="d"), SEQUENCE, 4),
    "Conv1D": (lambda: L.Conv1D(5, 3, padding="causal", dilation_rate=2), SEQUENCE, 4),
    "Conv1D strided": (lambda: L.Conv1D(5, 3, strides=2, padding="same"), SEQUENCE, 4),
    "Conv2D": (lambda: L.Conv2D(4, 3, strides=2, padding="same", activation="relu"), IMAGE, 4),
    "Conv2D grouped": (lambda: L.Conv2D(6, 3, groups=3), IMAGE, 4),
    "Conv2D dilated": (lambda: L.Conv2D(4, 3, dilation_rate=2, padding="same"), IMAGE, 4),
    "Conv3D": (lambda: L.Conv3D(3, 2, padding="same"), VOLUME, 4),
    "DepthwiseConv1D": (lambda: L.DepthwiseConv1D(3, depth_multiplier=2), SEQUENCE, 4),
    "DepthwiseConv2D": (lambda: L.DepthwiseConv2D(3, strides=2, depth_multiplier=2, padding="same"), IMAGE, 4),
    "SeparableConv1D": (lambda: L.SeparableConv1D(5, 3), SEQUENCE, 4),
    "SeparableConv2D": (lambda: L.SeparableConv2D(5, 3, padding="same"), IMAGE, 4),
    "Conv1DTranspose": (lambda: L.Conv1DTranspose(3, 3, strides=2, padding="same"), SEQUENCE, 4),
    "Conv2DTranspose": (lambda: L.Conv2DTranspose(3, 3, strides=2, padding="same"), IMAGE, 4),
    "Conv2DTranspose valid": (lambda: L.Conv2DTranspose(3, 4, strides=3, output_padding=1), IMAGE, 4),
    "Conv3DTranspose": (lambda: L.Conv3DTranspose(2, 3, strides=2, padding="same"), VOLUME, 6),
    "MaxPooling1D": (lambda: L.MaxPooling1D(2, padding="same"), SEQUENCE, 1),
    "MaxPooling2D": (lambda: L.MaxPooling2D(3, 2, padding="same"), IMAGE, 1),
    "MaxPooling3D": (lambda: L.MaxPooling3D(2), VOLUME, 1),
    "AveragePooling1D": (lambda: L.AveragePooling1D(3, 1, padding="same"), SEQUENCE, 8),
    "AveragePooling2D": (lambda: L.AveragePooling2D(3, 2, padding="same"), IMAGE, 8),
    "AveragePooling3D": (lambda: L.AveragePooling3D(2), VOLUME, 8),
    "GlobalMaxPooling1D": (lambda: L.GlobalMaxPooling1D(), SEQUENCE, 1),
    "GlobalMaxPooling2D": (lambda: L.GlobalMaxPooling2D(keepdims=True), IMAGE, 1),
    "GlobalAveragePooling2D": (lambda: L.GlobalAveragePooling2D(), IMAGE, 8),
    "GlobalAveragePooling3D": (lambda: L.GlobalAveragePooling3D(), VOLUME, 8),
    "AdaptiveAveragePooling2D": (lambda: L.AdaptiveAveragePooling2D(4), IMAGE, 8),
    "AdaptiveMaxPooling2D": (lambda: L.AdaptiveMaxPooling2D(4), IMAGE, 8),
    "BatchNormalization": (lambda: L.BatchNormalization(), IMAGE, 10),
    "BatchNormalization of axis 1": (lambda: L.BatchNormalization(axis=1), IMAGE, 10),
    "LayerNormalization": (lambda: L.LayerNormalization(), SEQUENCE, 12),
    "LayerNormalization of two axes": (lambda: L.LayerNormalization(axis=[1, 2]), SEQUENCE, 12),
    "RMSNormalization": (lambda: L.RMSNormalization(), SEQUENCE, 12),
    "GroupNormalization": (lambda: L.GroupNormalization(3), (4, 4, 6), 12),
    "UnitNormalization": (lambda: L.UnitNormalization(), SEQUENCE, 12),
    "SpectralNormalization": (lambda: L.SpectralNormalization(L.Dense(4)), VECTOR, 8),
    "Normalization": (lambda: L.Normalization(mean=[1.0, 2, 3], variance=[1.0, 4, 0.5]), IMAGE, 12),
    "Rescaling": (lambda: L.Rescaling(1 / 127.5, -1), IMAGE, 3),
    "Resizing": (lambda: L.Resizing(5, 12), IMAGE, 6),
    "CenterCrop": (lambda: L.CenterCrop(5, 4), IMAGE, 1),
    "UpSampling1D": (lambda: L.UpSampling1D(2), SEQUENCE, 1),
    "UpSampling2D": (lambda: L.UpSampling2D(2), IMAGE, 1),
    "UpSampling2D bilinear": (lambda: L.UpSampling2D((2, 3), interpolation="bilinear"), IMAGE, 6),
    "UpSampling3D": (lambda: L.UpSampling3D(2), VOLUME, 1),
    "ZeroPadding1D": (lambda: L.ZeroPadding1D(2), SEQUENCE, 1),
    "ZeroPadding2D": (lambda: L.ZeroPadding2D(((1, 0), (2, 3))), IMAGE, 1),
    "ZeroPadding3D": (lambda: L.ZeroPadding3D(1), VOLUME, 1),
    "Cropping1D": (lambda: L.Cropping1D((1, 2)), SEQUENCE, 1),
    "Cropping2D": (lambda: L.Cropping2D(((1, 0), (2, 3))), IMAGE, 1),
    "Cropping3D": (lambda: L.Cropping3D(1), VOLUME, 1),
    "Flatten": (lambda: L.Flatten(), IMAGE, 1),
    "Permute": (lambda: L.Permute((3, 1, 2)), IMAGE, 1),
    "Reshape": (lambda: L.Reshape((-1, 6)), IMAGE, 1),
    "RepeatVector": (lambda: L.RepeatVector(3), VECTOR, 1),
    "Dropout": (lambda: L.Dropout(0.5), VECTOR, 1),
    "SpatialDropout2D": (lambda: L.SpatialDropout2D(0.5), IMAGE, 1),
    "GaussianNoise": (lambda: L.GaussianNoise(0.5), VECTOR, 1),
    "ReLU": (lambda: L.ReLU(max_value=2.0, negative_slope=0.1, threshold=0.5), VECTOR, 3),
    "LeakyReLU": (lambda: L.LeakyReLU(0.2), VECTOR, 3),
    "PReLU": (lambda: L.PReLU("uniform", shared_axes=[1, 2]), IMAGE, 3),
    "ELU": (lambda: L.ELU(0.7), VECTOR, 4),
    "Softmax": (lambda: L.Softmax(axis=1), SEQUENCE, 4),
    "SimpleRNN": (lambda: L.SimpleRNN(3), SEQUENCE, 12),
    "LSTM": (lambda: L.LSTM(3), SEQUENCE, 12),
    "LSTM of sequences": (lambda: L.LSTM(3, return_sequences=True, go_backwards=True), SEQUENCE, 12),
    "LSTM unrolled": (lambda: L.LSTM(3, unroll=True), SEQUENCE, 12),
    "GRU": (lambda: L.GRU(3), SEQUENCE, 12),
    "GRU before": (lambda: L.GRU(3, reset_after=False, return_sequences=True), SEQUENCE, 12),
    "Bidirectional": (lambda: L.Bidirectional(L.LSTM(2, return_sequences=True)), SEQUENCE, 12),
    "Bidirectional sum": (lambda: L.Bidirectional(L.GRU(2), merge_mode="sum"), SEQUENCE, 16),
    "TimeDistributed": (lambda: L.TimeDistributed(L.Dense(3)), SEQUENCE, 4),
    "TimeDistributed convolution": (lambda: L.TimeDistributed(L.Conv1D(2, 2)), (3, 6, 4), 4),
    "stacked cells": (lambda: L.RNN(L.StackedRNNCells([L.LSTMCell(2), L.GRUCell(3)])), SEQUENCE, 16),
    "ConvLSTM1D": (lambda: L.ConvLSTM1D(2, 2, padding="same"), (3, 6, 2), 16),
    "ConvLSTM2D": (lambda: L.ConvLSTM2D(2, 2), (2, 4, 4, 2), 16),
    "Masking": (lambda: L.TimeDistributed(L.Dense(2)), SEQUENCE, 4),
    "Lambda": (lambda: L.Lambda(lambda x: x**2 + 1), VECTOR, 4),
    "Discretization": (lambda: L.Discretization([-1.0, 0.0, 2.0]), VECTOR, 0),
    "CategoryEncoding": (lambda: L.Discretization([-1.0, 0.0, 2.0], output_mode="one_hot"), (1,), 0),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name):
    layer, shape, units = LAYERS[name]
    model = keras.Sequential([keras.Input(shape), layer()])
    randomise(model)
    check_model(model, reals(2, *shape), units=units)


def randomise(model):
    """Weights that are not zero or one; variances stay positive."""
    for i, variable in enumerate(model.variables):
        if "float" not in variable.dtype:
            continue
        values = reals(*variable.shape, size=0.5, seed=i)
        path = variable.path.rpartition("/")[2]
        variable.assign(np.abs(values) + 0.5 if "variance" in path else values)


ACTIVATIONS = ["celu", "elu", "exponential", "gelu", "glu", "hard_shrink", "hard_sigmoid", "hard_silu", "hard_swish",
               "hard_tanh", "leaky_relu", "linear", "log_sigmoid", "log_softmax", "mish", "relu", "relu6", "selu",
               "sigmoid", "silu", "soft_shrink", "softmax", "softplus", "softsign", "sparse_plus", "squareplus",
               "swish", "tanh", "tanh_shrink", "threshold"]  # fmt: skip


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name):
    activation = (lambda x: keras.activations.threshold(x, 1.0, -0.5)) if name == "threshold" else name
    inputs = keras.Input((8,))
    # Behind it comes a sum, so that no receiver applies a softmax in plaintext.
    model = keras.Model(inputs, L.Activation(activation)(inputs) + 1.0)
    check_model(model, reals(3, 8, size=3), units=16, relative=3e-5)


def test_sparsemax_and_sparse_sigmoid():
    inputs = keras.Input((5,))
    check_model(keras.Model(inputs, L.Activation(keras.activations.sparse_sigmoid)(inputs) + 1.0), reals(2, 5), units=4)
    check_model(keras.Model(inputs, L.Activation(keras.activations.sparsemax)(inputs) + 1.0), reals(2, 5), units=16)


MERGES = ["Add", "Average", "Concatenate", "Dot", "Maximum", "Minimum", "Multiply", "Subtract"]


@pytest.mark.parametrize("name", MERGES)
def test_merging(name):
    a, b = keras.Input(SEQUENCE, name="a"), keras.Input(SEQUENCE, name="b")
    layer = L.Dot(2, normalize=False) if name == "Dot" else getattr(L, name)()
    check_model(keras.Model([a, b], layer([a, b])), reals(2, *SEQUENCE), reals(2, *SEQUENCE, seed=1), units=4)


ATTENTION = {
    "MultiHeadAttention": lambda q, v: L.MultiHeadAttention(2, 3)(q, v),
    "self-attention": lambda q, v: L.MultiHeadAttention(2, 3, value_dim=2, output_shape=5)(q, q),
    "causal": lambda q, v: L.MultiHeadAttention(2, 3)(q, q, use_causal_mask=True),
    "grouped": lambda q, v: L.GroupQueryAttention(3, 4, 2)(q, v),
    "Attention": lambda q, v: L.Attention()([q, v]),
    "causal attention": lambda q, v: L.Attention()([q, q], use_causal_mask=True),
    "AdditiveAttention": lambda q, v: L.AdditiveAttention()([q, v]),
}


@pytest.mark.parametrize("name", ATTENTION)
def test_attention(name):
    q, v = keras.Input((4, 6), name="q"), keras.Input((5, 6), name="v")
    result = ATTENTION[name](q, v)
    model = keras.Model([q, v], [result, v])
    randomise(model)
    check_model(model, reals(2, 4, 6, size=1), reals(2, 5, 6, size=1, seed=1), units=24)


def test_embeddings_of_private_tokens():
    tokens = keras.Input((5,), dtype="int32")
    model = keras.Model(tokens, L.Embedding(11, 4)(tokens))
    randomise(model)
    check_model(model, wholes(2, 5, low=0, high=11), units=1)
    check_model(model, wholes(2, 5, low=0, high=11), units=1, known=True)


def test_a_small_transformer_of_private_tokens():
    tokens = keras.Input((6,), dtype="int32")
    x = L.Embedding(13, 8)(tokens)
    x = x + L.Embedding(6, 8)(keras.ops.arange(6))
    for _ in range(2):
        x = L.LayerNormalization()(x + L.MultiHeadAttention(2, 4)(x, x, use_causal_mask=True))
        x = L.LayerNormalization()(x + L.Dense(8)(L.Dense(16, activation="gelu")(x)))
    model = keras.Model(tokens, L.Dense(13)(x))
    randomise(model)
    check_model(model, wholes(2, 6, low=0, high=13), units=200, known=True)


def test_a_transformer_that_masks_private_padding():
    """Where the tokens end is private, too."""
    tokens = keras.Input((5,), dtype="int32")
    x = L.Embedding(9, 6, mask_zero=True)(tokens)
    x = L.LayerNormalization()(x + L.MultiHeadAttention(2, 3)(x, x))
    model = keras.Model(tokens, L.GlobalAveragePooling1D()(x))
    randomise(model)
    ends = np.int32([[3, 1, 8, 0, 0], [2, 2, 7, 5, 1]])
    check_model(model, ends, units=60, known=True)
    check_model(model, ends, units=60)


def test_positions_and_static_masks():
    x = keras.Input((6, 4))
    mask = np.array([[True, True, True, False, False, True]])
    pooled = L.GlobalAveragePooling1D()(x, mask=keras.ops.convert_to_tensor(mask))
    check_model(keras.Model(x, pooled), reals(1, 6, 4), units=8)
    scores = L.Softmax()(keras.ops.transpose(x, (0, 2, 1)), mask=keras.ops.convert_to_tensor(mask[:, None]))
    check_model(keras.Model(x, scores + 1.0), reals(1, 6, 4), units=8)


def test_recurrent_layers_with_states_in_and_out():
    x, h, c = keras.Input((4, 3)), keras.Input((2,), name="h"), keras.Input((2,), name="c")
    outputs = L.LSTM(2, return_state=True, return_sequences=True)(x, initial_state=[h, c])
    model = keras.Model([x, h, c], outputs)
    check_model(model, reals(2, 4, 3), reals(2, 2, seed=1), reals(2, 2, seed=2), units=12)


def test_recurrent_layers_with_a_private_mask():
    """Steps of zeros are left out; which ones are is private."""
    values = reals(2, 5, 3)
    values[0, 3:] = 0
    values[1, 1] = 0
    for layer in (L.LSTM(2), L.GRU(2, return_sequences=True), L.SimpleRNN(2)):
        model = keras.Sequential([keras.Input((5, 3)), L.Masking(), layer])
        check_model(model, values, units=12)


def test_operations_of_keras_ops():
    x = keras.Input((4, 6))
    results = [
        keras.ops.mean(x, -1),
        keras.ops.einsum("bij,bkj->bik", x, x),
        keras.ops.where(x > 0, x, 0.1 * x),
        keras.ops.argmax(x, 1),
        keras.ops.take(x, [2, 0], axis=2),
        keras.ops.logsumexp(x, 1),
        keras.ops.one_hot(keras.ops.argmax(x, -1), 6),
        keras.ops.sort(x, -1),
        keras.ops.pad(x, [[0, 0], [1, 1], [2, 0]], "reflect"),
        keras.ops.clip(x, -1.0, 1.0),
        keras.ops.cumsum(x, 1),
        keras.ops.sign(x) * keras.ops.floor(x),
        keras.ops.image.resize(keras.ops.reshape(x, (-1, 4, 3, 2)), (8, 6)),
        keras.ops.normalize(x, -1),
        keras.ops.flip(x, 1),
        keras.ops.tril(x),
    ]
    check_model(keras.Model(x, results), reals(2, 4, 6), units=24, relative=2e-5)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float64"])
def test_models_of_other_precision(policy):
    """Fixed point is finer than half precision, which decides how near the two come."""
    image = keras.Input(IMAGE)
    x = L.ReLU()(L.BatchNormalization(dtype=policy)(L.Conv2D(4, 3, dtype=policy)(image)))
    x = L.LayerNormalization(dtype=policy)(x)
    model = keras.Model(image, L.Dense(3)(L.Flatten()(x)))
    randomise(model)
    x = reals(2, *IMAGE)
    check_model(model, x, units=40 if policy == "float64" else 4000, relative=1e-5 if policy == "float64" else 0.1)
