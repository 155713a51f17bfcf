"""How a party tells its operators how it is, over HTTP: /health, /live and /metrics.

Nothing in it is secret, but it is for operators: without authentication, so listen where only they reach it.
"""

from __future__ import annotations

import json
import logging
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from shareflow_client.config import Address
from shareflow_client.errors import ChannelError

_log = logging.getLogger(__name__)

_SECONDS = 5.0
_MOST_AT_ONCE = 16


class HealthServer:
    """Answers at ``address`` on threads of its own: 200 at /health while ``status()["ready"]``, else 503 with ``why``.

    ``metrics`` gives the body of /metrics and ``content_type`` its type. Raises ChannelError where it cannot listen.
    """

    def __init__(
        self,
        address: Address,
        status: Callable[[], dict[str, Any]],
        metrics: Callable[[], bytes],
        content_type: str,
    ) -> None:
        def health() -> tuple[int, str, bytes]:
            found = status()
            return (200 if found.get("ready") else 503), "application/json", json.dumps(found).encode("utf-8")

        pages: dict[str, Callable[[], tuple[int, str, bytes]]] = {
            "/health": health,
            "/live": lambda: (200, "application/json", b'{"live": true}'),
            "/metrics": lambda: (200, content_type, metrics()),
        }

        class Handler(_Handler):
            answers = pages

        family = _Server6 if ":" in address.host else _Server
        try:
            self._server = family((address.host, address.port), Handler)
        except OSError as error:
            raise ChannelError(
                f"cannot listen at {address} for health checks ({error.strerror}): it is in use, or no address of this "
                "machine. Choose another, or leave `health` out."
            ) from None
        self.address = Address(address.host, self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, name="shareflow health", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stops answering."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(_SECONDS)


class _Handler(BaseHTTPRequestHandler):
    timeout = _SECONDS
    protocol_version = "HTTP/1.0"
    server_version, sys_version = "shareflow", ""
    answers: dict[str, Callable[[], tuple[int, str, bytes]]]

    def do_GET(self) -> None:
        page = self.answers.get(self.path.partition("?")[0])
        try:
            code, kind, body = page() if page else (404, "text/plain", b"/health, /live and /metrics are here.\n")
        except Exception:
            _log.exception("the health check failed")
            code, kind, body = 500, "text/plain", b"The check itself failed; see the log.\n"
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:
        # A line for each check would hide the others.
        _log.debug("a health check of %s", self.client_address[0])


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, *arguments: Any) -> None:
        self._free = threading.BoundedSemaphore(_MOST_AT_ONCE)
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        _log.debug("a health check of %s ended early", client_address[0])


class _Server6(_Server):
    address_family = socket.AF_INET6
