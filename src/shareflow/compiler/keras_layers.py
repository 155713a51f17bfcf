"""How each Keras layer becomes private layers: one small function a layer, in a table.

All here is plaintext at the model's owner: batch normalisation is folded into the linear layer before it, and
only then are weights encoded and shared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from shareflow import keras_layers
from shareflow.compiler.keras_chain import Link
from shareflow.errors import UnsupportedModelError
from shareflow.nn import activation, normalization, smooth
from shareflow.nn import layer as nn
from shareflow.nn.linear import batch_norm_affine
from shareflow.protocol.tensor import PrivateTensor

Make = Callable[..., nn.Layer]


@dataclass
class Step:
    """A layer to be: its name, its plaintext parameters, and how to make it of them once they are shared."""

    name: str
    make: Make
    parameters: dict[str, np.ndarray] = field(default_factory=dict)
    # The shape in which a scale per output channel multiplies the kernel; None where no batch norm can fold in.
    channel_shape: tuple[int, ...] | None = None


Convert = Callable[[Any], list[Step]]
_table: dict[type, Convert] = {}


def _converts(*layers: type) -> Callable[[Convert], Convert]:
    def register(convert: Convert) -> Convert:
        _table.update(dict.fromkeys(layers, convert))
        return convert

    return register


def supported() -> list[str]:
    """The names of the Keras layers that can be made private."""
    return sorted({layer.__name__ for layer in _table} | {"BatchNormalization", "Softmax at the end"})


def convert(links: list[Link]) -> tuple[list[Step], str | None]:
    """The steps of a chain, and the activation that the receiver applies to what is revealed, if any.

    A softmax at the very end is the receiver's: it computes it in plaintext from the scores, as in the paper
    (Dahl et al. 2018, footnote 2).

    Raises:
        UnsupportedModelError: a layer cannot be made private; the text names it and what is supported.
    """
    steps: list[Step] = []
    final: str | None = None
    for position, link in enumerate(links):
        last = position == len(links) - 1
        layer = link.layer
        if last and type(layer) is keras.layers.Softmax:
            _over_last_axis(layer, link)
            final = "softmax"
            continue
        if last and _activation_name(layer) == "softmax":
            final = "softmax"
        if type(layer) is keras.layers.BatchNormalization:
            _normalize(steps, layer, link)
            continue
        make = _table.get(type(layer))
        if make is None:
            raise UnsupportedModelError(_unsupported(link))
        steps += make(layer)
        steps += _activate(link, skip=final is not None)
    return steps, final


def _unsupported(link: Link) -> str:
    return (
        f"{type(link.layer).__name__} '{link.layer.name}' ({link.place}) cannot be made private yet. Supported: "
        f"{', '.join(supported())}. Replace the layer, or split the model there and compute the rest in plaintext."
    )


def _activation_name(layer: Any) -> str:
    """The name of a layer's activation if it is Keras' or TensorFlow's own; else a description of it."""
    function = getattr(layer, "activation", None)
    if function is None:
        return "linear"
    # A name alone says little: a layer or a partial function has none, and anyone's function may be called relu.
    name = getattr(function, "__name__", type(function).__name__)
    own = (getattr(module, name, None) for module in (keras.activations, keras.ops, tf.nn))
    return name if function in own else f"{name} (not Keras' own)"


def _activate(link: Link, skip: bool) -> list[Step]:
    name = _activation_name(link.layer)
    if name == "linear" or skip:
        return []
    function = _ACTIVATIONS.get(name)
    if function is None:
        raise UnsupportedModelError(
            f"Activation '{name}' of '{link.layer.name}' ({link.place}) cannot be made private yet. Supported: "
            f"{', '.join(_ACTIVATIONS)}, linear, and softmax at the end."
        )
    return [Step(_named(link.layer, name), lambda: nn.Activation(function))]


def _named(layer: Any, name: str) -> str:
    return layer.name if isinstance(layer, keras.layers.Activation) else f"{layer.name}_{name}"


_ACTIVATIONS: dict[str, Callable[..., PrivateTensor]] = {
    "elu": smooth.elu,
    "gelu": smooth.gelu,
    "hard_sigmoid": smooth.hard_sigmoid,
    "hard_silu": smooth.hard_swish,
    "leaky_relu": smooth.leaky_relu,
    "relu": activation.relu,
    "relu6": activation.relu6,
    "sigmoid": smooth.sigmoid,
    "silu": smooth.silu,
    "softmax": normalization.softmax,
    "softplus": smooth.softplus,
    "tanh": smooth.tanh,
}


def _over_last_axis(layer: Any, link: Link) -> None:
    axes = layer.axis if isinstance(layer.axis, (list, tuple)) else [layer.axis]
    if any(axis not in (-1, len(layer.output.shape) - 1) for axis in axes):
        raise UnsupportedModelError(
            f"Softmax '{layer.name}' ({link.place}) is over axis {layer.axis}; only the last axis, the classes, is "
            "supported. Leave it out, and apply it to the scores that are revealed."
        )


def _normalize(steps: list[Step], layer: Any, link: Link) -> None:
    axis = layer.axis if isinstance(layer.axis, int) else layer.axis[0]
    if axis not in (-1, len(layer.input.shape) - 1):
        raise UnsupportedModelError(
            f"BatchNormalization '{layer.name}' ({link.place}) normalises axis {axis}; only the last axis, the "
            "channels, is supported. Use channels-last data."
        )
    scale, offset = batch_norm_affine(
        _array(layer.gamma, 1.0),
        _array(layer.beta, 0.0),
        _array(layer.moving_mean),
        _array(layer.moving_variance),
        layer.epsilon,
    )
    if steps and steps[-1].channel_shape is not None:
        before = steps[-1]
        parameters = before.parameters
        parameters["kernel"] = parameters["kernel"] * scale.reshape(before.channel_shape)
        parameters["bias"] = parameters.get("bias", 0.0) * scale + offset
        return
    steps.append(Step(layer.name, nn.Affine, {"scale": scale, "offset": offset}))


def _array(weight: Any, default: float | None = None) -> np.ndarray:
    return np.asarray(default if weight is None else weight.numpy(), np.float64)


def _linear(layer: Any, make: Make, kernel: Any, channel_shape: tuple[int, ...]) -> Step:
    parameters = {"kernel": _array(kernel)}
    if getattr(layer, "use_bias", False):
        parameters["bias"] = _array(layer.bias)
    # An activation of the layer's own stands between it and a batch norm that follows.
    folds = _activation_name(layer) == "linear"
    return Step(layer.name, make, parameters, channel_shape if folds else None)


def _channels_last(layer: Any) -> None:
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        raise UnsupportedModelError(
            f"{type(layer).__name__} '{layer.name}' has its channels first; only channels-last is supported. "
            "Rebuild the layer with data_format='channels_last'."
        )


def _padding(layer: Any) -> str:
    if layer.padding not in ("same", "valid"):
        raise UnsupportedModelError(f"'{layer.name}' pads '{layer.padding}'; 'same' and 'valid' are supported.")
    return layer.padding.upper()


@_converts(keras.layers.Dense)
def _dense(layer: Any) -> list[Step]:
    return [_linear(layer, nn.Dense, layer.kernel, (1, -1))]


@_converts(keras.layers.Conv2D)
def _conv2d(layer: Any) -> list[Step]:
    _channels_last(layer)
    window = {
        "strides": tuple(layer.strides),
        "padding": _padding(layer),
        "dilations": tuple(layer.dilation_rate),
        "groups": layer.groups,
    }
    return [_linear(layer, lambda **p: nn.Conv2D(**p, **window), layer.kernel, (1, 1, 1, -1))]


@_converts(keras.layers.DepthwiseConv2D)
def _depthwise(layer: Any) -> list[Step]:
    _channels_last(layer)
    window: dict[str, Any] = {
        "strides": tuple(layer.strides),
        "padding": _padding(layer),
        "dilations": tuple(layer.dilation_rate),
    }
    kernel = layer.kernel
    channels = (1, 1, kernel.shape[2], kernel.shape[3])
    return [_linear(layer, lambda **p: nn.DepthwiseConv2D(**p, **window), kernel, channels)]


@_converts(keras.layers.AveragePooling2D, keras.layers.MaxPooling2D)
def _pool(layer: Any) -> list[Step]:
    _channels_last(layer)
    kind = nn.MaxPool2D if isinstance(layer, keras.layers.MaxPooling2D) else nn.AveragePool2D
    place = (tuple(layer.pool_size), tuple(layer.strides), _padding(layer))
    return [Step(layer.name, lambda: kind(*place))]


@_converts(keras.layers.GlobalAveragePooling2D)
def _global_average(layer: Any) -> list[Step]:
    _channels_last(layer)
    return [Step(layer.name, lambda: nn.GlobalAveragePool2D(layer.keepdims))]


@_converts(keras.layers.ZeroPadding2D)
def _zero_pad(layer: Any) -> list[Step]:
    _channels_last(layer)
    (top, bottom), (left, right) = layer.padding
    return [Step(layer.name, lambda: nn.ZeroPad2D(((top, bottom), (left, right))))]


@_converts(keras.layers.Flatten)
def _flatten(layer: Any) -> list[Step]:
    _channels_last(layer)
    return [Step(layer.name, nn.Flatten)]


@_converts(keras.layers.Reshape)
def _reshape(layer: Any) -> list[Step]:
    return [Step(layer.name, lambda: nn.Reshape(tuple(layer.target_shape)))]


@_converts(keras.layers.Activation, keras.layers.Dropout, keras.layers.SpatialDropout2D, keras.layers.GaussianNoise)
def _nothing(layer: Any) -> list[Step]:
    # Dropout and noise do nothing at inference; an Activation layer's function follows by itself.
    return []


@_converts(keras.layers.ReLU)
def _relu(layer: Any) -> list[Step]:
    if layer.negative_slope or layer.threshold or layer.max_value not in (None, 6, 6.0):
        raise UnsupportedModelError(
            f"ReLU '{layer.name}' has negative_slope {layer.negative_slope}, threshold {layer.threshold} and max_value "
            f"{layer.max_value}; a plain ReLU and one with max_value 6 are supported."
        )
    function = activation.relu if layer.max_value is None else activation.relu6
    return [Step(layer.name, lambda: nn.Activation(function))]


@_converts(keras.layers.LeakyReLU)
def _leaky_relu(layer: Any) -> list[Step]:
    slope = float(layer.negative_slope)
    return [Step(layer.name, lambda: nn.Activation(lambda x: smooth.leaky_relu(x, slope)))]


@_converts(keras.layers.ELU)
def _elu(layer: Any) -> list[Step]:
    alpha = float(layer.alpha)
    return [Step(layer.name, lambda: nn.Activation(lambda x: smooth.elu(x, alpha)))]


@_converts(keras_layers.PolynomialReLU)
def _polynomial_relu(layer: Any) -> list[Step]:
    return [Step(layer.name, lambda: nn.PolynomialReLU(layer.degree, layer.bound))]
