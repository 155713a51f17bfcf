"""What SHAREFLOW_KERNELS does, and what is said when the native library is not there: each in a fresh process."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import shareflow
import shareflow_client
from shareflow.ring import kernels

CLIENT = Path(shareflow_client.__file__).parents[1]
PACKAGE = Path(shareflow.__file__).parent
REPORT = "from shareflow.ring import kernels; print('set:', kernels.instruction_set())"
WORK = """
import tensorflow as tf
from shareflow.ring import kernels
x = tf.fill([300, 300], tf.constant(-1, tf.int64))
assert (kernels.matmul(x, x).numpy() == 300).all()
print('done')
"""


def run(code: str, path: Path = PACKAGE.parent, **environment: str) -> subprocess.CompletedProcess[str]:
    keep = {name: value for name, value in os.environ.items() if not name.startswith("SHAREFLOW_")}
    paths = os.pathsep.join((str(path), str(CLIENT)))
    variables = {**keep, "PYTHONPATH": paths, "TF_CPP_MIN_LOG_LEVEL": "3", **environment}
    return subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package without the library."""
    root = tmp_path_factory.mktemp("bare")
    shutil.copytree(PACKAGE, root / "shareflow", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    return root


@pytest.mark.parametrize("name", kernels.available()[-2:])
def test_forced_by_the_environment(name: str) -> None:
    assert f"set: {name}\n" in run(REPORT, SHAREFLOW_KERNELS=name).stdout


@pytest.mark.skipif("amx" in kernels.available(), reason="the CPU has AMX")
@pytest.mark.skipif(len(kernels.available()) == 1, reason="no native kernels")
def test_an_instruction_set_that_the_cpu_has_not_is_refused() -> None:
    error = run(REPORT, SHAREFLOW_KERNELS="amx").stderr
    assert "SHAREFLOW_KERNELS=amx: this CPU, its system or this build does not support amx. It" in error


def test_an_unknown_name_is_refused() -> None:
    error = run(REPORT, SHAREFLOW_KERNELS="amx-emulated").stderr
    assert "SHAREFLOW_KERNELS must be one of auto, amx, avx512, avx2, portable, tensorflow, not 'amx-" in error


def test_without_the_library_the_reference_runs_after_one_warning(bare: Path) -> None:
    result = run(REPORT, bare)
    assert "set: tensorflow" in result.stdout
    assert result.stderr.count("RuntimeWarning") == 1
    assert "there is no _shareflow_kernels.so" in result.stderr and "pip install ." in result.stderr


def test_the_reference_by_name_gives_no_warning(bare: Path) -> None:
    result = run(REPORT, bare, SHAREFLOW_KERNELS="tensorflow")
    assert "set: tensorflow" in result.stdout and "RuntimeWarning" not in result.stderr


def test_a_forced_instruction_set_needs_the_library(bare: Path) -> None:
    error = run(REPORT, bare, SHAREFLOW_KERNELS="portable").stderr
    assert "SHAREFLOW_KERNELS=portable needs the native kernels, which are not loaded" in error
    assert "pip install ." in error


def test_a_broken_library_is_told(bare: Path, tmp_path: Path) -> None:
    shutil.copytree(bare, tmp_path / "broken")
    (tmp_path / "broken/shareflow/ring/_shareflow_kernels.so").write_bytes(b"not a library")
    result = run(REPORT, tmp_path / "broken")
    assert "set: tensorflow" in result.stdout and "The native kernels are not loaded" in result.stderr


@pytest.mark.parametrize("threads", [pytest.param("1", marks=pytest.mark.slow), "3"])
def test_the_number_of_threads(threads: str) -> None:
    assert "done" in run(WORK, SHAREFLOW_THREADS=threads).stdout
