"""Random small Keras models on shares, against Keras: stacks and graphs of layers in any order that fits."""

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras import layers as L  # noqa: N812
from lowering import check_model, reals

ACTIVATIONS = ["relu", "relu6", "tanh", "sigmoid", "leaky_relu", "elu", "silu", "gelu", "hard_sigmoid", "softplus"]
PADDING = st.sampled_from(["same", "valid"])


def _normalise(seed):
    # Moving statistics that are not those of a new layer: the mean of 0 and the variance of 1 would hide mistakes.
    rng = np.random.default_rng(seed)
    uniform = keras.initializers.RandomUniform
    return L.BatchNormalization(
        beta_initializer=uniform(-1, 1, seed=int(rng.integers(1000))),
        gamma_initializer=uniform(0.5, 1.5, seed=int(rng.integers(1000))),
        moving_mean_initializer=uniform(-1, 1, seed=int(rng.integers(1000))),
        moving_variance_initializer=uniform(0.5, 2, seed=int(rng.integers(1000))),
    )


@st.composite
def image_models(draw):
    """A graph on images [6, 6, 3] whose every value may be used again, and a head."""
    inputs = keras.Input((6, 6, 3))
    values = [inputs]

    def biased(seed):
        return {"bias_initializer": keras.initializers.RandomUniform(-0.5, 0.5, seed=seed)}

    for seed in range(draw(st.integers(1, 7))):
        x = values[draw(st.integers(max(0, len(values) - 3), len(values) - 1))]
        height, width, channels = x.shape[1:]
        small = min(height, width) < 3
        kind = draw(st.sampled_from(
            ["conv", "depthwise", "grouped", "norm", "activation", "max", "average", "add", "concat", "pad", "scale",
             "up", "transpose", "multiply", "gate"]
        ))  # fmt: skip
        padding = "same" if small else draw(PADDING)
        stride = draw(st.integers(1, 2))
        if kind == "conv":
            filters, size = draw(st.integers(1, 4)), draw(st.integers(1, 3))
            values.append(L.Conv2D(filters, size, stride, padding, use_bias=draw(st.booleans()), **biased(seed))(x))
        elif kind == "depthwise":
            values.append(
                L.DepthwiseConv2D(2, stride, padding, depth_multiplier=draw(st.integers(1, 2)), **biased(seed))(x)
            )
        elif kind == "grouped" and channels % 2 == 0:
            values.append(L.Conv2D(4, 2, 1, padding, groups=2, **biased(seed))(x))
        elif kind == "norm":
            values.append(_normalise(seed)(x))
        elif kind == "activation":
            values.append(L.Activation(draw(st.sampled_from(ACTIVATIONS)))(x))
        elif kind == "max":
            values.append(L.MaxPooling2D(2, stride, padding)(x))
        elif kind == "average":
            values.append(L.AveragePooling2D(2, stride, padding)(x))
        elif kind in ("add", "multiply"):
            others = [v for v in values if v.shape == x.shape]
            other = others[draw(st.integers(0, len(others) - 1))]
            values.append(
                L.Add()([x, other]) if kind == "add" else L.Multiply()([x * 0.5, L.Activation("tanh")(other)])
            )
        elif kind == "concat":
            others = [v for v in values if v.shape[1:3] == x.shape[1:3]]
            values.append(L.Concatenate()([x, others[draw(st.integers(0, len(others) - 1))]]))
        elif kind == "pad":
            values.append(L.ZeroPadding2D(((1, 0), (0, 1)))(x))
        elif kind == "scale":
            values.append(L.Rescaling(0.5, 0.25)(x))
        elif kind == "up" and height * width <= 36:
            values.append(L.UpSampling2D(2, interpolation=draw(st.sampled_from(["nearest", "bilinear"])))(x))
        elif kind == "transpose" and height * width <= 16:
            values.append(L.Conv2DTranspose(2, 3, 2, padding, **biased(seed))(x))
        elif kind == "gate":
            squeezed = L.Dense(channels, activation="sigmoid")(L.GlobalAveragePooling2D(keepdims=True)(x))
            values.append(L.Multiply()([x, squeezed]))
    x = values[-1]
    head = draw(st.sampled_from(["flatten", "mean", "max", "none"]))
    if head == "flatten":
        x = L.Flatten()(x)
    elif head == "mean":
        x = L.GlobalAveragePooling2D()(x)
    elif head == "max":
        x = L.GlobalMaxPooling2D()(x)
    if head != "none":
        x = L.Dense(3, activation=draw(st.sampled_from([None, "softmax", "sigmoid"])))(x)
    outputs = [x, values[len(values) // 2]] if draw(st.booleans()) and len(values) > 2 else x
    return keras.Model(inputs, outputs)


@st.composite
def sequence_models(draw):
    """Layers on sequences [5, 4]."""
    x = inputs = keras.Input((5, 4))
    for seed in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["dense", "conv", "lstm", "gru", "both", "norm", "attention", "residual", "pool"]))
        width = x.shape[-1]
        if kind == "dense":
            x = L.Dense(3, activation=draw(st.sampled_from(ACTIVATIONS)))(x)
        elif kind == "conv":
            x = L.Conv1D(3, 2, padding="causal", bias_initializer="ones")(x)
        elif kind == "lstm":
            x = L.LSTM(3, return_sequences=True, seed=seed)(x)
        elif kind == "gru":
            x = L.GRU(2, return_sequences=True, go_backwards=draw(st.booleans()))(x)
        elif kind == "both":
            x = L.Bidirectional(L.SimpleRNN(2, return_sequences=True))(x)
        elif kind == "norm":
            x = L.LayerNormalization(epsilon=0.01)(x)
        elif kind == "attention":
            x = x + L.MultiHeadAttention(2, 2)(x, x)
        elif kind == "residual":
            x = x + L.Dense(width, activation="gelu")(x)
        elif x.shape[1] > 2:
            x = L.MaxPooling1D(2)(x)
    return keras.Model(inputs, L.Dense(2)(L.Flatten()(x)) if draw(st.booleans()) else x)


def _checked(examples):
    quiet = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]
    return settings(max_examples=examples, deadline=None, derandomize=True, suppress_health_check=quiet)


# Rounding grows from layer to layer, by the size of the weights; a mistake is thousands of units.
WITHIN = {"units": 300.0, "relative": 1e-3}


@_checked(20)
@given(image_models())
def test_random_models_on_images(model):
    check_model(model, reals(2, 6, 6, 3, size=1), **WITHIN)


@_checked(8)
@given(sequence_models())
def test_random_models_on_sequences(model):
    check_model(model, reals(2, 5, 4, size=1), **WITHIN)


@pytest.mark.slow
@_checked(150)
@given(image_models())
def test_many_random_models_on_images(model):
    check_model(model, reals(2, 6, 6, 3, size=1), **WITHIN)


@pytest.mark.slow
@_checked(60)
@given(sequence_models())
def test_many_random_models_on_sequences(model):
    check_model(model, reals(2, 5, 4, size=1), **WITHIN)


@pytest.mark.slow
@_checked(15)
@given(image_models())
def test_random_models_on_images_under_spdz(model):
    check_model(model, reals(1, 6, 6, 3, size=1), kind="spdz", **WITHIN)
