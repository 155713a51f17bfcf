"""A plan of which an external party's steps are written by hand: what a client sends and gets, without TensorFlow.

`predict`, batched: the client's x [n, 4] (float32, 16 fractional bits) gives sums [n, 2] of its halves, and signs
[n, 3] (int32, so that messages are filled up). `double` has one result. `load`: the model owner gives two weights.
`meet`: both give something.
"""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from shareflow_client.plan_file import PlanFile

SCALE = 2.0**16
MOST = 2.0**30
SERVERS = ("server0", "server1")


def step(name: str, op: str, *inputs: str, **attributes: Any) -> dict[str, Any]:
    return {"name": name, "op": op, "inputs": list(inputs), "attributes": attributes}


def const(name: str, value: Any, dtype: str) -> dict[str, Any]:
    array = np.asarray(value, dtype)
    data = base64.b64encode(array.tobytes()).decode()
    return step(name, "Const", dtype=dtype, shape=list(array.shape), data=data)


def tensor(tensor_name: str, shape: list[int], dtype: str, **other: Any) -> dict[str, Any]:
    return {"tensor": tensor_name, "shape": shape, "dtype": dtype, **other}


def shared(name: str, shape: list[int], party: str, stream: int) -> tuple[list[dict], dict]:
    """Steps that encode an input and share it: a mask with server1, the rest to server0; and the message."""
    axes = list(range(len(shape)))
    send = f"send.{name}.{party}.server0."
    steps = [
        step(f"{name}/wide", "Cast", f"{name}:0", DstT="float64"),
        step(f"{name}/size", "Abs", f"{name}/wide:0"),
        const(f"{name}/most", MOST, "float64"),
        step(f"{name}/fit", "LessEqual", f"{name}/size:0", f"{name}/most:0"),
        const(f"{name}/axes", axes, "int32"),
        step(f"{name}/all", "All", f"{name}/fit:0", f"{name}/axes:0", keep_dims=False),
        step(f"{name}/check", "Assert", f"{name}/all:0", message=f"A value is at most {MOST:g} in size. Rescale."),
        const(f"{name}/scale", SCALE, "float64"),
        step(f"{name}/scaled", "Mul", f"{name}/wide:0", f"{name}/scale:0", f"^{name}/check"),
        step(f"{name}/round", "Round", f"{name}/scaled:0"),
        step(f"{name}/ring", "Cast", f"{name}/round:0", DstT="int64"),
        step(f"{name}/mask", "ShareflowUniform", peer="server1", stream=stream, shape=shape),
        step(f"{name}/rest", "Sub", f"{name}/ring:0", f"{name}/mask:0"),
        step(send, "Identity", f"{name}/rest:0"),
    ]
    return steps, tensor(f"{send}:0", shape, "int64", to="server0")


def predict(batch: int) -> dict[str, Any]:
    steps, message = shared("x", [batch, 4], "client", 3)
    parts = [f"send.result.{server}.client.:0" for server in SERVERS]
    signs = "send.result.server1.client._1:0"
    steps += [
        step("sum", "AddV2", *parts),
        step("sum/wide", "Cast", "sum:0", DstT="float64"),
        const("unit", 1 / SCALE, "float64"),
        step("sums", "Mul", "sum/wide:0", "unit:0"),
        step("signs", "Identity", signs),
    ]
    receives = [tensor(parts[1], [batch, 2], "int64", **{"from": "server1"})]
    receives += [tensor(signs, [batch, 3], "int32", **{"from": "server1"})]
    receives += [tensor(parts[0], [batch, 2], "int64", **{"from": "server0"})]
    return {
        "entry": "predict",
        "batch": batch,
        "inputs": [tensor("x:0", [batch, 4], "float32", name="x", party="client")],
        "results": [
            tensor("sums:0", [batch, 2], "float64", name="sums", party="client"),
            tensor("signs:0", [batch, 3], "int32", name="signs", party="client"),
        ],
        "state_in": [],
        "state_out": [],
        "external": {
            "client": {
                "sends": [message],
                "receives": receives,
                "results": [{"name": "sums", "tensor": "sums:0"}, {"name": "signs", "tensor": "signs:0"}],
                "steps": steps,
            }
        },
    }


def double(batch: int) -> dict[str, Any]:
    """One input and one result, as predict() of a client wants it."""
    steps, message = shared("x", [batch, 2, 3], "client", 0)
    part = "send.result.server0.client.:0"
    steps += [
        step("wide", "Cast", part, DstT="float64"),
        const("unit", 1 / SCALE, "float64"),
        step("y", "Mul", "wide:0", "unit:0"),
    ]
    return {
        "entry": "double",
        "batch": batch,
        "inputs": [tensor("x:0", [batch, 2, 3], "float32", name="x", party="client")],
        "results": [tensor("y:0", [batch, 2, 3], "float64", name="result", party="client")],
        "state_in": [],
        "state_out": [],
        "external": {
            "client": {
                "sends": [message],
                "receives": [tensor(part, [batch, 2, 3], "int64", **{"from": "server0"})],
                "results": [{"name": "result", "tensor": "y:0"}],
                "steps": steps,
            }
        },
    }


def load() -> dict[str, Any]:
    kernel, to_kernel = shared("kernel", [300, 50], "model_owner", 0)
    bias, to_bias = shared("bias", [2], "model_owner", 1)
    state = [
        {"state": "weights", "component": i, "party": server, "tensor": f"state{i}:0"}
        for i, server in enumerate(SERVERS)
    ]
    return {
        "entry": "load",
        "batch": None,
        "inputs": [
            tensor("kernel:0", [300, 50], "float64", name="kernel", party="model_owner"),
            tensor("bias:0", [2], "float64", name="bias", party="model_owner"),
        ],
        "results": [],
        "state_in": [],
        "state_out": state,
        "external": {
            "model_owner": {"sends": [to_kernel, to_bias], "receives": [], "results": [], "steps": kernel + bias}
        },
    }


def meet() -> dict[str, Any]:
    external = {}
    inputs = []
    for stream, party in enumerate(("client", "model_owner")):
        steps, message = shared(party[0], [2], party, stream)
        external[party] = {"sends": [message], "receives": [], "results": [], "steps": steps}
        inputs.append(tensor(f"{party[0]}:0", [2], "float64", name=party[0], party=party))
    return {
        "entry": "meet",
        "batch": None,
        "inputs": inputs,
        "results": [],
        "state_in": [],
        "state_out": [],
        "external": external,
    }


def small_plan() -> PlanFile:
    """The plan; its graphs are empty, as clients look at the manifest alone."""
    graphs = {
        "predict@8": predict(8),
        "predict@1": predict(1),
        "double": double(1),
        "load": load(),
        "meet": meet(),
    }
    entries = {
        "predict": {"variants": ["predict@8", "predict@1"], "batched": True, "uses": [], "keeps": []},
        "double": {"variants": ["double"], "batched": True, "uses": [], "keeps": []},
        "load": {"variants": ["load"], "batched": False, "uses": [], "keeps": ["weights"]},
        "meet": {"variants": ["meet"], "batched": False, "uses": [], "keeps": []},
    }
    receivers: dict[str, list[str]] = {"predict": ["client"], "double": ["client"], "load": [], "meet": []}
    component = [{"party": server, "shape": [300, 50], "dtype": "int64"} for server in SERVERS]
    manifest = {
        "format": 1,
        "shareflow": "0.1.0",
        "protocol": {
            "name": "SPDZ",
            "servers": list(SERVERS),
            "dealer": "server2",
            "fractional_bits": 16,
            "settings": "SPDZ()",
        },
        "parties": ["client", "model_owner", *SERVERS, "server2"],
        "receivers": receivers,
        "entries": entries,
        "states": {
            "weights": {"share": "Masked", "fractional_bits": 16, "shape": [300, 50], "components": component}
        },
        "graphs": graphs,
    }
    return PlanFile(manifest, {name: b"" for name in graphs})
