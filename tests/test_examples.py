"""Every example runs as its reader would run it, and every block of Python in the documentation runs."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from shareflow.plan_audit import audited

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = {path.stem: path for path in sorted((ROOT / "examples").glob("*.py"))}
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def _blocks():
    whole = {path.read_text() for path in EXAMPLES.values()}
    for page in PAGES:
        text = page.read_text()
        for match in BLOCK.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            # An example that a page shows in full runs on its own below.
            if match[1] not in whole:
                yield pytest.param(page, line, match[1], id=f"{page.relative_to(ROOT)}:{line}")


@pytest.mark.parametrize(("page", "line", "code"), list(_blocks()))
def test_documented_code_runs(page, line, code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # Blank lines put the line numbers of an error where they are on the page.
    exec(compile("\n" * line + code, str(page), "exec"), {"__name__": "__main__"})


def test_pages_show_the_examples_as_they_are():
    shown = BLOCK.findall((ROOT / "docs" / "adding.md").read_text())
    for name in ("new_operation", "new_protocol"):
        assert EXAMPLES[name].read_text() in shown, f"docs/adding.md does not show examples/{name}.py as it is"


def test_the_readme_gives_the_commands_that_set_up_and_run():
    lines = (ROOT / "README.md").read_text().splitlines()
    for extra, command in (("demo", "shareflow demo"), ("test", "pytest")):
        assert f"python3 -m venv .venv && .venv/bin/pip install ./client '.[{extra}]' && .venv/bin/{command}" in lines


def test_the_guide_names_every_page():
    docs = ROOT / "docs"
    named = set(re.findall(r"\]\(([^)#]+\.md)", (docs / "README.md").read_text()))
    assert named >= {path.relative_to(docs).as_posix() for path in docs.rglob("*.md")} - {"README.md"}


def test_links_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"


def _run(name, tmp_path):
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, str(EXAMPLES[name])],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def _numbers(text):
    return [float(number) for number in re.findall(r"-?\d+\.\d*(?:e-?\d+)?", text)]


def test_every_example_is_tested():
    assert set(EXAMPLES) == {
        "credit_forest",
        "hospital_statistics",
        "logistic_regression",
        "new_operation",
        "new_protocol",
        "predict_keras",
        "salary_quartiles",
        "second_price_auction",
        "train_together",
    }


def test_logistic_regression(tmp_path):
    # tf.print writes to the standard error stream.
    _, printed = _run("logistic_regression", tmp_path)
    logits = np.array([[1.0, 0.2, -0.4], [0.3, -0.6, 0.9]]) @ [0.5, -1.25, 2.0]
    found = _numbers(printed[printed.rindex("[[") :])
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-logits)), atol=0.01)


def test_hospital_statistics(tmp_path):
    printed, _ = _run("hospital_statistics", tmp_path)
    rows = [_numbers(line) for line in printed.splitlines()]
    assert len(rows) == 5
    for private, clear in rows[:4]:
        assert private == pytest.approx(clear, abs=0.01)
    assert re.search(r"\d+ rounds, [\d,]+ bytes online, [\d,]+ bytes dealt ahead", printed)


def _assert_faster(printed):
    predicted, default, measured = (
        float(re.search(rf"^{name} +([\d.]+) ms", printed, re.MULTILINE)[1])
        for name in ("predicted", "by default", "measured")
    )
    assert predicted < default
    # Waiting is the most of it over a WAN, and is the same in both.
    assert measured == pytest.approx(predicted, rel=0.5)
    assert re.search(r"^chosen +.+: .+", printed, re.MULTILINE)


def test_second_price_auction(tmp_path):
    printed, _ = _run("second_price_auction", tmp_path)
    lots = re.findall(r"^lot \d: (.+?)   in the clear (.+)$", printed, re.MULTILINE)
    assert len(lots) == 6 and all(private == clear for private, clear in lots)
    assert "all pairs, ranked" in printed
    _assert_faster(printed)


def test_salary_quartiles(tmp_path):
    printed, _ = _run("salary_quartiles", tmp_path)
    rows = re.findall(r"^(?:first|median|third) +([\d.]+)   in the clear +([\d.]+)$", printed, re.MULTILINE)
    assert len(rows) == 3
    for private, clear in rows:
        assert float(private) == pytest.approx(float(clear), abs=0.01)
    _assert_faster(printed)


def test_credit_forest(tmp_path):
    printed, _ = _run("credit_forest", tmp_path)
    private, clear = re.search(r"accepted (\d+) of 40, in the clear (\d+)", printed).groups()
    assert private == clear and 5 < int(clear) < 35
    same, right = re.search(r"same decisions ([\d.]+) %, right ones ([\d.]+) %", printed).groups()
    assert float(same) == 100 and float(right) > 85
    _assert_faster(printed)


def test_predict_keras(tmp_path):
    pytest.importorskip("sklearn")
    printed, _ = _run("predict_keras", tmp_path)
    private, clear, same, difference = _numbers(printed)
    assert private > 85 and clear > 85 and same > 99 and difference < 0.01
    assert "conv2d: Conv2D" in printed


def test_train_together(tmp_path):
    printed, _ = _run("train_together", tmp_path)
    private, clear = (_numbers(line) for line in printed.splitlines() if line.startswith("model, "))
    assert len(private) == 4 and np.abs(private).max() > 1, "it learned nothing"
    np.testing.assert_allclose(private, clear, atol=2e-3)
    assert float(re.search(r"differ by at most ([\d.e-]+)", printed)[1]) < 1e-3
    assert "learn: inputs of clinic, laboratory\n" in printed and "model: inputs of nobody\n" in printed


def test_the_plan_of_train_together_passes_the_audit():
    plan = runpy.run_path(str(EXAMPLES["train_together"]))["make_plan"]()
    audit = audited(plan)
    assert audit.passed, [finding.why for _, finding in audit.every_finding()]
    assert plan.manifest.entries["learn"].uses == plan.manifest.entries["learn"].keeps == ("weights",)


def test_new_operation(tmp_path):
    printed, _ = _run("new_operation", tmp_path)
    x = np.array([1.5, -2.0, 0.25, -0.125])
    for protocol in ("SPDZ", "Plain"):
        for name, expected in (("cumsum", np.cumsum(x)), ("absolute", np.abs(x)), ("square", x * x)):
            line = next(line for line in printed.splitlines() if line.startswith(f"{protocol} {name}"))
            np.testing.assert_allclose(_numbers(line), expected, atol=1e-4)


def test_new_protocol(tmp_path):
    printed, _ = _run("new_protocol", tmp_path)
    np.testing.assert_allclose(_numbers(printed[: printed.index("]]")]), [11, 13, 12.5, 15], atol=1e-3)
    assert "2 rounds, 288 bytes, 0 of them dealt ahead" in printed
    assert "MissingRuleError: ThreeParties has no rule for relu(Replicated)" in printed
