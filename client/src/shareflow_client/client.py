"""The client: gives inputs to the servers of a plan in parts that tell neither of them anything, and gets results.

    with Client("client.toml") as client:
        scores = client.predict(images)

Inputs are split, and results put together, in this process alone. docs/client.md has the whole story.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import numpy as np

from shareflow_client.answer import Answer
from shareflow_client.client_config import ClientConfig, load_config
from shareflow_client.entry_rows import EntryRows
from shareflow_client.errors import ChannelError, PeerError, RequestError, TimeLimitError
from shareflow_client.link import UnreachableError
from shareflow_client.manifest import Manifest
from shareflow_client.order import Order
from shareflow_client.session import Session, send_control
from shareflow_client.wire import FrameKind

ROW_KEY = b"rows"
"""The info of the key of a link from which the masks of rows are drawn."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
_log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""(rows that are done, all rows), called in the thread that asked."""


class Client:
    """A connection to the servers of one plan. Many threads may use it at once.

    Connects when it is entered as a context manager, by :meth:`connect`, or at the first request; again when a link is
    lost.

    Args:
        config: a ClientConfig, or the path of its TOML file.
        on_notice: called with (server, text) for what a server has to say to people; it goes to the log in any case.

    Raises:
        ConfigError: a key of the configuration, or a file it names, is not right.
        PlanError: the plan cannot be used.
    """

    def __init__(
        self,
        config: ClientConfig | str | os.PathLike[str],
        *,
        on_notice: Callable[[str, str], None] = lambda server, text: None,
    ) -> None:
        self.config = config if isinstance(config, ClientConfig) else load_config(config)
        plan = self.config.read_plan()
        self.fingerprint = plan.fingerprint
        self.manifest: Manifest = plan.contents
        dialed = {server.name: (str(server.address), server.trusted()) for server in self.config.servers}
        limits = self.config.limits
        self._session = Session(
            {name: dialed[name] for name in self.manifest.protocol.servers},
            self.config.identity(),
            plan.fingerprint,
            settings=limits.link(),
            connect_limit=limits.connect,
            on_notice=on_notice,
        )
        self._order = Order()
        self._entries: dict[str, EntryRows] = {}

    def connect(self) -> None:
        """Connect to all servers now.

        Raises:
            ChannelError: a server cannot be reached, is not who it should be, or has another plan.
        """
        self._session.links()

    def close(self) -> None:
        """Close the connections. Requests that are under way fail."""
        self._session.close("the client is closed")

    def __enter__(self) -> Client:
        try:
            self.connect()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def entry(self, name: str) -> EntryRows:
        """What this client gives to an entry, and gets from it: names, shapes, dtypes.

        Raises:
            RequestError: there is no such entry, or this client has no part in it.
        """
        if name not in self._entries:
            self._entries[name] = EntryRows(self.manifest, name, self.config.acts_as)
        return self._entries[name]

    # --- asking -----------------------------------------------------------------------------------------------

    def predict(
        self,
        x: Any,
        *,
        entry: str = "predict",
        label: str = "",
        progress: Progress | None = None,
        time_limit: float | None = None,
    ) -> np.ndarray:
        """The result for each sample of ``x``.

        Args:
            x: samples [n, *shape of one sample], or one sample [*shape of one sample].
            entry: one that takes one input of this client and gives it one result.
            label, progress, time_limit: as in :meth:`call`.

        Returns:
            [n, *shape of one result], or the result of the one sample without that axis; dtype as the plan says.

        Raises:
            As :meth:`call`.
        """
        rows = self.entry(entry)
        if len(rows.inputs) != 1 or len(rows.results) != 1:
            raise RequestError(
                f"predict is for an entry with one input and one result; {entry!r} takes "
                f"{', '.join(rows.inputs) or 'none'} and gives {', '.join(r.name for r in rows.results) or 'none'}. "
                "Use call, which has them by name."
            )
        (info,) = rows.inputs.values()
        given = _array(info.name, x)
        single = rows.batched and given.ndim == len(info.shape) - 1
        made = self.call(
            entry,
            {info.name: given[np.newaxis] if single else given},
            label=label,
            progress=progress,
            time_limit=time_limit,
        )[rows.results[0].name]
        return made[0] if single else made

    def call(
        self,
        entry: str,
        inputs: Mapping[str, Any],
        *,
        label: str = "",
        progress: Progress | None = None,
        time_limit: float | None = None,
    ) -> dict[str, np.ndarray]:
        """The results of an entry by name.

        Args:
            entry: a name of the plan.
            inputs: arrays by name, in the shapes of the plan; for a batched entry with any number of rows first. They
                are split into requests of at most ``rows`` rows, of which several are under way at a time.
            label: for an entry that takes inputs of several parties: all of them give the same.
            progress: called with (rows done, all rows) after each request.
            time_limit: seconds for each request, with all its tries; ``limits.answer`` if None.

        Raises:
            RequestError: an input is not as the plan has it (nothing was sent then), or a server refused.
            TimeLimitError: names who did not answer in time.
            ChannelError: a server cannot be reached, or was lost more often than ``limits.retries``.
        """
        return self._call(entry, inputs, label, progress, time_limit)[0]

    def load(
        self,
        arrays: Mapping[str, Any],
        *,
        entry: str = "load",
        label: str = "",
        time_limit: float | None = None,
    ) -> int:
        """Give the servers what an entry keeps as state, such as weights; returns the new state's version.

        Raises:
            As :meth:`call`; RequestError too where the entry keeps nothing.
        """
        if not self.entry(entry).keeps_state:
            raise RequestError(f"load is for an entry that keeps state; {entry!r} keeps none. Use call.")
        return self._call(entry, arrays, label, None, time_limit)[1]

    def _call(
        self,
        entry: str,
        inputs: Mapping[str, Any],
        label: str,
        progress: Progress | None,
        time_limit: float | None,
    ) -> tuple[dict[str, np.ndarray], int]:
        rows = self.entry(entry)
        rows.check_label(label)
        arrays, count = rows.checked(inputs)
        limit = self.config.limits.answer if time_limit is None else time_limit
        if not count:
            return rows.no_rows(), 0
        size = self.config.rows
        if count > size:  # otherwise the one request is evaluated whole before it goes
            rows.check_rows(arrays, count)
        pieces = [(first, min(size, count - first)) for first in range(0, count, size)]
        calls = _Calls(self._session)

        def ask(first: int, number: int) -> tuple[dict[str, np.ndarray], int]:
            own = {n: a[first : first + number] for n, a in arrays.items()} if rows.batched else arrays
            return self._request(rows, own, number, label, limit, calls)

        if len(pieces) == 1:
            made = [ask(*pieces[0])]
            if progress is not None:
                progress(count, count)
        else:
            made = self._ask_all(ask, pieces, calls, count, progress)
        version = max(one[1] for one in made)
        if not rows.batched:
            return made[0][0], version
        return {r.name: np.concatenate([one[0][r.name] for one in made]) for r in rows.results}, version

    def _ask_all(
        self,
        ask: Callable[[int, int], tuple[dict[str, np.ndarray], int]],
        pieces: list[tuple[int, int]],
        calls: _Calls,
        count: int,
        progress: Progress | None,
    ) -> list[tuple[dict[str, np.ndarray], int]]:
        made = []
        pool = ThreadPoolExecutor(min(self.config.in_flight, len(pieces)), "shareflow client")
        try:
            # Inside, as an interrupt may come while the pieces are handed out.
            futures: list[Future[tuple[dict[str, np.ndarray], int]]] = [pool.submit(ask, *piece) for piece in pieces]
            for future, (first, number) in zip(futures, pieces, strict=True):
                made.append(future.result())
                if progress is not None:
                    progress(first + number, count)
        except BaseException:
            calls.give_up()
            raise
        finally:
            pool.shutdown(cancel_futures=True)
        return made

    # --- one request ------------------------------------------------------------------------------------------

    def _request(
        self,
        entry: EntryRows,
        inputs: Mapping[str, np.ndarray],
        rows: int,
        label: str,
        limit: float,
        calls: _Calls,
    ) -> tuple[dict[str, np.ndarray], int]:
        deadline = time.monotonic() + limit
        tries, before = 0, ""
        while True:
            try:
                return self._try(entry, inputs, rows, label, deadline, calls)
            except TimeLimitError as error:
                if not before:
                    raise
                # A server that was asked again says nothing new until its own limit is over.
                raise TimeLimitError(f"{error} The try before this one ended with: {before}") from None
            except (RequestError, ChannelError) as error:
                pause = min(_FIRST_PAUSE * 2**tries, _LONGEST_PAUSE) * self._session.pace
                tries += 1
                late = time.monotonic() + pause > deadline
                if late or tries > self.config.limits.retries or calls.given_up.is_set() or not self._again(error):
                    raise
                _log.info("try %d of a request for %s failed, another follows: %s", tries, entry.name, error)
                before = str(error)
                calls.given_up.wait(pause)

    def _again(self, error: RequestError | ChannelError) -> bool:
        """Whether another try can succeed."""
        if isinstance(error, RequestError):
            return error.retry
        if isinstance(error, PeerError):
            return False
        # What refused us once is not asked again; a server that took us before may be starting anew.
        return isinstance(error, UnreachableError) or self._session.was_connected

    def _try(
        self,
        entry: EntryRows,
        inputs: Mapping[str, np.ndarray],
        rows: int,
        label: str,
        deadline: float,
        calls: _Calls,
    ) -> tuple[dict[str, np.ndarray], int]:
        links = self._session.links(max(deadline - time.monotonic(), 0.0))
        keys = {name: link.key(ROW_KEY) for name, link in links.items()}
        # A number is used for one try only: the masks of its rows are never drawn twice.
        with self._order.turn(rows) as turn:
            started = entry.start(inputs, rows, turn.first_row, keys)
            sizes = {name: entry.receive_size(name, rows) for name in links}
            submit = {
                "type": "submit",
                "request": turn.number,
                "session": self._session.id,
                "entry": entry.name,
                "as": self.config.acts_as,
                "label": label,
                "rows": rows,
                "first_row": turn.first_row,
            }
            turn.wait()
            answer = self._session.expect(turn.number, links, sizes)
            try:
                for link in links.values():
                    send_control(link, submit)
            except BaseException:
                self._session.forget(answer)
                raise
        with calls.watching(answer):
            try:
                for name, link in links.items():
                    if entry.send_size(name, rows):
                        link.send(FrameKind.DATA, list(entry.message(name, started)), execution=answer.number, round=0)
            except BaseException:
                self._session.forget(answer)
                raise
            self._session.wait(answer, deadline - time.monotonic())
        return entry.finish(started, answer.data), answer.version or 0


class _Calls:
    """The answers that one call waits for, so that all of them can be given up together."""

    def __init__(self, session: Session) -> None:
        self.given_up = threading.Event()
        self._session = session
        self._lock = threading.Lock()
        self._answers: set[Answer] = set()

    @contextmanager
    def watching(self, answer: Answer) -> Iterator[None]:
        with self._lock:
            self._answers.add(answer)
        if self.given_up.is_set():
            self._session.fail(answer, RequestError("The call was given up."))
        try:
            yield
        finally:
            with self._lock:
                self._answers.discard(answer)

    def give_up(self) -> None:
        self.given_up.set()
        with self._lock:
            answers = list(self._answers)
        for answer in answers:
            self._session.fail(answer, RequestError("The call was given up."))


def _array(name: str, given: Any) -> np.ndarray:
    try:
        return np.asarray(given)
    except ValueError:
        raise RequestError(f"Input {name!r} is an array: give rows of equal length.") from None
