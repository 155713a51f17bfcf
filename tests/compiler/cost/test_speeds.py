"""Speeds of a machine: fitted to measurements, kept in the cache, and refused where the file is none."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from shareflow.cli import app
from shareflow.compiler.cost import speeds as module
from shareflow.compiler.cost.calibrate import Sample, deviations, fitted, not_negative_least_squares, samples
from shareflow.compiler.cost.speeds import Speeds, calibrated_path, current_speeds, is_shipped, shipped_speeds
from shareflow.compiler.cost.work import KINDS
from shareflow.errors import DataError

MADE_UP = Speeds((1e-6, 2e-9, 0.0, 3e-9, 1e-10, 5e-10), 1e-4, 2e-4, 3e-4, "a machine", "here")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def made_up_samples(rng, count=30, noise=0.0):
    found = []
    for number in range(count):
        work = tuple(10.0 ** rng.uniform(1, 6, len(KINDS)) for _ in range(2))
        times = tuple((MADE_UP.of(w) + MADE_UP.start) * (1 + noise * rng.normal()) for w in work)
        found.append(Sample(str(number), times, work))
    return found


def test_a_fit_finds_the_speeds_that_made_the_times(rng):
    found = fitted(made_up_samples(rng))
    np.testing.assert_allclose(found.seconds, MADE_UP.seconds, rtol=1e-5, atol=1e-15)
    assert found.start == pytest.approx(MADE_UP.start, rel=1e-5)


def test_noise_makes_no_time_negative(rng):
    measured = made_up_samples(rng, noise=0.2)
    found = fitted(measured)
    assert min(*found.seconds, found.start) >= 0
    for _, seconds, fit in deviations(found, measured):
        assert fit == pytest.approx(seconds, rel=1.5)


def test_too_few_measurements(rng):
    with pytest.raises(DataError, match="more than 4 measurements"):
        fitted(made_up_samples(rng, 2))


@pytest.mark.parametrize("seed", range(20))
def test_least_squares_are_the_least(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(12, 5)), rng.normal(size=12)
    x = not_negative_least_squares(a, b)
    gradient = a.T @ (b - a @ x)
    # Karush, Kuhn and Tucker: no entry can do better, up or down.
    assert x.min() >= 0 and gradient.max() < 1e-8 and np.abs(gradient[x > 0]).max(initial=0) < 1e-8


@pytest.mark.slow
def test_small_programs_are_measured_and_counted():
    measured = list(samples(1, sizes=(64,)))
    assert len(measured) > 10
    for sample in measured:
        assert min(sample.seconds) > 0 and all(work.shape == (len(KINDS),) for work in sample.work)
    products = next(sample for sample in measured if sample.name == "matrix product 32 x 512 x 128")
    one = 32 * 512 * 128
    assert products.work[0][KINDS.index("products")] == one and products.work[1][KINDS.index("products")] == 4 * one
    convolution = next(sample for sample in measured if sample.name == "convolution 14 x 14 x 8")
    assert convolution.work[0][KINDS.index("products")] == 12 * 12 * 16 * 9 * 8
    assert any(sample.work[1][KINDS.index("gates")] for sample in measured)


def test_a_table_is_written_and_read(tmp_path):
    path = tmp_path / "a" / "speeds.json"
    MADE_UP.write(path)
    back = Speeds.read(path)
    assert (*_parts(back), back.machine) == (*_parts(MADE_UP), "a machine")
    assert back.source == str(path)


def _parts(speeds):
    return speeds.seconds, speeds.start, speeds.message, speeds.request


def test_the_cache_goes_before_what_came_along():
    assert is_shipped(current_speeds()) and current_speeds() == shipped_speeds()
    MADE_UP.write(calibrated_path())
    assert not is_shipped(current_speeds()) and _parts(current_speeds()) == _parts(MADE_UP)


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"format": 2}', '{"format": 1, "seconds": {}}', '{"format": 1, "seconds": []}'],
)
def test_a_broken_table_is_not_passed_over(content):
    calibrated_path().parent.mkdir(parents=True)
    calibrated_path().write_text(content)
    with pytest.raises(DataError, match="shareflow calibrate"):
        current_speeds()


@pytest.mark.parametrize("value", [-1e-9, float("nan"), float("inf"), "fast", None])
def test_impossible_speeds(value):
    with pytest.raises(DataError, match="zero or more"):
        Speeds((value,) * len(KINDS), 0.0, 0.0, 0.0)
    with pytest.raises(DataError, match="zero or more"):
        Speeds((0.0,), 0.0, 0.0, 0.0)


def test_the_command(tmp_path, monkeypatch):
    monkeypatch.setattr("shareflow.compiler.cost.calibrate._SIZES", (64,))
    out = tmp_path / "speeds.json"
    done = CliRunner().invoke(app, ["calibrate", "--repeats", "1", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "matrix product" in done.output and "ns each" in done.output
    found = json.loads(out.read_text())
    assert set(found["seconds"]) == set(KINDS) and "source" not in found
    assert not calibrated_path().exists()
    assert module.Speeds.read(out).of(np.ones(len(KINDS))) > 0
