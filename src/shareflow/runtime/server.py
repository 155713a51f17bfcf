"""A TensorFlow server in this process, which listens where it is told."""

from __future__ import annotations

import tensorflow as tf

from shareflow.errors import ChannelError
from shareflow.runtime.channel.interface import answer_only_at

# What a server calls itself until a driver's session says which party it computes for. TensorFlow refuses a session
# that gives a server the name it began with, so no party has this one.
JOB = "shareflow_server"


def start_server(host: str, port: int) -> tuple[tf.distribute.Server, str]:
    """A server that runs the graphs of whoever reaches its port, and its address; port 0 lets the system choose.

    It cannot be stopped again but by ending the process: TensorFlow's servers have no other end.

    Args:
        host: an IPv4 address of this machine; no other one answers. ``0.0.0.0`` for all.

    Raises:
        ChannelError: the port is taken, or the server cannot be kept to the address.
    """
    try:
        server = tf.distribute.Server(
            tf.train.ClusterSpec({JOB: [f"{host}:{port}"]}), job_name=JOB, task_index=0, start=False
        )
    except tf.errors.OpError as error:
        raise ChannelError(
            f"A TensorFlow server cannot listen on {host}:{port} ({type(error).__name__}): the port is taken, or needs "
            "more rights. Choose another port."
        ) from None
    bound = int(server.target.rpartition(":")[2])
    answer_only_at(bound, host)
    server.start()
    return server, f"{host}:{bound}"
