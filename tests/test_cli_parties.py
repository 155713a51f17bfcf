"""Commands of parties on their own: files they write, mistakes they name, and three parties that predict."""

import contextlib
import re
import signal
import subprocess
import sys
import urllib.request

import keras
import numpy as np
import pytest
from keras import layers
from tests.runtime.party_files import configuration, make_files
from typer.testing import CliRunner

from shareflow.cli import app
from shareflow.errors import ConfigError, PlanError, StoreError
from shareflow.parties import read_party, require_audited
from shareflow.runtime.keys import sign
from shareflow.runtime.plan import Plan
from shareflow_client.plan_file import PlanFile, read_plan_file

GUARD = 60.0


def run(*arguments):
    return CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1"}).invoke(app, [str(argument) for argument in arguments])


def text_of(result):
    return " ".join(result.output.split())


def made(*arguments):
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return text_of(result)


def refused(*arguments, code=1):
    result = run(*arguments)
    assert result.exit_code == code, result.output
    return text_of(result)


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(5)
    return keras.Sequential([keras.Input((6,)), layers.Dense(4, activation="relu"), layers.Dense(3)])


@pytest.fixture(scope="module")
def files(model, tmp_path_factory):
    """Keys and configurations of all, and the plan of the model."""
    folder = make_files(tmp_path_factory.mktemp("organisations"))
    sign(folder, "owner-1", "client")
    model.save(folder / "model.keras")
    (folder / "model.plan").unlink()
    made("compile", folder / "model.keras", "--out", folder / "model.plan", "--batch", 1, "--batch", 4)
    for name in ("server0", "server1", "dealer"):
        (folder / f"{name}.toml").write_text(configuration(name))
    return folder


# --- compile ----------------------------------------------------------------------------------------------------


def test_compile_tells_what_all_must_agree_on(files, tmp_path):
    text = made("compile", files / "model.keras", "--out", tmp_path / "m.plan", "--owner", "clinic", "--batch", 1)
    plan = read_plan_file(tmp_path / "m.plan")
    assert f"fingerprint {plan.fingerprint}" in text
    assert "client, clinic" in text
    assert re.search(r"predict@1 │ │ client │ \d+ │ [\d.]+ k?B │ [\d.]+ k?B", text)


def test_a_plan_is_not_replaced_by_another(files, tmp_path):
    arguments = ("compile", files / "model.keras", "--out", tmp_path / "m.plan", "--batch", 1)
    made(*arguments)
    before = (tmp_path / "m.plan").read_bytes()
    made(*arguments)  # the same one
    assert "is another plan, with fingerprint" in refused(*arguments, "--batch", 2)
    assert (tmp_path / "m.plan").read_bytes() == before
    made(*arguments, "--batch", 2, "--force")
    assert (tmp_path / "m.plan").read_bytes() != before
    (tmp_path / "m.plan").write_text("notes")
    assert "is no plan" in refused(*arguments)


def test_compile_names_what_it_cannot_do(files, tmp_path):
    assert "--out writes .plan" in refused("compile", files / "model.keras", "--out", tmp_path / "m.keras")
    assert "without 1" in refused("compile", files / "model.keras", "--out", tmp_path / "m.plan", "--batch", 2)
    assert "There is no model" in refused("compile", tmp_path / "no.keras", "--out", tmp_path / "m.plan")


# --- keys -------------------------------------------------------------------------------------------------------


def test_keys_are_made_and_shown(tmp_path):
    assert "authority.crt" in made("keys", "init", tmp_path / "ca")
    told = made("keys", "sign", tmp_path / "ca", "server0", "--host", "10.0.0.7", "--host", "s0.example.org")
    shown = made("keys", "show", tmp_path / "ca" / "server0" / "server0.crt")
    assert "name server0 kind party" in shown
    assert "10.0.0.7" in shown
    assert "s0.example.org" in shown
    assert told.rpartition(" ")[2] == shown.rpartition(" ")[2]
    made("keys", "sign", tmp_path / "ca", "hospital-7", "--kind", "client", "--into", tmp_path / "client")
    names = sorted(path.name for path in (tmp_path / "client").iterdir())
    assert names == ["authority.crt", "hospital-7.crt", "hospital-7.key"]


def test_keys_are_not_replaced_unasked(tmp_path):
    made("keys", "init", tmp_path)
    assert "exist" in refused("keys", "init", tmp_path)
    assert "party or a client" in refused("keys", "sign", tmp_path, "x", "--kind", "server")
    assert "PRIVATE" not in refused("keys", "show", tmp_path / "authority.key")


# --- party ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["server0", "server1", "dealer"])
def test_a_party_can_be_checked(files, name):
    text = made("party", "--config", files / f"{name}.toml", "--check")
    assert text.startswith(f"{name} of plan {read_plan_file(files / 'model.plan').fingerprint}")


def test_a_start_that_fails_says_why(files, tmp_path):
    assert "cannot be read" in refused("party", "--config", tmp_path / "no.toml")
    (files / "wrong.toml").write_text(configuration("server0").replace("listen", "lisen"))
    assert "wrong.toml: lisen: is no key" in refused("party", "--config", files / "wrong.toml")
    refused("party", "--config", files / "server0.toml", "--log-format", "xml", code=2)


def test_a_plan_that_does_not_pass_is_not_run(files):
    good = read_plan_file(files / "model.plan")
    definition = Plan(good).definition("predict@1")
    # A sum of server0 is computed at server1, to which it never was sent.
    node = next(node for node in definition.node if node.op == "AddV2" and "server0" in node.device)
    node.device = node.device.replace("server0", "server1")
    bad = Plan(PlanFile(good.manifest, {**good.graphs, "predict@1": definition.SerializeToString(deterministic=True)}))
    with pytest.raises(PlanError, match=r"does not pass the audit is not run; this one has \d+ findings:\n  graph"):
        require_audited(bad)
    bad.write(files / "bad.plan")
    (files / "bad.toml").write_text(configuration("server0").replace("model.plan", "bad.plan"))
    assert "does not pass the audit" in refused("party", "--config", files / "bad.toml")


# --- deal, load, predict: mistakes ------------------------------------------------------------------------------


def test_only_the_dealer_deals(files):
    text = refused("deal", "--config", files / "server0.toml", "--count", 1)
    assert "only the dealer, dealer, deals; it is server0" in text


def test_dealing_waits_for_servers_only_so_long(files):
    text = refused("deal", "--config", files / "dealer.toml", "--count", 1, "--patience", 1)
    assert "server0 and server1 did not connect within 1 s" in text


def test_predict_says_what_it_takes(files, tmp_path):
    refused("predict", files / "model.keras", code=2)
    refused("predict", files / "model.keras", "x.npy", "--config", "c.toml", code=2)
    refused("predict", "x.npy", "--config", "c.toml", "--batch-size", 3, code=2)
    assert "c.toml" in refused("predict", "x.npy", "--config", tmp_path / "c.toml")


@pytest.mark.parametrize("command", [("compile",), ("keys", "init"), ("keys", "sign"), ("keys", "show"), ("party",)])
def test_help_has_an_example(command):
    assert "Example" in made(*command, "--help")


@pytest.mark.parametrize("command", ["deal", "load", "predict"])
def test_help_of_what_needs_a_configuration_has_an_example(command):
    text = made(command, "--help")
    assert "Example" in text
    assert "--config" in text


# --- three parties ----------------------------------------------------------------------------------------------


def client_file(files, name, acts_as, ports):
    lines = [f'name = "{name}"', f'acts_as = "{acts_as}"', 'plan = "model.plan"']
    lines += [f'certificate = "{name}/{name}.crt"', f'private_key = "{name}/{name}.key"']
    for server, port in ports.items():
        lines += ["[[servers]]", f'name = "{server}"', f'address = "127.0.0.1:{port}"']
        lines.append(f'certificate = "{server}/{server}.crt"')
    (files / f"{name}.toml").write_text("\n".join(lines))
    return files / f"{name}.toml"


OWNER = '[[clients]]\nname = "owner-1"\nauthority = "authority.crt"\nacts_as = ["model-owner"]\n'


def test_three_parties_load_and_predict(files, model, tmp_path):
    samples = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    np.save(tmp_path / "x.npy", samples)
    ports, running = {}, []
    try:
        for name in ("server0", "server1"):
            (files / f"{name}.toml").write_text(configuration(name, ports=ports) + OWNER)
            running.append(read_party(files / f"{name}.toml").start())
            ports[name] = running[-1].listener.port
        (files / "dealer.toml").write_text(configuration("dealer", ports=ports))
        dealt = made("deal", "--config", files / "dealer.toml", "--count", 3, "--graph", "predict@4")
        assert "both servers have stored them" in dealt
        running.append(read_party(files / "dealer.toml").start())
        with pytest.raises(StoreError, match="process"):
            read_party(files / "dealer.toml").start()
        owner = client_file(files, "owner-1", "model-owner", ports)
        assert "The weights are with the servers" in made("load", files / "model.keras", "--config", owner)
        asking = client_file(files, "hospital-7", "client", ports)
        out = tmp_path / "scores.npy"
        text = made("predict", tmp_path / "x.npy", "--config", asking, "--out", out)
        assert "5 private predictions" in text
        np.testing.assert_allclose(np.load(out), model(samples).numpy(), atol=0.005)
        other = keras.Sequential([keras.Input((6,)), layers.Dense(3, name="another")])
        other.save(tmp_path / "other.keras")
        assert "they differ in" in refused("load", tmp_path / "other.keras", "--config", owner)
    finally:
        for process in reversed(running):
            process.close(0.5)


def test_a_port_in_use_ends_the_start_and_frees_the_store(files):
    (files / "server0.toml").write_text(configuration("server0"))
    parts = read_party(files / "server0.toml")
    with parts.start() as first:
        taken = first.listener.port
        (files / "again.toml").write_text(
            configuration("server0", listen=f"127.0.0.1:{taken}").replace('"data-server0"', '"data-again"')
        )
        again = read_party(files / "again.toml")
        with pytest.raises(Exception, match="cannot listen"):
            again.start()
    again.start().close()


def test_identity_files_are_checked_before_anything_runs(files):
    (files / "mixed.toml").write_text(configuration("server0").replace("server0/server0.key", "server1/server1.key"))
    with pytest.raises(ConfigError, match="belongs to its certificate"):
        read_party(files / "mixed.toml").start()


@pytest.mark.parametrize("signals", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_signal_stops_a_party_and_a_second_one_at_once(files, signals):
    text = configuration("dealer").replace('data = "', 'health = "127.0.0.1:0"\ngrace = 30\ndata = "signal-')
    (files / "signal.toml").write_text(text)
    command = [sys.executable, "-m", "shareflow_command", "party", "--config", files / "signal.toml"]
    with (
        subprocess.Popen([*command, "--log-format", "text"], stderr=subprocess.PIPE, text=True) as party,
        contextlib.ExitStack() as end,
    ):
        # Whatever fails below: the process must not be waited for.
        end.callback(party.kill)
        lines = []
        for line in party.stderr:
            lines.append(line)
            if "is up" in line:
                break
        assert lines and "is up" in lines[-1], "".join(lines)
        health = re.search(r"health=(\S+)", lines[-1])[1]
        with urllib.request.urlopen(f"http://{health}/live", timeout=10) as answer:
            assert answer.status == 200
        party.send_signal(signal.SIGTERM)
        if signals == 2:
            party.send_signal(signal.SIGTERM)
        code = party.wait(GUARD)
        rest = party.stderr.read()
    if signals == 1:
        assert code == 0
        assert "dealer stopped" in rest
    else:
        # The second one may come when all is over already, or before the first was seen.
        assert code in (0, 128 + signal.SIGTERM)
