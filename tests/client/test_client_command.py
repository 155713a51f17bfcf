"""The command `shareflow-client`, from its arguments to files, text and exit codes."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.client.fake_servers import FOLLOWER, LEADER, PLAN, fake_pair, write_config
from tests.runtime.channel.pairs import GUARD, identity, known

from shareflow_client.array_files import csv_text
from shareflow_client.client_config import load_config
from shareflow_client.command import ProgressBar, main
from shareflow_client.errors import ChannelError
from shareflow_client.file_calls import predict_file
from shareflow_client.server_check import check_servers
from shareflow_client.tls import fingerprint


@pytest.fixture
def pair():
    with fake_pair() as made:
        yield made


@pytest.fixture
def config(pair, tmp_path):
    return str(write_config(tmp_path, pair, more="rows = 4"))


@pytest.fixture
def x(tmp_path):
    array = np.random.default_rng(1).normal(size=(10, 2, 3))
    np.save(tmp_path / "x.npy", array)
    return array


def path(folder: Path, name: str) -> str:
    return str(folder / name)


def test_predictions_go_to_a_file(config, x, tmp_path, capsys):
    out = path(tmp_path, "y.npy")
    code = main(["predict", "--config", config, path(tmp_path, "x.npy"), "--entry", "double", "--out", out])
    assert (code, *capsys.readouterr()) == (0, "", "")
    assert np.allclose(np.load(out), 2 * x, atol=1e-4)
    assert not list(tmp_path.glob(".*"))


def test_predictions_as_csv_and_json(config, x, tmp_path, capsys):
    given = ["predict", "--config", config, path(tmp_path, "x.npy"), "--entry", "double"]
    assert main(given) == 0
    lines = [[float(field) for field in line] for line in csv.reader(capsys.readouterr().out.splitlines())]
    assert np.allclose(lines, 2 * x.reshape(10, 6), atol=1e-4)
    assert main([*given, "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["entry"] == "double"
    assert np.allclose(values["result"], 2 * x, atol=1e-4)
    assert main([*given, "--out", path(tmp_path, "y.csv")]) == 0
    assert np.allclose(np.loadtxt(tmp_path / "y.csv", delimiter=","), lines)


def test_calls_by_name(config, tmp_path, capsys):
    np.save(tmp_path / "a.npy", np.arange(8.0).reshape(2, 4))
    given = ["call", "predict", "--config", config, "--input", f"x={tmp_path / 'a.npy'}"]
    assert main([*given, "--json"]) == 0
    assert np.allclose(json.loads(capsys.readouterr().out)["results"]["sums"], [[1, 5], [9, 13]])
    assert main([*given, "--out", path(tmp_path, "r.npz")]) == 0
    with np.load(tmp_path / "r.npz") as results:
        assert set(results) == {"sums", "signs"}
    assert main(given) == 0
    assert "sums: float64 [2, 2]\n" in capsys.readouterr().out
    assert main([*given, "--out", path(tmp_path, "r.npy")]) == 1
    assert "does not give one result. Write them to an .npz file" in capsys.readouterr().err


def test_loading_from_an_archive(pair, tmp_path, capsys):
    config = write_config(tmp_path, pair, name="owner", acts_as="model_owner")
    np.savez(tmp_path / "w.npz", kernel=np.ones((300, 50)))
    np.save(tmp_path / "b.npy", np.ones(2))
    given = ["load", "--config", str(config), "--inputs", path(tmp_path, "w.npz")]
    assert main([*given, "--input", f"bias={tmp_path / 'b.npy'}"]) == 0
    assert capsys.readouterr().out == "Loaded; the state has version 7.\n"
    assert main([*given, "--input", f"kernel={tmp_path / 'b.npy'}"]) == 1
    assert "Input 'kernel' is given once" in capsys.readouterr().err


def test_check_tells_who_the_servers_are(config, capsys):
    assert main(["check", "--config", config]) == 0
    text = capsys.readouterr().out
    for name in (LEADER, FOLLOWER):
        assert fingerprint(known(name).certificate()).hex() in text
    assert PLAN.fingerprint in text
    assert text.count("same plan") == 2
    assert text.endswith("All servers answer.\n")
    assert main(["check", "--config", config, "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["passed"]
    assert all(server["round_trip_seconds"] > 0 for server in values["servers"])


def test_check_fails_where_one_server_does(tmp_path, capsys):
    with fake_pair(server1=identity("server1")) as pair:
        config = write_config(tmp_path, pair)
        assert main(["check", "--config", str(config)]) == 1
        text = capsys.readouterr().out
        assert text.count("FAILED       ChannelError: no link to server1") == 1
        assert text.count("same plan") == 1
        pair.stop(LEADER)
        report = check_servers(load_config(config))
        assert not report.passed
        assert [type(server.error) for server in report.servers] == [ChannelError, ChannelError]
        assert "nobody answers at 127.0.0.1" in str(report.servers[0].error)


def test_inspect_lists_a_plan(config, tmp_path, capsys):
    assert main(["inspect", path(tmp_path, "model.plan")]) == 0
    text = capsys.readouterr().out
    assert PLAN.fingerprint in text
    assert "predict, batches of 1, 8" in text
    assert "input   x  float32 ['n', 4]  of client" in text
    assert main(["inspect", path(tmp_path, "model.plan"), "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["entries"]["load"]["keeps"] == ["weights"]
    assert values["external"] == ["client", "model_owner"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["predict", "--config", "none.toml", "x.npy"], "ConfigError: none.toml: cannot be read"),
        (["predict", "--config", "client.toml", "none.npy"], "RequestError: none.npy: cannot be read"),
        (["predict", "--config", "client.toml", "client.toml"], "RequestError: client.toml: an array of numbers"),
        (["predict", "--config", "client.toml", "objects.npy"], "RequestError: objects.npy: an array of numbers"),
        (["predict", "--config", "client.toml", "w.npz"], "RequestError: w.npz: one array is in a .npy file"),
        (["call", "load", "--config", "client.toml", "--inputs", "x.npy"], "RequestError: x.npy: arrays by name"),
        (["predict", "--config", "client.toml", "x.npy"], "RequestError: predict is for an entry with one input"),
        (["predict", "--config", "client.toml", "x.npy", "--out", "y.txt"], "RequestError: y.txt: results are written"),
        (["predict", "--config", "client.toml", "x.npy", "--out", "no/y.csv"], "RequestError: no/y.csv: results go to"),
        (["inspect", "client.toml"], "PlanError: client.toml: This is not a plan"),
    ],
)
def test_errors_are_one_line_and_exit_code_1(config, x, tmp_path, capsys, monkeypatch, arguments, text):
    monkeypatch.chdir(tmp_path)
    np.savez("w.npz", x=np.ones(2))
    np.save("objects.npy", np.array([{}], object), allow_pickle=True)
    assert main(arguments) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(text)
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "COMMAND"),
        (["dance"], "invalid choice"),
        (["predict", "x.npy"], "--config"),
        (["call", "e", "--config", "c", "--input", "x"], "NAME=FILE, as x=images.npy; got 'x'"),
        (["call", "e", "--config", "c", "--input", "x=a", "--input", "x=b"], "--input x is given twice"),
    ],
)
def test_usage_errors_are_exit_code_2(capsys, arguments, text):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert text in capsys.readouterr().err


@pytest.mark.parametrize("command", [[], ["predict"], ["call"], ["load"], ["check"], ["inspect"]])
def test_help_has_examples(capsys, command):
    with pytest.raises(SystemExit) as caught:
        main([*command, "--help"])
    assert caught.value.code == 0
    assert "shareflow-client " + (command or ["check"])[0] in capsys.readouterr().out.partition("example")[2]


def test_the_bar_is_for_terminals(capsys, monkeypatch):
    ProgressBar()(1, 4)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    bar = ProgressBar()
    bar(1, 4)
    bar(4, 4)
    shown = capsys.readouterr().err
    assert "[#######......................." in shown
    assert "4/4 rows" in shown
    assert shown.endswith("\n")


def test_lines_of_csv_follow_the_first_axis():
    assert csv_text(np.array([1, 2])) == "1\n2\n"
    assert csv_text(np.arange(8).reshape(2, 2, 2)) == "0,1,2,3\n4,5,6,7\n"
    assert csv_text(np.float64(1.5).reshape(())) == "1.5\n"
    assert csv_text(np.zeros((0, 3))) == ""


def test_predictions_of_files_from_python(config, x, tmp_path):
    told = []
    y = predict_file(config, tmp_path / "x.npy", entry="double", progress=lambda *now: told.append(now))
    assert np.allclose(y, 2 * x, atol=1e-4)
    assert told[-1] == (10, 10)


# Where tests run in the background SIGINT is ignored, and a new process would inherit that.
HEARS_INTERRUPTS = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def test_interrupting_is_clean(pair, config, x, tmp_path):
    pair.script = lambda asked: os.kill(process.pid, signal.SIGINT) if asked.number == 1 else None
    arguments = ["-m", "shareflow_client", "predict", "--config", config, "x.npy", "--entry", "double"]
    process = subprocess.Popen(
        [sys.executable, "-c", HEARS_INTERRUPTS, *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stderr=subprocess.PIPE,
        text=True,
    )
    _, err = process.communicate(timeout=GUARD)
    assert process.returncode == 130
    assert err == "Interrupted; what was asked is given up.\n"


def test_no_tensorflow_is_needed():
    modules = "{'tensorflow', 'shareflow', 'rich', 'typer'}"
    code = f"import sys, shareflow_client.command; print({modules} & set(sys.modules))"
    made = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=GUARD,
        check=True,
    )
    assert made.stdout == "set()\n"
