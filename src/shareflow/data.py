"""Reading images and digits from files. What a file holds is checked here, before any of it is shared.

Images become float32 of the model's input shape; nothing is downloaded and nothing is unpickled.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from shareflow.errors import DataError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
ARRAY_KEYS = ("x", "x_test", "images")
KERAS_CACHE = Path.home() / ".keras" / "datasets" / "mnist.npz"

_DIGITS_KEYS = ("x_train", "y_train", "x_test", "y_test")
_DIGIT_SHAPE = (28, 28, 1)
_DIGIT_CLASSES = 10
_CHANNEL_MODES = {1: "L", 3: "RGB"}
_SHOWN_NAMES = 8


@dataclass(frozen=True)
class Digits:
    """Handwritten digits for training and testing.

    x_train and x_test are float32 [n, 28, 28, 1] in 0..1, y_train and y_test are int64 [n] in 0..9, and
    `source` says in words where they come from.
    """

    x_train: NDArray[np.float32]
    y_train: NDArray[np.int64]
    x_test: NDArray[np.float32]
    y_test: NDArray[np.int64]
    source: str


def load_images(path: str | Path, input_shape: Sequence[int | None]) -> tuple[list[str], NDArray[np.float32]]:
    """Reads the inputs of a model from an array file, an image, or a folder of images.

    * `.npy`, or `.npz` with the key `x`, `x_test` or `images`, or with one array only. uint8 is scaled from
      0..255 to 0..1; floating-point values are taken as they are; other types are refused. A single sample
      gets its batch axis, grey images their channel axis, and flat rows are reshaped (and images flattened,
      for a model with flat inputs).
    * one PNG or JPEG, or a folder of them in the order of their names (other files in it are left out):
      converted to the model's channels, resized to its height and width (stretched where the proportions
      differ) and scaled to 0..1. For a model with flat inputs, images are grey and must already have the
      right number of pixels.

    Args:
        path: the file or folder.
        input_shape: the model's input without its batch axis, or with None in its place as Keras writes it.

    Returns:
        A name for each sample, and the samples, float32 [n, *input_shape] with n >= 1.

    Raises:
        DataError: the path cannot be read, or does not hold what the model takes, or could mean several
        things.
    """
    path = Path(path)
    shape = _sample_shape(input_shape)
    if not path.exists():
        raise DataError(
            f"There is no file or folder {path}; give a .npy, .npz, PNG or JPEG file, or a folder of images."
        )
    if path.is_dir():
        return _load_folder(path, shape)
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return [path.name], _load_image(path, shape)[np.newaxis]
    if suffix not in (".npy", ".npz"):
        raise DataError(
            "Inputs are read from .npy, .npz, .png, .jpg or .jpeg files, or from a folder of images; "
            f"{path} is none of them. "
            "Save the array with numpy.save, or convert the image to PNG."
        )
    samples = _to_samples(_read_array(path), shape, path)
    return [f"{path.name}[{index}]" for index in range(len(samples))], samples


def read_arrays(path: str | Path) -> dict[str, NDArray[np.generic]]:
    """The arrays of a .npy or .npz file as they are, by name; that of a .npy file is named x.

    Raises:
        DataError: the file cannot be read, or holds no array.
    """
    content = _open_numpy(Path(path))
    arrays = {"x": content} if isinstance(content, np.ndarray) else content
    if not arrays:
        raise DataError(f"{path} holds no array; write it with numpy.savez.")
    return arrays


def load_digits(data: str | Path | None = None) -> Digits:
    """The digits for the demo and the benchmarks: from the given file, else MNIST from Keras' cache, else
    scikit-learn's.

    The file is an .npz with x_train, y_train, x_test, y_test as Keras stores MNIST: images [n, 28, 28] or [n,
    28, 28, 1], uint8 0..255 or floating point 0..1, labels whole numbers 0..9. Scikit-learn's 1,797 bundled
    digits are 8 x 8 and are scaled up to 28 x 28; a fifth of them, always the same, is the test set. Nothing
    is ever downloaded.

    Raises:
        DataError: the given file is not as above; or there is no file, no cached MNIST and no scikit-learn.
    """
    if data is not None:
        return _read_digits(Path(data), f"{Path(data)}")
    if KERAS_CACHE.exists():
        return _read_digits(KERAS_CACHE, "MNIST from Keras' cache")
    return _bundled_digits()


def _sample_shape(input_shape: Sequence[int | None]) -> tuple[int, ...]:
    """The input shape without a leading None, all sizes known."""
    sizes = tuple(input_shape)
    if len(sizes) > 1 and sizes[0] is None:
        sizes = sizes[1:]
    known = tuple(int(size) for size in sizes if size is not None)
    if not sizes or len(known) != len(sizes) or min(known) < 1:
        raise DataError(
            f"Samples can be read only for an input shape of known sizes, got {tuple(input_shape)}; "
            "build the model with keras.Input(shape=...) of fixed height, width and channels."
        )
    return known


def _read_array(path: Path) -> NDArray[np.generic]:
    """The one array of a .npy file, or of an .npz under a key we know."""
    archive = _open_numpy(path)
    if isinstance(archive, np.ndarray):
        return archive
    keys = sorted(archive)
    known = [key for key in ARRAY_KEYS if key in archive]
    if len(known) > 1 or (not known and len(keys) != 1):
        raise DataError(
            f"An .npz file of inputs holds exactly one of the keys {', '.join(ARRAY_KEYS)}, or a single "
            f"array; {path} holds "
            f"{_listed(keys) or 'nothing'}. Save the wanted one by itself: numpy.savez(file, x=array)."
        )
    return archive[known[0] if known else keys[0]]


def _open_numpy(path: Path) -> NDArray[np.generic] | dict[str, NDArray[np.generic]]:
    """All of a .npy or .npz file. Pickles are refused: unpickling a file runs whatever code it holds."""
    if not path.is_file():
        raise DataError(f"There is no file {path}; give the path of an existing .npy or .npz file.")
    try:
        content = np.load(path, allow_pickle=False)
        if isinstance(content, np.ndarray):
            return content
        with content:
            return {key: content[key] for key in content.files}
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path} cannot be read as a NumPy file without pickle ({error}); "
            "write it with numpy.save or numpy.savez from an array of numbers."
        ) from error


def _to_samples(array: NDArray[np.generic], shape: tuple[int, ...], path: Path) -> NDArray[np.float32]:
    """The array as float32 [n, *shape].

    Each layout accepted keeps the order of the elements, so a layout that can be read in two ways gives the
    same samples either way; anything that would need a transposition (channels first) or a crop is refused.
    """
    values = _to_float(array, path)
    flat = (math.prod(shape),)
    layouts = {shape, flat}
    if len(shape) == 3 and shape[-1] == 1:
        layouts.add(shape[:-1])
    # For a flat model, any image that has the right number of values: [28, 28], [28, 28, 1].
    flattened = len(shape) == 1 and values.ndim > 1
    if values.shape in layouts or (flattened and math.prod(values.shape) == flat[0]):
        samples = values.reshape(1, *shape)
    elif values.shape[1:] in layouts or (flattened and math.prod(values.shape[1:]) == flat[0]):
        samples = values.reshape(len(values), *shape)
    else:
        raise DataError(
            f"The model takes samples of shape {shape}; {path} holds an array of shape {array.shape}. "
            f"Give an array of shape {('n', *shape)}, with the channels last.".replace("'n'", "n")
        )
    if len(samples) == 0:
        raise DataError(f"At least one sample is needed; {path} holds an array of shape {array.shape}.")
    return samples


def _to_float(array: NDArray[np.generic], path: Path) -> NDArray[np.float32]:
    """float32; uint8 scaled to 0..1. No message shows a value: inputs are secret."""
    if array.dtype == np.uint8:
        return array.astype(np.float32) / np.float32(255)
    if not np.issubdtype(array.dtype, np.floating):
        raise DataError(
            f"Inputs are uint8 (0..255, scaled to 0..1) or floating point (taken as they are); {path} holds "
            f"{array.dtype}, "
            "whose scale is not known. Convert it with array.astype('uint8') or to floats in the range the "
            "model was trained on."
        )
    # A float64 above float32's range becomes infinite, and is refused below with the rest.
    with np.errstate(over="ignore"):
        values = array.astype(np.float32)
    if not np.isfinite(values).all():
        raise DataError(
            f"Inputs are finite numbers; {path} holds NaN or infinite values. Replace them before predicting."
        )
    return values


def _load_folder(path: Path, shape: tuple[int, ...]) -> tuple[list[str], NDArray[np.float32]]:
    files = sorted(entry for entry in path.iterdir() if entry.is_file() and not entry.name.startswith("."))
    images = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
    if not images:
        raise DataError(
            f"A folder of inputs holds PNG or JPEG files; {path} holds "
            f"{_listed([file.name for file in files]) or 'no files'}. "
            "Give the folder that the images are in themselves, or one .npy or .npz file."
        )
    return [image.name for image in images], np.stack([_load_image(image, shape) for image in images])


def _load_image(path: Path, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """One image, float32 of the given shape, in 0..1."""
    channels = shape[2] if len(shape) == 3 else 1
    if len(shape) > 3 or channels not in _CHANNEL_MODES:
        raise DataError(
            f"An image fits an input of shape [height, width, 1 or 3]; the model takes {shape}, given "
            f"{path}. "
            "Prepare the samples yourself and save them as a .npy file."
        )
    try:
        with Image.open(path) as opened:
            # A camera writes the turn of the picture beside it; without this the model would see it lying on
            # its side.
            image = ImageOps.exif_transpose(opened)
            image.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(
            f"{path} cannot be read as an image ({error}); check that it opens in an image viewer, and save "
            "it again as PNG."
        ) from error
    image = _opaque(image, path)
    if image.mode.startswith("I"):
        # 16-bit grey: Pillow's own conversion to 8 bits would clip everything above 255 to white.
        image = Image.fromarray(
            (np.asarray(image).astype(np.float64) / 257).round().clip(0, 255).astype(np.uint8)
        )
    image = image.convert(_CHANNEL_MODES[channels])
    if len(shape) == 1:
        if image.width * image.height != shape[0]:
            raise DataError(
                f"The model takes flat samples of {shape[0]} values, so an image needs that many pixels; "
                f"{path} is {image.width} x {image.height}. Resize it, or save the samples as a .npy file."
            )
    elif (image.height, image.width) != shape[:2]:
        image = image.resize((shape[1], shape[0]), Image.Resampling.LANCZOS)
    return (np.asarray(image, dtype=np.float32) / np.float32(255)).reshape(shape)


def _opaque(image: Image.Image, path: Path) -> Image.Image:
    """The image, if nothing of it is transparent: what lies behind (white, black?) would be a guess."""
    if "A" not in image.getbands() and "transparency" not in image.info:
        return image
    rgba = image.convert("RGBA")
    if rgba.getchannel("A").getextrema() != (255, 255):
        raise DataError(
            f"Images are opaque; {path} has transparent pixels, and what colour is behind them is not known. "
            "Save it on a background (for digits: white on black)."
        )
    return rgba.convert("RGB")


def _read_digits(path: Path, source: str) -> Digits:
    archive = _open_numpy(path)
    if isinstance(archive, np.ndarray) or any(key not in archive for key in _DIGITS_KEYS):
        held = "a single array" if isinstance(archive, np.ndarray) else _listed(sorted(archive)) or "nothing"
        raise DataError(
            f"A file of digits is an .npz with the keys {', '.join(_DIGITS_KEYS)}, as Keras stores MNIST; "
            f"{path} holds {held}. "
            "Write it with numpy.savez(file, x_train=..., y_train=..., x_test=..., y_test=...)."
        )
    parts = {}
    for part in ("train", "test"):
        images = archive[f"x_{part}"]
        if images.shape[1:] not in (_DIGIT_SHAPE, _DIGIT_SHAPE[:2]):
            raise DataError(
                f"Digits are images [n, 28, 28]; x_{part} of {path} has the shape {images.shape}. Resize "
                "them to 28 x 28, grey."
            )
        samples = _to_samples(images, _DIGIT_SHAPE, path)
        if samples.min() < 0 or samples.max() > 1:
            raise DataError(
                f"Digits are uint8 in 0..255 or floating point in 0..1; x_{part} of {path} goes beyond. "
                "Divide it by its maximum."
            )
        parts[part] = samples, _labels(archive[f"y_{part}"], f"y_{part}", len(samples), path)
    return Digits(*parts["train"], *parts["test"], source=source)


def _labels(labels: NDArray[np.generic], key: str, count: int, path: Path) -> NDArray[np.int64]:
    """int64 [count] in 0..9."""
    if labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(
            f"Labels are whole numbers, one for each image: {key} of {path} has shape {labels.shape} and "
            f"type {labels.dtype} for "
            f"{count} images. One-hot labels become such numbers by labels.argmax(axis=1)."
        )
    classes = labels.astype(np.int64)
    if classes.min() < 0 or classes.max() >= _DIGIT_CLASSES:
        raise DataError(
            f"Labels of digits are in 0..9; {key} of {path} goes beyond. Leave the other classes out."
        )
    return classes


def _bundled_digits() -> Digits:
    """Scikit-learn's digits, 8 x 8 with values 0..16, as 28 x 28 in 0..1; 1,437 to train and 360 to test."""
    try:
        from sklearn import datasets
    except ImportError as error:
        raise DataError(
            "There are no digits to train on: no file was given, MNIST is not in Keras' cache "
            f"({KERAS_CACHE}), and scikit-learn, "
            "which brings some, is not installed. Run pip install shareflow[demo], or give an .npz file "
            "with --data."
        ) from error
    bundled = datasets.load_digits()
    small = np.asarray(bundled.images, dtype=np.float32) / np.float32(16)
    images = np.stack([Image.fromarray(one).resize((28, 28), Image.Resampling.BILINEAR) for one in small])
    images = images.clip(0, 1)[..., np.newaxis].astype(np.float32)
    labels = np.asarray(bundled.target, dtype=np.int64)
    # Neighbours in the file are by the same writer; the shuffle mixes the writers, the fixed seed keeps the
    # split.
    order = np.random.default_rng(0).permutation(len(images))
    train, test = np.split(order, [len(images) - len(images) // 5 - 1])
    return Digits(
        images[train],
        labels[train],
        images[test],
        labels[test],
        source=f"scikit-learn's {len(images):,} bundled digits (8 x 8), scaled to 28 x 28",
    )


def _listed(names: Sequence[str]) -> str:
    """The first few names, and how many more."""
    shown = ", ".join(names[:_SHOWN_NAMES])
    return shown if len(names) <= _SHOWN_NAMES else f"{shown} and {len(names) - _SHOWN_NAMES} more"
