"""The peer, SecretFlow SPU: its environment, and one task at a time on its three parties."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.tasks import Problem

REQUIREMENTS = ("spu==0.9.5", "jax==0.4.34", "jaxlib==0.4.34", "numpy==1.26.4")
PYTHON = (3, 11)
SETTING = "SPU, ABY3 on a ring of 64 bits with 18 fractional bits, three processes over brpc on loopback"

THREADS: dict[str, dict[str, str]] = {"all threads": {}, "one OpenMP thread": {"OMP_THREAD_LIMIT": "1"}}
"""Environment variables of the parties, of which each task gets those with which it is faster.

SPU multiplies matrices with OpenMP. On a machine where three parties have fewer cores than threads, its threads wait
for each other; with one thread a small product can be ten times faster, and a large one slower.
"""

_SCRIPT = Path(__file__).with_name("spu_parties.py")
_ANSWER_SECONDS = 900.0


class PeerError(Exception):
    """The peer cannot be set up, or failed at a task."""


# --- its environment


def environment(folder: Path, python: str | None) -> Path:
    """The interpreter of the peer's virtual environment, made in the folder unless it is there already.

    Args:
        folder: of the environment.
        python: the interpreter to make it with; python3.11 on PATH if not said.

    Raises:
        PeerError: there is no fitting interpreter, or the packages cannot be installed.
    """
    found = folder / "bin" / "python"
    complete = folder / "complete.txt"
    wanted = "\n".join(REQUIREMENTS) + "\n"
    if complete.exists() and complete.read_text(encoding="utf-8") == wanted:
        return found
    if folder.exists() and any(folder.iterdir()) and not (folder / "pyvenv.cfg").exists():
        raise PeerError(f"{folder} is to become the peer's virtual environment, but holds something else.")
    interpreter = _interpreter(python)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _succeed([interpreter, "-m", "venv", "--clear", str(folder)], f"{interpreter} made no virtual environment")
    install = [str(found), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *REQUIREMENTS]
    _succeed(install, f"the packages of the peer ({', '.join(REQUIREMENTS)}) could not be installed in {folder}")
    complete.write_text(wanted, encoding="utf-8")
    return found


def _interpreter(python: str | None) -> str:
    wanted = ".".join(map(str, PYTHON))
    hint = (
        f"The peer has wheels for Python {wanted} alone. Name an interpreter with --peer-python, or leave the peer "
        "out with --skip-peer."
    )
    path = shutil.which(python or f"python{wanted}")
    if path is None:
        raise PeerError(f"There is no {python or f'python{wanted} on PATH'}. {hint}")
    version = "import sys; print(*sys.version_info[:2])"
    try:
        text = subprocess.run([path, "-c", version], capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise PeerError(f"{path} does not run: {error}. {hint}") from None
    if tuple(map(int, text.split())) != PYTHON:
        raise PeerError(f"{path} is Python {text.strip().replace(' ', '.')}. {hint}")
    return path


def _succeed(command: Sequence[str], otherwise: str) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise PeerError(f"{otherwise}:\n{done.stdout[-2000:].strip()}\nWithout the peer: --skip-peer.")


# --- its tasks


class Peer:
    """The host process of the peer. A context manager: leaving it ends all of the peer's processes."""

    def __init__(self, python: Path) -> None:
        self._python = python
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Peer:
        self._folder = tempfile.TemporaryDirectory(prefix="peers_")
        self._start()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._stop()
        if self._folder:
            self._folder.cleanup()

    def versions(self) -> dict[str, str]:
        """Of its interpreter and packages."""
        found: dict[str, str] = self._ask("versions")
        return found

    def load(self, problem: Problem) -> dict[str, Any]:
        """Makes a task ready on three new parties, with the faster of the settings in ``THREADS``.

        Returns:
            ``bytes`` and ``sends`` of each party in one run; ``threads``, the setting taken; and ``tried``, seconds of
            a run with each.
        """
        np.savez(self._file("inputs.npz"), *problem.inputs)
        tried: dict[str, float] = {}
        for name in THREADS:
            answer = self._load(problem, name)
            tried[name] = min(self.run(3)[0])
        best = min(tried, key=lambda name: tried[name])
        if best != name:
            answer = self._load(problem, best)
            self.run(1)
        return {**answer, "threads": best, "tried": tried}

    def _load(self, problem: Problem, threads: str) -> dict[str, Any]:
        answer: dict[str, Any] = self._ask(
            "load",
            program=problem.program,
            layers=list(problem.layers),
            inputs=self._file("inputs.npz"),
            variables=THREADS[threads],
        )
        return answer

    def run(self, count: int) -> tuple[list[float], list[float]]:
        """Seconds of each of the runs: of wall clock, and of all cores and parties."""
        answer = self._ask("run", count=count)
        return answer["wall"], answer["cpu"]

    def output(self) -> NDArray[np.float64]:
        """The last run's result in plaintext."""
        self._ask("output", file=self._file("output.npy"))
        return np.load(self._file("output.npy")).astype(np.float64)

    def unload(self) -> None:
        """Ends the parties of this task."""
        self._ask("unload")

    def _file(self, name: str) -> str:
        assert self._folder
        return os.path.join(self._folder.name, name)

    def _start(self) -> None:
        assert self._folder
        # Nothing of our own environment may get into the peer's.
        variables = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "OMP_"))}
        variables["JAX_PLATFORMS"] = "cpu"
        with open(self._file("host.txt"), "w", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                [str(self._python), str(_SCRIPT), "host", self._folder.name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=variables,
                start_new_session=True,
            )

    def _stop(self) -> None:
        if self._process:
            # The host and its parties are a process group of their own.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _ask(self, do: str, **arguments: Any) -> Any:
        if self._process is None:
            self._start()
        process = self._process
        assert process and process.stdin and process.stdout
        try:
            process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            process.stdin.flush()
            ready = select.select([process.stdout], [], [], _ANSWER_SECONDS)[0]
            line = process.stdout.readline() if ready else ""
        except BrokenPipeError:
            ready, line = [process.stdout], ""
        if not line:
            self._stop()
            if not ready:
                raise PeerError(f"The peer gave no answer to {do!r} within {_ANSWER_SECONDS:.0f} s.")
            log = Path(self._file("host.txt")).read_text(encoding="utf-8", errors="replace")
            raise PeerError(f"The peer's host process ended at {do!r}; its last words: {log[-1000:].strip()}")
        answer = json.loads(line)
        if "error" in answer:
            raise PeerError(f"The peer failed at {do!r}: {answer['error']}")
        return answer
