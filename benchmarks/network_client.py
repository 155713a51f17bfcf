"""The client's side of benchmarks.network: a process of its own, in the client's network namespace.

Needs shareflow_client alone. Prints one JSON object.

    python -m benchmarks.network_client load owner.toml weights.npz
    python -m benchmarks.network_client latency client.toml inputs.npy --count 100 --warm-ups 10 --results results.npy
    python -m benchmarks.network_client throughput inputs.npy client0.toml client1.toml ... --seconds 10
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shareflow_client.client import Client


def load(config: Path, weights: Path) -> dict[str, Any]:
    """Shares a model's weights, from the arrays of an .npz file."""
    with np.load(weights) as arrays, Client(config) as client:
        start = time.perf_counter()
        client.call("load", dict(arrays))
        return {"seconds": time.perf_counter() - start}


def latency(config: Path, inputs: Path, count: int, warm_ups: int, results: Path, pause: float) -> dict[str, Any]:
    """Predicts samples one by one, ``pause`` seconds between them; the seconds of each but the first ones."""
    images = np.load(inputs)
    seconds, found = [], []
    with Client(config) as client:
        for i in range(warm_ups + count):
            image = images[i % len(images)][None]
            time.sleep(pause)
            start = time.perf_counter()
            scores = client.predict(image)
            if i >= warm_ups:
                seconds.append(time.perf_counter() - start)
                found.append(scores[0])
    np.save(results, np.stack(found))
    return {"seconds": seconds}


def throughput(inputs: Path, configs: Sequence[Path], seconds: float, warm_up: float) -> dict[str, Any]:
    """Clients that each ask for one sample after the other, side by side.

    Returns:
        The predictions that were answered within ``seconds``, after ``warm_up`` seconds that do not count, and the
        latency of each in seconds.
    """
    images = np.load(inputs)
    ended: list[tuple[float, float]] = []
    failed: list[BaseException] = []
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(config)) for config in configs]
        begin = time.perf_counter() + warm_up
        end = begin + seconds

        def ask(client: Client, number: int) -> None:
            try:
                while (start := time.perf_counter()) < end:
                    client.predict(images[number % len(images)][None])
                    ended.append((time.perf_counter(), time.perf_counter() - start))
                    number += len(clients)
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=ask, args=pair) for pair in zip(clients, range(len(clients)), strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if failed:
        raise failed[0]
    taken = [took for at, took in ended if begin <= at < end]
    return {"predictions": len(taken), "window": seconds, "seconds": taken}


def main(arguments: Sequence[str] | None = None) -> int:
    """Does what the command line says; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.network_client")
    commands = parser.add_subparsers(required=True, dest="command")
    one = commands.add_parser("load")
    one.add_argument("config", type=Path)
    one.add_argument("weights", type=Path)
    one = commands.add_parser("latency")
    one.add_argument("config", type=Path)
    one.add_argument("inputs", type=Path)
    one.add_argument("--count", type=int, required=True)
    one.add_argument("--warm-ups", type=int, required=True)
    one.add_argument("--results", type=Path, required=True)
    one.add_argument("--pause", type=float, default=0.0)
    one = commands.add_parser("throughput")
    one.add_argument("inputs", type=Path)
    one.add_argument("configs", type=Path, nargs="+")
    one.add_argument("--seconds", type=float, required=True)
    one.add_argument("--warm-up", type=float, default=1.0)
    given = vars(parser.parse_args(arguments))
    command = {"load": load, "latency": latency, "throughput": throughput}[given.pop("command")]
    print(json.dumps(command(**given)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
