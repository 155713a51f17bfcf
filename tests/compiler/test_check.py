"""Floating point, fixed point and private side by side, in Python and as a command."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from PIL import Image
from typer.testing import CliRunner

import shareflow as sf
from shareflow.cli import app
from shareflow.compiler.calibration import Calibration, calibrate
from shareflow.compiler.check import PLAIN, PRIVATE, Error, check
from shareflow.compiler.front.source import Argument
from shareflow.compiler.model import Model, source_of
from shareflow.errors import EncodingError

SHAPE = (6, 6, 1)
# Weights with which the second convolution reaches about 2^35: far beyond the 2^30 that 16 bits leave.
HUGE = (2.0**30, 2.0**6)


def network(scale=1.0, first=1.0, final="softmax"):
    """A small network; ``scale`` multiplies the second convolution's weights, ``first`` those of the first."""
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input(SHAPE),
            layers.Conv2D(4, 3, activation="relu", name="one"),
            layers.Conv2D(4, 3, activation="relu", name="two"),
            layers.Flatten(name="flat"),
            layers.Dense(3, name="scores", activation=final),
        ]
    )
    for name, factor in (("one", first), ("two", scale)):
        kernel, bias = model.get_layer(name).get_weights()
        model.get_layer(name).set_weights([kernel * factor, bias])
    return model


@pytest.fixture
def samples():
    return np.random.default_rng(0).random((5, *SHAPE)).astype(np.float32)


@pytest.fixture
def files(tmp_path, samples):
    """Paths of a model that is fine, of one that overflows at 16 bits, and of samples."""
    network().save(tmp_path / "fine.keras")
    network(*HUGE).save(tmp_path / "huge.keras")
    np.savez(tmp_path / "samples.npz", x=samples)
    return tmp_path


def run(*arguments):
    return CliRunner(env={"COLUMNS": "160", "NO_COLOR": "1"}).invoke(app, ["check", *map(str, arguments)])


def checked(model, samples, bits=None, private=True, **options):
    began = model if isinstance(model, Model) else Model(source_of(model), "owner", "client", sf.FixedPoint())
    calibration = calibrate(began, samples, 2, fractional_bits=bits)
    protocol = sf.SPDZ(fixed_point=calibration.point) if private else None
    return check(began.at(calibration.point), samples, calibration, private=protocol, batch=2, **options)


# --- in Python ------------------------------------------------------------------------------------------------


def test_errors_add_up():
    error = Error()
    error.add(np.array([1.0, 2.0]), np.array([1.0, 2.5]))
    error.add(np.array([True]), np.array([0.0]))
    error.add(np.zeros((0, 3)), np.zeros((0, 3)))
    assert (error.largest, error.mean, error.count) == (1.0, 0.5, 3)


def test_a_model_that_is_right(samples):
    found = checked(network(), samples)
    assert found.passed
    assert found.drift is None
    assert found.compared == (PLAIN, PRIVATE)
    (result,) = found.results
    assert result.agreeing == {PLAIN: 5, PRIVATE: 5}
    assert [layer.name for layer in found.layers][-1] == "scores"
    assert {"one", "two", "flat"} <= {layer.name for layer in found.layers}
    for layer in found.layers:
        assert 0 < layer.used_bits < 60
        assert not layer.overflows
        for which in found.compared:
            # Fixed point rounds, and little.
            assert 0 < layer.errors[which].mean <= layer.errors[which].largest < 1e-3


def test_errors_are_those_of_the_results(samples):
    model = network(final=None)
    found = checked(model, samples, bits=10)
    (result,) = found.results
    private = sf.private_model(model, owner="owner", protocol=sf.Plain(fixed_point=sf.FixedPoint(10)))
    got = private.predict(samples, receiver="client", batch_size=2)
    assert result.errors[PLAIN].largest == pytest.approx(np.abs(got - model(samples).numpy()).max(), rel=1e-3)


def test_fewer_bits_give_larger_errors(samples):
    few, many = (checked(network(), samples, bits, private=False).worst[PLAIN] for bits in (8, 16))
    assert few > 16 * many


def test_a_planted_overflow_is_where_drift_begins(samples):
    found = checked(network(*HUGE), samples, bits=16)
    assert not found.passed
    which, layer = found.drift
    assert (which, layer.name) == (PLAIN, "two")
    assert layer.overflows
    assert layer.used_bits > 60
    assert layer.own[PLAIN] > 10 * layer.before[PLAIN]
    before = next(one for one in found.layers if one.name == "one")
    assert not before.overflows
    assert before.errors[PLAIN].largest < 1e-3


def test_an_overflow_within_the_margin_fails_though_the_samples_came_out_right():
    model = keras.Sequential([keras.Input((2,)), layers.Dense(2, name="alone")])
    model.set_weights([np.array([[2.0**28, 0.0], [0.0, 2.0**28]]), np.zeros(2)])
    found = checked(model, np.array([[1.5, 0.5]] * 2, np.float32), bits=16, private=False)
    assert found.worst[PLAIN] < 1e-3
    assert found.drift is None
    assert [layer.name for layer in found.overflowing] == ["alone"]
    assert not found.passed


def test_chosen_bits_mend_it(samples):
    model = network(*HUGE)
    found = checked(model, samples)
    assert found.calibration.fractional_bits < 16
    assert found.passed
    assert not any(layer.overflows for layer in found.layers)


def test_a_planted_loss_of_small_weights_is_found(samples):
    # Weights below one unit of fixed point become 0, and the next layer would make what they give large again.
    model = network(2.0**-20)
    kernel, bias = model.get_layer("scores").get_weights()
    model.get_layer("scores").set_weights([kernel * 2.0**20, bias])
    found = checked(model, samples, bits=16, private=False)
    assert not found.passed
    assert found.drift[1].name == "two"
    assert not found.overflowing


def test_tolerance_decides(samples):
    found = checked(network(), samples, bits=8, private=False, tolerance=1e-6)
    assert found.disagreements == {PLAIN: 0}
    assert found.worst[PLAIN] > 1e-6
    assert not found.passed


def test_one_other_class_fails_whatever_the_tolerance():
    # Two scores that differ by less than fixed point shows.
    model = keras.Sequential([keras.Input((2,)), layers.Dense(2)])
    model.set_weights([np.array([[1.0, 1.0 + 2.0**-13], [0.0, 0.0]]), np.zeros(2)])
    found = checked(model, np.array([[0.5, 0.5], [0.25, 0.0]], np.float32), bits=8, private=False, tolerance=1.0)
    assert found.worst[PLAIN] < 1
    assert found.disagreements == {PLAIN: 2}
    assert not found.passed


def test_the_last_batch_counts_its_own_samples_alone(samples):
    assert checked(network(), samples[:3], private=False).results[0].agreeing == {PLAIN: 3}


def test_several_inputs_and_results():
    a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b")
    both = layers.Concatenate()([a, b])
    model = keras.Model([a, b], [layers.Dense(2)(both), layers.Dense(1)(both)])
    rng = np.random.default_rng(0)
    found = checked(model, {"a": rng.random((4, 3)), "b": rng.random((4, 3))}, private=False)
    assert found.passed
    assert len(found.results) == 2
    # One score is no class.
    assert sorted(len(result.agreeing) for result in found.results) == [0, 1]


def test_inputs_of_two_parties_meet_in_the_protocol():
    def product(x, y):
        return x * y + 1

    arguments = {"x": Argument((3,), "float32"), "y": Argument((3,), "float32")}
    model = Model(source_of(product, arguments), "owner", "client", sf.FixedPoint(), {"y": "bank"})
    rng = np.random.default_rng(0)
    found = checked(model, {name: rng.random((4, 3)) for name in arguments}, bits=12)
    assert found.passed
    assert found.results[0].errors[PRIVATE].largest > 0


def test_whole_numbers_are_compared_as_they_are(samples):
    scores = network(final=None)

    def classes(x):
        return tf.argmax(scores(x, training=False), -1)

    model = Model(source_of(classes, {"x": Argument(SHAPE, "float32")}), "owner", "client", sf.FixedPoint())
    found = checked(model, samples)
    assert found.results[0].agreeing == {PLAIN: 5, PRIVATE: 5}
    assert found.passed


def test_a_weight_that_cannot_be_encoded_ends_it(samples):
    with pytest.raises(EncodingError, match="Parameter 'two/kernel'"):
        checked(network(2.0**50), samples, bits=16)


def test_a_mean_in_the_weights_after_it_leaves_them_their_bits():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((7, 7, 4)),
            layers.Conv2D(64, 1, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(5, name="scores"),
        ]
    )
    samples = np.random.default_rng(0).normal(size=(4, 7, 7, 4)).astype(np.float32)
    private = Model(source_of(model), "owner", "client", sf.FixedPoint())
    kernel, given = private.parameters(2)["scores/kernel"], model.get_layer("scores").kernel.numpy()
    # Divided by all 49 they would have five bits less, and the scores an error of twenty units.
    assert np.allclose(kernel, given * 16 / 49, rtol=1e-4)
    assert checked(model, samples, private=False).results[0].errors[PLAIN].largest < 6 * 2.0**-16


# --- the command ----------------------------------------------------------------------------------------------


def test_the_command_passes(files):
    result = run(files / "fine.keras", files / "samples.npz")
    assert result.exit_code == 0, result.output
    for part in ("5 samples, 16 fractional bits", "fixed point", "private", "5 of 5", "Optimistic", "Passed"):
        assert part in result.stdout


def test_the_command_fails_and_points(files):
    result = run(files / "huge.keras", files / "samples.npz", "--bits", 16, "--no-private")
    assert result.exit_code == 1
    text = " ".join(result.stdout.split())
    assert "Drift begins in layer 'two'" in text
    assert "it overflows" in text
    assert "Failed" in text


def test_the_command_says_that_more_bits_round_less(files):
    result = run(files / "fine.keras", files / "samples.npz", "--bits", 8, "--no-private", "--tolerance", 1e-6)
    assert result.exit_code == 1
    assert "Try --bits 24" in result.stdout


def test_the_command_chooses_bits(files):
    assert run(files / "huge.keras", files / "samples.npz", "--no-private").exit_code == 0


def test_the_command_narrows_a_layer_alone(files):
    result = run(files / "huge.keras", files / "samples.npz", "--no-private", "--per-layer", "--json")
    found = json.loads(result.stdout)
    assert found["fractional_bits"] == 16
    assert "two/kernel" in found["parameter_bits"]


def test_json(files):
    result = run(files / "fine.keras", files / "samples.npz", "--json", "--count", 3)
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert found["passed"] is True
    assert found["drift"] is None
    assert found["samples"] == 3
    assert found["results"][0]["agreeing"] == {"plain": 3, "private": 3}
    assert {"name", "op", "size", "used_bits", "overflows", "errors"} == set(found["layers"][0])
    assert set(found["layers"][0]["errors"]["private"]) == {"max", "mean"}


def test_json_of_a_failure_names_the_layer(files):
    result = run(files / "huge.keras", files / "samples.npz", "--bits", 16, "--no-private", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["drift"] == {"in": "plain", "layer": "two", "op": "Relu"}


def test_trusted_ranges(files):
    assert run(files / "fine.keras", files / "samples.npz", "--trust-ranges", 2, "--count", 2).exit_code == 0


def test_images_are_read(files):
    folder = files / "images"
    folder.mkdir()
    for i in range(3):
        Image.fromarray(np.full(SHAPE[:2], 80 * i, np.uint8)).save(folder / f"{i}.png")
    result = run(files / "fine.keras", folder, "--no-private")
    assert result.exit_code == 0, result.output
    assert "3 samples" in result.stdout


def test_several_inputs_come_from_an_npz(tmp_path):
    a, b = keras.Input((3,), name="a"), keras.Input((2,), dtype="int32", name="b")
    model = keras.Model([a, b], layers.Concatenate()([a, layers.Flatten()(layers.Embedding(5, 2)(b))]))
    model.save(tmp_path / "two.keras")
    np.savez(tmp_path / "samples.npz", a=np.ones((4, 3), np.float32), b=np.array([[0, 1], [2, 3], [4, 0], [1, 1]]))
    result = run(tmp_path / "two.keras", tmp_path / "samples.npz", "--no-private")
    assert result.exit_code == 0, result.output
    np.savez(tmp_path / "samples.npz", a=np.ones((4, 3), np.float32))
    result = run(tmp_path / "two.keras", tmp_path / "samples.npz")
    assert result.exit_code == 1
    assert "a, b" in result.stderr


def test_ranges_are_saved_and_compiled_with(files):
    ranges, plan = files / "ranges.json", files / "fine.plan"
    assert run(files / "fine.keras", files / "samples.npz", "--no-private", "--save", ranges).exit_code == 0
    assert Calibration.load(ranges).samples == 5
    arguments = ["compile", files / "fine.keras", "--out", plan, "--batch", 1, "--calibration", ranges]
    result = CliRunner().invoke(app, [*map(str, arguments)])
    assert result.exit_code == 0, result.output
    assert plan.exists()


def test_compile_refuses_what_overflows(files):
    ranges = files / "ranges.json"
    run(files / "huge.keras", files / "samples.npz", "--no-private", "--bits", 16, "--save", ranges)
    arguments = ["compile", files / "huge.keras", "--out", files / "huge.plan", "--calibration", ranges]
    result = CliRunner().invoke(app, [*map(str, arguments)])
    assert result.exit_code == 1
    assert "layer 'two'" in result.stderr
    assert not (files / "huge.plan").exists()


MISTAKES = [
    ("nan.npz", np.full((2, *SHAPE), np.nan, np.float32), "NaN"),
    ("shape.npz", np.zeros((2, 5, 5, 1), np.float32), "shape"),
    ("empty.npz", np.zeros((0, *SHAPE), np.float32), "least one"),
    ("text.npz", np.full((2, *SHAPE), "a"), "uint8"),
]


@pytest.mark.parametrize(("name", "array", "text"), MISTAKES, ids=[name for name, _, _ in MISTAKES])
def test_samples_that_are_refused(files, name, array, text):
    np.savez(files / name, x=array)
    result = run(files / "fine.keras", files / name)
    assert result.exit_code == 1
    assert text in result.stderr
    assert not result.stdout


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["missing.keras", "samples.npz"], "There is no model"),
        (["fine.keras", "missing.npz"], "There is no file"),
        (["samples.npz", "samples.npz"], "no model that Keras can load"),
        (["fine.keras", "samples.npz", "--save", "ranges.txt"], "writes .json"),
    ],
)
def test_files_that_are_refused(files, monkeypatch, arguments, text):
    monkeypatch.chdir(files)
    result = run(*arguments)
    assert result.exit_code == 1
    assert text in result.stderr


@pytest.mark.parametrize(
    "options",
    [("--bits", 7), ("--bits", 25), ("--count", 0), ("--batch-size", 0), ("--trust-ranges", 0.5), ("--tolerance", -1)],
)
def test_options_out_of_range(files, options):
    assert run(files / "fine.keras", files / "samples.npz", *options).exit_code == 2


def test_bits_and_a_search_exclude_each_other(files):
    result = run(files / "fine.keras", files / "samples.npz", "--bits", 12, "--per-layer")
    assert result.exit_code == 2
    assert "--per-layer" in result.stderr
