"""Keeps a link to a peer: dials until it answers, and again when the link is lost."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from dataclasses import replace

from shareflow_client.errors import ChannelError, ConfigError
from shareflow_client.link import Callbacks, Link, LinkSettings, UnreachableError, dial
from shareflow_client.tls import Identity, Trusted

_log = logging.getLogger(__name__)

FIRST_DELAY, LONGEST_DELAY = 0.2, 10.0
"""Seconds between attempts: the first, doubled each time, and the longest."""
REFUSED_DELAY = 30.0
"""Seconds after a refusal that lasts until somebody corrects a configuration."""


class Dialer:
    """One link to ``trusted`` at ``target``, as long as :meth:`close` is not called. ``callbacks`` serve each link.

    Arguments are those of :func:`shareflow_client.link.dial`. A failure is logged once, and again when its cause is
    another one.
    """

    def __init__(
        self,
        target: str,
        identity: Identity,
        trusted: Trusted,
        *,
        plan: str,
        callbacks: Callbacks,
        settings: LinkSettings | None = None,
        time_limit: float = 10.0,
        refused_delay: float = REFUSED_DELAY,
    ) -> None:
        self.target, self.peer = target, trusted.name
        self._identity, self._trusted, self._plan = identity, trusted, plan
        self._callbacks = replace(callbacks, on_close=self._on_close)
        self._closed_to = callbacks.on_close
        self._settings, self._time_limit, self._refused_delay = settings, time_limit, refused_delay
        self._lost = threading.Event()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._link: Link | None = None
        self._failure = "not tried yet"
        self._reason = ""
        # Parties that lost the same peer do not all come back in the same moment.
        share = hashlib.sha256(f"{identity.name}>{trusted.name}".encode()).digest()[0] / 255
        self._factor = 0.75 + 0.5 * share
        self._thread = threading.Thread(target=self._run, name=f"shareflow dialer {self.peer}", daemon=True)

    def start(self) -> Dialer:
        """Begins to dial, on a thread of its own."""
        self._thread.start()
        return self

    @property
    def link(self) -> Link | None:
        """The link, None while there is none."""
        with self._lock:
            return self._link

    @property
    def failure(self) -> str:
        """Why there is no link, in words; empty while there is one."""
        with self._lock:
            return "" if self._link is not None else self._failure

    def close(self, reason: str = "") -> None:
        """Closes the link, which sends what it has queued, and dials no more."""
        with self._lock:
            self._reason = reason
            self._stop.set()
            link = self._link
        if link is not None:
            link.close(reason)
        self._lost.set()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(2.0)

    def _run(self) -> None:
        told = ""
        attempts = 0
        while not self._stop.is_set():
            self._lost.clear()
            try:
                link = self._dial()
            except (ChannelError, ConfigError) as error:
                attempts += 1
                lasting = not isinstance(error, UnreachableError)
                if str(error) != told:
                    told = str(error)
                    level = logging.ERROR if lasting else logging.WARNING
                    _log.log(level, "cannot reach %s, trying again: %s", self.peer, error)
                with self._lock:
                    self._failure = told
                delay = min(FIRST_DELAY * 2 ** min(attempts - 1, 16), LONGEST_DELAY) * self._factor
                self._stop.wait(self._refused_delay if lasting and attempts > 1 else delay)
                continue
            opened = time.monotonic()
            _log.info("connected to %s at %s (shareflow %s)", self.peer, self.target, link.peer_software)
            self._lost.wait()
            with self._lock:
                self._link, self._failure = None, link.closed or "the link was lost"
            if self._stop.is_set():
                link.close(self._reason)
                return
            _log.warning("the link to %s was lost: %s", self.peer, link.closed)
            # A peer that accepts and closes at once is not dialed in a tight loop.
            attempts = 0 if time.monotonic() - opened > LONGEST_DELAY else attempts + 1
            told = ""
            self._stop.wait(min(FIRST_DELAY * 2 ** min(attempts, 16), LONGEST_DELAY) * self._factor if attempts else 0)

    def _dial(self) -> Link:
        link = dial(
            self.target,
            self._identity,
            self._trusted,
            plan=self._plan,
            callbacks=self._callbacks,
            settings=self._settings,
            time_limit=self._time_limit,
        )
        with self._lock:
            self._link = link
        if self._stop.is_set():
            link.close(self._reason)
        return link

    def _on_close(self, link: Link, text: str) -> None:
        self._lost.set()
        self._closed_to(link, text)
