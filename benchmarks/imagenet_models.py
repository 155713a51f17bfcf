"""The networks of `benchmarks.imagenet`: image classifiers up to ImageNet's size, and three of other kinds.

Two have real weights, read from the files of the shared data folder. All others are those of `keras.applications` or
built here, with random weights: for these, only cost and agreement with plaintext say something. Their batch
normalisation takes the statistics of one pass over noise, so that values have the sizes of a trained network's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

Samples = NDArray[Any]


@dataclass(frozen=True)
class Network:
    """A model and what to ask of it.

    ``samples`` [n, ...] are its inputs, ``labels`` [n] their classes where they are known; ``trained`` says whether the
    weights are real.
    """

    model: keras.Model
    samples: Samples
    trained: bool
    labels: NDArray[Any] | None = None


def squeezenet(data: Path) -> Network:
    """SqueezeNet v1.0 (Iandola et al., 2016) with its published ImageNet weights, 227 x 227, and the sample image.

    The weights are Caffe's: BGR less (104, 117, 123), pooling that rounds up (which changes nothing at this size),
    and a last convolution with a border of one.
    """
    weights = np.load(data / "squeezenet_v1.0_imagenet_deepcompressed_hwio.npz")

    def conv(x: Any, name: str, strides: int = 1, padding: str = "valid") -> Any:
        kernel = weights[f"{name}_w"]
        layer = layers.Conv2D(
            kernel.shape[-1], kernel.shape[:2], strides, padding, activation="relu", name=name.replace("__", "_")
        )
        result = layer(x)
        layer.set_weights([kernel, weights[f"{name}_b"]])
        return result

    def fire(x: Any, number: int) -> Any:
        squeezed = conv(x, f"fire{number}__conv1x1_1")
        wide = [
            conv(squeezed, f"fire{number}__conv1x1_2"),
            conv(squeezed, f"fire{number}__conv3x3_2", padding="same"),
        ]
        return layers.Concatenate(name=f"fire{number}")(wide)

    image = keras.Input((227, 227, 3))
    x = layers.MaxPooling2D(3, 2)(conv(image, "conv1", 2))
    for number in (2, 3, 4):
        x = fire(x, number)
    x = layers.MaxPooling2D(3, 2)(x)
    for number in (5, 6, 7, 8):
        x = fire(x, number)
    x = conv(layers.ZeroPadding2D(1)(fire(layers.MaxPooling2D(3, 2)(x), 9)), "conv_final")
    model = keras.Model(image, layers.GlobalAveragePooling2D()(x), name="squeezenet")
    mean = np.array([104.0, 117.0, 123.0])
    picture = _picture(data / "n02109961_36.JPEG", 227)[..., ::-1] - mean
    return Network(model, picture[None].astype(np.float32), trained=True)


def resnet20(data: Path, images: Samples | None = None, labels: NDArray[Any] | None = None) -> Network:
    """ResNet-20 for CIFAR-10 (He et al., 2016) with published weights.

    Its samples are ``images`` [n, 32, 32, 3] in 0 .. 255 with their ``labels``. Without them: the test images of a file
    cifar10.npz in the data folder (x_test, y_test), or pieces of photographs of CIFAR's size.
    """
    file = data / "cifar10.npz"
    if images is None and file.exists():
        with np.load(file) as cifar:
            images, labels = cifar["x_test"], cifar["y_test"].ravel()
    weights = np.load(data / "cifar10_resnet20_hwio.npz")

    def conv(x: Any, name: str, strides: int = 1) -> Any:
        kernel = weights[f"{name}.weight"]
        if strides > 1:
            # The published model pads alike on all sides; TensorFlow's SAME would not at stride 2.
            x = layers.ZeroPadding2D(1)(x)
        padding = "valid" if strides > 1 else "same"
        layer = layers.Conv2D(kernel.shape[-1], 3, strides, padding, use_bias=False, name=name.replace(".", "_"))
        result = layer(x)
        layer.set_weights([kernel])
        return result

    def norm(x: Any, name: str) -> Any:
        layer = layers.BatchNormalization(epsilon=1e-5, name=name.replace(".", "_"))
        result = layer(x)
        layer.set_weights([weights[f"{name}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")])
        return result

    def block(x: Any, name: str, strides: int) -> Any:
        y = layers.ReLU()(norm(conv(x, f"{name}.conv1", strides), f"{name}.bn1"))
        y = norm(conv(y, f"{name}.conv2"), f"{name}.bn2")
        if strides > 1:
            more = (y.shape[-1] - x.shape[-1]) // 2
            x = layers.Lambda(_subsampled, arguments={"channels": more}, name=f"{name.replace('.', '_')}_shortcut")(x)
        return layers.ReLU()(layers.Add()([x, y]))

    image = keras.Input((32, 32, 3))
    x = layers.ReLU()(norm(conv(image, "conv1"), "bn1"))
    for stage in (1, 2, 3):
        for number in range(3):
            x = block(x, f"layer{stage}.{number}", 2 if stage > 1 and number == 0 else 1)
    last = layers.Dense(10, name="linear")
    model = keras.Model(image, last(layers.GlobalAveragePooling2D()(x)), name="resnet20")
    last.set_weights([weights["linear.weight"], weights["linear.bias"]])
    pictures = _pieces(data, 200) if images is None else np.asarray(images, np.float64) / 255
    samples = (pictures - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    return Network(model, samples.astype(np.float32), trained=True, labels=labels)


def _subsampled(x: Any, channels: int) -> Any:
    """Every other row and column, with channels of zeros on both sides: a shortcut without weights."""
    return keras.ops.pad(x[:, ::2, ::2], [[0, 0], [0, 0], [0, 0], [channels, channels]])


def application(name: str, size: int = 224) -> Callable[[Path], Network]:
    """A classifier of `keras.applications` with random weights."""

    def make(data: Path) -> Network:
        keras.utils.set_random_seed(1)
        model = getattr(keras.applications, name)(weights=None, input_shape=(size, size, 3), classifier_activation=None)
        rng = np.random.default_rng(1)
        scale = 255.0 if name.startswith("EfficientNet") else 1.0
        noise = (rng.random((4, size, size, 3)) * scale).astype(np.float32)
        _settle(model, noise)
        return Network(model, noise[:1], trained=False)

    return make


def unet(data: Path) -> Network:
    """A U-Net (Ronneberger et al., 2015) of four levels, 128 x 128, 16 to 128 channels; transposed convolutions up."""
    keras.utils.set_random_seed(1)
    image = keras.Input((128, 128, 1))
    x, across = image, []
    for width in (16, 32, 64):
        x = _twice(x, width)
        across.append(x)
        x = layers.MaxPooling2D()(x)
    x = _twice(x, 128)
    for width, skip in zip((64, 32, 16), across[::-1], strict=True):
        x = layers.Concatenate()([layers.Conv2DTranspose(width, 2, 2)(x), skip])
        x = _twice(x, width)
    model = keras.Model(image, layers.Conv2D(2, 1)(x), name="unet")
    samples = np.random.default_rng(1).random((1, 128, 128, 1)).astype(np.float32)
    _settle(model, samples)
    return Network(model, samples, trained=False)


def _twice(x: Any, width: int) -> Any:
    for _ in range(2):
        x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(width, 3, padding="same", use_bias=False)(x)))
    return x


def lstm(data: Path) -> Network:
    """An LSTM of 64 units over 16 steps of 32 numbers, and a classifier of 10."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((16, 32)), layers.LSTM(64), layers.Dense(10)], name="lstm")
    return Network(model, np.random.default_rng(1).normal(size=(1, 16, 32)).astype(np.float32), trained=False)


def encoder(data: Path) -> Network:
    """A transformer encoder in the shape of BERT-tiny: 2 layers, 128 wide, 2 heads, 64 tokens of 30,522."""
    keras.utils.set_random_seed(1)
    tokens = keras.Input((64,), dtype="int32")
    x = _embedded(tokens, 30_522, 128)
    for _ in range(2):
        x = layers.LayerNormalization(epsilon=1e-12)(x + layers.MultiHeadAttention(2, 64)(x, x))
        y = layers.Dense(128)(layers.Dense(512, activation="gelu")(x))
        x = layers.LayerNormalization(epsilon=1e-12)(x + y)
    model = keras.Model(tokens, layers.Dense(2)(layers.Dense(128, activation="tanh")(x[:, 0])), name="encoder")
    return Network(model, np.random.default_rng(1).integers(0, 30_522, (1, 64)).astype(np.int32), trained=False)


def decoder(data: Path) -> Network:
    """A transformer decoder in the shape of GPT-2 small with 2 layers: 768 wide, 12 heads, 32 tokens of 50,257."""
    keras.utils.set_random_seed(1)
    tokens = keras.Input((32,), dtype="int32")
    x = _embedded(tokens, 50_257, 768)
    for _ in range(2):
        y = layers.LayerNormalization(epsilon=1e-5)(x)
        x = x + layers.MultiHeadAttention(12, 64)(y, y, use_causal_mask=True)
        y = layers.LayerNormalization(epsilon=1e-5)(x)
        x = x + layers.Dense(768)(layers.Dense(3072, activation=_gelu_tanh)(y))
    x = layers.LayerNormalization(epsilon=1e-5)(x)
    model = keras.Model(tokens, layers.Dense(50_257, use_bias=False)(x[:, -1]), name="decoder")
    return Network(model, np.random.default_rng(1).integers(0, 50_257, (1, 32)).astype(np.int32), trained=False)


def _gelu_tanh(x: Any) -> Any:
    return keras.ops.gelu(x, approximate=True)


class _Positions(layers.Layer):
    """Adds an embedding of each place."""

    def build(self, shape: Any) -> None:
        self.table = self.add_weight(shape=shape[1:], initializer=keras.initializers.RandomNormal(stddev=0.02))

    def call(self, x: Any) -> Any:
        return x + self.table


def _embedded(tokens: Any, vocabulary: int, width: int) -> Any:
    return _Positions()(layers.Embedding(vocabulary, width)(tokens))


def _settle(model: keras.Model, samples: Samples) -> None:
    """Batch normalisation takes the statistics of these samples, as after training."""
    norms = [
        layer
        for layer in model._flatten_layers(include_self=False)
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0
    model(samples, training=True)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum


def _picture(file: Path, size: int) -> NDArray[np.float64]:
    """The middle of a picture, the shorter side scaled to ``size``: [size, size, 3] in 0 .. 255."""
    from PIL import Image

    with Image.open(file) as opened:
        image = opened.convert("RGB")
        scale = size / min(image.size)
        image = image.resize((max(size, round(image.width * scale)), max(size, round(image.height * scale))))
        left, top = (image.width - size) // 2, (image.height - size) // 2
        return np.asarray(image.crop((left, top, left + size, top + size)), np.float64)


def _pieces(data: Path, count: int) -> NDArray[np.float64]:
    """Pieces of photographs at several scales, [count, 32, 32, 3] in 0 .. 1."""
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(1)
    photographs = [np.asarray(image) for image in load_sample_images().images]
    photographs.append(_picture(data / "n02109961_36.JPEG", 256).astype(np.uint8))
    found = []
    for _ in range(count):
        photograph = photographs[rng.integers(len(photographs))]
        step = int(rng.integers(1, min(photograph.shape[:2]) // 32))
        top, left = (int(rng.integers(0, n - 32 * step + 1)) for n in photograph.shape[:2])
        found.append(photograph[top : top + 32 * step : step, left : left + 32 * step : step])
    return np.stack(found) / 255.0


NETWORKS: dict[str, Callable[[Path], Network]] = {
    "squeezenet": squeezenet,
    "resnet20": resnet20,
    "resnet50": application("ResNet50"),
    "densenet121": application("DenseNet121"),
    "mobilenet": application("MobileNet"),
    "mobilenet_v2": application("MobileNetV2"),
    "efficientnet_b0": application("EfficientNetB0"),
    "vgg16": application("VGG16"),
    "unet": unet,
    "lstm": lstm,
    "encoder": encoder,
    "decoder": decoder,
}
