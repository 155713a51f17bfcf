"""A process that is stopped at any point leaves a store that holds its promises. The trials: crash_runs.py."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from shareflow.runtime.store import Store
from shareflow_client.errors import StoreError

RUNS = Path(__file__).with_name("crash_runs.py")
SOURCES = [str(RUNS.parents[3] / "src"), str(RUNS.parents[3] / "client" / "src")]


def start(*arguments):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([*SOURCES, os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, str(RUNS), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def run(*arguments):
    process = start(*arguments)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return int(output)


# The least number of points guards against faults that are not installed.
POINTS = {"material": 150, "state": 80, "counter": 80, "repair": 40}


@pytest.mark.parametrize(("scenario", "loss"), [
    ("material", "power"), ("state", "power"), ("counter", "power"), ("repair", "power"),
    ("counter", "kill"), ("repair", "kill"),
    pytest.param("material", "kill", marks=pytest.mark.slow), pytest.param("state", "kill", marks=pytest.mark.slow),
])  # fmt: skip
def test_stopped_at_every_point(tmp_path, scenario, loss):
    assert run(scenario, tmp_path, loss) >= POINTS[scenario]


def test_stopped_at_any_time(tmp_path):
    assert run("any", tmp_path, 25)


@pytest.mark.slow
def test_stopped_at_any_time_for_long(tmp_path):
    assert run("any", tmp_path, 500)


def test_one_process_at_a_time(tmp_path):
    holder = start("hold", tmp_path)
    try:
        assert holder.stdout.readline().split()[0] == str(holder.pid)
        with pytest.raises(StoreError, match=f"one process at a time.*held by process {holder.pid}"):
            Store.open(tmp_path / "store", bytes(range(32)), plan_fingerprint="ab" * 32, party="server0")
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate(timeout=60)
    with Store.open(tmp_path / "store", bytes(range(32)), plan_fingerprint="ab" * 32, party="server0"):
        late = start("hold", tmp_path)
        output, _ = late.communicate(timeout=60)
        assert f"held by process {os.getpid()}" in output
