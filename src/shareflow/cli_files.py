"""What the command reads and writes: models, inputs, class names, scores."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from shareflow.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from rich.console import Console

    from shareflow.compiler.front.source import Source

# A terminal's worth of predictions; a file takes all of them.
_SHOWN_ROWS = 100


def load_source(path: Path, signature: str | None = None) -> Source:
    """The model in a .keras, .h5, .onnx or .pb file, or in the folder of a SavedModel.

    Raises:
        DataError: there is none, or it cannot be loaded.
        UnsupportedModelError: it cannot be made private, or has no such signature.
    """
    from shareflow.compiler.model import source_of

    return source_of(path, signature=signature)


def result_shapes(source: Source) -> dict[str, tuple[int, ...]]:
    """Shapes of a model's results by name, for one sample."""
    return {name: tuple(t.shape) for name, t in zip(source.outputs, source.trace(1).outputs, strict=True)}


def read_inputs(path: Path, source: Source) -> tuple[list[str], dict[str, np.ndarray]]:
    """Names of samples, and arrays by input name.

    One input of real numbers is read from an array, an image or a folder of images; whole numbers, and several inputs,
    from arrays: an .npz by their names.

    Raises:
        DataError: the path cannot be read, or does not hold what the model takes.
    """
    from shareflow import data

    (name, argument), *more = source.inputs.items()
    if not more and argument.dtype.startswith(("float", "bfloat")):
        # An export for one sample at a time has its batch axis in its shape.
        single = not argument.batched and len(argument.shape) > 1 and argument.shape[0] == 1
        if argument.batched or single:
            names, samples = data.load_images(path, argument.shape[1:] if single else argument.shape)
            return names, {name: samples}
    try:
        arrays = data.read_arrays(path)
    except DataError:
        if more and path.is_dir():
            raise DataError(
                f"A model with several inputs takes an .npz file with an array for each: {', '.join(source.inputs)}; "
                f"'{path}' is a folder. Save them with numpy.savez."
            ) from None
        raise
    if not more and set(arrays) != {name}:
        arrays = {name: next(iter(arrays.values()))} if len(arrays) == 1 else arrays
    if set(arrays) != set(source.inputs):
        raise DataError(
            f"The model's inputs are {', '.join(source.inputs)}; '{path}' has {', '.join(arrays) or 'none'}. Give an "
            ".npz file with an array under each name: numpy.savez(file, name=array, ...)."
        )
    counts = [len(value) for key, value in arrays.items() if source.inputs[key].batched and value.ndim]
    return ([f"{path.name}[{i}]" for i in range(counts[0])] if counts else [path.name]), arrays


def read_labels(path: Path, classes: int | None) -> list[str]:
    """Names of the model's classes, one a line; ``classes`` of them, or any number.

    Raises:
        DataError: the file cannot be read, or has not one line a class.
    """
    try:
        names = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"--labels is a text file of class names, one a line; '{path}': {error}.") from None
    if classes is not None and len(names) != classes:
        raise DataError(f"--labels has one line for each of the model's {classes} classes; '{path}' has {len(names)}.")
    return names


def check_writable(path: Path, option: str, suffixes: tuple[str, ...]) -> None:
    """Refuses a path that cannot be written later.

    Raises:
        DataError: it has another suffix, or its folder is not there.
    """
    # Before anything is computed: what was computed for minutes is not lost to a mistyped name.
    if path.suffix.lower() not in suffixes:
        raise DataError(f"{option} writes {' or '.join(suffixes)}; got '{path}'. Rename it.")
    if not path.parent.is_dir() or path.is_dir():
        raise DataError(f"{option} writes a file into a folder that exists; '{path}' is none. Make the folder first.")


def show_scores(console: Console, names: list[str], scores: np.ndarray, classes: list[str] | None) -> None:
    """The first scores [n, classes] as a table."""
    from shareflow import display

    if scores.ndim == 2:
        console.print(display.predictions_table(names[:_SHOWN_ROWS], scores[:_SHOWN_ROWS], classes))
    else:
        console.print(f"Each prediction is an array of shape {scores.shape[1:]}; --out keeps them.")
    if scores.ndim == 2 and len(names) > _SHOWN_ROWS:
        console.print(f"The first {_SHOWN_ROWS} of {len(names)} are shown; --out keeps all.")


def write_scores(path: Path, names: list[str], results: Mapping[str, np.ndarray]) -> None:
    """Scores as .npy, as .csv with a name in each row, both of one result; or all results by their names as .npz."""
    import numpy as np

    if path.suffix.lower() == ".npz":
        np.savez(path, **dict(results))  # type: ignore[arg-type]
        return
    (scores,) = results.values()
    if path.suffix.lower() == ".npy":
        np.save(path, scores)
        return
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["name", *(f"score{i}" for i in range(scores[0].size))])
        rows.writerows(
            [name, *(f"{value:.6f}" for value in row.ravel())] for name, row in zip(names, scores, strict=True)
        )
