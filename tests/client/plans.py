"""A small plan that breaks no rule, for tests to break."""

from __future__ import annotations

from typing import Any


def manifest() -> dict[str, Any]:
    """A manifest as fresh JSON values: y = x W, W shared by the model owner, batches of 1 and 8."""
    component = [{"party": p, "shape": [4, 2], "dtype": "int64"} for p in ("server0", "server1")]
    state = [
        {"state": "dense/kernel", "component": i, "party": f"server{i}", "tensor": f"kernel{i}:0"} for i in range(2)
    ]
    graphs = {f"predict@{batch}": predict(batch, state) for batch in (1, 8)}
    graphs["load"] = load(state)
    return {
        "format": 1,
        "shareflow": "0.1.0",
        "protocol": {
            "name": "SPDZ",
            "servers": ["server0", "server1"],
            "dealer": "server2",
            "fractional_bits": 16,
            "settings": "SPDZ()",
        },
        "parties": ["client", "model_owner", "server0", "server1", "server2"],
        "receivers": {"predict": ["client"], "load": []},
        "entries": {
            "predict": {
                "variants": ["predict@1", "predict@8"],
                "batched": True,
                "uses": ["dense/kernel"],
                "keeps": [],
            },
            "load": {"variants": ["load"], "batched": False, "uses": [], "keeps": ["dense/kernel"]},
        },
        "states": {
            "dense/kernel": {"share": "Masked", "fractional_bits": 16, "shape": [4, 2], "components": component}
        },
        "graphs": graphs,
    }


def predict(batch: int, state: list[dict[str, Any]]) -> dict[str, Any]:
    """The graph of a prediction for so many rows."""
    name, answer = "send.input.client.server0.", "send.result.server0.client.:0"
    return {
        "entry": "predict",
        "batch": batch,
        "inputs": [{"name": "x", "party": "client", "shape": [batch, 4], "dtype": "float32", "tensor": "x:0"}],
        "results": [{"name": "result", "party": "client", "shape": [batch, 2], "dtype": "float64", "tensor": "y:0"}],
        "state_in": state,
        "state_out": [],
        "external": {
            "client": {
                "sends": [{"to": "server0", "tensor": f"{name}:0", "shape": [batch, 4], "dtype": "int64"}],
                "receives": [
                    {"from": "server0", "tensor": answer, "shape": [batch, 2], "dtype": "int64"},
                ],
                "results": [{"name": "result", "tensor": "y:0"}],
                "steps": [
                    {"name": "cast", "op": "Cast", "inputs": ["x:0"], "attributes": {"DstT": "int64"}},
                    {
                        "name": "mask",
                        "op": "ShareflowUniform",
                        "inputs": [],
                        "attributes": {"peer": "server1", "stream": 0, "shape": [batch, 4]},
                    },
                    {"name": "masked", "op": "Sub", "inputs": ["cast:0", "mask:0", "^cast"], "attributes": {}},
                    {"name": name, "op": "Identity", "inputs": ["masked:0"], "attributes": {}},
                    {"name": "y", "op": "Cast", "inputs": [answer], "attributes": {"DstT": "float64"}},
                ],
            }
        },
    }


def load(state: list[dict[str, Any]]) -> dict[str, Any]:
    """The graph that shares the weights."""
    return {
        "entry": "load",
        "batch": None,
        "inputs": [{"name": "w", "party": "model_owner", "shape": [4, 2], "dtype": "int64", "tensor": "w:0"}],
        "results": [],
        "state_in": [],
        "state_out": state,
        "external": {
            "model_owner": {
                "sends": [{"to": "server1", "tensor": "send:0", "shape": [4, 2], "dtype": "int64"}],
                "receives": [],
                "results": [],
                "steps": [{"name": "send", "op": "Identity", "inputs": ["w:0"], "attributes": {}}],
            }
        },
    }


def graphs() -> dict[str, bytes]:
    """Bytes that stand for the graphs of the manifest; the file does not look into them."""
    return {"predict@1": b"one row", "predict@8": b"eight rows" * 20, "load": b""}
