"""The `shareflow` command."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from shareflow.errors import DataError, ShareflowError

if TYPE_CHECKING:
    import keras
    import numpy as np

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Private machine learning in TensorFlow on secret shares.",
)

MODEL_OWNER, CLIENT = "model-owner", "client"


@app.callback()
def _command() -> None:
    # Anything TensorFlow says on loading would stand between the lines of a table.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@app.command(
    epilog="**Examples**\n\n"
    "`shareflow predict digits.keras scans/` predicts every PNG and JPEG of a folder.\n\n"
    "`shareflow predict digits.keras batch.npy --out scores.npy --batch-size 100` keeps the scores."
)
def predict(
    model: Annotated[Path, typer.Argument(help="A trained Keras model (.keras), as its owner has it.")],
    inputs: Annotated[Path, typer.Argument(help="A .npy or .npz array, a PNG or JPEG, or a folder of images.")],
    out: Annotated[Path | None, typer.Option(help="Also write the scores here: .npy, or .csv with names.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Samples that are predicted together.")] = 32,
    labels: Annotated[Path | None, typer.Option(help="A text file of class names, one a line.")] = None,
    fractional_bits: Annotated[int, typer.Option(min=8, max=24, help="Bits behind the point.")] = 16,
    report: Annotated[bool, typer.Option(help="Show where the time goes, layer by layer.")] = True,
) -> None:
    """Predict privately: the model's weights and the inputs meet only as secret shares.

    Two servers and a dealer run side by side in this process. The model belongs to party `model-owner`, the
    inputs and the result to party `client`.
    """
    import shareflow as sf
    from shareflow import data, display

    console = Console()
    suffix = out.suffix.lower() if out else ""
    if out and suffix not in (".npy", ".csv"):
        raise DataError(f"--out writes .npy or .csv; got '{out}'. Rename it.")
    keras_model = _load_model(model)
    class_names = labels.read_text(encoding="utf-8").splitlines() if labels else None
    protocol = sf.SPDZ(fixed_point=sf.FixedPoint(fractional_bits))
    began = time.perf_counter()
    private = sf.private_model(keras_model, owner=MODEL_OWNER, protocol=protocol)
    names, images = data.load_images(inputs, private.input_shape)
    loaded = time.perf_counter()
    size = min(batch_size, len(images))
    scores = private.predict(images, receiver=CLIENT, input_owner=CLIENT, batch_size=size, progress=True)
    done = time.perf_counter()
    console.print(display.predictions_table(names, scores, class_names))
    console.print(
        f"{len(images)} private predictions. Loading and sharing the weights took {loaded - began:.2f} s, "
        f"predicting {done - loaded:.2f} s, tracing the graph included."
    )
    if report:
        with console.status("measuring layer by layer"):
            measured = private.report(size)
        console.print(display.report_table(measured.layers, measured.total, f"One batch of {size}"))
    if out:
        _write(out, suffix, names, scores)
        console.print(f"Scores are in {out}.")


def _load_model(path: Path) -> keras.Model:
    import keras

    # Registers the layers that a model may hold.
    from shareflow import keras_layers  # noqa: F401

    if not path.exists():
        raise DataError(f"There is no model at '{path}'. Save one with model.save('model.keras').")
    try:
        return keras.saving.load_model(path, compile=False)
    except (ValueError, TypeError, OSError) as error:
        raise DataError(f"'{path}' is no model that Keras can load: {str(error).splitlines()[0]}") from None


def _write(path: Path, suffix: str, names: list[str], scores: np.ndarray) -> None:
    import numpy as np

    if suffix == ".npy":
        np.save(path, scores)
        return
    lines = (
        f"{name},{','.join(f'{value:.6f}' for value in row.ravel())}" for name, row in zip(names, scores, strict=True)
    )
    path.write_text("\n".join(["name," + ",".join(f"score{i}" for i in range(scores[0].size)), *lines]) + "\n")


@app.command(epilog="**Example**\n\n`shareflow demo --data mnist.npz --images 1000`")
def demo(
    data: Annotated[
        Path | None, typer.Option(help="MNIST as an .npz file of x_train, y_train, x_test, y_test.")
    ] = None,
    images: Annotated[int, typer.Option(min=8, help="Test images to predict privately.")] = 500,
    picture: Annotated[Path, typer.Option(help="Where to write what each party saw, as PNG.")] = Path("shares.png"),
) -> None:
    """Train a network on handwritten digits, predict privately, and show what each party saw."""
    from shareflow import demonstration

    demonstration.run(Console(), data, images, picture)


def main() -> None:
    """Runs the command; errors of shareflow are shown as their text alone."""
    try:
        app()
    except ShareflowError as error:
        Console(stderr=True).print(f"[bold red]{type(error).__name__}[/]: ", end="")
        Console(stderr=True).print(str(error), markup=False, highlight=False)
        raise SystemExit(1) from None
