"""Layers: functions with private parameters, as values."""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass

from shareflow.nn import activation, convolution, linear, pooling
from shareflow.nn.geometry import Pair
from shareflow.protocol.tensor import PrivateTensor
from shareflow.protocol.variable import PrivateVariable


class Layer(abc.ABC):
    """A function of one private tensor, batch first."""

    @abc.abstractmethod
    def __call__(self, x: PrivateTensor) -> PrivateTensor:
        """The layer's result."""


@dataclass(frozen=True, eq=False)
class Dense(Layer):
    """x @ kernel + bias."""

    kernel: PrivateVariable
    bias: PrivateVariable | None = None

    def __call__(self, x: PrivateTensor) -> PrivateTensor:
        return linear.dense(x, self.kernel, self.bias)


@dataclass(frozen=True, eq=False)
class Conv2D(Layer):
    """Convolution of images [N, H, W, C]."""

    kernel: PrivateVariable
    bias: PrivateVariable | None = None
    strides: Pair = (1, 1)
    padding: str = "VALID"
    dilations: Pair = (1, 1)
    groups: int = 1

    def __call__(self, x: PrivateTensor) -> PrivateTensor:
        return convolution.conv2d(x, self.kernel, self.bias, self.strides, self.padding, self.dilations, self.groups)


@dataclass(frozen=True, eq=False)
class DepthwiseConv2D(Layer):
    """Each channel of images [N, H, W, C] with filters of its own."""

    kernel: PrivateVariable
    bias: PrivateVariable | None = None
    strides: Pair = (1, 1)
    padding: str = "VALID"
    dilations: Pair = (1, 1)

    def __call__(self, x: PrivateTensor) -> PrivateTensor:
        return convolution.depthwise_conv2d(x, self.kernel, self.bias, self.strides, self.padding, self.dilations)


@dataclass(frozen=True, eq=False)
class Affine(Layer):
    """x * scale + offset over the last axis: batch normalisation that no linear layer could take in."""

    scale: PrivateVariable
    offset: PrivateVariable

    def __call__(self, x: PrivateTensor) -> PrivateTensor:
        return x * self.scale + self.offset


@dataclass(frozen=True)
class AveragePool2D(Layer):
    """Mean of each window."""

    size: Pair
    strides: Pair
    padding: str = "VALID"

    def __call__(self, x: PrivateTensor) -> PrivateTensor:
        return pooling.avg_pool2d(x, self.size, self.strides, self.padding)


@dataclass(frozen=True)
class MaxPool2D(Layer):
    """Maximum of each window."""

    size: Pair
    strides: Pair
    padding: str = "VALID"

    def __call__(self, x: PrivateTensor) -> PrivateTensor:
        return pooling.max_pool2d(x, self.size, self.strides, self.padding)


@dataclass(frozen=True)
class GlobalAveragePool2D(Layer):
    """Mean over height and width."""

    keepdims: bool = False

    def __call__(self, x: PrivateTensor) -> PrivateTensor:
        return pooling.global_avg_pool2d(x, self.keepdims)


@dataclass(frozen=True)
class ZeroPad2D(Layer):
    """Zeros around images."""

    sides: tuple[Pair, Pair]

    def __call__(self, x: PrivateTensor) -> PrivateTensor:
        return x.pad(((0, 0), *self.sides, (0, 0)))


@dataclass(frozen=True)
class Reshape(Layer):
    """Another shape for each sample; one entry may be -1."""

    shape: tuple[int, ...]

    def __call__(self, x: PrivateTensor) -> PrivateTensor:
        return x.reshape(x.shape[0], *self.shape)


@dataclass(frozen=True)
class Flatten(Layer):
    """Each sample as a vector."""

    def __call__(self, x: PrivateTensor) -> PrivateTensor:
        return linear.flatten(x)


@dataclass(frozen=True)
class Activation(Layer):
    """A function of each element."""

    function: Callable[[PrivateTensor], PrivateTensor]

    def __call__(self, x: PrivateTensor) -> PrivateTensor:
        return self.function(x)


@dataclass(frozen=True)
class PolynomialReLU(Layer):
    """The polynomial that interpolates ReLU on [-bound, bound]."""

    degree: int = 2
    bound: float = 3.0

    def __call__(self, x: PrivateTensor) -> PrivateTensor:
        return activation.polynomial_relu(x, self.degree, self.bound)
