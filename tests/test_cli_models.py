"""The command on models of all kinds: ONNX files, SavedModels, several inputs and results."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from tests.test_cli import run

onnx = pytest.importorskip("onnx")

from tests.compiler.front.onnx_models import model, node, reference  # noqa: E402

from shareflow_client.plan_file import read_plan_file  # noqa: E402

BOUND = 2e-3
ROWS = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)


def made(*arguments):
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return " ".join(result.stdout.split())


def fails(*arguments, code=1):
    result = run(*arguments)
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return " ".join(result.output.split())


def scores(path, given, folder, *options):
    np.save(folder / "x.npy", given)
    made("predict", path, folder / "x.npy", "--out", folder / "y.npy", "--no-report", *options)
    return np.load(folder / "y.npy")


def an_onnx(folder, batch="N"):
    kernel = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)
    built = model([node("MatMul", ["x", "w"], name="/fc/MatMul")], {"x": ROWS[:1]}, {"w": kernel}, batch=batch)
    onnx.save(built, str(folder / "net.onnx"))
    return built


def test_an_onnx_file_is_predicted(tmp_path):
    (wanted,) = reference(an_onnx(tmp_path), {"x": ROWS})
    np.testing.assert_allclose(scores(tmp_path / "net.onnx", ROWS, tmp_path), wanted, atol=BOUND)


def test_an_export_for_one_sample_takes_them_one_after_the_other(tmp_path):
    built = an_onnx(tmp_path, batch=None)
    wanted = np.concatenate([reference(built, {"x": row[np.newaxis]})[0] for row in ROWS])
    np.testing.assert_allclose(scores(tmp_path / "net.onnx", ROWS, tmp_path), wanted, atol=BOUND)


def test_labels_are_as_many_as_the_results_classes(tmp_path):
    an_onnx(tmp_path)
    np.save(tmp_path / "x.npy", ROWS)
    (tmp_path / "names.txt").write_text("one\ntwo\n")
    text = fails("predict", tmp_path / "net.onnx", tmp_path / "x.npy", "--labels", tmp_path / "names.txt")
    assert "the model's 3 classes" in text
    (tmp_path / "names.txt").write_text("ash\nbeech\ncedar\n")
    options = ("--labels", tmp_path / "names.txt", "--no-report")
    shown = made("predict", tmp_path / "net.onnx", tmp_path / "x.npy", *options)
    assert any(name in shown for name in ("ash", "beech", "cedar"))


def test_an_onnx_file_is_compiled_and_audited(tmp_path):
    an_onnx(tmp_path)
    made("compile", tmp_path / "net.onnx", "--out", tmp_path / "net.plan")
    manifest = read_plan_file(tmp_path / "net.plan").manifest
    assert manifest["entries"]["predict"]["variants"] == ["predict@1", "predict@8", "predict@32"]
    assert "fc/MatMul/kernel" in manifest["states"]
    assert run("audit", tmp_path / "net.onnx").exit_code == 0


def test_a_damaged_onnx_file(tmp_path):
    (tmp_path / "bad.onnx").write_bytes(b"hello")
    assert "DataError: " in fails("predict", tmp_path / "bad.onnx", tmp_path)
    assert "no valid ONNX model" in fails("compile", tmp_path / "bad.onnx", "--out", tmp_path / "m.plan")


def test_an_op_that_cannot_be_private_is_named(tmp_path):
    built = model([node("Det", ["x"], name="it")], {"x": np.eye(2, dtype=np.float32)})
    onnx.save(built, str(tmp_path / "net.onnx"))
    text = fails("compile", tmp_path / "net.onnx", "--out", tmp_path / "m.plan")
    assert "UnsupportedModelError: ONNX op Det (opset 17) at node 'it'" in text


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A SavedModel with two signatures."""
    path = tmp_path_factory.mktemp("saved") / "net"
    module = tf.Module()
    module.kernel = tf.Variable(np.random.default_rng(2).normal(size=(4, 2)).astype(np.float32))
    rows = tf.TensorSpec([None, 4], name="rows")
    module.one = tf.function(lambda rows: {"y": rows @ module.kernel}, input_signature=[rows])
    module.two = tf.function(lambda rows: {"y": tf.nn.relu(rows)}, input_signature=[rows])
    tf.saved_model.save(module, str(path), signatures={"one": module.one, "two": module.two})
    return path, module


def test_a_signature_of_a_saved_model(folder, tmp_path):
    path, module = folder
    found = scores(path, ROWS, tmp_path, "--signature", "one")
    np.testing.assert_allclose(found, module.one(ROWS)["y"].numpy(), atol=BOUND)
    assert "several functions: one, two" in fails("predict", path, tmp_path / "x.npy")
    made("compile", path, "--signature", "one", "--out", tmp_path / "m.plan", "--batch", 1)
    assert run("audit", path, "--signature", "one").exit_code == 0
    assert "no signature 'three'" in fails("audit", path, "--signature", "three", code=2)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two inputs, two results."""
    path = tmp_path_factory.mktemp("pair") / "pair.keras"
    age, dose = keras.Input((4,), name="age"), keras.Input((2,), name="dose")
    joined = layers.Concatenate()([age, dose])
    outputs = {"risk": layers.Dense(1)(joined), "group": layers.Dense(3)(joined)}
    network = keras.Model({"age": age, "dose": dose}, outputs)
    network.save(path)
    return path, network


def test_several_inputs_and_results_by_name(pair, tmp_path):
    path, network = pair
    given = {"age": ROWS, "dose": ROWS[:, :2]}
    np.savez(tmp_path / "x.npz", **given)
    shown = made("predict", path, tmp_path / "x.npz", "--out", tmp_path / "y.npz", "--no-report")
    assert "group:" in shown
    with np.load(tmp_path / "y.npz") as found:
        for name, wanted in network(given).items():
            np.testing.assert_allclose(found[name], wanted.numpy(), atol=BOUND)
    assert "are for one result" in fails(
        "predict", path, tmp_path / "x.npz", "--out", tmp_path / "y.csv", "--no-report"
    )
    (tmp_path / "names.txt").write_text("one\n")
    text = fails("predict", path, tmp_path / "x.npz", "--labels", tmp_path / "names.txt")
    assert "the model has group, risk" in text


def test_inputs_are_named_as_the_models(pair, tmp_path):
    path, _ = pair
    np.savez(tmp_path / "x.npz", age=ROWS, weight=ROWS)
    text = fails("predict", path, tmp_path / "x.npz")
    assert "The model's inputs are age, dose" in text
    assert "numpy.savez" in text
    np.save(tmp_path / "x.npy", ROWS)
    assert "inputs are age, dose" in fails("predict", path, tmp_path / "x.npy")
    (tmp_path / "scans").mkdir()
    assert "an array for each: age, dose" in fails("predict", path, tmp_path / "scans")


def test_inputs_of_several_parties(pair, tmp_path):
    path, _ = pair
    options = ("--out", tmp_path / "m.plan", "--batch", 1)
    text = made("compile", path, *options, "--party", "dose=pharmacy", "--client", "clinic")
    assert "clinic, model_owner, pharmacy" in text
    for wrong in ("dose", "weight=pharmacy", "dose="):
        assert "NAME=PARTY" in fails("compile", path, *options, "--party", wrong, code=2)
