"""The peer's side, run by the interpreter of the peer's environment: needs spu, jax and numpy, not shareflow.

    python spu_parties.py host FOLDER          reads one JSON command a line, answers with one line each
    python spu_parties.py party FOLDER RANK    one party; started by the host, three of them for each task

The host stands for whoever starts the computation: it compiles a JAX function to SPU's program, makes shares of the
inputs, and reconstructs results. The parties talk to each other by brpc on loopback. Timed is the run of the compiled
program on inputs that are shared already. Commands of the host:

    {"do": "versions"}
    {"do": "load", "program": ..., "layers": [...], "inputs": FILE.npz, "variables": {...}}
                                              environment variables of the parties; bytes and send actions of one run
    {"do": "run", "count": n}                 seconds of each run
    {"do": "output", "file": FILE.npy}        the last result in plaintext
    {"do": "unload"}
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import pickle
import platform
import re
import select
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Any

PARTIES = 3
FRACTIONAL_BITS = 18  # SPU's own choice for a ring of 64 bits
TIMEOUT_MS = 600_000

# What SPU logs after a run when profiling is on: the counters of the links, which have no other interface.
_LINK_DETAILS = re.compile(r"Link details: total send bytes (\d+), recv bytes \d+, send actions (\d+)")


def _config(profile: bool) -> Any:
    from spu import libspu

    config = libspu.RuntimeConfig(
        protocol=libspu.ProtocolKind.ABY3, field=libspu.FieldType.FM64, fxp_fraction_bits=FRACTIONAL_BITS
    )
    config.enable_pphlo_profile = profile
    return config


# --- programs


def program(name: str, layers: list[str]) -> Any:
    """The JAX function of a task; its arguments are the task's inputs."""
    import jax
    import jax.numpy as jnp

    def windows(x: Any) -> Any:
        # Pooling by reshape is several times faster on SPU than by reduce_window.
        n, h, w, c = x.shape
        return x.reshape(n, h // 2, 2, w // 2, 2, c)

    def relu(x: Any) -> Any:
        return jnp.maximum(x, 0.0)

    def max_pool(x: Any) -> Any:
        return jnp.max(windows(x), (2, 4))

    def network(x: Any, *weights: Any) -> Any:
        left = iter(weights)
        for layer in layers:
            if layer == "conv":
                form = ("NHWC", "HWIO", "NHWC")
                x = jax.lax.conv_general_dilated(x, next(left), (1, 1), "VALID", dimension_numbers=form) + next(left)
            elif layer == "dense":
                x = x @ next(left) + next(left)
            elif layer == "relu":
                x = relu(x)
            elif layer == "flatten":
                x = x.reshape(x.shape[0], -1)
            elif layer == "max-pool":
                x = max_pool(x)
            elif layer == "average-pool":
                x = jnp.sum(windows(x), (2, 4)) * 0.25
            else:
                raise ValueError(f"no layer is called {layer!r}")
        return x

    programs = {
        "network": network,
        "matmul": lambda a, b: a @ b,
        "multiply": lambda a, b: a * b,
        "relu": relu,
        "greater": lambda a, b: a > b,
        "max-pool": max_pool,
        "sigmoid": jax.nn.sigmoid,
        "softmax": lambda x: jax.nn.softmax(x, axis=-1),
        "argmax": lambda x: jnp.argmax(x, axis=-1),
    }
    return programs[name]


# --- host


class Host:
    """Compiles, shares, starts the parties and asks them to run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._parties: list[subprocess.Popen[str]] = []

    def versions(self) -> dict[str, str]:
        """Of what the peer's figures depend on."""
        packages = {name: importlib.metadata.version(name) for name in ("spu", "jax", "jaxlib", "numpy")}
        return {"python": platform.python_version(), **packages}

    def load(self, program: str, layers: list[str], inputs: str, variables: dict[str, str]) -> dict[str, Any]:
        """Starts the parties on a task and runs it once: bytes and send actions of each party."""
        import numpy as np
        from spu import api, libspu
        from spu.utils import frontend

        self.unload()
        with np.load(inputs) as file:
            values = [file[f"arr_{i}"] for i in range(len(file.files))]
        began = time.perf_counter()
        executable, _ = frontend.compile(
            frontend.Kind.JAX,
            globals()["program"](program, layers),
            values,
            {},
            [f"in{i}" for i in range(len(values))],
            [libspu.Visibility.VIS_SECRET] * len(values),
            lambda outputs: [f"out{i}" for i in range(len(outputs))],
        )
        seconds = time.perf_counter() - began
        io = api.Io(PARTIES, _config(profile=False))
        shares = [io.make_shares(value, libspu.Visibility.VIS_SECRET) for value in values]
        hosts = [f"127.0.0.1:{port}" for port in _free_ports(PARTIES)]
        for rank in range(PARTIES):
            task = {
                "hosts": hosts,
                "executable": executable.SerializeToString(),
                "shares": [share[rank] for share in shares],
            }
            (self._folder / f"task{rank}.pkl").write_bytes(pickle.dumps(task))
        del shares
        self._parties = [
            subprocess.Popen(
                [sys.executable, __file__, "party", str(self._folder), str(rank)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, **variables},
            )
            for rank in range(PARTIES)
        ]
        ready = [self._answer(party) for party in self._parties]
        return {
            "bytes": [r["bytes"] for r in ready],
            "sends": [r["sends"] for r in ready],
            "compile_seconds": seconds,
        }

    def run(self, count: int) -> dict[str, list[float]]:
        """Seconds of each of ``count`` runs: wall clock of the slowest party, CPU time of all parties together."""
        parties = self._ask({"do": "run", "count": count})
        wall = [max(party["wall"][i] for party in parties) for i in range(count)]
        cpu = [sum(party["cpu"][i] for party in parties) for i in range(count)]
        return {"wall": wall, "cpu": cpu}

    def output(self, file: str) -> dict[str, Any]:
        """Writes the last run's result, reconstructed."""
        import numpy as np
        from spu import api

        self._ask({"do": "output"})
        shares = [pickle.loads((self._folder / f"output{rank}.pkl").read_bytes()) for rank in range(PARTIES)]
        np.save(file, np.asarray(api.Io(PARTIES, _config(profile=False)).reconstruct(shares)))
        return {}

    def unload(self) -> dict[str, Any]:
        """Ends the parties."""
        for party in self._parties:
            party.kill()
        for party in self._parties:
            party.wait()
        self._parties = []
        return {}

    def _ask(self, command: dict[str, Any]) -> list[dict[str, Any]]:
        for party in self._parties:
            assert party.stdin
            party.stdin.write(json.dumps(command) + "\n")
            party.stdin.flush()
        return [self._answer(party) for party in self._parties]

    def _answer(self, party: subprocess.Popen[str]) -> dict[str, Any]:
        # Where one party has ended, the others would wait for it until their links time out.
        while not select.select([_output(party)], [], [], 0.5)[0]:
            party = next((other for other in self._parties if other.poll() is not None), party)
        line = _output(party).readline()
        if not line:
            rank = self._parties.index(party)
            log = (self._folder / f"log{rank}.txt").read_text(encoding="utf-8", errors="replace")
            raise RuntimeError(f"party {rank} ended with status {party.wait()}; its last words: {log[-1000:].strip()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _output(party: subprocess.Popen[str]) -> IO[str]:
    assert party.stdout
    return party.stdout


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def host_main(folder: Path) -> None:
    """Answers commands until the input ends."""
    # Libraries may print: answers have a descriptor of their own.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    host = Host(folder)
    try:
        for line in sys.stdin:
            command = json.loads(line)
            try:
                answer = getattr(host, command.pop("do"))(**command)
            except Exception as error:  # whatever it is, the other side shows it and goes on with the next task
                host.unload()
                answer = {"error": f"{type(error).__name__}: {error}"}
            answers.write(json.dumps(answer) + "\n")
            answers.flush()
    finally:
        host.unload()


# --- party


def party_main(folder: Path, rank: int) -> None:
    """One party: links, runs once with the profile on, then as often as asked."""
    answers = os.fdopen(os.dup(1), "w")
    log = folder / f"log{rank}.txt"
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)

    from spu import api, libspu

    task = pickle.loads((folder / f"task{rank}.pkl").read_bytes())
    description = libspu.link.Desc()
    for i, address in enumerate(task["hosts"]):
        description.add_party(f"party{i}", address)
    description.recv_timeout_ms = description.http_timeout_ms = TIMEOUT_MS
    description.connect_retry_times, description.connect_retry_interval_ms = 100, 100
    link = libspu.link.create_brpc(description, rank)
    executable = libspu.Executable()
    executable.ParseFromString(task["executable"])

    def runtime(profile: bool) -> Any:
        made = api.Runtime(link, _config(profile))
        for name, share in zip(executable.input_names, task["shares"], strict=True):
            made.set_var(name, share)
        return made

    def answer(value: dict[str, Any]) -> None:
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    runtime(profile=True).run(executable)
    found = _LINK_DETAILS.findall(log.read_text(encoding="utf-8", errors="replace"))
    sent, sends = map(int, found[-1]) if found else (None, None)
    # What is timed runs without the profile.
    timed = runtime(profile=False)
    answer({"bytes": sent, "sends": sends})
    for line in sys.stdin:
        command = json.loads(line)
        if command["do"] == "output":
            share = timed.get_var(executable.output_names[0])
            (folder / f"output{rank}.pkl").write_bytes(pickle.dumps(share))
            answer({})
            continue
        wall, cpu = [], []
        for _ in range(command["count"]):
            link.barrier()
            cpu_before, before = time.process_time(), time.perf_counter()
            timed.run(executable)
            wall.append(time.perf_counter() - before)
            cpu.append(time.process_time() - cpu_before)
        answer({"wall": wall, "cpu": cpu})
    # Taking the link down in order can hang in this version.
    os._exit(0)


if __name__ == "__main__":
    if sys.argv[1] == "host":
        host_main(Path(sys.argv[2]))
    else:
        party_main(Path(sys.argv[2]), int(sys.argv[3]))
