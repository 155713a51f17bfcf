import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shareflow import data
from shareflow.data import load_digits, load_images
from shareflow.errors import DataError

IMAGE = (28, 28, 1)
MNIST = Path(__file__).resolve().parents[2] / "shared" / "data" / "mnist.npz"
RNG = np.random.default_rng(7)


def save(tmp_path, array):
    path = tmp_path / "x.npy"
    np.save(path, array)
    return path


@pytest.mark.parametrize(
    ("given", "wanted", "count"),
    [
        ((5, 28, 28, 1), IMAGE, 5),
        ((5, 28, 28), IMAGE, 5),
        ((5, 784), IMAGE, 5),
        ((28, 28, 1), IMAGE, 1),
        ((28, 28), IMAGE, 1),
        ((784,), IMAGE, 1),
        ((28, 28, 28), IMAGE, 28),
        ((5, 28, 28), (784,), 5),
        ((5, 28, 28, 1), (784,), 5),
        ((28, 28), (784,), 1),
        ((784,), (784,), 1),
        ((5, 32, 32, 3), (32, 32, 3), 5),
        ((5, 28, 28), (None, 28, 28, 1), 5),
        ((4, 4), (4,), 4),
        ((5, 6, 7), (6, 7), 5),
    ],
)
def test_arrays_take_the_shape_of_the_model(tmp_path, given, wanted, count):
    array = RNG.random(given).astype(np.float32)
    names, samples = load_images(save(tmp_path, array), wanted)
    shape = wanted[1:] if wanted[0] is None else wanted
    assert samples.shape == (count, *shape)
    assert samples.dtype == np.float32
    assert names[0] == "x.npy[0]"
    assert len(names) == count
    np.testing.assert_array_equal(samples.ravel(), array.ravel())


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ((5, 1, 28, 28), IMAGE),
        ((5, 3, 32, 32), (32, 32, 3)),
        ((5, 27, 28), IMAGE),
        ((5, 783), IMAGE),
        ((), IMAGE),
        ((5, 32, 32), (32, 32, 3)),
        ((5, 28, 27), (784,)),
    ],
)
def test_other_shapes_are_refused(tmp_path, given, wanted):
    with pytest.raises(DataError, match=r"takes samples of shape .* holds an array .* channels last"):
        load_images(save(tmp_path, np.zeros(given, np.float32)), wanted)


def test_an_empty_array_is_refused(tmp_path):
    with pytest.raises(DataError, match="At least one sample"):
        load_images(save(tmp_path, np.zeros((0, 28, 28), np.float32)), IMAGE)


def test_bytes_are_scaled_and_floats_are_not(tmp_path):
    _, samples = load_images(save(tmp_path, np.full(IMAGE, 51, np.uint8)), IMAGE)
    np.testing.assert_allclose(samples, 0.2, rtol=1e-6)
    _, samples = load_images(save(tmp_path, np.full(IMAGE, -51.0)), IMAGE)
    np.testing.assert_array_equal(samples, -51)


@pytest.mark.parametrize("dtype", ["int64", "int8", "bool", "complex64", "U3"])
def test_types_of_unknown_scale_are_refused(tmp_path, dtype):
    with pytest.raises(DataError, match=f"holds .*{dtype[:3]}.*scale is not known"):
        load_images(save(tmp_path, np.zeros(IMAGE, dtype)), IMAGE)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_values_that_are_not_finite_are_refused_and_not_shown(tmp_path, bad):
    array = np.full(IMAGE, 0.123)
    array[3, 4] = bad
    with pytest.raises(DataError, match="finite") as caught:
        load_images(save(tmp_path, array), IMAGE)
    assert "0.123" not in str(caught.value)


@pytest.mark.parametrize("key", ["x", "x_test", "images", "anything"])
def test_archives_by_key(tmp_path, key):
    path = tmp_path / "x.npz"
    other = {} if key == "anything" else {"y": np.zeros(2)}
    np.savez(path, **{key: np.ones((2, 28, 28)), **other})
    _, samples = load_images(path, IMAGE)
    assert samples.shape == (2, *IMAGE)


@pytest.mark.parametrize("keys", [("a", "b"), ("x", "x_test"), ()])
def test_archives_without_one_clear_key_list_what_they_hold(tmp_path, keys):
    path = tmp_path / "x.npz"
    np.savez(path, **{key: np.ones((2, 28, 28)) for key in keys})
    with pytest.raises(DataError, match=f"holds {', '.join(keys) or 'nothing'}"):
        load_images(path, IMAGE)


class Boom:
    def __reduce__(self):
        return os.abort, ()


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_pickles_are_never_loaded(tmp_path, suffix):
    path = tmp_path / f"x.{suffix}"
    array = np.array([Boom()], dtype=object)
    if suffix == "npy":
        np.save(path, array, allow_pickle=True)
    else:
        np.savez(path, x=array)
    with pytest.raises(DataError, match="without pickle"):
        load_images(path, IMAGE)


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.png", "x.jpg"])
@pytest.mark.parametrize("content", [b"", b"not what it says", b"PK\x03\x04", b"\x89PNG\r\n\x1a\n"])
def test_damaged_files_are_refused(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match="cannot be read"):
        load_images(path, IMAGE)


def test_a_cut_image_is_refused(tmp_path):
    path = tmp_path / "x.png"
    Image.fromarray(RNG.integers(0, 256, (28, 28), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DataError, match="cannot be read as an image"):
        load_images(path, IMAGE)


def test_missing_and_unknown_files(tmp_path):
    with pytest.raises(DataError, match="no file or folder"):
        load_images(tmp_path / "no.png", IMAGE)
    (tmp_path / "x.csv").write_text("1,2")
    with pytest.raises(DataError, match=r"\.npy, \.npz, \.png"):
        load_images(tmp_path / "x.csv", IMAGE)


@pytest.mark.parametrize("shape", [(None, None, None, 3), (None,), (), (0, 3)])
def test_input_shapes_that_are_not_known(tmp_path, shape):
    with pytest.raises(DataError, match="known sizes"):
        load_images(save(tmp_path, np.zeros((2, 3))), shape)


def test_an_image_of_the_right_size_keeps_its_pixels(tmp_path):
    pixels = RNG.integers(0, 256, (28, 28), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "one.png")
    for shape in (IMAGE, (784,), (28, 28)):
        names, samples = load_images(tmp_path / "one.png", shape)
        assert names == ["one.png"]
        np.testing.assert_allclose(samples, pixels.reshape(1, *shape) / 255, atol=1e-7)


def test_a_folder_is_sorted_resized_and_converted(tmp_path):
    Image.new("RGB", (56, 40), (255, 255, 255)).save(tmp_path / "b.JPG", format="JPEG")
    Image.new("L", (28, 28), 0).save(tmp_path / "a.png")
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / ".hidden.png").write_text("not an image")
    names, samples = load_images(tmp_path, IMAGE)
    assert names == ["a.png", "b.JPG"]
    assert samples.shape == (2, *IMAGE)
    np.testing.assert_array_equal(samples[0], 0)
    np.testing.assert_allclose(samples[1], 1, atol=0.02)
    _, coloured = load_images(tmp_path, (32, 48, 3))
    assert coloured.shape == (2, 32, 48, 3)


def test_a_folder_without_images(tmp_path):
    with pytest.raises(DataError, match="holds no files"):
        load_images(tmp_path, IMAGE)
    (tmp_path / "a.bmp").write_text("")
    with pytest.raises(DataError, match=r"holds a\.bmp"):
        load_images(tmp_path, IMAGE)


def test_sixteen_bit_images_are_scaled_and_not_clipped(tmp_path):
    Image.fromarray(np.full((28, 28), 257 * 51, np.uint16)).save(tmp_path / "deep.png")
    _, samples = load_images(tmp_path / "deep.png", IMAGE)
    np.testing.assert_allclose(samples, 0.2, rtol=1e-6)


def test_transparent_images_are_refused_and_opaque_alpha_is_not(tmp_path):
    Image.new("RGBA", (28, 28), (255, 255, 255, 255)).save(tmp_path / "opaque.png")
    _, samples = load_images(tmp_path / "opaque.png", IMAGE)
    np.testing.assert_array_equal(samples, 1)
    Image.new("LA", (28, 28), (255, 0)).save(tmp_path / "glass.png")
    with pytest.raises(DataError, match="transparent"):
        load_images(tmp_path / "glass.png", IMAGE)


def test_images_that_do_not_fit_the_input(tmp_path):
    Image.new("L", (20, 20)).save(tmp_path / "small.png")
    with pytest.raises(DataError, match=r"784 values.* 20 x 20"):
        load_images(tmp_path / "small.png", (784,))
    with pytest.raises(DataError, match="1 or 3"):
        load_images(tmp_path / "small.png", (20, 20, 5))
    with pytest.raises(DataError, match="1 or 3"):
        load_images(tmp_path / "small.png", (4, 20, 20, 1))


def digits_file(tmp_path, **changes):
    arrays = {
        "x_train": RNG.integers(0, 256, (6, 28, 28), dtype=np.uint8),
        "y_train": np.arange(6, dtype=np.uint8),
        "x_test": RNG.integers(0, 256, (3, 28, 28), dtype=np.uint8),
        "y_test": np.arange(3, dtype=np.uint8),
        **changes,
    }
    path = tmp_path / "digits.npz"
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    return path


def check_digits(digits):
    for images, labels in ((digits.x_train, digits.y_train), (digits.x_test, digits.y_test)):
        assert images.shape == (len(labels), *IMAGE)
        assert (images.dtype, labels.dtype) == (np.float32, np.int64)
        assert images.min() >= 0 and images.max() <= 1
        assert labels.min() >= 0 and labels.max() <= 9


def test_digits_from_a_file(tmp_path):
    path = digits_file(tmp_path)
    digits = load_digits(path)
    check_digits(digits)
    assert digits.source == str(path)
    assert len(digits.x_train) == 6
    check_digits(load_digits(digits_file(tmp_path, x_test=RNG.random((3, 28, 28, 1)))))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"y_test": None}, "x_train, y_train, x_test, y_test.* holds x_test, x_train, y_train"),
        ({"x_test": np.zeros((3, 32, 32), np.uint8)}, r"\[n, 28, 28\]"),
        ({"x_test": np.full((3, 28, 28), 255.0)}, "Divide it by its maximum"),
        ({"y_test": np.arange(4)}, "one for each image"),
        ({"y_test": np.eye(3)}, "One-hot"),
        ({"y_test": np.array([1, 2, 10])}, "0..9"),
        ({"y_test": np.array([1, 2, -1])}, "0..9"),
    ],
)
def test_digits_files_that_are_not_as_they_should_be(tmp_path, changes, text):
    with pytest.raises(DataError, match=text):
        load_digits(digits_file(tmp_path, **changes))


def test_digits_file_missing(tmp_path):
    with pytest.raises(DataError, match="no file"):
        load_digits(tmp_path / "no.npz")


def test_digits_from_the_cache_of_keras(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "KERAS_CACHE", digits_file(tmp_path))
    digits = load_digits()
    check_digits(digits)
    assert "Keras" in digits.source


def test_bundled_digits(tmp_path, monkeypatch):
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    monkeypatch.setattr(data, "KERAS_CACHE", tmp_path / "none.npz")
    digits = load_digits()
    check_digits(digits)
    assert "scikit-learn" in digits.source
    assert (len(digits.x_train), len(digits.x_test)) == (1437, 360)
    np.testing.assert_array_equal(digits.x_test, load_digits().x_test)


def test_no_digits_anywhere(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "KERAS_CACHE", tmp_path / "none.npz")
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(DataError, match=r"pip install shareflow\[demo\]"):
        load_digits()


@pytest.mark.skipif(not MNIST.exists(), reason="the full MNIST is not beside the repository (../shared/data)")
def test_full_mnist():
    digits = load_digits(MNIST)
    check_digits(digits)
    assert (len(digits.x_train), len(digits.x_test)) == (60_000, 10_000)
