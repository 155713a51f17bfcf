"""`shareflow worker`: a TensorFlow server that computes for one party of a cluster, and says what it is.

Any process that can connect to a worker can make it compute anything: TensorFlow's connections are neither
authenticated nor encrypted. docs/cluster.md says when that is right.
"""

from __future__ import annotations

import dataclasses
import json
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf

from shareflow.errors import ChannelError, ConfigError
from shareflow.party.party import Party
from shareflow.runtime.channel.interface import ANY, is_loopback, own_address, split_address
from shareflow.runtime.server import start_server
from shareflow_client import __version__

# A worker keeps this variable, which holds what it says of itself. A driver reads it before anything else.
_ANNOUNCEMENT = "shareflow_worker"
# What a worker without native ops says of its kernels.
NO_KERNELS = "tensorflow"
# The longest announcement that is read.
_LONGEST = 4096


@dataclass(frozen=True)
class Announcement:
    """What a worker says of itself."""

    party: str
    kernels: str
    shareflow: str = __version__
    tensorflow: str = tf.__version__


class Worker:
    """A TensorFlow server of this process, as the worker of a party.

    Args:
        party: whom it computes for.
        listen: "host:port"; port 0 lets the system choose.
        kernels: the instruction set of the native ops that are loaded; ``NO_KERNELS`` for none.
        allow_remote: must be said to listen on more than loopback: who reaches the port controls the process.

    Raises:
        ConfigError: the address has another form, or is not loopback and remote machines are not allowed.
        ChannelError: the port is taken.
    """

    def __init__(self, party: str, listen: str, *, kernels: str, allow_remote: bool = False) -> None:
        name = Party(party)
        host, port = split_address(listen, "--listen")
        host = own_address(host, "A worker")
        if not is_loopback(host) and not allow_remote:
            raise ConfigError(
                f"A worker listens on loopback, as whoever reaches its port can make it compute anything; --listen "
                f"{listen} is open to the network. Add --allow-remote if every machine there may, and see "
                "docs/cluster.md."
            )
        self.announcement = Announcement(name.job, kernels)
        self._server, self.address = start_server(host, port)
        text = json.dumps(dataclasses.asdict(self.announcement), sort_keys=True)
        with tf.Graph().as_default() as graph:
            assign = tf.raw_ops.AssignVariableOp(resource=_variable(), value=tf.constant(text))
        # Kept open: the variable lives as long as the server, the session need not.
        with tf.compat.v1.Session(self._server.target.replace(ANY, "127.0.0.1"), graph=graph) as session:
            session.run(assign)

    def wait(self, ready: Callable[[str], None]) -> str:
        """Serves until SIGTERM or SIGINT comes, whose name it returns. Must run in the main thread.

        ``ready`` is called with the address as soon as either signal would end it.
        """
        stopped, received = threading.Event(), [signal.SIGTERM]

        def stop(number: int, _: object) -> None:
            received[0] = signal.Signals(number)
            stopped.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)
        ready(self.address)
        stopped.wait()
        return received[0].name


def ask(address: str, seconds: float) -> Announcement:
    """What the worker at an address says of itself.

    Raises:
        ChannelError: it does not answer in time, or is no worker.
    """
    config = tf.compat.v1.ConfigProto(operation_timeout_in_ms=max(1, round(1000 * seconds)))
    with tf.Graph().as_default() as graph:
        read = tf.raw_ops.ReadVariableOp(resource=_variable(), dtype=tf.string)
    try:
        with tf.compat.v1.Session(f"grpc://{address}", graph=graph, config=config) as session:
            text = session.run(read)
    except (tf.errors.DeadlineExceededError, tf.errors.UnavailableError):
        raise ChannelError(
            f"The worker at {address} does not answer within {seconds:g} s. Start it there with `shareflow worker`, or "
            "correct the address."
        ) from None
    except tf.errors.OpError as error:
        raise ChannelError(
            f"At {address} is no shareflow worker ({type(error).__name__}). Start one there with `shareflow worker`."
        ) from None
    try:
        return Announcement(**{key: str(value) for key, value in json.loads(text[:_LONGEST]).items()})
    except (ValueError, TypeError, AttributeError):
        raise ChannelError(
            f"The worker at {address} is of a version of shareflow that this one, {__version__}, does not understand. "
            "Run the same version everywhere."
        ) from None


def _variable() -> tf.Tensor:
    return tf.raw_ops.VarHandleOp(dtype=tf.string, shape=[], shared_name=_ANNOUNCEMENT, container="")
