"""Three parties and clients as processes of this machine, for measurements and for tests of what can go wrong."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.tied import tied
from shareflow.runtime.keys import init_authority, sign
from shareflow.runtime.plan import Plan

STARTUP = 120.0


def free_port() -> int:
    """A port of loopback that nothing listens on just now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@dataclass
class Deployment:
    """Keys, certificates and configurations of all parties of a plan in one folder, and the processes that run them.

    Args:
        directory: an empty folder.
        plan: the plan's file.
        clients: names of clients, and which party of the plan each stands for.
        hosts: where each computing party listens; loopback if not said.
        tables: TOML that is added to the configuration of a party, by name.
        prefix: a command that a party's process is started through, by name (to enter a network namespace).
        cores: the processor cores that a party's process may use, by name; all if not said.
    """

    directory: Path
    plan: Path
    clients: Mapping[str, str]
    hosts: Mapping[str, str] = field(default_factory=dict)
    tables: Mapping[str, str] = field(default_factory=dict)
    prefix: Mapping[str, Sequence[str]] = field(default_factory=dict)
    cores: Mapping[str, Sequence[int]] = field(default_factory=dict)
    rights: str = "rows_per_minute = 1000000000\nmost_waiting = 100000"
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        manifest = Plan.read(self.plan).manifest
        self.servers, self.dealer = manifest.protocol.servers, manifest.protocol.dealer
        assert self.dealer is not None
        self.ports = {name: free_port() for name in self.servers}
        self.health = {name: free_port() for name in (*self.servers, self.dealer)}
        keys = self.directory / "keys"
        init_authority(keys)
        for party in (*self.servers, self.dealer):
            sign(keys, party, hosts=[self.host(party)], into=self.directory / party)
        for client in self.clients:
            sign(keys, client, kind="client", into=self.directory / client)
        for party in (*self.servers, self.dealer):
            self.config(party).write_text(self._party(party))
        for client, acts_as in self.clients.items():
            self.config(client).write_text(self._client(client, acts_as))

    def host(self, party: str) -> str:
        """The address that a party listens on."""
        return self.hosts.get(party, "127.0.0.1")

    def config(self, name: str) -> Path:
        """The configuration file of a party or client."""
        return self.directory / f"{name}.toml"

    def log(self, party: str) -> Path:
        """What a party wrote to its standard error."""
        return self.directory / f"{party}.log"

    def _certificate(self, name: str) -> str:
        return str(self.directory / name / f"{name}.crt")

    def _identity(self, name: str) -> str:
        key = self.directory / name / f"{name}.key"
        own = f'certificate = "{self._certificate(name)}"\nprivate_key = "{key}"\n'
        return f'name = "{name}"\nplan = "{self.plan}"\n{own}'

    def _peers(self, table: str, names: Sequence[str]) -> str:
        found = []
        for name in names:
            address = f'address = "{self.host(name)}:{self.ports[name]}"\n' if name in self.ports else ""
            found.append(f'[[{table}]]\nname = "{name}"\n{address}certificate = "{self._certificate(name)}"\n')
        return "".join(found)

    def _party(self, party: str) -> str:
        text = self._identity(party)
        own = self.directory / party
        text += f'data = "{own / "data"}"\nstorage_key = "{own / "storage.key"}"\n'
        text += f'health = "127.0.0.1:{self.health[party]}"\n'
        if party in self.ports:
            text += f'listen = "{self.host(party)}:{self.ports[party]}"\n'
        text += self._peers("parties", [n for n in (*self.servers, str(self.dealer)) if n != party])
        if party in self.ports:
            for client, acts_as in self.clients.items():
                certificate = self._certificate(client)
                text += f'[[clients]]\nname = "{client}"\ncertificate = "{certificate}"\nacts_as = ["{acts_as}"]\n'
                text += f"{self.rights}\n"
        return text + self.tables.get(party, "")

    def _client(self, client: str, acts_as: str) -> str:
        return f'acts_as = "{acts_as}"\n' + self._identity(client) + self._peers("servers", self.servers)

    # --- processes

    def start(self, *parties: str) -> None:
        """Starts the processes of these parties, of all by default."""
        for party in parties or (*self.servers, str(self.dealer)):
            command = [*self.prefix.get(party, ()), sys.executable, "-m", "shareflow_command", "party", "--config"]
            command = tied(*command, str(self.config(party)), cores=self.cores.get(party, ()))
            with open(self.log(party), "ab") as log:
                self.processes[party] = subprocess.Popen(
                    command,
                    stdout=log,
                    stderr=log,
                    stdin=subprocess.DEVNULL,
                    env=environment(),
                )

    def await_links(self, seconds: float = STARTUP) -> None:
        """Waits until every running party is linked to the others."""
        deadline = time.monotonic() + seconds
        for party in self.processes:
            while '"lost"' in (state := self.status(party)) or '"connected"' not in state:
                ended = [name for name, process in self.processes.items() if process.poll() is not None]
                if ended or time.monotonic() > deadline:
                    ends = "\n".join(f"--- {name}\n{self.log(name).read_text()[-1500:]}" for name in ended or [party])
                    raise RuntimeError(f"{party} is not linked to the others: {state}; ended: {ended}\n{ends}")
                time.sleep(0.1)

    def status(self, party: str) -> str:
        """What the party says of its health; empty where it does not answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.health[party]}/health", timeout=5) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            return error.read().decode()
        except OSError:
            return ""

    def metrics(self, party: str) -> str:
        """What the party counts, in Prometheus' text form."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.health[party]}/metrics", timeout=5) as answer:
            return str(answer.read().decode())

    def run(
        self, *arguments: str, prefix: Sequence[str] = (), timeout: float = 600
    ) -> subprocess.CompletedProcess[str]:
        """A shareflow command, its output taken."""
        return subprocess.run(
            [*prefix, sys.executable, "-m", "shareflow_command", *arguments],
            capture_output=True,
            text=True,
            timeout=timeout,
            env=environment(),
            check=False,
        )

    def kill(self, party: str, how: signal.Signals = signal.SIGKILL) -> None:
        """Ends the process of a party, and waits for its end."""
        process = self.processes.pop(party)
        process.send_signal(how)
        process.wait(60)

    def stop(self) -> None:
        """Ends all processes."""
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()
            process.wait()
        self.processes.clear()


def a_core_each(servers: Sequence[str]) -> dict[str, list[int]]:
    """One core for each server, as on machines of their own; empty where there are not as many cores."""
    cores = sorted(os.sched_getaffinity(0))
    return {server: [core] for server, core in zip(servers, cores, strict=False)} if len(cores) >= len(servers) else {}


@contextlib.contextmanager
def deployed(directory: Path, plan: Path, clients: Mapping[str, str], **options: object) -> Iterator[Deployment]:
    """A deployment whose three parties run, linked, inside the block."""
    deployment = Deployment(directory, plan, clients, **options)  # type: ignore[arg-type]
    try:
        deployment.start()
        deployment.await_links()
        yield deployment
    finally:
        deployment.stop()


def environment() -> dict[str, str]:
    """The environment of a party's process: this one's, with the packages as they are imported here."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TF_CPP_MIN_LOG_LEVEL": "3"}
