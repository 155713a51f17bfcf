"""`--network` of compile and predict: variants, predictions and measurements are printed; results stay."""

import re

import keras
import numpy as np
import pytest
from typer.testing import CliRunner

import shareflow as sf
from shareflow.cli import app
from shareflow.runtime.plan import Plan


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "small.keras"
    keras.utils.set_random_seed(4)
    keras.Sequential([keras.Input((6,)), keras.layers.Dense(20, activation="relu"), keras.layers.Dense(3)]).save(path)
    return path


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


def test_compile_for_a_network(model_file, tmp_path):
    plans = {}
    for network in (None, "wan"):
        out = tmp_path / f"{network}.plan"
        option = ("--network", network) if network else ()
        done = run("compile", model_file, "--out", out, "--batch", 1, *option)
        assert done.exit_code == 0, done.output
        assert ("chosen for" in done.output) is bool(network)
        plans[network] = Plan.read(out)
        if network == "wan":
            assert "not looked at: without a calibration nobody knows" in " ".join(done.output.split())
            assert re.search(r"compare 46 bits of 20: groups of 6, gates 8", done.output)
            assert re.search(r"predict@1 .* \d+ of \d+", done.output) and "shareflow calibrate" in done.output
    assert "choices" not in plans[None].manifest.protocol.settings
    assert "choices" in plans["wan"].manifest.protocol.settings
    assert plans["wan"].fingerprint != plans[None].fingerprint
    with sf.insecure_session(seed=1):
        again = sf.compile_model(
            keras.saving.load_model(model_file), owner="model-owner", client="client", batch_sizes=(1,), network="wan"
        )
    assert again.fingerprint == plans["wan"].fingerprint


def test_predict_prints_prediction_and_measurement(model_file, tmp_path):
    x = np.random.default_rng(0).random((2, 6), np.float32)
    np.save(tmp_path / "x.npy", x)
    out = tmp_path / "scores.npy"
    done = run("predict", model_file, tmp_path / "x.npy", "--network", "wan", "--no-report", "--out", out)
    assert done.exit_code == 0, done.output
    for line in (r"^network +wan", r"^chosen +compare", r"^predicted +[\d.]+ ms", r"^measured +[\d.]+ ms"):
        assert re.search(line, done.output, re.MULTILINE), line
    expected = keras.saving.load_model(model_file)(x)
    np.testing.assert_allclose(np.load(out), expected, atol=1e-3)


@pytest.mark.parametrize("command", ["compile", "predict"])
def test_no_such_network(command, model_file, tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((1, 6), np.float32))
    rest = ("--out", tmp_path / "a.plan") if command == "compile" else (tmp_path / "x.npy",)
    done = run(command, model_file, *rest, "--network", "moon")
    assert done.exit_code == 1 and "A network is one of here, loopback, lan, wan" in " ".join(done.output.split())
    assert not (tmp_path / "a.plan").exists()


def test_servers_elsewhere_have_their_plan(tmp_path):
    done = run("predict", "x.npy", "--config", tmp_path / "client.toml", "--network", "wan")
    assert done.exit_code == 2 and "--network is for predictions in this process" in " ".join(
        done.output.replace("│", " ").split()
    )
