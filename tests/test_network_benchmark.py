"""The network benchmark: the time that a plan predicts, the lines between namespaces, and what is made of figures."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path

import pytest
from benchmarks import namespaces, network
from benchmarks.namespaces import Line, NamespaceError, joined
from benchmarks.network import BenchmarkError, Many, Single

from shareflow.audit.cost import Cost, Message
from shareflow.audit.duration import predicted
from shareflow.party.send import Kind

ROOT = Path(__file__).resolve().parents[1]


def may_make_namespaces():
    if os.geteuid() != 0 or shutil.which("ip") is None or not os.path.exists("/dev/net/tun"):
        return False
    tried = subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False)
    return tried.returncode == 0


needs_namespaces = pytest.mark.skipif(
    not may_make_namespaces(), reason="needs root, network namespaces and /dev/net/tun"
)


# --- the time that a plan predicts


def message(kind, source, to, size, round_):
    return Message(kind, source, to, size, round_, "")


def cost(*rounds):
    """An input of 1000 bytes, openings of these sizes (one way, other way), a result of 80."""
    found = [message(Kind.CORRECTION, "dealer", "server0", 10**9, 0), message(Kind.INPUT, "client", "server0", 1000, 1)]
    for number, (up, down) in enumerate(rounds, 2):
        found += [
            message(Kind.OPENING, "server0", "server1", up, number),
            message(Kind.OPENING, "server1", "server0", down, number),
        ]
    last = len(rounds) + 2
    found += [message(Kind.RESULT, server, "client", 80, last) for server in ("server0", "server1")]
    return Cost(tuple(found))


def test_the_busier_line_counts_and_the_dealer_s_do_not():
    found = predicted(cost((3000, 5000), (700, 600)), rtt=0, bandwidth=8e6, computing=0.25)
    frames = 1538 / 1448
    assert found.transfer == pytest.approx((1000 + 5000 + 600 + 80) * frames / 1e6)
    assert found.latency == 0
    assert found.seconds == pytest.approx(found.transfer + 0.25)


def arrivals(sizes, way, seconds_of):
    """When both servers have all openings, each line sending one message after the other.

    The follower's note that the input is there takes one way, the leader's order to begin the next.
    """
    count = len(sizes)
    free = {"leader": 0.0, "follower": 0.0}
    has = {"leader": [2 * way] + [0.0] * count, "follower": [3 * way] + [0.0] * count}  # of openings 0, 1, ...
    for number, size in enumerate(sizes, 1):
        for here, there in (("leader", "follower"), ("follower", "leader")):
            free[here] = max(free[here], has[here][number - 1]) + seconds_of(size)
            has[there][number] = max(has[there][0], free[here] + way)
        for here in has:
            has[here][number] = max(has[here][number], has[here][number - 1])
    return max(has["leader"][-1], has["follower"][-1])


@pytest.mark.parametrize(
    "sizes", [(), (8,), (8, 8), (5000,) * 9, (98432, 92160, 46080, 11520, 1440, 23040), (10, 200_000, 10)]
)
def test_the_time_is_that_of_messages_followed_one_by_one(sizes):
    way, bandwidth = 0.02, 100e6

    def seconds_of(size):
        return 8 * size * 1538 / 1448 / bandwidth

    followed = seconds_of(1000) + arrivals(sizes, way, seconds_of) + way + seconds_of(80)
    found = predicted(cost(*zip(sizes, sizes, strict=True)), rtt=2 * way, bandwidth=bandwidth)
    assert found.seconds == pytest.approx(followed)


def test_what_sends_nothing_takes_its_computing_alone():
    assert predicted(Cost(()), rtt=1.0, bandwidth=1.0, computing=0.5).seconds == 0.5


@pytest.mark.parametrize("wrong", [{"rtt": -1e-9}, {"bandwidth": 0}, {"computing": -1}, {"bandwidth": float("nan")}])
def test_impossible_networks_are_refused(wrong):
    with pytest.raises(ValueError, match="Times are zero or more, and a bandwidth is above zero"):
        predicted(cost(), **{"rtt": 0.1, "bandwidth": 1e6, "computing": 0, **wrong})


# --- figures


def single(name="WAN", median=0.4, forecast=None):
    rtt = 0.0401 if name == "WAN" else 0.0
    return Single(name, "C", 20, median, 0.39, 0.45, 1e-4, 18, 16, 1000, 1000, rtt, forecast, 0.1)


def test_deviation_is_of_the_measured_time():
    forecast = predicted(cost(*[(8, 8)] * 16), rtt=0.04, bandwidth=1e12, computing=0.04)
    assert single(median=0.4, forecast=forecast).deviation == pytest.approx(0.44 / 0.4 - 1)
    assert single().deviation is None


def record(singles, many=()):
    return {
        "date": "2026-01-31T12:00:00+00:00",
        "means": "netem",
        "a_core_each": True,
        "singles": [{**asdict(one), "deviation": one.deviation} for one in singles],
        "many": [{**asdict(one), "rate": one.rate} for one in many],
    }


def test_markdown_has_measured_and_predicted_side_by_side():
    forecast = predicted(cost(*[(8, 8)] * 16), rtt=0.04, bandwidth=1e12, computing=0.0123)
    text = network.markdown(
        record([single("loopback", 0.0123), single(forecast=forecast)], [Many("C", 8, 10.0, 1570, 0.04, 0.06, 7.5)])
    )
    assert "| loopback | C | 12.3 | 390 to 450 |  |  |  |  |  |" in text
    assert "| WAN | C | 400 | 390 to 450 | 412 | 400 | 0.0 | 12.3 | +3% |" in text
    assert "157 predictions a second over 10 s" in text
    assert "each server on a core of its own" in text
    assert "20 on loopback, 20 on WAN, lines by netem; an echo took 40.10 ms on WAN." in text


def test_only_the_block_of_a_page_is_rewritten():
    page = f"before\n{network._BEGIN}\nold\n{network._END}\nafter\n"
    once = network.with_block(page, "new")
    assert once == f"before\n{network._BEGIN}\nnew\n{network._END}\nafter\n"
    assert network.with_block(once, "new") == once
    with pytest.raises(BenchmarkError, match="it has none"):
        network.with_block("a page without", "new")


def test_the_page_has_the_block():
    page = (ROOT / "docs" / "network.md").read_text(encoding="utf-8")
    assert "new figures" in network.with_block(page, "new figures")


METRICS = """# TYPE shareflow_bytes_sent_total counter
shareflow_bytes_sent_total{peer="server1"} 11680.0
shareflow_bytes_sent_total{peer="client"} 80.0
"""


def test_a_metric_is_found_by_all_its_labels():
    assert network.metric(METRICS, "shareflow_bytes_sent_total", peer="server1") == 11680
    assert network.metric(METRICS, "shareflow_bytes_sent_total", peer="server0") == 0
    assert network.metric(METRICS, "shareflow_bytes_sent_total") == 0


def test_the_command_line_refuses_what_it_does_not_know(capsys):
    for wrong in (["--networks", "LAN,moon"], ["--models", "D"], ["--count", "0"]):
        with pytest.raises(SystemExit):
            network._parser().parse_args(wrong)
    assert "choose from loopback,LAN,WAN; got moon" in capsys.readouterr().err
    assert network._parser().parse_args(["--networks", "WAN,loopback"]).networks == ["loopback", "WAN"]


def test_messages_are_one_each_way_in_each_round(tmp_path):
    subject = network.prepared("A", tmp_path)
    assert subject.messages == subject.cost.rounds - 2
    assert subject.expected.shape == (64, 10)


# --- without the rights


def test_without_root_it_says_so_and_what_to_do(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(NamespaceError, match=r"need root\. Run it with sudo, or leave LAN and WAN out"):
        namespaces.require_rights()
    with pytest.raises(NamespaceError), joined(["a", "b"], Line(0.01, 1e8)):
        pytest.fail("it was made")


def test_without_root_the_networks_are_left_out_with_their_own_exit_status(monkeypatch, capsys):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert network.main(["--networks", "LAN,WAN", "--models", "A"]) == 3
    assert "LAN and WAN were left out" in capsys.readouterr().out


def test_without_a_compiler_it_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(NamespaceError, match="there is no C compiler"):
        namespaces.compiled(tmp_path)


# --- lines between namespaces


def connected(made, source, to):
    """A connection from one namespace to another: both ends."""
    listener = made.inside(to, lambda: socket.create_server((made.address(to), 0)))
    port = listener.getsockname()[1]
    near = made.inside(source, lambda: socket.create_connection((made.address(to), port), 10))
    far, _ = listener.accept()
    listener.close()
    for end in (near, far):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        end.settimeout(20)
    return near, far


def echo_seconds(made, source, to, times=3):
    near, far = connected(made, source, to)
    with near, far:
        least = float("inf")
        for _ in range(times):
            start = time.perf_counter()
            near.sendall(b"?")
            far.sendall(far.recv(1))
            near.recv(1)
            least = min(least, time.perf_counter() - start)
        return least


def transfer_seconds(made, source, to, size):
    near, far = connected(made, source, to)
    with near, far:
        thread = threading.Thread(target=near.sendall, args=(bytes(size),))
        start = time.perf_counter()
        thread.start()
        left = size
        while left:
            left -= len(far.recv(1 << 20))
        thread.join()
        return time.perf_counter() - start


@needs_namespaces
def test_a_line_has_its_delay_and_rate_for_each_pair():
    with joined(["a", "b", "c"], Line(rtt=0.1, bandwidth=20e6)) as made:
        # Neither can be faster than the line; how much slower is the machine's affair.
        assert echo_seconds(made, "a", "b") >= 0.1
        assert 0.1 <= echo_seconds(made, "c", "a") < 0.3
        assert 0.1 <= made.round_trip("b", "c", 3) < 0.3
        assert 0.4 + 0.05 <= transfer_seconds(made, "a", "c", 1_000_000) < 3


@needs_namespaces
def test_a_namespace_reaches_the_others_and_nothing_else():
    with joined(["a", "b"], Line(rtt=0.001, bandwidth=1e9)) as made:
        assert made.address("a") != made.address("b")
        with pytest.raises(OSError):
            made.inside("a", lambda: socket.create_connection(("192.0.2.1", 80), 2))
        devices = made.inside("a", lambda: Path("/proc/thread-self/net/dev").read_text())
        assert "eth" not in devices
        routes = subprocess.run(
            [*made.prefix("a"), "ip", "route"], capture_output=True, text=True, check=True
        ).stdout.splitlines()
        assert routes and all(route.startswith("10.213.0.") for route in routes)


@needs_namespaces
def test_packets_that_find_no_room_are_counted_as_lost():
    def flood():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
            for _ in range(800):
                out.sendto(bytes(60_000), (made.address("b"), 9))
                time.sleep(0.0005)

    with joined(["a", "b"], Line(rtt=0.001, bandwidth=1e9), "delaylink") as made:
        echo_seconds(made, "a", "b", 1)
        assert made.lost() == 0
    with joined(["a", "b"], Line(rtt=0.001, bandwidth=1e4), "delaylink") as made:
        made.inside("a", flood)
        assert made.lost() > 0


@needs_namespaces
def test_all_is_gone_after_the_block_and_after_an_error_in_it():
    with pytest.raises(RuntimeError, match="inside"), joined(["a", "b"], Line(0.001, 1e9), "delaylink") as made:
        processes = [made.process("a"), made.process("b"), made._link.pid]
        assert all(Path(f"/proc/{process}").exists() for process in processes)
        raise RuntimeError("inside")
    assert not any(Path(f"/proc/{process}").exists() for process in processes)


@needs_namespaces
def test_all_is_gone_after_the_process_that_made_it_was_killed():
    program = (
        "from benchmarks.namespaces import Line, joined\nimport time\n"
        "with joined(['a', 'b'], Line(0.001, 1e9), 'delaylink') as made:\n"
        "    print(made.process('a'), made.process('b'), made._link.pid, flush=True)\n    time.sleep(60)\n"
    )
    maker = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    processes = [int(word) for word in maker.stdout.readline().split()]
    assert len(processes) == 3
    maker.send_signal(signal.SIGKILL)
    maker.wait(10)
    deadline = time.monotonic() + 10
    while any(running(process) for process in processes) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(running(process) for process in processes)


def running(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@needs_namespaces
def test_an_error_inside_a_namespace_comes_out():
    with joined(["a", "b"], Line(0.001, 1e9)) as made, pytest.raises(ZeroDivisionError):
        made.inside("a", lambda: 1 / 0)
