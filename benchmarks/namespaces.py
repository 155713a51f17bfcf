"""Network namespaces for parties, joined by lines of a set round-trip time and bandwidth.

Each namespace is held by a process of its own that ends with this one, whatever happens, and is seen by nobody else: it
has no name, and no way out to other networks. The lines are `tc netem` where the kernel has it, else
benchmarks/delaylink.c, compiled here.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import socket
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Literal, TypeVar

from benchmarks.tied import tied

T = TypeVar("T")

SOURCE = Path(__file__).with_name("delaylink.c")
_DEVICE = "line"
_CLONE_NEWNET = 0x40000000

Means = Literal["netem", "delaylink"]


class NamespaceError(Exception):
    """The machine lets us make no such network; the text says what to do."""


@dataclass(frozen=True)
class Line:
    """What lies between each two: round-trip time in seconds, bandwidth in bit/s each way."""

    rtt: float
    bandwidth: float


class Network:
    """Namespaces by name, each two joined by a line of their own. Made by :func:`joined`."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._holders: dict[str, subprocess.Popen[bytes]] = {}
        self._link: subprocess.Popen[str] | None = None

    def address(self, name: str) -> str:
        """The address of a namespace in this network."""
        return f"10.213.0.{self.names.index(name) + 1}"

    def process(self, name: str) -> int:
        """The process that holds a namespace."""
        return self._holders[name].pid

    def prefix(self, name: str) -> tuple[str, ...]:
        """What a command is started through to run in a namespace."""
        return ("nsenter", f"--net=/proc/{self.process(name)}/ns/net")

    def inside(self, name: str, function: Callable[[], T]) -> T:
        """Calls a function in a thread of its own that is in the namespace, and gives its result."""
        outcome: list[T] = []
        failure: list[BaseException] = []

        def run() -> None:
            try:
                space = os.open(f"/proc/{self.process(name)}/ns/net", os.O_RDONLY)
                try:
                    _require(_libc.setns(space, _CLONE_NEWNET))
                finally:
                    os.close(space)
                outcome.append(function())
            except BaseException as error:
                failure.append(error)

        thread = threading.Thread(target=run, name=f"inside {name}")
        thread.start()
        thread.join()
        if failure:
            raise failure[0]
        return outcome[0]

    # --- making and ending it

    def hold(self) -> None:
        """Makes the namespaces; nothing joins them yet."""
        for name in self.names:
            # It is in its namespace when it says so.
            command = tied("unshare", "--net", "sh", "-c", "echo; exec sleep infinity")
            holder = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
            self._holders[name] = holder
            assert holder.stdout is not None
            with holder.stdout as said:
                if not said.readline():
                    raise NamespaceError(
                        "The kernel makes no network namespaces for this process: it needs CAP_SYS_ADMIN. In a "
                        "container, start it with --privileged."
                    )
            _run(*self.prefix(name), "ip", "link", "set", "lo", "up")

    def join(self, line: Line, means: Means, folder: Path) -> None:
        """Lays the lines."""
        if means == "netem":
            self._join_by_netem(line)
        else:
            self._join_by_delaylink(line, folder)

    def _join_by_netem(self, line: Line) -> None:
        limits = ("delay", f"{line.rtt / 2 * 1e6:.0f}us", "rate", f"{line.bandwidth:.0f}bit", "limit", "100000")
        for pair in combinations(self.names, 2):
            ends = {name: f"to{self.names.index(other)}" for name, other in (pair, pair[::-1])}
            first, second = (["name", ends[name], "netns", str(self.process(name))] for name in pair)
            _run("ip", "link", "add", *first, "type", "veth", "peer", *second)
            for name in pair:
                enter = self.prefix(name)
                _run(*enter, "ip", "link", "set", ends[name], "up")
                _run(*enter, "tc", "qdisc", "add", "dev", ends[name], "root", "netem", *limits)
        for name in self.names:
            _run(*self.prefix(name), "ip", "address", "add", f"{self.address(name)}/32", "dev", "lo")
            for other in self.names:
                if other != name:
                    way = ("dev", f"to{self.names.index(other)}", "src", self.address(name), "metric", "10")
                    _run(*self.prefix(name), "ip", "route", "add", f"{self.address(other)}/32", *way)

    def _join_by_delaylink(self, line: Line, folder: Path) -> None:
        program = compiled(folder)
        ends = [f"{self.process(name)}={self.address(name)}" for name in self.names]
        numbers = (f"{line.rtt / 2 * 1e9:.0f}", f"{line.bandwidth:.0f}")
        self._link = subprocess.Popen(
            tied(str(program), _DEVICE, *numbers, *ends),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._link.stdout is not None and self._link.stderr is not None
        if self._link.stdout.readline().strip() != "ready":
            self._link.wait(10)
            raise NamespaceError(f"The link between the namespaces did not start: {self._link.stderr.read().strip()}")
        for name in self.names:
            enter = self.prefix(name)
            _run(*enter, "ip", "address", "add", f"{self.address(name)}/24", "dev", _DEVICE)
            _run(*enter, "ip", "link", "set", _DEVICE, "txqueuelen", "10000", "up")

    # --- breaking it

    def cut(self, source: str, to: str) -> None:
        """From now on all packets of one namespace to another vanish: nobody is told. The other way stays."""
        # Loopback takes them, and drops what is for another host. It comes before any route that has a metric or is
        # less exact.
        _run(*self.prefix(source), "ip", "route", "add", *self._nowhere(source, to))

    def mend(self, source: str, to: str) -> None:
        """Takes back :meth:`cut`."""
        _run(*self.prefix(source), "ip", "route", "del", *self._nowhere(source, to))

    def _nowhere(self, source: str, to: str) -> tuple[str, ...]:
        return (f"{self.address(to)}/32", "dev", "lo", "src", self.address(source))

    def unplug(self, name: str) -> None:
        """Takes the interface of a namespace down; its processes find no way out, the others hear nothing of it.

        Raises:
            NamespaceError: there is no single interface: lines are made by netem.
        """
        self._switch(name, "down")

    def plug(self, name: str) -> None:
        """Takes back :meth:`unplug`."""
        self._switch(name, "up")

    def _switch(self, name: str, state: str) -> None:
        _run(*self.prefix(name), "ip", "link", "set", _DEVICE, state)

    def round_trip(self, source: str, to: str, count: int = 50) -> float:
        """Median seconds of a byte from one namespace to another and back, once the processors have come to rest."""
        with contextlib.ExitStack() as stack:
            listener = stack.enter_context(self.inside(to, lambda: socket.create_server((self.address(to), 0))))
            place = (self.address(to), listener.getsockname()[1])
            near = stack.enter_context(self.inside(source, lambda: socket.create_connection(place, 10)))
            far = stack.enter_context(listener.accept()[0])
            for end in (near, far):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                end.settimeout(10)

            def echo() -> None:
                for _ in range(count):
                    far.sendall(far.recv(1))

            answering = threading.Thread(target=echo, name="echo", daemon=True)
            answering.start()
            seconds = []
            for _ in range(count):
                time.sleep(0.002)
                start = time.perf_counter()
                near.sendall(b"?")
                near.recv(1)
                seconds.append(time.perf_counter() - start)
            answering.join()
        return statistics.median(seconds)

    def lost(self) -> int:
        """Ends delaylink; the packets that found no room on their line. 0 where netem is used."""
        if self._link is None:
            return 0
        self._link.terminate()
        said, _ = self._link.communicate(timeout=10)
        self._link = None
        return int(said.split(",")[1].split()[0])

    def end(self) -> None:
        """Ends everything. Processes in the namespaces are their owners'."""
        with contextlib.suppress(subprocess.TimeoutExpired, IndexError, ValueError):
            self.lost()
        for process in (*([self._link] if self._link else []), *self._holders.values()):
            process.kill()
            process.wait()
        self._holders.clear()


@contextlib.contextmanager
def joined(names: Sequence[str], line: Line, means: Means | None = None) -> Iterator[Network]:
    """A network of namespaces that is there inside the block.

    Args:
        names: one namespace each.
        line: between each two.
        means: how the lines are made; what the kernel has, if not said.

    Raises:
        NamespaceError: this process may not, or a program that is needed is missing.
    """
    require_rights()
    network = Network(names)
    with tempfile.TemporaryDirectory() as folder:
        try:
            network.hold()
            network.join(line, means or means_of(network), Path(folder))
            yield network
        finally:
            network.end()


def require_rights() -> None:
    """Raises NamespaceError where namespaces cannot be made."""
    if os.geteuid() != 0:
        raise NamespaceError(
            "Networks between namespaces need root. Run it with sudo, or leave LAN and WAN out: --networks loopback."
        )
    missing = [program for program in ("ip", "nsenter", "sleep") if shutil.which(program) is None]
    if missing:
        raise NamespaceError(
            f"{missing[0]} is not there. Install it (iproute2 and util-linux), or leave LAN and WAN out: --networks "
            "loopback."
        )


def means_of(network: Network) -> Means:
    """netem where the kernel and the machine have it; tried on the loopback device of one of the namespaces."""
    enter = network.prefix(network.names[0])
    if shutil.which("tc") is None:
        return "delaylink"
    add = [*enter, "tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"]
    if subprocess.run(add, capture_output=True, check=False).returncode:
        return "delaylink"
    _run(*enter, "tc", "qdisc", "del", "dev", "lo", "root")
    return "netem"


def compiled(folder: Path) -> Path:
    """delaylink, made of its source in this folder.

    Raises:
        NamespaceError: there is no compiler, or it refuses the source.
    """
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        raise NamespaceError(
            "This kernel has no netem, and there is no C compiler for the link that takes its place. Install one (cc), "
            "or a kernel with sch_netem, or leave LAN and WAN out: --networks loopback."
        )
    program = folder / "delaylink"
    _run(compiler, "-O2", "-std=gnu11", "-o", str(program), str(SOURCE))
    return program


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NamespaceError(f"`{' '.join(command)}` failed: {done.stderr.strip()}")


_libc = ctypes.CDLL(None, use_errno=True)


def _require(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
