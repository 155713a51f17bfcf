"""What operators ask over HTTP."""

import contextlib
import json
import socket
import urllib.error
import urllib.request

import pytest

from shareflow.errors import ChannelError
from shareflow.runtime.channel.health import HealthServer
from shareflow.runtime.metrics import CONTENT_TYPE, Metrics
from shareflow_client.config import Address


@contextlib.contextmanager
def serving(status, metrics=None):
    server = HealthServer(Address("127.0.0.1", 0), status, (metrics or Metrics()).text, CONTENT_TYPE)
    try:
        yield f"http://{server.address}"
    finally:
        server.close()


def get(url):
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers["Content-Type"], error.read()


def test_a_party_that_is_ready():
    with serving(lambda: {"ready": True, "why": ""}) as url:
        code, kind, body = get(f"{url}/health")
        assert (code, kind, json.loads(body)) == (200, "application/json", {"ready": True, "why": ""})


def test_a_party_that_is_not_ready_says_why_and_lives():
    with serving(lambda: {"ready": False, "why": "no link to server1"}) as url:
        code, _, body = get(f"{url}/health")
        assert (code, json.loads(body)["why"]) == (503, "no link to server1")
        assert get(f"{url}/live")[0] == 200


def test_metrics_are_prometheus_text():
    metrics = Metrics()
    metrics.dealt.labels(graph="predict@1").inc(3)
    metrics.executions.labels(graph="predict@1", outcome="ok").inc()
    with serving(lambda: {"ready": True}, metrics) as url:
        code, kind, body = get(f"{url}/metrics?x=1")
    assert code == 200
    assert kind.startswith("text/plain")
    assert 'shareflow_dealt_total{graph="predict@1"} 3.0' in body.decode()
    assert 'shareflow_executions_total{graph="predict@1",outcome="ok"} 1.0' in body.decode()


def test_two_processes_objects_count_apart():
    one, other = Metrics(), Metrics()
    one.waiting_rows.set(5)
    assert b"shareflow_waiting_rows 5.0" in one.text()
    assert b"shareflow_waiting_rows 0.0" in other.text()


def test_other_pages_and_methods_are_refused():
    with serving(lambda: {"ready": True}) as url:
        assert get(f"{url}/")[0] == 404
        assert get(f"{url}/../etc/passwd")[0] == 404
        with pytest.raises(urllib.error.HTTPError, match="501"):
            urllib.request.urlopen(urllib.request.Request(f"{url}/health", data=b"x"), timeout=10)


def test_a_check_that_fails_tells_nothing():
    def status():
        raise ValueError("canary-7141")

    with serving(status) as url:
        code, _, body = get(f"{url}/health")
    assert code == 500
    assert b"canary" not in body


def test_slow_visitors_do_not_take_all_places():
    with serving(lambda: {"ready": True}) as url:
        host, port = url.removeprefix("http://").split(":")
        with contextlib.ExitStack() as stack:
            for _ in range(40):
                stack.enter_context(socket.create_connection((host, int(port)), 5))
        assert get(f"{url}/health")[0] == 200


def test_an_address_in_use_is_an_error():
    with serving(lambda: {"ready": True}) as url:
        port = int(url.rpartition(":")[2])
        with pytest.raises(ChannelError, match="cannot listen at"):
            HealthServer(Address("127.0.0.1", port), dict, bytes, "")
