"""Three organisations on one machine: each party a process of its own, with its own keys and its own folder.

    python examples/three-organisations/run_locally.py              # in a folder that is removed at the end
    python examples/three-organisations/run_locally.py --keep demo  # in ./demo, to look at what each organisation has

It does what the README beside it says step by step, with the same configuration files: only their addresses and the
plan's fingerprint are filled in. At the end private and plaintext predictions are compared; the exit status is 1 if
they differ.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from rich.console import Console
from rich.table import Table

from shareflow.cli import app

HERE = Path(__file__).resolve().parent
IMAGES, CLASSES = 5, 10
# Private scores are those of fixed-point numbers with 16 bits behind the point.
TOLERANCE = 1e-3
STARTUP = 120.0

console = Console(highlight=False, soft_wrap=True)

# Who gets whose certificate: what everybody pins. Certificates alone are handed over, never a key.
KNOWN_TO = {
    "institute": ("server1", "dealer", "institute", "hospital"),
    "hospital": ("server0", "dealer", "institute", "hospital"),
    "foundation": ("server0", "server1"),
}
# Whose certificate each organisation signs itself, and for what.
SIGNED_BY = {
    "institute": {"server0": "party", "institute": "client"},
    "hospital": {"server1": "party", "hospital": "client"},
    "foundation": {"dealer": "party"},
}
HOST = {"server0": "server0.institute.example", "server1": "server1.hospital.example"}


def shareflow(*arguments: str | Path) -> None:
    """A command of shareflow, shown and then run here: starting a process for each would take longer than the rest."""
    given = [str(argument) for argument in arguments]
    console.print(f"[bold]$ shareflow {shlex.join(given)}[/]")
    # What went wrong was printed, as it is for a command in a terminal.
    if app(given, standalone_mode=False):
        raise SystemExit(1)


def process(*arguments: str | Path) -> list[str]:
    """What starts a command of shareflow as a process of its own."""
    given = [str(argument) for argument in arguments]
    console.print(f"[bold]$ shareflow {shlex.join(given)}[/]")
    return [sys.executable, "-m", "shareflow_command", *given]


def network(seed: int) -> keras.Model:
    """A small network for images of 12 x 12; nobody trains it here, and that changes nothing of how it is computed."""
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((12, 12, 1)),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.MaxPooling2D(2),
            keras.layers.Flatten(),
            # Large weights, so that classes differ from image to image without training.
            keras.layers.Dense(CLASSES, activation="softmax", kernel_initializer=keras.initializers.RandomNormal(0, 1)),
        ]
    )


def make_keys(folder: Path) -> None:
    """Each organisation makes its own authority and keys, then hands its certificates to the others."""
    for organisation, signed in SIGNED_BY.items():
        authority = folder / organisation / "authority"
        shareflow("keys", "init", authority, "--name", f"authority of the {organisation}")
        for name, kind in signed.items():
            host = ["--host", HOST[name]] if name in HOST else []
            shareflow("keys", "sign", authority, name, "--kind", kind, *host, "--into", folder / organisation / name)
    maker = {name: organisation for organisation, signed in SIGNED_BY.items() for name in signed}
    for organisation, names in KNOWN_TO.items():
        known = folder / organisation / "certificates"
        known.mkdir()
        for name in names:
            shutil.copy(folder / maker[name] / name / f"{name}.crt", known)


def write_configurations(folder: Path, fingerprint: str) -> dict[str, str]:
    """The files that stand beside this one, with addresses of this machine; gives where each party tells its health."""
    names = {"server0": "institute", "server1": "hospital", "dealer": "foundation"}
    ports = iter(free_ports(len(HOST) + len(names)))
    address = {party: f"127.0.0.1:{next(ports)}" for party in HOST}
    health = {party: f"127.0.0.1:{next(ports)}" for party in names}
    for source in sorted(HERE.glob("*/*.toml")):
        text = source.read_text().replace("0" * 64, fingerprint)
        for party, host in HOST.items():
            text = text.replace(f'"{host}:7000"', f'"{address[party]}"')
        own = source.stem
        if own in address:
            text = text.replace('listen = "0.0.0.0:7000"', f'listen = "{address[own]}"')
        if own in health:
            text = text.replace('health = "0.0.0.0:9000"', f'health = "{health[own]}"')
        (folder / source.parent.name / source.name).write_text(text)
    return health


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nothing listens on just now, all different."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


class Parties:
    """The processes of the computing parties, started one by one and all ended together."""

    def __init__(self, folder: Path, health: dict[str, str]) -> None:
        self.folder, self.health = folder, health
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, party: str, organisation: str) -> None:
        """Starts a party; what it logs goes to a file in its organisation's folder."""
        command = process("party", "--config", self.folder / organisation / f"{party}.toml")
        with open(self.log(party), "ab") as log:
            self.running[party] = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def log(self, party: str) -> Path:
        """What a party wrote."""
        return self.folder / f"{party}.log"

    def state(self, party: str) -> dict[str, object]:
        """What a party says of itself at /health; empty while it does not answer."""
        try:
            with urllib.request.urlopen(f"http://{self.health[party]}/health", timeout=5) as answer:
                return dict(json.load(answer))
        except urllib.error.HTTPError as error:
            return dict(json.load(error))
        except OSError:
            return {}

    def await_ready(self, *parties: str) -> None:
        """Waits until these parties are ready: linked to the others, and with a model to predict with."""
        deadline = time.monotonic() + STARTUP
        for party in parties:
            while not (state := self.state(party)).get("ready"):
                self.check(party)
                if time.monotonic() > deadline:
                    raise SystemExit(f"{party} is not ready: {state.get('why') or 'it does not answer'}")
                time.sleep(0.1)

    def deal_ahead(self, config: Path, count: int) -> None:
        """Deals for so many executions of each graph, which waits for both servers to be up."""
        with subprocess.Popen(process("deal", "--config", config, "--count", str(count))) as dealing:
            try:
                while dealing.poll() is None:
                    for party in self.running:
                        self.check(party)
                    time.sleep(0.1)
            finally:
                dealing.terminate()
        if dealing.returncode:
            raise SystemExit("dealing ahead failed")

    def check(self, party: str) -> None:
        """Ends this program where a party has ended by itself."""
        if self.running[party].poll() is not None:
            raise SystemExit(f"{party} ended by itself:\n{self.log(party).read_text()[-3000:]}")

    def stop(self) -> bool:
        """Ends all in good order, as an operator does: SIGTERM. Whether all of them ended well."""
        for running in self.running.values():
            running.terminate()
        well = True
        for party, running in self.running.items():
            try:
                well &= running.wait(30) == 0
            except subprocess.TimeoutExpired:
                console.print(f"{party} did not stop within 30 s")
                running.kill()
                running.wait()
                well = False
        return well


def run(folder: Path) -> bool:
    """The whole of it; whether private and plaintext predictions agree, and all parties stopped in good order."""
    institute, hospital, foundation = (folder / name for name in ("institute", "hospital", "foundation"))

    console.rule("1. Keys: each organisation its own; certificates are exchanged")
    for organisation in (institute, hospital, foundation):
        organisation.mkdir(parents=True)
    make_keys(folder)

    console.rule("2. The plan: one file for all, and its fingerprint")
    model = network(seed=3)
    model.save(institute / "digits.keras")
    plan = institute / "model.plan"
    shareflow("compile", institute / "digits.keras", "--out", plan, "--batch", "1", "--batch", "8")
    for organisation in (hospital, foundation):
        shutil.copy(plan, organisation)
    shareflow("audit", hospital / "model.plan")
    health = write_configurations(folder, fingerprint_of(plan))

    console.rule("3. Parties: the servers, material for the first predictions, then the dealer")
    parties = Parties(folder, health)
    try:
        parties.start("server0", "institute")
        parties.start("server1", "hospital")
        parties.deal_ahead(foundation / "dealer.toml", 20)
        parties.start("dealer", "foundation")

        console.rule("4. The institute gives its weights, the hospital asks")
        shareflow("load", institute / "digits.keras", "--config", institute / "owner.toml")
        parties.await_ready("server0", "server1", "dealer")
        images = np.random.default_rng(1).random((IMAGES, 12, 12, 1)).astype(np.float32)
        np.save(hospital / "images.npy", images)
        asked = ["predict", "--config", str(hospital / "client.toml"), str(hospital / "images.npy")]
        asked += ["--out", str(hospital / "scores.npy")]
        console.print(f"[bold]$ shareflow-client {shlex.join(asked)}[/]")
        subprocess.run([sys.executable, "-m", "shareflow_client", *asked], check=True)
        agree = compare(np.load(hospital / "scores.npy"), model.predict(images, verbose=0))
        shown = parties.state("server0")
        console.print(f"server0 says: state version {shown['state_version']}, material for {shown['stock']}")
    finally:
        stopped = parties.stop()
    console.print("all parties stopped in good order" if stopped else "a party did not stop in good order")
    return agree and stopped


def fingerprint_of(plan: Path) -> str:
    """What the organisations compare by telephone."""
    from shareflow_client.plan_file import read_plan_file

    return read_plan_file(plan).fingerprint


def compare(private: np.ndarray, plain: np.ndarray) -> bool:
    """Shows both, and says whether they agree."""
    table = Table("image", "class, private", "class, in the clear", "largest difference of a score")
    differences = np.abs(private - plain).max(axis=1)
    for number, difference in enumerate(differences):
        table.add_row(str(number), str(private[number].argmax()), str(plain[number].argmax()), f"{difference:.1e}")
    console.print(table)
    return bool((differences < TOLERANCE).all())


@contextlib.contextmanager
def folder_for(keep: Path | None) -> Iterator[Path]:
    """The folder that all organisations' folders are in."""
    if keep is not None:
        if keep.exists() and any(keep.iterdir()):
            raise SystemExit(f"{keep} is not empty; give --keep a new folder")
        keep.mkdir(parents=True, exist_ok=True)
        yield keep
    else:
        with tempfile.TemporaryDirectory(prefix="three-organisations-") as made:
            yield Path(made)


def main() -> None:
    """Runs the example."""
    parser = argparse.ArgumentParser(description="Three organisations on one machine, one process for each party.")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="work in this new folder, and leave it there")
    before = Path.cwd()
    with folder_for(parser.parse_args().keep) as folder:
        # The commands that are shown then have short paths.
        os.chdir(folder)
        try:
            agree = run(Path())
        finally:
            os.chdir(before)
    console.print("private and plaintext predictions agree" if agree else "NOT AS IT SHOULD BE, see above")
    sys.exit(0 if agree else 1)


if __name__ == "__main__":
    main()
