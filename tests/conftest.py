"""Fixtures of all tests: repeatable sessions, seeded random numbers, where large data lies, and `--slow`."""

from pathlib import Path

import numpy as np
import pytest

import shareflow as sf

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="run the tests marked slow, too")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--slow") or "slow" in (config.getoption("markexpr") or ""):
        return
    named = tuple(argument.rpartition("/")[2] for argument in config.args if "::" in argument)
    for item in items:
        # A test that is asked for by its name runs.
        if "slow" in item.keywords and not (named and item.nodeid.rpartition("/")[2].startswith(named)):
            item.add_marker(pytest.mark.skip(reason="slow: run it by name, with --slow or with -m slow"))


@pytest.fixture(autouse=True)
def session():
    """Keys that follow from a seed, so that each test repeats bit by bit; its own for every test."""
    with sf.insecure_session(seed=20) as session:
        yield session


@pytest.fixture
def rng():
    """Random numbers that are the same in every run."""
    return np.random.default_rng(0)


@pytest.fixture
def shared_data():
    """The folder of large data files beside the repository; what needs it is skipped where it is absent."""
    if not DATA.is_dir():
        pytest.skip("the data folder ../shared/data is not here")
    return DATA
