"""The listening side of links: who may connect, and how many.

TLS asks for a certificate and refuses those that no trusted peer or authority accounts for (gRPC writes such a refusal
to stderr by itself). What passes is compared here with each trusted peer, in time and by name, before the handshake
answers.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import replace
from typing import Any

from cryptography import x509

from shareflow_client import __version__
from shareflow_client.errors import ChannelError
from shareflow_client.handshake import Handshake, Session, decode_hello
from shareflow_client.link import METHOD, SERVICE, Callbacks, Link, LinkSettings, options
from shareflow_client.tls import Identity, Trusted, fingerprint, grpc, identify, require_tls13, server_credentials
from shareflow_client.wire import FrameKind

_log = logging.getLogger(__name__)


class DaemonThreads(Executor):
    """A thread for each link, which does not keep the process alive as those of ThreadPoolExecutor do."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run the call in a new thread."""
        future: Future[Any] = Future()

        def run() -> None:
            future.set_running_or_notify_cancel()
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:
                future.set_exception(error)

        threading.Thread(target=run, name="shareflow link sender", daemon=True).start()
        return future


class Listener:
    """Listens at `address` ("host:port", port 0 for a free one) for the peers in `trusted`, for one plan.

    `callbacks` serve every link; `on_link` tells of a new one. Raises ConfigError or ChannelError where it cannot
    start.
    """

    def __init__(
        self,
        address: str,
        identity: Identity,
        trusted: Sequence[Trusted],
        *,
        plan: str,
        callbacks: Callbacks,
        settings: LinkSettings | None = None,
        handshake_limit: float = 10.0,
        most_pending: int = 64,
        most_per_peer: int = 8,
        most_connections: int = 1024,
    ) -> None:
        self._identity = identity
        self._trusted = tuple(trusted)
        self._plan = plan
        self._callbacks = callbacks
        self._settings = settings or LinkSettings()
        self._handshake_limit = handshake_limit
        self._most_pending = most_pending
        self._most_per_peer = most_per_peer
        self._certificate = fingerprint(identity.certificate())
        self._lock = threading.Lock()
        self._links: set[Link] = set()
        self._pending = 0
        self._taken: Counter[str] = Counter()
        self._stopping = False
        require_tls13(identity)
        credentials = server_credentials(identity, self._trusted)
        self._server = grpc.server(
            DaemonThreads(),
            options=[
                *options(self._settings),
                ("grpc.http2.min_ping_interval_without_data_ms", 1000),
                ("grpc.server_handshake_timeout_ms", int(1000 * handshake_limit)),
                ("grpc.max_allowed_incoming_connections", most_connections),
                ("grpc.max_connection_idle_ms", 60_000),
                ("grpc.max_concurrent_streams", 4),
                ("grpc.so_reuseport", 0),
            ],
        )
        handler = grpc.stream_stream_rpc_method_handler(self._serve)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),))
        try:
            self.port = self._server.add_secure_port(address, credentials)
        except RuntimeError as error:
            raise ChannelError(
                f"cannot listen at {address}: it is in use or not an address of this machine ({error})"
            ) from None
        self._server.start()

    @property
    def links(self) -> list[Link]:
        """The links that are open now."""
        with self._lock:
            return list(self._links)

    def close(self, reason: str = "") -> None:
        """Take no more links, close those there are (each sends what it has queued), stop listening."""
        with self._lock:
            self._stopping = True
        closers = [threading.Thread(target=link.close, args=(reason,), daemon=True) for link in self.links]
        for closer in closers:
            closer.start()
        for closer in closers:
            closer.join()
        self._server.stop(None).wait(self._settings.drain)

    def _serve(self, incoming: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        with self._lock:
            full = self._pending >= self._most_pending
            self._pending += not full
        if full:
            _log.warning("refused a connection from %s: %d handshakes are pending", context.peer(), self._most_pending)
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{self._most_pending} handshakes are pending; try later")
        link = Link(self._watched(), self._settings, f"the peer at {context.peer()}", context.cancel)
        limit = threading.Timer(self._handshake_limit, self._too_slow, (link, context))
        limit.daemon = True
        limit.start()

        def handshake(link: Link, incoming: Iterator[bytes]) -> Session:
            try:
                return self._handshake(link, incoming, context)
            except Exception as error:
                _log.warning("refused a connection from %s: %s", context.peer(), error)
                raise
            finally:
                limit.cancel()
                with self._lock:
                    self._pending -= 1

        link.start(incoming, handshake)
        return link.outgoing()

    def _handshake(self, link: Link, incoming: Iterator[bytes], context: grpc.ServicerContext) -> Session:
        shown = context.auth_context().get("x509_pem_cert", [b""])[0]
        certificate, fitting = identify(shown, self._trusted)
        link.peer = fitting[0].name
        theirs = decode_hello(link.receive(incoming, FrameKind.HELLO), self._identity.name)
        peer = self._named(theirs.name, theirs.role, fitting)
        link.peer = peer.name
        self._check_certificate(theirs.certificate, certificate, peer)
        mine = Handshake(
            dials=False,
            name=self._identity.name,
            peer=peer.name,
            role=self._identity.role,
            fingerprint=self._plan,
            certificate=self._certificate,
            software=__version__,
        )
        mine.receive(theirs)
        link.post(FrameKind.HELLO, mine.mine.encode())
        session = mine.confirm(link.receive(incoming, FrameKind.CONFIRM))
        self._admit(peer)
        link.role, link.peer_software = peer.role, theirs.software
        link.post(FrameKind.CONFIRM, mine.confirmation())
        return session

    def _named(self, name: str, role: str, fitting: list[Trusted]) -> Trusted:
        for peer in fitting:
            if peer.name == name and peer.role == role:
                return peer
        known = ", ".join(f"{peer.role} {peer.name}" for peer in fitting)
        raise ChannelError(
            f"a certificate stands for one peer: the one shown is that of {known}, but the other end says that it is "
            f"{role} {name}; correct its name or its certificate"
        )

    def _check_certificate(self, said: bytes, shown: x509.Certificate, peer: Trusted) -> None:
        if said != fingerprint(shown):
            raise ChannelError(
                f"{peer.name} names another certificate in its hello than TLS shows (SHA-256 {said.hex()}, shown "
                f"{fingerprint(shown).hex()}): something between the two ends takes TLS apart"
            )

    def _admit(self, peer: Trusted) -> None:
        with self._lock:
            if self._stopping:
                raise ChannelError(f"{self._identity.name} is stopping and takes no more links")
            if self._taken[peer.name] >= self._most_per_peer:
                raise ChannelError(
                    f"a peer has at most {self._most_per_peer} links, {peer.name} has as many; close one first"
                )
            self._taken[peer.name] += 1

    def _watched(self) -> Callbacks:
        """The callbacks, and a count of who is connected."""

        def on_link(link: Link) -> None:
            with self._lock:
                self._links.add(link)
            _log.info("%s %s connected (shareflow %s)", link.role, link.peer, link.peer_software)
            self._callbacks.on_link(link)

        def on_close(link: Link, text: str) -> None:
            with self._lock:
                self._links.discard(link)
                self._taken[link.peer] -= 1
            _log.info("the link to %s %s ended: %s", link.role, link.peer, text)
            self._callbacks.on_close(link, text)

        return replace(self._callbacks, on_close=on_close, on_link=on_link)

    def _too_slow(self, link: Link, context: grpc.ServicerContext) -> None:
        _log.warning("refused a connection from %s: no handshake within %g s", context.peer(), self._handshake_limit)
        context.cancel()
