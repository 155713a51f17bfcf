"""Two servers that only take material, a small plan, and the whole graph as the oracle of what was dealt."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections import defaultdict

import numpy as np
import tensorflow as tf
from tests.runtime.channel.pairs import GUARD, known, pin

import shareflow as sf
from shareflow.planning import Entry, Input, plan
from shareflow.runtime.channel.dialer import Dialer
from shareflow.runtime.channel.listener import Listener
from shareflow.runtime.cut import cut
from shareflow.runtime.definition import without_devices
from shareflow.runtime.part import tensors_of
from shareflow_client.errors import ChannelError
from shareflow_client.link import Callbacks
from shareflow_client.wire import FrameKind

SERVERS, DEALER = ("server0", "server1"), "dealer"
LOAD, PREDICT = "load", "predict@1"


def small_plan():
    """Weights that an owner loads, and relu(x w) for a client."""

    def load(w):
        return {"w": w}

    def predict(x, w):
        return sf.nn.relu(x @ w).reveal("client")

    return plan(
        {
            "load": Entry(load, {"w": Input("owner", (4, 3))}, keeps=("w",)),
            "predict": Entry(predict, {"x": Input("client", (4,))}, batch_sizes=(1, 2)),
        }
    )


class FakeServer:
    """Listens as one server; stores what comes in memory, and answers as a test wants."""

    def __init__(self, name, plan, *, port=0, current=0):
        self.name, self.plan, self.current = name, plan, current
        self.links, self.material, self.said = [], {}, []
        self.stores, self.refuse = True, set()
        self.seen = 0
        self.counts = defaultdict(int)
        self._open = {}
        self._changed = threading.Condition()
        self.listener = self.listen(port)
        self.port = self.listener.port

    def listen(self, port):
        deadline = time.monotonic() + GUARD
        while True:
            with contextlib.suppress(ChannelError):
                return Listener(
                    f"127.0.0.1:{port}",
                    known(self.name),
                    [pin(known(DEALER))],
                    plan=self.plan.fingerprint,
                    callbacks=Callbacks(self.on_frame, self.on_close, self.size_limit, self.on_link),
                )
            assert time.monotonic() < deadline, "the port stays taken"

    def say(self, type_, **fields):
        self.links[-1].send(FrameKind.CONTROL, json.dumps({"type": type_, **fields}).encode())

    def on_link(self, link):
        with self._changed:
            self.links.append(link)
            self._changed.notify_all()
        self.tell()

    def tell(self):
        self.say("counts", counts=[[g, v, n] for (g, v), n in self.counts.items()])
        if self.name == SERVERS[0]:
            self.say("current", version=self.current)

    def on_close(self, link, text):
        with self._changed:
            self.links.remove(link)
            self._changed.notify_all()

    def size_limit(self, link, kind, execution, round_):
        return 1 << 20 if kind is FrameKind.CONTROL else self._open[execution]["bytes"]

    def on_frame(self, link, frame):
        if frame.kind is FrameKind.DATA:
            return self.put(link, self._open.pop(frame.execution), bytes(frame.payload))
        message = json.loads(bytes(frame.payload))
        if message["type"] != "material":
            with self._changed:
                self.said.append(message)
                self._changed.notify_all()
        elif message["bytes"]:
            self._open[message["index"]] = message
        else:
            self.put(link, message, b"")

    def put(self, link, message, payload):
        graph, version, index = message["graph"], message["version"], message["index"]
        key = link.key(f"deal {graph} {version} {index}".encode())
        with self._changed:
            assert index not in self.material, "an index came twice"
            self.seen += 1
            self._changed.notify_all()
            if self.seen in self.refuse:
                return self.say("refused", index=index, text="the disk is full")
            self.material[index] = (graph, version, key, payload)
            self.counts[graph, version] += 1
            if self.stores:
                self.say("stored", indices=[index])

    def wait(self, condition):
        with self._changed:
            assert self._changed.wait_for(condition, GUARD)

    def indices(self, graph, version=None):
        return sorted(i for i, (g, v, *_) in self.material.items() if g == graph and version in (None, v))

    def close(self):
        self.listener.close("the test is over")


@contextlib.contextmanager
def two_servers(plan, **settings):
    servers = [FakeServer(name, plan, **settings) for name in SERVERS]
    try:
        yield servers
    finally:
        for server in servers:
            server.close()


@contextlib.contextmanager
def dialing(role, servers, plan):
    dialers = [
        Dialer(
            f"127.0.0.1:{server.port}",
            known(DEALER),
            pin(known(server.name)),
            plan=plan.fingerprint,
            callbacks=role.callbacks,
        ).start()
        for server in servers
    ]
    try:
        yield dialers
    finally:
        for dialer in dialers:
            dialer.close("the test is over")


class Whole:
    """Runs a whole graph of a plan in one session, with what was dealt in place of the dealer's part."""

    def __init__(self, plan, graph):
        self.plan, self.graph, self.info = plan, graph, plan.manifest.graphs[graph]
        self.tf_graph = tf.Graph()
        definition = tf.compat.v1.GraphDef()
        definition.CopyFrom(plan.definition(graph))
        with self.tf_graph.as_default():
            tf.graph_util.import_graph_def(without_devices(definition), name="")
        self.parts = {party: cut(plan, graph, party) for party in (*SERVERS, DEALER)}

    def run(self, index, keys, inputs=(), state=(), corrections=None):
        """(results by name, state by (name, component), corrections by server); keys by server, with the dealer."""
        session, fetches = tf.compat.v1.Session(graph=self.tf_graph), {}
        feed = {}
        for operation in self.tf_graph.get_operations():
            if operation.type == "Placeholder" and operation.name.startswith("key."):
                pair = set(operation.name.split(".")[1:3])
                words = np.frombuffer(bytes(range(16)), "<i8")
                if DEALER in pair and pair & set(SERVERS):
                    words = np.frombuffer(keys[(pair & set(SERVERS)).pop()], "<i8")
                feed[operation.outputs[0]] = words
            elif operation.type == "Placeholder" and operation.name.startswith("execution."):
                feed[operation.outputs[0]] = np.uint64(index).astype(np.int64)
        feed |= {self.tensor(i.tensor): dict(inputs)[i.name] for i in self.info.inputs}
        feed |= {self.tensor(s.tensor): dict(state)[s.state, s.component] for s in self.info.state_in}
        for server, payload in (corrections or {}).items():
            if payload:
                message = self.parts[server].corrections
                feed |= {self.tensor(n): value.numpy() for n, value in tensors_of(message, payload).items()}
        fetches["results"] = {r.name: self.tensor(r.tensor) for r in self.info.results}
        fetches["state"] = {(s.state, s.component): self.tensor(s.tensor) for s in self.info.state_out}
        deals = {m.peer: [self.tensor(v.tensor) for v in m.values] for m in self.parts[DEALER].deals}
        fetches["deals"] = deals
        with session:
            got = session.run(fetches, feed)
        dealt = {peer: b"".join(_padded(a) for a in arrays) for peer, arrays in got["deals"].items()}
        return got["results"], got["state"], dealt

    def tensor(self, name):
        return self.tf_graph.get_tensor_by_name(name)


def _padded(array):
    data = np.ascontiguousarray(array).tobytes()
    return data + bytes(-len(data) % 8)
