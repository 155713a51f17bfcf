"""Random small Keras models: after each pass they compute the same."""

import keras
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras import layers
from tracing import graph_of_model, ops, same

from shareflow.compiler.passes import optimize, steps

# Keras draws from Python's random numbers when a layer is made; the weights are drawn anew, from a seed.
pytestmark = pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisDeprecationWarning")

ACTIVATIONS = ("relu", "relu6", "gelu", "silu", "sigmoid", "leaky_relu", "hard_silu", "mish", "hard_tanh", "softplus")


@st.composite
def image_models(draw):
    """Convolutions, norms, pools and functions in any order, with shortcuts and joins between them."""
    inputs = keras.Input((draw(st.integers(6, 9)), draw(st.integers(6, 9)), draw(st.integers(1, 4))))
    x, before = inputs, []
    for _ in range(draw(st.integers(1, 7))):
        kind = draw(
            st.sampled_from(
                ("conv", "conv", "pointwise", "depthwise", "norm", "function", "pool", "mean", "join", "pad")
            )
        )
        if kind == "conv":
            strides, padding = draw(st.integers(1, 2)), draw(st.sampled_from(("same", "valid")))
            if min(x.shape[1:3]) < 3:
                padding = "same"
            x = layers.Conv2D(draw(st.integers(1, 4)), 3, strides, padding, use_bias=draw(st.booleans()))(x)
        elif kind == "pointwise":
            x = layers.Conv2D(draw(st.integers(1, 4)), 1, draw(st.integers(1, 2)))(x)
        elif kind == "depthwise":
            x = layers.DepthwiseConv2D(3, padding="same")(x)
        elif kind == "norm":
            x = draw(st.sampled_from((layers.BatchNormalization, layers.LayerNormalization)))()(x)
        elif kind == "function":
            x = layers.Activation(draw(st.sampled_from(ACTIVATIONS)))(x)
        elif kind == "pool" and min(x.shape[1:3]) >= 2:
            x = layers.MaxPooling2D(2, draw(st.integers(1, 2)), draw(st.sampled_from(("same", "valid"))))(x)
        elif kind == "mean" and min(x.shape[1:3]) >= 3:
            x = layers.AveragePooling2D(draw(st.integers(2, 3)), 1, draw(st.sampled_from(("same", "valid"))))(x)
        elif kind == "pad":
            x = layers.ZeroPadding2D(1)(x)
        elif kind == "join":
            alike = [y for y in before if y.shape[1:3] == x.shape[1:3]]
            if alike:
                other = draw(st.sampled_from(alike))
                same_channels = other.shape == x.shape and draw(st.booleans())
                x = layers.Add()([x, other]) if same_channels else layers.Concatenate()([other, x])
        before.append(x)
    if draw(st.booleans()):
        x = layers.Dense(draw(st.integers(1, 3)))(
            draw(st.sampled_from((layers.Flatten, layers.GlobalAveragePooling2D)))()(x)
        )
    return keras.Model(inputs, x)


@st.composite
def sequence_models(draw):
    """Dense layers, attention and recurrent cells over tokens, and one of them or a mean at the end."""
    inputs = keras.Input((draw(st.integers(2, 5)), 4))
    x = inputs
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(("dense", "attention", "norm", "gru", "conv")))
        if kind == "dense":
            x = layers.Dense(4, activation=draw(st.sampled_from(ACTIVATIONS)))(x)
        elif kind == "attention":
            x = layers.Add()([x, layers.MultiHeadAttention(2, 2)(x, x, use_causal_mask=draw(st.booleans()))])
        elif kind == "norm":
            x = layers.LayerNormalization()(x)
        elif kind == "gru":
            x = layers.GRU(4, return_sequences=True)(x)
        else:
            x = layers.Conv1D(4, 2, padding="same")(x)
    ending = draw(st.sampled_from(("all", "first", "last", "mean")))
    if ending != "all":
        x = layers.GlobalAveragePooling1D()(x) if ending == "mean" else x[:, 0 if ending == "first" else -1]
    return keras.Model(inputs, layers.Dense(2)(x))


def check(model):
    graph = graph_of_model(model, 1)
    before = graph
    for improve, after in steps(graph):
        try:
            same(before, after, 1e-3)
        except AssertionError as error:
            raise AssertionError(f"{improve.__name__}: {error}") from error
        before = after
    # What is improved already gets no worse.
    again = optimize(before)
    same(before, again, 1e-3)
    assert sum(ops(again).values()) <= sum(ops(before).values())


few = settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
many = settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))


@few
@given(image_models())
def test_networks_of_images(model):
    check(model)


@few
@given(sequence_models())
def test_networks_of_sequences(model):
    check(model)


@pytest.mark.slow
@many
@given(st.one_of(image_models(), sequence_models()))
def test_many_networks(model):
    check(model)
