"""The plan of examples/train_together.py between processes: state that changes, two clients under one label."""

from __future__ import annotations

import runpy
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from benchmarks.deployment import deployed

from shareflow_client.client import Client
from shareflow_client.errors import RequestError, TimeLimitError

EXAMPLE = runpy.run_path(str(Path(__file__).resolve().parents[1] / "examples" / "train_together.py"))
STEPS, BATCH = 3, EXAMPLE["BATCH"]
CLIENTS = {"clinic-1": "clinic", "lab-1": "laboratory", "researcher-1": "researcher", "doctor-1": "doctor"}


@pytest.mark.slow
def test_two_hospitals_train_and_a_third_party_predicts(tmp_path):
    EXAMPLE["make_plan"]().write(tmp_path / "train.plan")
    columns, ill = EXAMPLE["patients"](STEPS * BATCH)
    clear = np.zeros((4, 1))
    with deployed(tmp_path, tmp_path / "train.plan", CLIENTS) as deployment, ThreadPoolExecutor(2) as pool:
        clinic, laboratory, researcher, doctor = (Client(deployment.config(name)) for name in CLIENTS)
        with clinic, laboratory, researcher, doctor:
            versions = [researcher.load({"weights": clear}, entry="start")]
            for step in range(STEPS):
                rows = slice(step * BATCH, (step + 1) * BATCH)
                x, y, label = columns[rows], ill[rows], f"batch {step}"
                # The first to come waits for the other, whichever it is.
                first = pool.submit(clinic.load, {"clinic": x[:, :2]}, entry="learn", label=label)
                versions.append(laboratory.load({"laboratory": x[:, 2:], "ill": y}, entry="learn", label=label))
                assert first.result() == versions[-1]
                clear = clear - x.T @ (1 / (1 + np.exp(-x @ clear)) - y) * (EXAMPLE["RATE"] / BATCH)
            assert versions == sorted(set(versions))
            np.testing.assert_allclose(researcher.call("model", {})["result"], clear, atol=2e-3)
            risks = doctor.predict(columns[:5])
            np.testing.assert_allclose(risks, 1 / (1 + np.exp(-columns[:5] @ clear)), atol=2e-3)
            with pytest.raises(RequestError, match="'model'"):
                doctor.call("model", {})
            # Labels that do not meet: each waits alone, and nothing is computed.
            with pytest.raises(TimeLimitError, match="answered within its time limit"):
                clinic.call("learn", {"clinic": columns[:BATCH, :2]}, label="alone", time_limit=2.0)
            np.testing.assert_allclose(researcher.call("model", {})["result"], clear, atol=2e-3)
