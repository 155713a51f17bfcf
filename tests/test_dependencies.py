"""Every dependency has its reason in docs/dependencies.md, and every reason a dependency."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

from shareflow_client.config import load_toml

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "dependencies.md").read_text()
TABLES = {
    "shareflow": "## To run",
    "client": "The client's distribution",
    "extras": "## To try and to test",
    "build": "## To develop and to build",
}
# Distributions that are imported under another name.
MODULES = {"tensorflow_cpu": "tensorflow", "pillow": "PIL", "grpcio": "grpc"}


def table(heading):
    """The first column of the first table below a heading."""
    rows = re.search(r"^\|.*?(?:\n\n|\Z)", PAGE[PAGE.index(heading) :], re.MULTILINE | re.DOTALL)[0].splitlines()
    return [row.split("|")[1].strip() for row in rows[2:] if row.strip()]


def names(requirements):
    return {re.match(r"[A-Za-z0-9_.-]+", requirement)[0].lower() for requirement in requirements}


OURS, CLIENT = (load_toml(ROOT / where / "pyproject.toml") for where in (".", "client"))


@pytest.mark.parametrize(("project", "key"), [(OURS, "shareflow"), (CLIENT, "client")], ids=["shareflow", "client"])
def test_what_runs_has_its_reason(project, key):
    assert names(project["project"]["dependencies"]) == set(table(TABLES[key]))


def test_extras_and_build_have_their_reasons():
    extras = OURS["project"]["optional-dependencies"]
    assert names([*extras["demo"], *extras["test"], *extras["bench"], *extras["onnx"]]) == set(table(TABLES["extras"]))
    builds = [*OURS["build-system"]["requires"], *CLIENT["build-system"]["requires"]]
    assert names([*extras["lint"], *builds]) == set(table(TABLES["build"]))


@pytest.mark.parametrize(
    ("project", "folder", "own"),
    [(OURS, ROOT / "src", {"shareflow", "shareflow_command"}), (CLIENT, ROOT / "client" / "src", {"shareflow_client"})],
    ids=["shareflow", "client"],
)
def test_what_is_imported_is_named(project, folder, own):
    declared = {name.replace("-", "_") for name in names(project["project"]["dependencies"])}
    extras = project["project"].get("optional-dependencies", {})
    allowed = {MODULES.get(name, name) for name in declared} | own | set(sys.stdlib_module_names) | {"tomllib"}
    if "demo" in extras:
        allowed |= {"sklearn", "onnx"}  # of extras, imported where they are there
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                modules = [node.module]
            for module in modules:
                assert module.partition(".")[0] in allowed, f"{path.relative_to(folder)} imports {module}"
