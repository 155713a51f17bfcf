"""Arrays in files: inputs from .npy and .npz, results to .npy, .npz, .csv and JSON. Nothing is ever unpickled."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from shareflow_client.errors import RequestError


def read_array(path: str | os.PathLike[str]) -> np.ndarray:
    """The array of a .npy file.

    Raises:
        RequestError: it cannot be read, or is none.
    """
    loaded = _load(path)
    if not isinstance(loaded, np.ndarray):
        raise RequestError(f"{path}: one array is in a .npy file; this is an .npz. Save it with numpy.save.")
    return loaded


def read_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The arrays of an .npz file by name.

    Raises:
        RequestError: it cannot be read, or is none.
    """
    loaded = _load(path)
    if isinstance(loaded, np.ndarray):
        raise RequestError(f"{path}: arrays by name are in an .npz file; this is an .npy. Save it with numpy.savez.")
    return loaded


def check_output(path: str | os.PathLike[str], suffixes: tuple[str, ...]) -> Path:
    """A path that can be written to, later; found out before anything is asked of anyone.

    Raises:
        RequestError: another suffix, or no such folder.
    """
    target = Path(path)
    if target.suffix not in suffixes:
        raise RequestError(f"{path}: results are written as {' or '.join(suffixes)}. Give such a name.")
    if not target.parent.is_dir() or target.is_dir() or not os.access(target.parent, os.W_OK):
        raise RequestError(f"{path}: results go to a file in a folder that exists and can be written. Choose one.")
    return target


def write_results(path: Path, results: Mapping[str, np.ndarray]) -> None:
    """One array as .npy or .csv, or several by name as .npz; the file is there whole or not at all.

    Raises:
        RequestError: it cannot be written, or the results do not fit the form.
    """
    buffer = io.BytesIO()
    if path.suffix == ".npz":
        np.savez(buffer, **dict(results))  # type: ignore[arg-type]  # names are ours, no flag among them
    else:
        if len(results) != 1:
            raise RequestError(f"{path}: several results go to an .npz file; there are {', '.join(results)}.")
        (array,) = results.values()
        if path.suffix == ".csv":
            buffer.write(csv_text(array).encode())
        else:
            np.save(buffer, array)
    try:
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            part = Path(folder) / "part"
            part.write_bytes(buffer.getbuffer())
            part.replace(path)
    except OSError as error:
        raise RequestError(f"{path}: cannot be written: {error.strerror or error}. Give another path.") from None


def csv_text(array: np.ndarray) -> str:
    """The array as lines of numbers: a line for each item of its first axis, with all that is in it."""
    text = io.StringIO()
    table = array.reshape(len(array) if array.ndim else 1, -1) if array.size else np.zeros((0, 1), array.dtype)
    np.savetxt(text, table, fmt="%.10g" if array.dtype.kind == "f" else "%d", delimiter=",")
    return text.getvalue()


def _load(path: str | os.PathLike[str]) -> Any:
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            return {name: loaded[name] for name in loaded.files}
    except OSError as error:
        raise RequestError(f"{path}: cannot be read: {error.strerror or error}. Give an .npy or .npz file.") from None
    except (ValueError, EOFError, BadZipFile):
        raise RequestError(
            f"{path}: an array of numbers as numpy.save or numpy.savez write it; this is none. Save it anew."
        ) from None
