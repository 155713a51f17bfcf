"""What the command reads and writes: models, class names, scores."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

from shareflow.errors import DataError

if TYPE_CHECKING:
    import keras
    import numpy as np
    from rich.console import Console

# A terminal's worth of predictions; a file takes all of them.
_SHOWN_ROWS = 100


def load_model(path: Path) -> keras.Model:
    """A Keras model from a file.

    Raises:
        DataError: there is none, or Keras cannot load it.
    """
    import keras

    # Registers the layers that a model may hold.
    from shareflow import keras_layers  # noqa: F401

    if not path.exists():
        raise DataError(f"There is no model at '{path}'. Save one with model.save('model.keras').")
    try:
        return keras.saving.load_model(path, compile=False)
    except (ValueError, TypeError, OSError, KeyError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"'{path}' is no model that Keras can load: {reason} Save one with model.save('model.keras')."
        ) from None


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


def write_scores(path: Path, names: list[str], scores: np.ndarray) -> None:
    """Scores as .npy, or as .csv with a name in each row."""
    import numpy as np

    if path.suffix.lower() == ".npy":
        np.save(path, scores)
        return
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["name", *(f"score{i}" for i in range(scores[0].size))])
        rows.writerows(
            [name, *(f"{value:.6f}" for value in row.ravel())] for name, row in zip(names, scores, strict=True)
        )
