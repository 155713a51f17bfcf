"""Calls whose inputs and results are files: what the commands `predict`, `call` and `load` do."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

import numpy as np

from shareflow_client.array_files import check_output, read_array, read_arrays, write_results
from shareflow_client.client import Client, Progress
from shareflow_client.errors import RequestError

Path = str | os.PathLike[str]
Notice = Callable[[str, str], None]


def _silent(server: str, text: str) -> None:
    """Notices are in the log in any case."""


def predict_file(
    config: Path,
    inputs: Path,
    *,
    out: Path | None = None,
    entry: str = "predict",
    label: str = "",
    progress: Progress | None = None,
    on_notice: Notice = _silent,
) -> np.ndarray:
    """The results for the samples of a .npy file, written to ``out`` (.npy or .csv) if it is given.

    Args:
        config: path of the client's TOML file.
        inputs: samples [n, *shape of one sample], or one sample.
        out, entry, label, progress: as in Client.predict.

    Raises:
        ShareflowError: as Client.predict; RequestError too for files that cannot be read or written.
    """
    target = None if out is None else check_output(out, (".npy", ".csv"))
    array = read_array(inputs)
    with Client(config, on_notice=on_notice) as client:
        result = client.predict(array, entry=entry, label=label, progress=progress)
    if target is not None:
        write_results(target, {"result": result})
    return result


def call_files(
    config: Path,
    entry: str,
    inputs: Mapping[str, Path],
    *,
    archive: Path | None = None,
    out: Path | None = None,
    label: str = "",
    progress: Progress | None = None,
    on_notice: Notice = _silent,
) -> dict[str, np.ndarray]:
    """The results of an entry by name, written to ``out`` (.npz; .npy or .csv for one alone) if it is given.

    Args:
        config: path of the client's TOML file.
        entry, label, progress: as in Client.call.
        inputs: .npy files by the name of the input.
        archive: an .npz file with more inputs by name.

    Raises:
        ShareflowError: as Client.call; RequestError too for files that cannot be read or written.
    """
    target = None if out is None else check_output(out, (".npz", ".npy", ".csv"))
    arrays = _arrays(inputs, archive)
    with Client(config, on_notice=on_notice) as client:
        if target is not None and target.suffix != ".npz" and len(client.entry(entry).results) != 1:
            raise RequestError(f"{target}: entry {entry!r} does not give one result. Write them to an .npz file.")
        results = client.call(entry, arrays, label=label, progress=progress)
    if target is not None:
        write_results(target, results)
    return results


def load_files(
    config: Path,
    inputs: Mapping[str, Path],
    *,
    archive: Path | None = None,
    entry: str = "load",
    label: str = "",
    on_notice: Notice = _silent,
) -> int:
    """Gives arrays of files to an entry that keeps them, such as weights; returns the version of the new state.

    Raises:
        ShareflowError: as Client.load; RequestError too for files that cannot be read.
    """
    arrays = _arrays(inputs, archive)
    with Client(config, on_notice=on_notice) as client:
        return client.load(arrays, entry=entry, label=label)


def _arrays(inputs: Mapping[str, Path], archive: Path | None) -> dict[str, np.ndarray]:
    arrays = {} if archive is None else read_arrays(archive)
    for name, path in inputs.items():
        if name in arrays:
            raise RequestError(f"Input {name!r} is given once; it is in {archive} and in {path}. Leave one out.")
        arrays[name] = read_array(path)
    return arrays
