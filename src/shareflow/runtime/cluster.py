"""Programs on TensorFlow's distributed runtime: each party's operations run in a worker process of that party.

What this trusts: the driver, which is this process, has all keys and all that is fed and fetched; connections are
neither authenticated nor encrypted, so everybody on the network, too. docs/cluster.md says when that is right.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import os
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import tensorflow as tf

from shareflow.errors import ChannelError, ConfigError, EncodingError, PlacementError, TimeLimitError, from_graph
from shareflow.party.party import Party, as_party
from shareflow.runtime.channel.interface import ANY, is_loopback, own_address, split_address
from shareflow.runtime.current import Runtime
from shareflow.runtime.placed import Kept, computing_jobs, place, uses_native_ops
from shareflow.runtime.program import Program
from shareflow.runtime.server import JOB, start_server
from shareflow.runtime.worker import NO_KERNELS, ask
from shareflow_client import __version__

# The job of this process, where all is computed that belongs to no listed party.
DRIVER = "shareflow_driver"


class Cluster(Runtime):
    """Workers of the parties, one or several each, and this process as their driver.

    ``with cluster:`` connects, runs every :func:`shareflow.function` and :meth:`PrivateModel.predict` of the block on
    the workers, and disconnects. Inputs and results of parties without workers are computed by the driver. With the
    same keys and indices the results are bit for bit those of a run in this process.

    With k addresses for each party the workers form k groups, of the first worker of each party, of the second, and so
    on. Groups compute side by side: the batches of one ``predict``, the calls of :meth:`Function.map`, or calls from
    several threads.

    It trusts this process, the network, and every worker's administrator: docs/cluster.md.

    Args:
        workers: for each party "host:port" of its worker, or a list of them. Every computing party of the functions
            that are run needs one; each party has as many as the others.
        driver: where the workers reach this process, as "host:port"; port 0 lets the system choose. On loopback
            unless said, so for workers on other machines it must be said: an IPv4 address of this machine.
        connect_seconds: how long a worker may take to answer when the cluster connects.
        run_seconds: how long one execution may take, its tracing not counted.

    Raises:
        ConfigError: an address of another form, parties with different numbers of workers, or an address given twice.
        PlacementError: a party's name of another form.
    """

    def __init__(
        self,
        workers: Mapping[Party | str, str | Sequence[str]],
        *,
        driver: str = "127.0.0.1:0",
        connect_seconds: float = 10.0,
        run_seconds: float = 600.0,
    ) -> None:
        self.workers = {as_party(party): _addresses(party, listed) for party, listed in workers.items()}
        self._check(driver)
        self._driver = driver
        for name, seconds in (("connect_seconds", connect_seconds), ("run_seconds", run_seconds)):
            if not seconds > 0:
                raise ConfigError(f"{name} is a time in seconds, more than 0; got {seconds!r}.")
        self._width = len(next(iter(self.workers.values())))
        limits = _Limits(connect_seconds, run_seconds)
        self._groups = [
            _Group({party: listed[i] for party, listed in self.workers.items()}, limits) for i in range(self._width)
        ]
        self._run_seconds = run_seconds
        # The next one is taken from the left: a group that has the model already, and none that just failed.
        self._free = collections.deque(self._groups)
        self._freed = threading.Condition()
        self._entered, self._lock = 0, threading.Lock()

    @property
    def width(self) -> int:
        """The number of groups."""
        return self._width

    def run(self, program: Program, values: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """One execution, on a group that is free, or the first that will be.

        Raises:
            PlacementError: a computing party of the program has no worker.
            EncodingError: a value does not fit the encoding.
            ChannelError: a worker does not answer, or went away. The execution is lost; the next one connects anew.
            TimeLimitError: it took longer than ``run_seconds``.
        """
        self._check_parties(program)
        group, healthy = self._take(), False
        try:
            group.connect(self._driver_address)
            outputs = group.run(program, values)
            healthy = True
            return outputs
        finally:
            with self._freed:
                (self._free.appendleft if healthy else self._free.append)(group)
                self._freed.notify()

    def _take(self) -> _Group:
        with self._freed:
            if not self._freed.wait_for(lambda: self._free, self._run_seconds):
                raise TimeLimitError(
                    f"All {self.width} groups of workers were busy for {self._run_seconds:g} s. Call from fewer "
                    "threads, or add workers."
                )
            return self._free.popleft()

    def connect(self) -> None:
        """Connects to all workers and checks them; ``with cluster:`` does it.

        Raises:
            ChannelError: a worker does not answer, computes for another party, runs another version, or lacks the
                native ops. The text names all workers of which that is so.
        """
        address = self._driver_address()
        failed = []
        with futures.ThreadPoolExecutor(len(self._groups)) as pool:
            for waiting in [pool.submit(group.connect, lambda: address) for group in self._groups]:
                try:
                    waiting.result()
                except ChannelError as error:
                    failed.append(str(error))
        if failed:
            self.close()
            raise ChannelError("\n".join(failed))

    def close(self) -> None:
        """Disconnects. The workers forget what they kept; they stay up."""
        for group in self._groups:
            group.close()

    def __enter__(self) -> Cluster:
        with self._lock:
            if not self._entered:
                self.connect()
            self._entered += 1
        return super().__enter__()

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)
        with self._lock:
            self._entered -= 1
            if not self._entered:
                self.close()

    def __repr__(self) -> str:
        return f"<Cluster of {', '.join(map(str, self.workers))}: {self.width} workers each>"

    def _check(self, driver: str) -> None:
        if not self.workers:
            raise ConfigError("A cluster has workers; none were given. Write Cluster({'server0': 'host:port', ...}).")
        host, _ = split_address(driver, "driver")
        own_address(host, "The driver")
        counts = {str(party): len(listed) for party, listed in self.workers.items()}
        if len(set(counts.values())) != 1:
            raise ConfigError(
                f"Each party has as many workers as the others, one for each group; got {counts}. Add some, or leave "
                "some out."
            )
        everywhere = [address for listed in self.workers.values() for address in listed]
        twice = {address for address in everywhere if everywhere.count(address) > 1}
        if twice:
            names = ", ".join(sorted(twice))
            raise ConfigError(f"Each worker computes for one party, in one group; given more than once: {names}.")
        if any(party.job in (DRIVER, JOB) for party in self.workers):
            raise ConfigError(f"'{DRIVER}' and '{JOB}' are names of the runtime's own; call the party otherwise.")
        remote = [address for address in everywhere if not is_loopback(split_address(address, "A worker")[0])]
        if host == ANY:
            raise ConfigError(
                f"driver is the address at which workers reach this process; {ANY} is none. Give one of its addresses."
            )
        if remote and is_loopback(host):
            raise ConfigError(
                f"Workers fetch from this process what it computes, and {remote[0]} cannot reach {driver}. Give driver="
                "'host:port' with an address of this machine on the workers' network; see docs/cluster.md first."
            )

    def _check_parties(self, program: Program) -> None:
        listed = {party.job for party in self.workers}
        missing = sorted(computing_jobs(program) - listed)
        if missing:
            raise PlacementError(
                f"A computing party has a worker; {', '.join(missing)} has none in this cluster of "
                f"{', '.join(sorted(listed))}. Start one with `shareflow worker --party {missing[0]}` and add its "
                "address, or name the protocol's parties as the cluster does."
            )

    def _driver_address(self) -> str:
        return _server_of_this_process(self._driver)


@dataclass(frozen=True)
class _Limits:
    connect_seconds: float
    run_seconds: float


class _Group:
    """One worker of each party, and the session that runs programs on them, one at a time."""

    def __init__(self, addresses: dict[Party, str], limits: _Limits) -> None:
        self.addresses = addresses
        self._limits = limits
        self._lock = threading.Lock()
        self._session: _Session | None = None
        self._without_kernels: list[str] = []

    def connect(self, driver_address: Callable[[], str]) -> None:
        """Checks the workers and begins a session, if there is none."""
        with self._lock:
            if self._session is None:
                self._check_workers()
                self._session = _Session(self.addresses, driver_address(), self._limits.run_seconds)

    def run(self, program: Program, values: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        with self._lock:
            if self._session is None:
                raise ChannelError("The cluster was closed while a call waited for its turn. Call it inside the block.")
            self._check_kernels(program)
            try:
                session = self._session
                return _within(self._limits.run_seconds + _GRACE_SECONDS, lambda: session.run(program, values))
            except tf.errors.OpError as error:
                text = from_graph(error.message) if isinstance(error, tf.errors.InvalidArgumentError) else None
                if text is not None:
                    # While a worker goes away a rule can fail on what it did not send any more: that is no one's data.
                    missing = self._missing_workers()
                    if not missing:
                        raise EncodingError(text) from None
                    self._lose()
                    raise ChannelError(_lost("a worker went away", missing)) from None
                self._lose()
                self._explain(error)

    def close(self) -> None:
        with self._lock:
            self._lose()

    def _lose(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None

    def _check_workers(self) -> None:
        """All workers are there and fit, or one error that names all that do not."""
        failed, self._without_kernels = [], []
        for party, answer in self._answers(self._limits.connect_seconds).items():
            error = answer.exception()
            if isinstance(error, ChannelError):
                failed.append(f"{party}: {error}")
            else:
                about, where = answer.result(), f"{party}: The worker at {self.addresses[party]}"
                ours = f"shareflow {__version__} and TensorFlow {tf.__version__}"
                if about.party != party.job:
                    failed.append(f"{where} computes for {about.party}. Give each party the address of its own worker.")
                elif (about.shareflow, about.tensorflow) != (__version__, tf.__version__):
                    theirs = f"shareflow {about.shareflow} and TensorFlow {about.tensorflow}"
                    failed.append(f"{where} runs {theirs}, the driver {ours}. Install the same versions everywhere.")
                elif about.kernels == NO_KERNELS:
                    self._without_kernels.append(where)
        if failed:
            raise ChannelError("\n".join(failed))

    def _check_kernels(self, program: Program) -> None:
        if self._without_kernels and uses_native_ops(program):
            raise ChannelError(
                f"{'; '.join(self._without_kernels)} has no native kernels, which the driver's graph needs. Build them "
                "there (docs/kernels.md), or set SHAREFLOW_KERNELS=tensorflow for the driver."
            )

    def _answers(self, seconds: float) -> dict[Party, futures.Future[Any]]:
        with futures.ThreadPoolExecutor(len(self.addresses)) as pool:
            return {party: pool.submit(ask, address, seconds) for party, address in self.addresses.items()}

    def _explain(self, error: tf.errors.OpError) -> NoReturn:
        """Raises what a failed run means to who called it: the text of TensorFlow's own error may quote values."""
        if isinstance(error, tf.errors.DeadlineExceededError):
            raise TimeLimitError(
                f"An execution takes {self._limits.run_seconds:g} s at most, and this one was not done by then. "
                f"{self._missing()}Give the cluster more run_seconds if it is at work."
            ) from None
        if isinstance(error, tf.errors.NotFoundError) and "Op type not registered" in error.message:
            raise ChannelError(
                "A worker lacks an operation that the graph needs: its native kernels are of another build. Install "
                "the same shareflow everywhere."
            ) from None
        if isinstance(error, _CONNECTION):
            why = f"the connection to a worker broke ({type(error).__name__})"
            raise ChannelError(_lost(why, self._missing())) from None
        raise error

    def _missing(self) -> str:
        """A sentence on the workers that do not answer now."""
        return self._missing_workers() or "All workers answer now. "

    def _missing_workers(self) -> str:
        """The same, empty where all answer."""
        answers = self._answers(min(self._limits.connect_seconds, _PROBE_SECONDS))
        silent = [f"{party} at {self.addresses[party]}" for party, answer in answers.items() if answer.exception()]
        return f"No answer from {', '.join(silent)}. " if silent else ""


def _lost(why: str, missing: str) -> str:
    return f"An execution was lost: {why}. {missing}The next call connects anew; this one's masks are not used again."


_CONNECTION = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.InternalError,
    tf.errors.UnknownError,
    tf.errors.DataLossError,
    tf.errors.NotFoundError,
)
# How long a worker may take to answer before an error says that it does not.
_PROBE_SECONDS = 3.0
_CLOSE_SECONDS = 2.0
# How much longer than TensorFlow's own limit an execution is waited for.
_GRACE_SECONDS = 1.0


def _within(seconds: float, compute: Callable[[], list[tf.Tensor]]) -> list[tf.Tensor]:
    """What ``compute`` gives, in a thread that is left behind if it takes longer.

    TensorFlow's limit does not cover all: where a worker hangs while it is handed its part of a new graph, a call
    waits for it without end.
    """
    outcome: futures.Future[list[tf.Tensor]] = futures.Future()

    def run() -> None:
        try:
            outcome.set_result(compute())
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        return outcome.result(seconds)
    except futures.TimeoutError:
        raise tf.errors.DeadlineExceededError(None, None, "the execution was left behind") from None


class _Session:
    """A TensorFlow session of a group: one graph that grows by each program, and variables at the workers."""

    def __init__(self, addresses: dict[Party, str], driver: str, run_seconds: float) -> None:
        jobs = {party.job: [address] for party, address in addresses.items()}
        config = tf.compat.v1.ConfigProto(
            cluster_def=tf.train.ClusterSpec({**jobs, DRIVER: [driver]}).as_cluster_def(),
            # What a session keeps at the workers goes with it, and no other session sees it.
            isolate_session_state=True,
            operation_timeout_in_ms=round(1000 * run_seconds),
        )
        # The graph runs as it was built and audited: nothing is folded, merged or moved.
        config.graph_options.rewrite_options.disable_meta_optimizer = True
        config.graph_options.optimizer_options.opt_level = -1
        self._jobs = set(jobs)
        self._graph = tf.Graph()
        self._session = tf.compat.v1.Session(f"grpc://{driver}", graph=self._graph, config=config)
        self._numbers = itertools.count()
        self._programs: weakref.WeakKeyDictionary[tf.Graph, _Ready] = weakref.WeakKeyDictionary()
        # By identity of a captured tensor and device; alive as long as a program uses it.
        self._kept: weakref.WeakValueDictionary[tuple[int, str], _KeptValue] = weakref.WeakValueDictionary()

    def run(self, program: Program, values: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        if program.graph not in self._programs:
            self._programs[program.graph] = self._prepare(program)
        ready = self._programs[program.graph]
        for value in ready.kept:
            value.bring(self._session)
        given, captures = len(program.arguments), len(program.captures)
        fed = [value.numpy() for value in (*values[:given], *values[given + captures :])]
        results = ready.call(*fed)
        count = len(program.outputs)
        for value, changed in zip(ready.written, results[count : count + len(ready.written)], strict=True):
            value.take_back(changed)
        return [tf.constant(result) for result in results[:count]]

    def close(self) -> None:
        # A worker that hangs would make closing wait for it.
        closing = threading.Thread(target=self._close, daemon=True)
        closing.start()
        closing.join(_CLOSE_SECONDS)

    def _close(self) -> None:
        with contextlib.suppress(tf.errors.OpError):
            self._session.close()

    def _prepare(self, program: Program) -> _Ready:
        name = f"program{next(self._numbers)}"
        kept: dict[tuple[int, str], _KeptValue] = {}

        def kept_name(outside: tf.Tensor, device: str) -> str:
            key = (id(outside), device)
            if key not in kept:
                kept[key] = self._kept.get(key) or _KeptValue(outside, f"kept{next(self._numbers)}")
            return kept[key].name

        placed = place(program, name, self._device, kept_name)
        with self._graph.as_default():
            tf.graph_util.import_graph_def(placed.definition, name=name)
        values = list(kept.values())
        for value, here in zip(values, placed.kept, strict=True):
            value.find(self._graph, name, here)
        self._kept.update(kept)
        written = [(value, here) for value, here in zip(values, placed.kept, strict=True) if here.after]
        fetches = [
            *(self._graph.get_tensor_by_name(f"{name}/{tensor}") for tensor in placed.outputs),
            *(self._graph.get_tensor_by_name(f"{name}/{here.after}:0") for _, here in written),
            *(self._graph.get_operation_by_name(f"{name}/{effect}") for effect in placed.effects),
        ]
        feeds = [self._graph.get_tensor_by_name(f"{name}/{tensor}") for tensor in placed.feeds]
        return _Ready(self._session.make_callable(fetches, feeds), values, [value for value, _ in written])

    def _device(self, job: str) -> str:
        return f"/job:{job if job in self._jobs else DRIVER}/replica:0/task:0/device:CPU:0"


@dataclass
class _Ready:
    """A program in a session's graph."""

    call: Callable[..., list[Any]]
    kept: list[_KeptValue]
    written: list[_KeptValue]


class _KeptValue:
    """A variable at a worker that holds what a program captured: a tensor, or the value of a variable."""

    def __init__(self, outside: tf.Tensor, name: str) -> None:
        self.name = name
        self._outside = outside
        self._brought: tf.Tensor | None = None
        self._dtype: Any = None
        self._assign: Any = None
        self._value: Any = None

    def find(self, graph: tf.Graph, program: str, kept: Kept) -> None:
        """Where the graph of a program, the first that uses it, assigns it."""
        if self._assign is None:
            self._dtype = kept.dtype
            self._assign = graph.get_operation_by_name(f"{program}/{kept.assign}")
            self._value = graph.get_tensor_by_name(f"{program}/{kept.value}:0")

    def bring(self, session: Any) -> None:
        """Copies the value to the worker where it is not there yet, or is another by now."""
        now = self._read()
        if self._brought is None or not _same_memory(now, self._brought):
            session.run(self._assign, {self._value: now.numpy()})
            self._brought = now

    def take_back(self, value: np.ndarray) -> None:
        """A program changed it: so does the variable of this process."""
        tf.raw_ops.AssignVariableOp(resource=self._outside, value=tf.constant(value))
        self._brought = self._read()

    def _read(self) -> tf.Tensor:
        if self._outside.dtype != tf.resource:
            return self._outside
        return tf.raw_ops.ReadVariableOp(resource=self._outside, dtype=self._dtype)


def _same_memory(one: tf.Tensor, other: tf.Tensor) -> bool:
    """Whether two reads of a variable are of one value: while a read is kept, every change takes other memory."""
    if one is other:
        return True
    try:
        places = [np.asarray(memoryview(tensor)).__array_interface__["data"][0] for tensor in (one, other)]
    except (TypeError, ValueError, BufferError):
        return False  # a dtype that has no buffer: copied at each run
    return places[0] == places[1]


_servers: dict[tuple[int, str], tuple[Any, str]] = {}
_servers_lock = threading.Lock()


def _server_of_this_process(address: str) -> str:
    """The address of the driver's own server: begun once for each address asked, as none can be stopped."""
    with _servers_lock:
        key = (os.getpid(), address)
        if key not in _servers:
            host, port = split_address(address, "driver")
            _servers[key] = start_server(own_address(host, "The driver"), port)
        return _servers[key][1]


def _addresses(party: Party | str, listed: Any) -> tuple[str, ...]:
    addresses = tuple(listed) if isinstance(listed, (list, tuple)) else (listed,)
    if not addresses:
        raise ConfigError(f"{party} has no address. Give one 'host:port' for each of its workers, or leave it out.")
    for address in addresses:
        split_address(address, f"An address of {party}")
    return addresses
