"""The command: what it reads and writes, and that every mistake ends with a text and exit code 1."""

import csv
import io
import json
import os
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image
from typer.testing import CliRunner

from shareflow import demonstration, networks
from shareflow.cli import app
from shareflow.keras_layers import PolynomialReLU

SHAPE = (6, 6, 1)
CLASSES = 3


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(3)
    parts = [
        layers.Conv2D(4, 3),
        layers.BatchNormalization(),
        PolynomialReLU(2),
        layers.Flatten(),
        layers.Dense(CLASSES),
    ]
    return keras.Sequential([keras.Input(SHAPE), *parts])


@pytest.fixture(scope="module")
def model_file(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "digits.keras"
    model.save(path)
    return path


@pytest.fixture
def samples():
    return np.random.default_rng(0).random((5, *SHAPE)).astype(np.float32)


def run(*arguments):
    return CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1"}).invoke(app, [str(argument) for argument in arguments])


def predict(*arguments):
    result = run("predict", *arguments, "--no-report")
    assert result.exit_code == 0, result.output
    return " ".join(result.stdout.split())


def save_image(path, pixels):
    Image.fromarray((pixels[..., 0] * 255).round().astype(np.uint8)).save(path)


# --- predict ----------------------------------------------------------------------------------------------------


def test_an_array_is_predicted_as_keras_does(model, model_file, samples, tmp_path):
    np.save(tmp_path / "x.npy", samples)
    out = tmp_path / "scores.npy"
    text = predict(model_file, tmp_path / "x.npy", "--out", out, "--batch-size", 2)
    wanted = model(samples).numpy()
    np.testing.assert_allclose(np.load(out), wanted, atol=0.005)
    assert "5 private predictions" in text
    assert f"Scores are in {out}" in text
    for i, row in enumerate(wanted):
        assert re.search(rf"x\.npy\[{i}\] │ {row.argmax()} │", text)


def test_an_archive(model, model_file, samples, tmp_path):
    np.savez(tmp_path / "x.npz", x=samples, y=np.zeros(5))
    predict(model_file, tmp_path / "x.npz", "--out", tmp_path / "scores.npy")
    np.testing.assert_allclose(np.load(tmp_path / "scores.npy"), model(samples).numpy(), atol=0.005)


@pytest.mark.parametrize("suffix", ["png", "PNG", "jpg", "jpeg"])
def test_an_image(model_file, samples, tmp_path, suffix):
    save_image(tmp_path / f"scan.{suffix}", samples[0])
    text = predict(model_file, tmp_path / f"scan.{suffix}")
    assert f"scan.{suffix}" in text
    assert "1 private predictions" in text


def test_a_folder_in_the_order_of_its_names_and_scores_as_csv(model, model_file, samples, tmp_path):
    folder = tmp_path / "scans"
    folder.mkdir()
    names = ["b.png", "a, first.png", "c.png"]
    for name, pixels in zip(names, samples, strict=False):
        save_image(folder / name, pixels)
    (folder / "notes.txt").write_text("not an image")
    predict(model_file, folder, "--out", tmp_path / "scores.csv")
    header, *rows = csv.reader(io.StringIO((tmp_path / "scores.csv").read_text()))
    assert header == ["name", "score0", "score1", "score2"]
    assert [row[0] for row in rows] == sorted(names)
    pixels = np.round(samples[[1, 0, 2]] * 255).astype(np.float32) / 255
    np.testing.assert_allclose(np.array([row[1:] for row in rows], float), model(pixels).numpy(), atol=0.005)


def test_labels_name_the_classes(model, model_file, samples, tmp_path):
    np.save(tmp_path / "x.npy", samples)
    (tmp_path / "names.txt").write_text("zéro\n[red]one\ntwo\n", encoding="utf-8")
    text = predict(model_file, tmp_path / "x.npy", "--labels", tmp_path / "names.txt")
    for row in model(samples).numpy():
        assert f"│ {['zéro', '[red]one', 'two'][row.argmax()]} │" in text


def test_more_fractional_bits_are_more_exact(model, model_file, samples, tmp_path):
    np.save(tmp_path / "x.npy", samples)
    errors = []
    for bits in (8, 16):
        predict(model_file, tmp_path / "x.npy", "--fractional-bits", bits, "--out", tmp_path / "scores.npy")
        errors.append(np.abs(np.load(tmp_path / "scores.npy") - model(samples).numpy()).max())
    assert errors[1] < 0.005
    assert errors[1] < errors[0] / 10


def test_the_report_tells_each_layer(model_file, samples, tmp_path):
    np.save(tmp_path / "x.npy", samples)
    result = run("predict", model_file, tmp_path / "x.npy")
    assert result.exit_code == 0, result.output
    assert "One batch of 5" in result.stdout
    # Layers without a name of their own are numbered within the model.
    for name in ("input", "reveal", "total", "rounds", "conv2d", "dense"):
        assert name in result.stdout


def test_many_predictions_do_not_flood_the_terminal(model_file, tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((150, *SHAPE), np.float32))
    text = predict(model_file, tmp_path / "x.npy", "--batch-size", 150, "--out", tmp_path / "s.npy")
    assert "x.npy[99]" in text
    assert "x.npy[100]" not in text
    assert "first 100 of 150" in text
    assert len(np.load(tmp_path / "s.npy")) == 150


def test_predictions_that_are_no_scores(tmp_path, samples):
    model = keras.Sequential([keras.Input(SHAPE), layers.Conv2D(2, 3)])
    model.save(tmp_path / "m.keras")
    np.save(tmp_path / "x.npy", samples)
    text = predict(tmp_path / "m.keras", tmp_path / "x.npy", "--out", tmp_path / "y.npy")
    assert "(4, 4, 2)" in text
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), model(samples).numpy(), atol=0.005)
    predict(tmp_path / "m.keras", tmp_path / "x.npy", "--out", tmp_path / "y.csv")
    assert len((tmp_path / "y.csv").read_text().splitlines()[0].split(",")) == 1 + 4 * 4 * 2


# --- mistakes ---------------------------------------------------------------------------------------------------


def fails(*arguments):
    """The one text of a command that fails: on standard error, with exit code 1, without a traceback."""
    result = run(*arguments)
    assert result.exit_code == 1, result.output
    assert "Traceback" not in result.output
    assert result.stdout == ""
    return " ".join(result.stderr.split())


def test_a_missing_model(tmp_path):
    text = fails("predict", tmp_path / "none.keras", tmp_path)
    assert text.startswith("DataError: There is no model at")
    assert "model.save" in text


@pytest.mark.parametrize("name", ["bad.keras", "bad.h5", "bad.txt", "bad"])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a zip", b"hello"])
def test_a_file_that_is_no_model(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    text = fails("predict", tmp_path / name, tmp_path)
    assert text.startswith("DataError:")
    assert "no model that Keras can load" in text


def test_a_folder_that_is_no_model(tmp_path):
    assert "a folder without saved_model.pb" in fails("predict", tmp_path, tmp_path)


def test_a_model_that_cannot_be_private(tmp_path):
    model = keras.Sequential([keras.Input((), dtype="string"), layers.StringLookup(vocabulary=["a"])])
    model.save(tmp_path / "m.keras")
    text = fails("predict", tmp_path / "m.keras", tmp_path)
    assert text.startswith("UnsupportedModelError: An input has real or whole numbers")
    assert "Texts and look-ups stay outside" in text


def test_inputs_that_do_not_exist(model_file, tmp_path):
    assert "There is no file or folder" in fails("predict", model_file, tmp_path / "none.npy")


def test_an_empty_folder(model_file, tmp_path):
    assert "no files" in fails("predict", model_file, tmp_path)


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.png", "x.jpg"])
def test_a_file_of_something_else(model_file, tmp_path, name):
    (tmp_path / name).write_bytes(b"this is text")
    assert "cannot be read" in fails("predict", model_file, tmp_path / name)


def test_a_pickle_is_not_opened(model_file, tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    np.save(tmp_path / "x.npy", np.array([Trap()], object), allow_pickle=True)
    assert "pickle" in fails("predict", model_file, tmp_path / "x.npy")
    assert not (tmp_path / "sprung").exists()


def test_samples_of_another_shape(model_file, tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((2, 7, 6, 1), np.float32))
    text = fails("predict", model_file, tmp_path / "x.npy")
    assert "(6, 6, 1)" in text
    assert "(2, 7, 6, 1)" in text


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_not_finite(model_file, tmp_path, value):
    np.save(tmp_path / "x.npy", np.full((2, *SHAPE), value, np.float32))
    assert "finite" in fails("predict", model_file, tmp_path / "x.npy")


def test_samples_beyond_the_encoding(model_file, tmp_path):
    np.save(tmp_path / "x.npy", np.full((1, *SHAPE), 2.0**40, np.float32))
    text = fails("predict", model_file, tmp_path / "x.npy")
    assert text.startswith("EncodingError:")
    assert "109951" not in text


@pytest.mark.parametrize("name", ["scores.txt", "scores", "scores.h5"])
def test_another_form_of_output(model_file, tmp_path, name):
    assert "--out writes .npy or .csv" in fails("predict", model_file, tmp_path, "--out", tmp_path / name)


@pytest.mark.parametrize("name", ["no/such/folder/scores.npy", "taken.csv"])
def test_an_output_that_cannot_be_written(model_file, tmp_path, name):
    (tmp_path / "taken.csv").mkdir()
    assert "a folder that exists" in fails("predict", model_file, tmp_path, "--out", tmp_path / name)


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "No such file"), (b"\xff\xfe\x00", "decode"), (b"one\ntwo\n", "3 classes"), (b"", "3 classes")],
)
def test_labels_that_do_not_fit(model_file, samples, tmp_path, content, words):
    np.save(tmp_path / "x.npy", samples)
    if content is not None:
        (tmp_path / "names.txt").write_bytes(content)
    text = fails("predict", model_file, tmp_path / "x.npy", "--labels", tmp_path / "names.txt")
    assert "--labels" in text
    assert words in text


@pytest.mark.parametrize(
    "arguments",
    [
        ["predict"],
        ["predict", "model.keras"],
        ["predict", "m", "x", "--batch-size", "0"],
        ["predict", "m", "x", "--fractional-bits", "30"],
        ["predict", "m", "x", "--nonsense"],
        ["demo", "--images", "3"],
        ["train"],
    ],
)
def test_a_command_line_that_is_wrong(arguments):
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Traceback" not in result.output
    assert "Usage" in result.output


def test_an_error_that_is_not_ours_is_not_hidden(monkeypatch, model_file, samples, tmp_path):
    def fail(*arguments, **options):
        raise ZeroDivisionError("a defect")

    np.save(tmp_path / "x.npy", samples)
    monkeypatch.setattr("shareflow.private_model", fail)
    assert isinstance(run("predict", model_file, tmp_path / "x.npy").exception, ZeroDivisionError)


# --- help and demo ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["--help"], ["predict", "--help"], ["demo", "--help"]])
def test_help_has_examples(arguments):
    result = run(*arguments)
    assert result.exit_code == 0
    assert "Example" in result.stdout
    assert re.search(r"shareflow (predict|demo)", result.stdout)


def test_without_arguments_there_is_help():
    assert "predict" in run().output
    assert "demo" in run().output


@pytest.fixture
def digits(tmp_path):
    """A few images of bars whose height is the class, as Keras stores MNIST."""
    rng = np.random.default_rng(0)

    def draw(count):
        labels = rng.integers(0, 10, count)
        images = rng.integers(0, 60, (count, 28, 28)).astype(np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[2 * label : 2 * label + 6, 4:24] = 250
        return images, labels

    (x, y), (x_test, y_test) = draw(200), draw(12)
    np.savez(tmp_path / "digits.npz", x_train=x, y_train=y, x_test=x_test, y_test=y_test)
    return tmp_path / "digits.npz"


@pytest.mark.parametrize("images", [8, 500])
def test_the_demo(monkeypatch, digits, tmp_path, images):
    monkeypatch.setattr(networks, "network_b", networks.network_a)
    monkeypatch.setattr(demonstration, "_RUNS", 2)
    result = run("demo", "--data", digits, "--images", images, "--picture", tmp_path / "seen.png")
    assert result.exit_code == 0, result.output
    text = " ".join(result.stdout.split())
    assert re.search(rf"images predicted privately │ {min(images, 12)} │", text)
    assert "private and plain say the same digit │ 100.00%" in text
    assert "Proved from the graph" in text and "the dealer is sent none" in text
    assert re.search(r"client │ 160 B │ .* │ its own result", text)
    with Image.open(tmp_path / "seen.png") as picture:
        assert picture.format == "PNG"


def test_the_demo_of_few_images(monkeypatch, digits, tmp_path):
    with np.load(digits) as archive:
        few = {key: value[:5] if "test" in key else value for key, value in archive.items()}
    np.savez(digits, **few)
    monkeypatch.setattr(networks, "network_b", networks.network_a)
    monkeypatch.setattr(demonstration, "_RUNS", 1)
    result = run("demo", "--data", digits, "--picture", tmp_path / "seen.png")
    assert result.exit_code == 0, result.output


def test_the_demo_refuses_what_it_cannot_use(digits, tmp_path):
    assert "x_train" in fails("demo", "--data", save_nothing(tmp_path))
    assert "There is no file" in fails("demo", "--data", tmp_path / "none.npz")
    assert "--picture writes .png" in fails("demo", "--data", digits, "--picture", tmp_path / "seen.gif")
    assert "a folder that exists" in fails("demo", "--data", digits, "--picture", tmp_path / "no" / "seen.png")


def save_nothing(folder):
    np.savez(folder / "nothing.npz", x=np.zeros(3))
    return folder / "nothing.npz"


@pytest.mark.slow
def test_the_demo_of_the_network_it_shows(tmp_path):
    pytest.importorskip("sklearn")
    result = run("demo", "--images", 100, "--picture", tmp_path / "seen.png")
    assert result.exit_code == 0, result.output
    agreement = re.search(r"same digit\s*│\s*([\d.]+)%", result.stdout)
    assert float(agreement[1]) >= 99


# --- as a process -------------------------------------------------------------------------------------------------


def process(*arguments):
    environment = {**os.environ, "COLUMNS": "200"}
    command = [sys.executable, "-m", "shareflow_command", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def test_as_a_process(model, model_file, samples, tmp_path):
    np.save(tmp_path / "x.npy", samples)
    done = process("predict", model_file, tmp_path / "x.npy", "--out", tmp_path / "scores.npy")
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.load(tmp_path / "scores.npy"), model(samples).numpy(), atol=0.005)
    assert "One batch of 5" in done.stdout

    failed = process("predict", model_file, tmp_path / "none.npy")
    assert failed.returncode == 1
    assert "DataError: There is no file or folder" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert failed.stdout == ""


def test_a_process_says_nothing_that_is_not_its_own(model_file, monkeypatch, tmp_path):
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    assert process("predict", "--help").stderr == ""


def test_audit_proves_a_model_and_gives_it_to_scripts(model_file):
    shown = run("audit", model_file)
    assert shown.exit_code == 0, shown.output
    assert "Proved from the graph" in shown.output and "server0" in shown.output
    given = run("audit", model_file, "--json")
    views = {view["party"]: view for view in json.loads(given.stdout)["views"]}
    assert views["server0"]["removed"] and not views["server0"]["learned"] and views["client"]["learned"]


def test_audit_predicts_times_over_a_network(model_file):
    network = ("--rtt", "0.04", "--bandwidth", "1e8", "--computing", "0.5")
    assert "Predicted times" in run("audit", model_file, *network).output
    report = json.loads(run("audit", model_file, "--json", *network).output)
    (times,) = report["predicted"].values()
    assert times["latency"] > 0 and times["computing"] == 0.5
    assert times["seconds"] == pytest.approx(times["latency"] + times["transfer"] + 0.5)
    assert "predicted" not in json.loads(run("audit", model_file, "--json").output)


def test_a_network_without_a_bandwidth_is_refused(model_file):
    refused = run("audit", model_file, "--rtt", "0.04")
    assert refused.exit_code == 2


def test_audit_of_no_model_is_an_error(tmp_path):
    failed = run("audit", tmp_path / "none.keras")
    assert failed.exit_code == 2
    assert "There is no model" in failed.output
