"""The parts of the comparison with a peer that need no peer."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.peers import __main__ as command
from benchmarks.peers import peer as peer_module
from benchmarks.peers import report, spu_parties, tasks
from benchmarks.peers.peer import Peer, PeerError, environment
from benchmarks.peers.report import Row, Side
from benchmarks.peers.tasks import TASKS, Problem, Task

ABOUT = {
    "date": "2026-01-31T12:00:00+00:00",
    "repeats": 2,
    "load_before": (0.25, 0, 0),
    "load_after": (1.5, 0, 0),
    "machine": {"cpu": "a processor", "cores": 2},
    "versions": {"shareflow": "0", "peer's spu": "0"},
}


def side(wall, cpu, sent, error=1e-5, **more):
    return Side(wall=[wall] * 3, cpu=[cpu] * 3, bytes=sent, error=error, **more)


ROWS = [
    Row(
        "both",
        "on both",
        10,
        side(0.001, 0.002, 10**6, details={"rounds": 4, "offline_seconds": 0.001, "online_seconds": 0.002}),
        side(0.1, 0.004, 5 * 10**5, details={"sends": 7, "threads": "one thread"}),
    ),
    Row("decides", "decisions", 1000, side(1, 1, 1, wrong=0), side(1, 1, None, wrong=3)),
    Row("later", "another day", 0, status="not yet", note="shareflow.nn has no later yet"),
    Row("broken", "broken peer", 10, side(1, 1, 1), None, "failed", "The peer\nsaid no"),
]


# --- tasks


def test_names_of_tasks_choose_them_in_the_registry_order():
    chosen = [task.name for task in tasks.choose(["relu", "network-B-*-1"])]
    assert chosen == ["network-B-average-1", "network-B-max-1", "relu"]
    assert len(tasks.choose(["*"])) == len(TASKS)


def test_a_name_of_no_task_is_refused():
    with pytest.raises(ValueError, match=r"no task is called nothing-\*; there are network-A-1"):
        tasks.choose(["relu", "nothing-*"])


def test_a_task_has_the_same_data_each_time():
    first, second = TASKS["softmax"].make(), TASKS["softmax"].make()
    np.testing.assert_array_equal(first.inputs[0], second.inputs[0])
    assert first.inputs[0].dtype == np.float32
    assert first.expected.dtype == np.float64


@pytest.mark.parametrize("name", ["network-A-10", "network-B-max-10", "network-C-average-1"])
def test_reference_of_a_network_is_the_keras_model(name):
    problem = TASKS[name].make()
    plain = problem.model(problem.inputs[0], training=False).numpy()
    np.testing.assert_allclose(problem.expected, plain, atol=1e-4)
    linear = sum(layer in ("conv", "dense") for layer in problem.layers)
    assert len(problem.inputs) == 1 + 2 * linear


@pytest.mark.parametrize("name", ["max-pool", "argmax", "softmax", "greater", "matmul-128x784x128"])
def test_reference_of_an_operation(name):
    problem = TASKS[name].make()
    x, *rest = problem.inputs
    if name == "max-pool":
        assert problem.expected[0, 3, 5, 7] == x[0, 6:8, 10:12, 7].max()
    elif name == "argmax":
        assert x[4, int(problem.expected[4])] == x[4].max()
    elif name == "softmax":
        np.testing.assert_allclose(problem.expected.sum(-1), 1)
    elif name == "greater":
        assert problem.expected[9] == (x[9] > rest[0][9])
    else:
        np.testing.assert_allclose(problem.expected[1, 2], x[1].astype(float) @ rest[0][:, 2].astype(float))


# --- turns


def tiny(**options):
    def problem(rng):
        x = rng.standard_normal((3, 4)).astype(np.float32)
        return Problem((x, x), x.astype(np.float64) ** 2, "multiply")

    return Task("tiny", "tiny product", problem, lambda a, b: a * b, **options)


class FakePeer:
    """Computes in plaintext, and writes down in which order it was asked."""

    def __init__(self, fails_at=None):
        self.asked, self.fails_at = [], fails_at

    def _step(self, what):
        self.asked.append(what)
        if what == self.fails_at:
            raise PeerError(f"no {what} today")

    def load(self, problem):
        self._step("load")
        self.problem = problem
        return {"bytes": [10, 20, 30], "sends": [4, 5, 6], "threads": "all threads", "tried": {}}

    def run(self, count):
        self._step("run")
        return [0.3] * count, [0.6] * count

    def output(self):
        self._step("output")
        return self.problem.expected + 0.25

    def unload(self):
        self._step("unload")


def test_both_sides_run_in_turns():
    peer, steps = FakePeer(), []
    row = command.compare(tiny(), peer, 2, lambda: steps.append(len(peer.asked)))
    assert peer.asked == ["load", "run", "run", "run", "output", "unload"]
    assert steps == [1, 3, 4]
    assert row.peer.wall == [0.3, 0.3]
    assert row.peer.bytes == 60
    assert row.peer.details["sends"] == 6
    assert row.peer.error == pytest.approx(0.25)
    assert row.ours.error < 1e-3
    assert len(row.ours.wall) == len(row.ours.cpu) >= 2
    assert row.ours.bytes == row.ours.details["online_bytes"] + row.ours.details["offline_bytes"] > 0
    assert row.status == ""


@pytest.mark.parametrize("step", ["load", "run", "output"])
def test_a_peer_that_fails_leaves_our_figures(step):
    row = command.compare(tiny(), FakePeer(fails_at=step), 2, lambda: None)
    assert row.peer is None
    assert row.ours.wall
    assert (row.status, row.note) == ("failed", f"no {step} today")


def test_a_function_that_is_missing_is_not_yet_measured():
    row = command.compare(tiny(needs=("no_such_function",)), None, 2, lambda: None)
    assert row.ours is row.peer is None
    assert (row.status, row.note) == ("not yet", "shareflow.nn has no no_such_function yet")


def test_our_failure_is_shown_and_not_raised():
    task = Task("broken", "broken", tiny().problem, lambda a, b: a.no_such_method())
    row = command.compare(task, None, 2, lambda: None)
    assert row.status == "failed"
    assert "no_such_method" in row.note


@pytest.mark.parametrize(("seconds", "runs"), [(0, 10), (1e-4, 10), (0.05, 4), (0.21, 1), (30, 1)])
def test_runs_of_a_turn(seconds, runs):
    assert command.turn_runs(seconds) == runs


def test_wrong_decisions_are_counted():
    task = tiny(decides=True)
    problem = Problem((), np.array([0.0, 1, 1, 0]), "")
    found = command._side([(1, 1)], 1, np.array([0.0, 1, 0, 1]), problem, task, {})
    assert found.wrong == 2


# --- report


def test_ratios_are_the_peers_over_ours():
    assert ROWS[0].ratios() == {"wall": pytest.approx(100), "cpu": pytest.approx(2), "bytes": pytest.approx(0.5)}
    assert ROWS[1].ratios()["bytes"] is None
    assert set(ROWS[2].ratios().values()) == {None}


def test_markdown_has_a_line_for_each_task_and_says_what_is_not_alike():
    text = report.markdown(ROWS, ABOUT)
    lines = text.splitlines()
    body = [line for line in lines if line.startswith("|")]
    assert len(body) == 2 + len(ROWS)
    assert len({line.count("|") for line in body}) == 1
    assert "| on both | 1.00 (1.00-1.00) | 100 (100-100) | 100 | 2.00 | 4.00 | 2.00 | 1.00 | 0.500 | 0.500 |" in text
    assert "| 1.00 + 2.00 | 4 | 7 | 1.0e-05 | 1.0e-05 |" in text
    assert "3 of 1,000" in text
    assert "| another day | not yet |" in text
    assert report.SETTING in lines
    assert lines[0].endswith("2 turns a task and side; load average 0.2 before, 1.5 after.")
    assert lines[-3:] == [
        "- SPU is faster with one thread and ran so at: on both",
        "- another day: shareflow.nn has no later yet",
        "- broken peer: The peer said no",
    ]


def test_terminal_table_has_all_rows():
    assert report.rich_table(ROWS).row_count == len(ROWS)


def test_record_holds_all_samples():
    found = json.loads(report.record(ROWS, ABOUT))
    assert found["rows"][0]["ours"]["wall"] == [0.001] * 3
    assert found["rows"][0]["ratios"]["cpu"] == pytest.approx(2)
    assert found["rows"][2]["status"] == "not yet"


def test_table_replaces_what_is_between_the_markers():
    page = f"before\n{report.START}\nold\n{report.END}\nafter\n"
    once = report.replace_table(page, "| new |\n")
    assert once == f"before\n{report.START}\n\n| new |\n\n{report.END}\nafter\n"
    assert report.replace_table(once, "| new |\n") == once


def test_a_page_without_markers_is_refused():
    with pytest.raises(ValueError, match="no place for the table"):
        report.replace_table("nothing here", "| new |")


def test_plot_is_a_picture(tmp_path):
    pytest.importorskip("matplotlib")
    report.plot(ROWS, ABOUT, tmp_path / "peers.png")
    assert (tmp_path / "peers.png").read_bytes().startswith(b"\x89PNG")


def test_plot_without_matplotlib_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    with pytest.raises(report.PlotError, match=r"shareflow\[bench\]"):
        report.plot(ROWS, ABOUT, tmp_path / "peers.png")


# --- the peer's environment and processes


def test_an_interpreter_that_is_missing_is_named(tmp_path):
    with pytest.raises(PeerError, match=r"There is no no-such-python\. .*--peer-python"):
        environment(tmp_path / "venv", "no-such-python")
    assert not (tmp_path / "venv").exists()


def test_an_interpreter_of_another_version_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(peer_module, "PYTHON", (2, 7))
    with pytest.raises(PeerError, match=r"is Python 3\.\d+\. The peer has wheels for Python 2\.7 alone"):
        environment(tmp_path / "venv", sys.executable)


def test_a_folder_of_something_else_is_not_cleared(tmp_path):
    (tmp_path / "precious.txt").write_text("data")
    with pytest.raises(PeerError, match="holds something else"):
        environment(tmp_path, sys.executable)
    assert (tmp_path / "precious.txt").exists()


def test_a_complete_environment_is_used_as_it_is(tmp_path):
    (tmp_path / "complete.txt").write_text("\n".join(peer_module.REQUIREMENTS) + "\n")
    assert environment(tmp_path, "no-such-python") == tmp_path / "bin" / "python"


HOST = """
import json, sys, time
import numpy as np
seconds = None
for line in sys.stdin:
    command = json.loads(line)
    answer = {}
    if command["do"] == "load":
        limit = command["variables"].get("OMP_THREAD_LIMIT", "all")
        seconds = {"all": FAST_ALL, "1": 1.0}[limit]
        answer = {"bytes": [len(np.load(command["inputs"]).files)] * 3, "sends": [1, 2, 3]}
    elif command["do"] == "run":
        seconds = seconds or 1.0
        if command["count"] == 0:
            sys.exit("out of shares")
        if command["count"] > 100:
            time.sleep(60)
        answer = {"wall": [seconds] * command["count"], "cpu": [4.0] * command["count"]}
    elif command["do"] == "output":
        np.save(command["file"], np.arange(3))
    elif command["do"] == "versions":
        answer = {"error": "no versions"}
    print(json.dumps(answer), flush=True)
"""


@pytest.fixture
def host(tmp_path, monkeypatch, request):
    script = tmp_path / "host.py"
    script.write_text(HOST.replace("FAST_ALL", str(getattr(request, "param", 3.0))))
    monkeypatch.setattr(peer_module, "_SCRIPT", script)
    with Peer(Path(sys.executable)) as peer:
        yield peer


def test_the_host_is_asked_in_json(host):
    assert host.load(Problem((np.ones(2), np.ones(3)), np.ones(3), "multiply"))["bytes"] == [2, 2, 2]
    assert host.run(2) == ([1.0, 1.0], [4.0, 4.0])
    np.testing.assert_array_equal(host.output(), [0.0, 1.0, 2.0])
    host.unload()


@pytest.mark.parametrize(
    ("host", "threads", "seconds"), [(3.0, "one OpenMP thread", 1.0), (0.5, "all threads", 0.5)], indirect=["host"]
)
def test_a_task_is_measured_with_the_faster_setting(host, threads, seconds):
    loaded = host.load(Problem((np.ones(2),), np.ones(2), "relu"))
    assert loaded["threads"] == threads
    assert loaded["tried"][threads] == seconds == min(loaded["tried"].values())
    assert host.run(1)[0] == [seconds]


def test_an_error_of_the_host_is_told(host):
    with pytest.raises(PeerError, match="failed at 'versions': no versions"):
        host.versions()
    host.unload()


def test_a_host_that_ended_is_told_with_its_last_words_and_started_anew(host):
    with pytest.raises(PeerError, match="ended at 'run'; its last words: out of shares"):
        host.run(0)
    assert host.run(1) == ([1.0], [4.0])


def test_a_host_that_does_not_answer_is_given_up(host, monkeypatch):
    monkeypatch.setattr(peer_module, "_ANSWER_SECONDS", 0.5)
    with pytest.raises(PeerError, match="no answer to 'run'"):
        host.run(101)
    assert host._process is None


def test_link_statistics_are_read_from_the_log():
    log = (
        "[info] Link details: total send bytes 11, recv bytes 22, send actions 3, recv actions 4\n"
        "[info] Link details: total send bytes 55, recv bytes 66, send actions 7, recv actions 8\n"
    )
    assert spu_parties._LINK_DETAILS.findall(log)[-1] == ("55", "7")


# --- command


def test_the_command_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(tasks.TASKS, "tiny", tiny())
    page = tmp_path / "page.md"
    page.write_text(f"{report.START}\n{report.END}\n")
    status = command.main(
        ["--tasks", "tiny", "--repeats", "1", "--skip-peer", "--out-dir", str(tmp_path), "--update-docs", str(page)]
    )
    assert status == 0
    assert "tiny product" in capsys.readouterr().out
    assert "| tiny product |" in page.read_text()
    found = json.loads((tmp_path / "peers.json").read_text())
    assert found["rows"][0]["task"] == "tiny"
    assert found["peer"] is None


def test_the_command_says_why_there_is_no_peer(tmp_path, capsys):
    arguments = ["--no-plot", "--out-dir", str(tmp_path), "--peer-python", "no-such-python"]
    assert command.main(arguments) == 1
    assert "There is no no-such-python" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("wrong", [["--tasks", "nothing"], ["--repeats", "0"]])
def test_wrong_options_are_refused(wrong, capsys):
    with pytest.raises(SystemExit):
        command.main(wrong)
    assert "error" in capsys.readouterr().err


def test_help_has_examples_and_tasks(capsys):
    with pytest.raises(SystemExit):
        command.main(["--help"])
    text = capsys.readouterr().out
    assert "--skip-peer" in text
    assert "network-C-max-100" in text
