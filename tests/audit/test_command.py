"""`shareflow audit` of plans: what it prints, for people and for scripts, and its exit status."""

import json

import pytest
from edited import Edited, network
from typer.testing import CliRunner

from shareflow.cli import app
from shareflow.errors import PlanError
from shareflow.plan_audit import audited
from shareflow.runtime.plan import Plan
from shareflow_client.plan_file import PlanFile


def run(*arguments):
    return CliRunner().invoke(app, ["audit", *map(str, arguments)])


def written(plan, path):
    graphs = {name: definition.SerializeToString() for name, definition in plan.definitions.items()}
    PlanFile(plan.manifest, graphs).write(path)
    return path


@pytest.fixture
def honest(tmp_path):
    network().write(tmp_path / "honest.plan")
    return tmp_path / "honest.plan"


@pytest.fixture
def leaky(tmp_path):
    plan = Edited()
    opening = plan.messages("opening", "server0", "server1")[1]
    plan.nodes[opening].input[0] = plan.feeding(opening).input[0]
    return written(plan, tmp_path / "leaky.plan")


def test_an_honest_plan(honest):
    shown = run(honest)
    assert shown.exit_code == 0, shown.output
    assert "Proved from the graph: passed" in shown.output
    assert network().fingerprint in shown.output
    assert "client learns result [2, 2], computed from w1 of owner, w2 of owner, x of client" in shown.output
    assert "uniform by stream" in shown.output and "... " in shown.output
    assert "... " not in run(honest, "--full").output


def test_a_plan_under_another_name_is_known_by_its_content(honest, tmp_path):
    assert run(honest.rename(tmp_path / "model.keras")).exit_code == 0


def test_a_leaky_plan(leaky):
    shown = run(leaky)
    assert shown.exit_code == 1
    assert "Not accounted for" in shown.output
    assert "server1: relu/mask/send.opening.server0.server1.: it is hidden under no stream" in shown.output
    assert " -> " in shown.output  # the path from the secret to the message


def test_for_scripts(honest, leaky):
    given = run(honest, "--json")
    assert given.exit_code == 0
    report = json.loads(given.stdout)
    assert report["passed"] and report["fingerprint"] == network().fingerprint and report["format"] == 1
    assert (report["servers"], report["dealer"]) == (["server0", "server1"], "dealer")
    assert report["states"] == {"w1": ["w1 of owner"], "w2": ["w2 of owner"]}
    predict = report["graphs"]["predict"]
    assert predict["results"][0]["depends_on"] == ["x of client", "state w1", "state w2"]
    views = {view["party"]: view for view in predict["views"]}
    assert views["server0"]["removed"][0]["stream"]["pair"] == ["dealer", "server1"]
    assert views["client"]["learned"][0]["kind"] == "result" and len(views["client"]["learned"][0]["messages"]) == 2
    # Costs by link and by layer are the same bytes; rounds of layers sum to the graph's.
    cost = predict["cost"]
    for phase in ("online_bytes", "offline_bytes"):
        for rows in (cost["links"], cost["layers"]):
            assert cost[phase] == sum(row[phase] for row in rows) > 0
    assert cost["rounds"] == sum(row["rounds"] for row in cost["layers"]) > 0
    assert {row["party"] for row in cost["parties"]} == {"client", "dealer", "server0", "server1"}
    found = run(leaky, "--json")
    assert found.exit_code == 1
    report = json.loads(found.stdout)
    assert not report["passed"] and report["graphs"]["predict"]["findings"]


@pytest.mark.parametrize("content", [b"", b"abc", b"\x89SFPLAN\n"])
def test_what_cannot_be_read(content, tmp_path):
    (tmp_path / "broken.plan").write_bytes(content)
    failed = run(tmp_path / "broken.plan", "--json")
    assert failed.exit_code == 2
    assert failed.stdout == "" and "PlanError" in failed.stderr


def test_a_plan_whose_graph_is_no_graph(tmp_path):
    plan = Edited()
    graphs = {name: definition.SerializeToString() for name, definition in plan.definitions.items()}
    PlanFile(plan.manifest, {**graphs, "load": b"\xff\xff"}).write(tmp_path / "broken.plan")
    failed = run(tmp_path / "broken.plan")
    assert failed.exit_code == 2 and "no TensorFlow GraphDef" in failed.stderr


def test_from_python(honest, leaky):
    audited(Plan.read(honest)).require()
    with pytest.raises(PlanError, match="does not pass the audit"):
        audited(Plan.read(leaky)).require()
