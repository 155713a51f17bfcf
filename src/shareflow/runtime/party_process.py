"""One party as a process: a role, its links, health checks, and an end in good order.

The first SIGTERM or SIGINT asks the role to finish what runs within the grace; the second ends the process at once,
which loses nothing that was promised: what counts is durable before it is told.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable
from functools import partial
from types import FrameType

from shareflow.runtime.arenas import keep_arenas_few
from shareflow.runtime.channel.dialer import Dialer
from shareflow.runtime.channel.health import HealthServer
from shareflow.runtime.channel.listener import Listener
from shareflow.runtime.dealing import Dealing
from shareflow.runtime.following import Following
from shareflow.runtime.leading import Leading
from shareflow.runtime.metrics import CONTENT_TYPE, Metrics
from shareflow.runtime.party_config import PartyConfig
from shareflow.runtime.plan import Plan
from shareflow.runtime.role import Role
from shareflow.runtime.store import Store

_log = logging.getLogger(__name__)

# Seconds after which the main thread looks whether a signal came.
_LOOK = 0.5
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class PartyProcess:
    """A party with its store open, listening and dialing, until :meth:`close`; a context manager.

    Args:
        config: of this party; :meth:`PartyConfig.check` was passed with this plan.
        plan: audited.

    Raises:
        ConfigError, StoreError, ChannelError: it cannot start; nothing of it goes on running.
    """

    def __init__(self, config: PartyConfig, plan: Plan) -> None:
        manifest, self.config = plan.manifest, config
        keep_arenas_few()
        self.metrics = Metrics()
        self._ends: list[Callable[[], object]] = []
        try:
            identity = config.identity()
            store = Store.open(
                config.data,
                config.storage_secret(),
                plan_fingerprint=plan.fingerprint,
                party=config.name,
                witness=config.witness,
            )
            self._ends.append(store.close)
            self.role = _role(config, plan, store, self.metrics)
            self._ends.append(partial(self.role.stop, 0.0))
            self.listener: Listener | None = None
            if config.listen is not None:
                self.listener = Listener(
                    str(config.listen),
                    identity,
                    config.accepts(manifest),
                    plan=plan.fingerprint,
                    callbacks=self.role.callbacks,
                    settings=config.links.settings(),
                    handshake_limit=config.links.handshake_limit,
                    most_per_peer=config.links.most_per_peer,
                )
                self._ends.append(partial(self.listener.close, f"{config.name} is stopping"))
            self.health: HealthServer | None = None
            if config.health is not None:
                about = {"party": config.name, "plan": plan.fingerprint}
                self.health = HealthServer(
                    config.health, lambda: {**about, **self.role.status()}, self.metrics.text, CONTENT_TYPE
                )
                self._ends.append(self.health.close)
            self.dialers = [
                Dialer(
                    str(peer.address),
                    identity,
                    peer.trusted(),
                    plan=plan.fingerprint,
                    callbacks=self.role.callbacks,
                    settings=config.links.settings(),
                    time_limit=config.links.handshake_limit,
                )
                for peer in config.dials(manifest)
            ]
            for dialer in self.dialers:
                dialer.start()
                self._ends.append(partial(dialer.close, f"{config.name} is stopping"))
            self.role.start()
        except BaseException:
            self._end()
            raise
        where = {"listen": f"{config.listen.host}:{self.listener.port}"} if config.listen and self.listener else {}
        where |= {"health": str(self.health.address)} if self.health else {}
        _log.info("%s is up", config.name, extra={"fields": {**where, "plan": plan.fingerprint, "pid": os.getpid()}})

    def close(self, grace: float = 0.0) -> None:
        """Finishes what runs within ``grace`` seconds, then ends links and closes the store."""
        self.role.stop(grace)
        self._end()

    def run(self) -> int:
        """Waits for a signal, then stops in good order; the exit code. For the main thread."""
        asked = threading.Event()
        number = 0

        def on_signal(signum: int, frame: FrameType | None) -> None:
            nonlocal number
            if asked.is_set():
                # Not by way of the logs, whose lock the interrupted code may hold.
                os.write(2, f"{signal.Signals(signum).name} again: stopping at once\n".encode())
                os._exit(128 + signum)
            number = signum
            asked.set()

        before = {signum: signal.signal(signum, on_signal) for signum in _SIGNALS}
        try:
            # Not without end: a signal that another thread of the process takes does not wake this one.
            while not asked.wait(_LOOK):
                pass
            name = signal.Signals(number).name
            _log.info("%s: stopping within %g s; another signal stops at once", name, self.config.grace)
            self.close(self.config.grace)
            _log.info("%s stopped", self.config.name)
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)
        return 0

    def __enter__(self) -> PartyProcess:
        return self

    def __exit__(self, *exception: object) -> None:
        self._end()

    def _end(self) -> None:
        while self._ends:
            try:
                self._ends.pop()()
            except Exception:
                _log.exception("a part of the party did not end well")


def _role(config: PartyConfig, plan: Plan, store: Store, metrics: Metrics) -> Role:
    if config.name == plan.manifest.protocol.dealer:
        return Dealing(plan, config.name, store, config.dealing, metrics)
    clients = {client.name: client for client in config.clients}
    leads = config.name == plan.manifest.protocol.servers[0]
    return (Leading if leads else Following)(plan, config.name, store, config.serving_settings, clients, metrics)
