"""Two servers in one process that know both shares, and so compute in the clear: what a client talks to in tests."""

from __future__ import annotations

import contextlib
import json
import secrets
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
from tests.client.small_plan import SCALE, SERVERS, small_plan
from tests.runtime.channel.pairs import known, pin

from shareflow.runtime.channel.listener import Listener
from shareflow_client.errors import ChannelError
from shareflow_client.link import Callbacks, Link, LinkSettings
from shareflow_client.stream import uniform
from shareflow_client.tls import Identity
from shareflow_client.wire import FrameKind

PLAN = small_plan()
LEADER, FOLLOWER = SERVERS
# Bytes of one row by entry: to each server, and from each.
TO = {"predict": {LEADER: 32}, "double": {LEADER: 48}, "load": {LEADER: 8 * 300 * 50 + 16}, "meet": {LEADER: 16}}


@dataclass
class Asked:
    """One request as both servers know it."""

    pair: FakePair
    number: int
    submits: dict[str, dict[str, Any]] = field(default_factory=dict)
    links: dict[str, Link] = field(default_factory=dict)
    data: bytes | None = None

    @property
    def whole(self) -> bool:
        return len(self.submits) == 2 and self.data is not None

    @property
    def entry(self) -> str:
        return self.submits[LEADER]["entry"]

    @property
    def rows(self) -> range:
        submit = next(iter(self.submits.values()))
        return range(submit["first_row"], submit["first_row"] + submit["rows"])

    def values(self, row: int, stream: int, shape: tuple[int, ...], data: bytes) -> np.ndarray:
        """The plaintext of an input of one row."""
        mask = uniform(self.links[FOLLOWER].key(b"rows"), row, stream, shape)
        return (np.frombuffer(data, "<i8").reshape(shape) + mask) / SCALE

    def inputs(self) -> list[np.ndarray]:
        size = TO[self.entry][LEADER]
        parts = [self.data[i * size : (i + 1) * size] for i in range(len(self.rows))]
        if self.entry == "predict":
            return [self.values(row, 3, (1, 4), part) for row, part in zip(self.rows, parts, strict=True)]
        if self.entry == "double":
            return [self.values(row, 0, (1, 2, 3), part) for row, part in zip(self.rows, parts, strict=True)]
        if self.entry == "load":
            (row,), (part,) = self.rows, parts
            return [self.values(row, 0, (300, 50), part[:-16]), self.values(row, 1, (2,), part[-16:])]
        return [self.values(self.rows[0], 0, (2,), parts[0])]

    @cached_property
    def answers(self) -> dict[str, bytes]:
        """What each server sends; nothing where the plan says so."""
        made = {server: b"" for server in SERVERS}
        for x in self.inputs():
            if self.entry == "predict":
                sums = np.rint(x.reshape(2, 2).sum(1) * SCALE).astype("<i8")
                part = np.frombuffer(secrets.token_bytes(16), "<i8")
                signs = np.array([x.shape[1], *np.sign(x[0, :2])], "<i4")
                made[FOLLOWER] += (sums - part).tobytes() + signs.tobytes() + bytes(4)
                made[LEADER] += part.tobytes()
            elif self.entry == "double":
                made[LEADER] += np.rint(2 * x * SCALE).astype("<i8").tobytes()
        return made

    def say(self, server: str, **message: Any) -> None:
        self.links[server].send(FrameKind.CONTROL, json.dumps(message).encode())

    def give(self, server: str, data: bytes | None = None) -> None:
        """Send this server's data."""
        data = self.answers[server] if data is None else data
        if data:
            self.links[server].send(FrameKind.DATA, data, execution=self.number, round=1)

    def done(self, version: int = 0) -> None:
        self.say(LEADER, type="done", request=self.number, version=version)

    def answer(self) -> None:
        """All that two honest servers do."""
        self.give(FOLLOWER)
        self.give(LEADER)
        self.done(7 if self.entry == "load" else 0)


class FakePair:
    """Both servers. `script(asked)` is run, in a thread of its own, for each request that is whole."""

    def __init__(self, plan: str = PLAN.fingerprint, settings: LinkSettings | None = None, **identities: Identity):
        self.script: Callable[[Asked], None] = Asked.answer
        self.asked: dict[tuple[str, int], Asked] = {}
        self.seen: SimpleQueue[Asked] = SimpleQueue()
        self.cancelled: SimpleQueue[tuple[str, int]] = SimpleQueue()
        self.closed: SimpleQueue[str] = SimpleQueue()
        self.rows: dict[Link, int] = {}
        self.broken: list[str] = []
        self.lock = threading.Lock()
        self.plan, self.settings = plan, settings
        self.identities = {name: identities.get(name, known(name)) for name in SERVERS}
        self.trusted = [pin(known(name, "client")) for name in ("hospital", "owner")]
        self.listeners = {name: self.listen(name) for name in SERVERS}

    def listen(self, name: str, port: int = 0) -> Listener:
        return Listener(
            f"127.0.0.1:{port}",
            self.identities[name],
            self.trusted,
            plan=self.plan,
            callbacks=Callbacks(
                on_frame=lambda link, frame: self.frame(name, link, frame),
                on_close=lambda link, text: self.closed.put(text),
                size_limit=lambda link, kind, execution, round: self.size(name, link, kind, execution, round),
                on_link=lambda link: self.rows.__setitem__(link, 0),
            ),
            settings=self.settings,
            most_per_peer=32,
        )

    def size(self, name, link, kind, execution, round):
        if kind is FrameKind.CONTROL:
            return 1 << 16
        with self.lock:
            asked = self.asked.get((link.session_of, execution)) if hasattr(link, "session_of") else None
        if asked is None or round != 0:
            return None
        return TO[asked.submits[name]["entry"]].get(name, 0) * asked.submits[name]["rows"] or None

    def frame(self, name, link, frame):
        with self.lock:
            if frame.kind is FrameKind.DATA:
                asked = self.asked[link.session_of, frame.execution]
                asked.data = bytes(frame.payload)
            else:
                message = json.loads(bytes(frame.payload))
                if message["type"] == "cancel":
                    self.cancelled.put((name, message["request"]))
                    return
                asked = self.submitted(name, link, message)
            whole = asked.whole
        if whole:
            self.seen.put(asked)
            threading.Thread(target=self.run, args=(asked,), daemon=True).start()

    def submitted(self, name, link, message):
        """The rules of servers for a submit, held here so that a test sees a client break them."""
        if message["first_row"] < self.rows[link] or message["rows"] < 1:
            self.broken.append(f"row {message['first_row']} comes after {self.rows[link]}")
        self.rows[link] = message["first_row"] + message["rows"]
        link.session_of = message["session"]
        asked = self.asked.setdefault((message["session"], message["request"]), Asked(self, message["request"]))
        asked.submits[name], asked.links[name] = message, link
        if len(asked.submits) == 2 and asked.submits[LEADER] != asked.submits[FOLLOWER]:
            self.broken.append("the servers were told different things")
        return asked

    def run(self, asked):
        with contextlib.suppress(ChannelError):
            self.script(asked)

    def port(self, name: str) -> int:
        return self.listeners[name].port

    def stop(self, name: str, reason: str = "stopping") -> None:
        self.listeners[name].close(reason)

    def start(self, name: str) -> None:
        """Listen again where it did before."""
        self.listeners[name] = self.listen(name, self.port(name))

    def close(self) -> None:
        for name in SERVERS:
            self.stop(name, "the test is over")


@contextlib.contextmanager
def fake_pair(**settings: Any) -> Iterator[FakePair]:
    pair = FakePair(**settings)
    try:
        yield pair
    finally:
        pair.close()
    assert not pair.broken


def write_config(
    folder: Path, pair: FakePair, *, name: str = "hospital", acts_as: str = "client", limits: str = "", more: str = ""
) -> Path:
    """A configuration for the pair, and all files that it names."""
    me = known(name, "client")
    (folder / "me.crt").write_bytes(me.certificate_pem)
    key = folder / "me.key"
    key.touch(0o600)
    key.write_bytes(me.private_key_pem)
    PLAN.write(folder / "model.plan")
    text = f'name = "{name}"\nacts_as = "{acts_as}"\nplan = "model.plan"\ncertificate = "me.crt"\n'
    text += f'private_key = "me.key"\n{more}\n[limits]\n{limits}\n'
    for server in SERVERS:
        (folder / f"{server}.crt").write_bytes(known(server).certificate_pem)
        text += f'[[servers]]\nname = "{server}"\naddress = "127.0.0.1:{pair.port(server)}"\n'
        text += f'certificate = "{server}.crt"\n'
    path = folder / "client.toml"
    path.write_text(text)
    return path
