"""The rules of docs/architecture, held by reading the source: layers, devices, messages, sockets, randomness."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import shareflow
import shareflow_client

ROOT = Path(shareflow.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
NAMES = [path.relative_to(ROOT).as_posix() for path in FILES]
CLIENT = Path(shareflow_client.__file__).parent
CLIENT_NAMES = [path.relative_to(CLIENT).as_posix() for path in sorted(CLIENT.rglob("*.py"))]

# Imports run one way: a package may use itself and these.
LAYERS = {
    "errors": set(),
    "party": {"errors"},
    "ring": {"errors"},
    "share": {"party", "ring", "errors"},
    "protocol": {"share", "party", "ring", "errors"},
    "nn": {"protocol", "share", "party", "ring", "errors"},
    "audit": {"party", "errors"},
    "runtime": {"party", "errors"},
    "function": {"runtime", "audit", "protocol", "share", "party", "errors"},
    "planning": {"runtime", "protocol", "share", "party", "errors"},
    "compiler": {
        *("function", "planning", "runtime", "audit", "nn", "protocol", "share", "party", "ring"),
        *("errors", "keras_layers"),
    },
}
# Keras' own seeds for plaintext training, and shuffled digits: nothing private hangs on these.
PLAINTEXT_TRAINING = {"networks.py", "demonstration.py", "data.py"}
RANDOMNESS = {"ring/uniform.py", "party/session.py"}
SOCKETS = {"socket", "socketserver", "ssl", "grpc", "http", "asyncio", "urllib", "requests", "select", "selectors"}


# In the client's distribution: who opens connections (the check times one of TCP), and who draws nonces and ephemeral
# keys, or the name of a client's session, which is not secret.
CLIENT_SOCKETS = {"tls.py", "link.py", "server_check.py"}
CLIENT_RANDOMNESS = {"handshake.py", "session.py"}


def parse(name: str, root: Path = ROOT) -> ast.Module:
    return ast.parse((root / name).read_text(encoding="utf-8"))


def package(name: str) -> str:
    """The first part of a file's path: party/send.py is in party, errors.py is errors."""
    return name.partition("/")[0].removesuffix(".py")


def dotted(node: ast.AST) -> str:
    """tf.random.uniform of such an expression; '' where it is none."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        inner = dotted(node.value)
        return f"{inner}.{node.attr}" if inner else ""
    return ""


def imported(tree: ast.Module) -> Iterator[str]:
    """Every module that is imported anywhere in the file, with the names taken from it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports(tree: ast.Module) -> set[str]:
    """Packages of shareflow that a file imports."""
    paths = [name.split(".") for name in imported(tree)]
    return {path[1] for path in paths if path[0] == "shareflow" and len(path) > 1}


def expressions(tree: ast.Module) -> set[str]:
    return {dotted(node) for node in ast.walk(tree)} - {""}


def calls(tree: ast.Module) -> set[str]:
    return {dotted(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)} - {""}


def texts(tree: ast.Module) -> Iterator[str]:
    """String literals, also the literal parts of f-strings, without docstrings."""
    documentation = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            yield node.value


def breaks_layers(name: str, tree: ast.Module) -> set[str]:
    here = package(name)
    return own_imports(tree) - LAYERS[here] - {here} if here in LAYERS else set()


def pins_devices(tree: ast.Module) -> set[str]:
    found = {e for e in expressions(tree) if e.endswith((".device", ".device_v2")) and e.startswith("tf.")}
    return found | {t for t in imported(tree) if t.endswith((".device", ".colocate_with"))}


def names_messages(tree: ast.Module) -> set[str]:
    return {text for text in texts(tree) if text.startswith("send.") or "/send." in text}


def opens_sockets(tree: ast.Module) -> set[str]:
    # tls.py of the client hands gRPC on, so that it is imported after what it reads from the environment is set.
    return {name for name in imported(tree) if name.partition(".")[0] in SOCKETS or name.endswith(".grpc")}


def draws_randomness(tree: ast.Module) -> set[str]:
    sources = ("tf.random", "np.random", "numpy.random", "tf.keras.utils.set_random_seed", "keras.utils.set_random")
    raw = {e for e in expressions(tree) if e.startswith("tf.raw_ops.") and ("Random" in e or "Multinomial" in e)}
    named = {e for e in expressions(tree) if e.startswith((*sources, "os.urandom", "os.getrandom", "uuid.uuid4"))}
    modules = {"random", "secrets", "uuid", "numpy.random"}
    brought = {name for name in imported(tree) if name.partition(".")[0] in modules or name.startswith("numpy.random")}
    taken = {name for name in imported(tree) if name in ("os.urandom", "os.getrandom", "tensorflow.random")}
    return raw | named | brought | taken


def runs_foreign_code(tree: ast.Module) -> set[str]:
    modules = {name for name in imported(tree) if name.partition(".")[0] in ("pickle", "marshal", "shelve", "dill")}
    unsafe = {"eval", "exec", "compile", "__import__", "tf.py_function", "tf.numpy_function", "os.system"}
    return modules | (calls(tree) & unsafe)


def loads_pickles(tree: ast.Module) -> bool:
    return any(
        isinstance(node, ast.keyword)
        and node.arg == "allow_pickle"
        and not (isinstance(node.value, ast.Constant) and node.value.value is False)
        for node in ast.walk(tree)
    )


def asserts(tree: ast.Module) -> list[int]:
    return [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Assert)]


# --- the rules ------------------------------------------------------------------------------------------------


def test_the_source_is_found():
    assert {"party/party.py", "party/send.py", "ring/uniform.py", "protocol/spdz.py"} <= set(NAMES)
    assert set(LAYERS) <= {package(name) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_imports_run_one_way(name):
    assert breaks_layers(name, parse(name)) == set()


def test_every_package_has_a_layer():
    folders = {path.name for path in ROOT.iterdir() if path.is_dir() and (path / "__init__.py").exists()}
    assert folders <= set(LAYERS)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "party/party.py"])
def test_devices_stand_in_one_file(name):
    assert pins_devices(parse(name)) == set()


def test_that_file_pins():
    assert pins_devices(parse("party/party.py")) == {"tf.device"}


@pytest.mark.parametrize("name", [name for name in NAMES if name != "party/send.py"])
def test_messages_are_named_in_one_file(name):
    assert names_messages(parse(name)) == set()


def test_that_file_names_messages():
    assert names_messages(parse("party/send.py"))


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("runtime/channel")])
def test_sockets_are_opened_by_channels_alone(name):
    assert opens_sockets(parse(name)) == set()


@pytest.mark.parametrize("name", sorted(set(NAMES) - RANDOMNESS - PLAINTEXT_TRAINING))
def test_randomness_comes_from_streams_alone(name):
    assert draws_randomness(parse(name)) == set()


def test_keys_come_from_the_system():
    assert draws_randomness(parse("party/session.py")) == {"secrets"}
    assert "secrets.token_bytes" in calls(parse("party/session.py"))
    assert draws_randomness(parse("ring/uniform.py")) == set(), "its words come from the kernel, of a key"


def test_uniform_words_are_made_in_one_file():
    # kernels.uniform is the PRG; its only user numbers the streams.
    users = {name for name in NAMES if "kernels.uniform" in expressions(parse(name))}
    assert users == {"ring/uniform.py"}
    takers = {name for name in NAMES if "shareflow.ring.uniform.uniform" in set(imported(parse(name)))}
    assert takers == {"share/stream.py"}


@pytest.mark.parametrize("name", NAMES)
def test_no_foreign_code_runs(name):
    tree = parse(name)
    assert runs_foreign_code(tree) == set()
    assert not loads_pickles(tree)


@pytest.mark.parametrize("name", NAMES)
def test_checks_are_errors_and_not_assertions(name):
    assert asserts(parse(name)) == []


def test_no_file_is_a_drawer():
    words = {"util", "utils", "helper", "helpers", "common", "base", "manager", "misc", "tools"}
    parts = {part.removesuffix(".py") for name in NAMES for part in name.split("/")}
    assert parts.isdisjoint(words)
    assert not [part for part in parts if set(part.split("_")) & words]


@pytest.mark.parametrize("name", NAMES)
def test_files_are_short(name):
    lines = (ROOT / name).read_text(encoding="utf-8").count("\n")
    assert lines <= 700


@pytest.mark.parametrize("name", NAMES)
def test_every_file_says_what_it_is(name):
    assert ast.get_docstring(parse(name))


def test_the_public_names_are_only_re_exported():
    tree = parse("__init__.py")
    for node in tree.body[1:]:
        if isinstance(node, ast.ImportFrom):
            assert all(alias.asname == alias.name for alias in node.names)
        else:
            assert isinstance(node, ast.Assign)
            assert dotted(node.targets[0]) == "__version__"


# --- the client's distribution --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CLIENT_NAMES)
def test_the_client_stands_alone(name):
    tree = parse(name, CLIENT)
    modules = {module.partition(".")[0] for module in imported(tree)}
    assert modules.isdisjoint({"shareflow", "tensorflow", "keras", "rich", "typer"})
    assert runs_foreign_code(tree) == set()
    assert not loads_pickles(tree)
    assert asserts(tree) == []
    assert ast.get_docstring(tree)


@pytest.mark.parametrize("name", sorted(set(CLIENT_NAMES) - CLIENT_SOCKETS))
def test_the_client_opens_connections_in_links_alone(name):
    assert opens_sockets(parse(name, CLIENT)) == set()


@pytest.mark.parametrize("name", sorted(set(CLIENT_NAMES) - CLIENT_RANDOMNESS))
def test_the_client_draws_randomness_for_its_sessions_alone(name):
    assert draws_randomness(parse(name, CLIENT)) == set()


@pytest.mark.parametrize("name", sorted(CLIENT_RANDOMNESS))
def test_the_client_draws_from_the_system(name):
    assert draws_randomness(parse(name, CLIENT)) == {"secrets"}


# --- the rules see a breach -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("check", "source"),
    [
        (lambda tree: breaks_layers("party/x.py", tree), "from shareflow.share.known import Known"),
        (lambda tree: breaks_layers("party/x.py", tree), "def f():\n    import shareflow.ring.kernels"),
        (lambda tree: breaks_layers("ring/x.py", tree), "from shareflow.party.party import Party"),
        (lambda tree: breaks_layers("share/x.py", tree), "from shareflow.protocol import op"),
        (lambda tree: breaks_layers("protocol/x.py", tree), "from shareflow import nn"),
        (lambda tree: breaks_layers("audit/x.py", tree), "from shareflow.share.masked import Masked"),
        (lambda tree: breaks_layers("runtime/x.py", tree), "from shareflow.protocol.spdz import SPDZ"),
        (lambda tree: breaks_layers("nn/x.py", tree), "from shareflow.function import function"),
        (pins_devices, "with tf.device('/job:a'):\n    pass"),
        (pins_devices, "pin = tf.compat.v1.device"),
        (pins_devices, "from tensorflow import device"),
        (names_messages, "tf.identity(x, name=f'send.{kind}.a.b.')"),
        (names_messages, "name = 'layer/send.opening.a.b.'"),
        (opens_sockets, "import socket"),
        (opens_sockets, "from grpc import aio"),
        (opens_sockets, "from shareflow_client.tls import grpc"),
        (draws_randomness, "tf.random.uniform([3])"),
        (draws_randomness, "np.random.default_rng()"),
        (draws_randomness, "def f():\n    import random"),
        (draws_randomness, "from secrets import token_bytes"),
        (draws_randomness, "from numpy.random import default_rng"),
        (draws_randomness, "os.urandom(16)"),
        (draws_randomness, "tf.raw_ops.StatelessRandomUniformV2()"),
        (runs_foreign_code, "import pickle"),
        (runs_foreign_code, "eval(text)"),
        (runs_foreign_code, "tf.py_function(f, [], [])"),
        (loads_pickles, "np.load(path, allow_pickle=True)"),
        (asserts, "assert x"),
    ],
)
def test_a_breach_is_seen(check, source):
    assert check(ast.parse(source))


@pytest.mark.parametrize(
    ("check", "source"),
    [
        (lambda tree: breaks_layers("nn/x.py", tree), "import numpy\nfrom shareflow.protocol import op"),
        (pins_devices, "party.device"),
        (names_messages, '"""A docstring may say send.opening.a.b."""'),
        (names_messages, "text = 'nothing is sent. At all'"),
        (draws_randomness, "from shareflow.ring.uniform import uniform"),
        (runs_foreign_code, "re.compile('a')"),
        (loads_pickles, "np.load(path, allow_pickle=False)"),
    ],
)
def test_what_is_allowed_is_not_reported(check, source):
    assert not check(ast.parse(source))
