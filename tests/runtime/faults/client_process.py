"""Clients in a process of their own, as in a network namespace: told what to ask by lines, and answering by lines.

Each line of standard input is a JSON object: {"number", "config", "rows", "seed", "time_limit"} asks for predictions of
so many random samples, {"number", "config", "load": FILE, "time_limit"} loads the weights of an .npz file. Each line of
standard output is one, too: {"number", "x", "y"}, {"number"} after a load, or {"number", "kind", "text"} of an error.
A client is made for each configuration when it is first asked for, and stays.
"""

from __future__ import annotations

import json
import sys
import threading

import numpy as np

from shareflow_client.client import Client
from shareflow_client.errors import ShareflowError

_print_lock = threading.Lock()


def answer(client, wanted):
    if "load" in wanted:
        with np.load(wanted["load"]) as arrays:
            client.load(dict(arrays), time_limit=wanted["time_limit"])
        return {}
    x = np.random.default_rng(wanted["seed"]).uniform(-2, 2, (wanted["rows"], 4)).astype(np.float32)
    return {"x": x.tolist(), "y": client.predict(x, time_limit=wanted["time_limit"]).tolist()}


def serve(client, wanted):
    try:
        said = answer(client, wanted)
    except ShareflowError as error:
        said = {"kind": type(error).__name__, "text": str(error)}
    with _print_lock:
        print(json.dumps({"number": wanted["number"], **said}), flush=True)


def main():
    clients = {}
    for line in sys.stdin:
        wanted = json.loads(line)
        client = clients.setdefault(wanted["config"], None) or Client(wanted["config"])
        clients[wanted["config"]] = client
        threading.Thread(target=serve, args=(client, wanted), daemon=True).start()


if __name__ == "__main__":
    main()
