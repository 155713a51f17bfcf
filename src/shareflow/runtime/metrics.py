"""What a party process counts, in the form that Prometheus reads.

Numbers and names of the plan, of parties and of clients; never a value that is computed with. Each process object has
a registry of its own, so several may live in one interpreter.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

CONTENT_TYPE = CONTENT_TYPE_LATEST

# From a small network on one machine to a large one between continents.
_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)


class Metrics:
    """The counters, gauges and histograms of one party process; all are safe to use from any thread.

    Labels are given by name: ``metrics.executions.labels(graph="predict@1", outcome="done").inc()``.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        self.executions = self._counter("executions_total", "Executions that ended", "graph", "outcome")
        self.rows = self._counter("rows_total", "Rows that were computed for clients", "entry")
        self.refused = self._counter("requests_refused_total", "Requests that were refused", "reason")
        self.execution_seconds = Histogram(
            "shareflow_execution_seconds",
            "Time from the first to the last round of an execution",
            ("graph",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.waiting_rows = self._gauge("waiting_rows", "Rows that wait to be computed")
        self.stock = self._gauge("material_stock", "Executions that there is material for", "graph")
        self.bytes_sent = self._counter("bytes_sent_total", "Bytes of messages sent", "peer")
        self.messages_sent = self._counter("messages_sent_total", "Messages of executions sent", "peer")
        self.bytes_received = self._counter("bytes_received_total", "Bytes of messages received", "peer")
        self.links = self._gauge("links", "Links that are open", "peer")
        self.dealt = self._counter("dealt_total", "Executions whose material both servers have stored", "graph")

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry)

    def _counter(self, name: str, about: str, *labels: str) -> Counter:
        return Counter(f"shareflow_{name}", about, labels, registry=self.registry)

    def _gauge(self, name: str, about: str, *labels: str) -> Gauge:
        return Gauge(f"shareflow_{name}", about, labels, registry=self.registry)
