"""The `shareflow` command."""

from __future__ import annotations

import csv
import dataclasses
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from shareflow.errors import DataError, ShareflowError

if TYPE_CHECKING:
    import keras
    import numpy as np

# A terminal's worth of predictions; a file takes all of them.
_SHOWN_ROWS = 100

_PREDICT_EXAMPLES = (
    "**Examples**\n\n"
    "`shareflow predict digits.keras scans/` predicts every PNG and JPEG of a folder.\n\n"
    "`shareflow predict digits.keras batch.npy --out scores.npy --batch-size 100` keeps the scores."
)
_DEMO_EXAMPLE = "**Example**\n\n`shareflow demo --data mnist.npz --images 1000`"


class _Commands(TyperGroup):
    """Commands of which an error of shareflow ends with its text alone, and exit code 1."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except ShareflowError as error:
            console = Console(stderr=True)
            console.print(f"[bold red]{type(error).__name__}[/]: ", end="")
            console.print(str(error), markup=False, highlight=False)
            raise typer.Exit(1) from None


app = typer.Typer(
    cls=_Commands,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Private machine learning in TensorFlow on secret shares.",
    epilog="**Examples**\n\n"
    "`shareflow demo` trains on handwritten digits and predicts them privately.\n\n"
    "`shareflow predict digits.keras scans/` predicts a folder of images with a model of yours.",
)

MODEL_OWNER, CLIENT = "model-owner", "client"


@app.command(epilog=_PREDICT_EXAMPLES)
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
    if out:
        _check_writable(out, "--out", (".npy", ".csv"))
    keras_model = _load_model(model)
    class_names = _read_labels(labels, keras_model) if labels else None
    protocol = sf.SPDZ(fixed_point=sf.FixedPoint(fractional_bits))
    began = time.perf_counter()
    private = sf.private_model(keras_model, owner=MODEL_OWNER, protocol=protocol)
    names, images = data.load_images(inputs, private.input_shape)
    loaded = time.perf_counter()
    size = min(batch_size, len(images))
    scores = private.predict(images, receiver=CLIENT, input_owner=CLIENT, batch_size=size, progress=True)
    done = time.perf_counter()
    if scores.ndim == 2:
        console.print(display.predictions_table(names[:_SHOWN_ROWS], scores[:_SHOWN_ROWS], class_names))
    else:
        console.print(f"Each prediction is an array of shape {scores.shape[1:]}; --out keeps them.")
    if scores.ndim == 2 and len(names) > _SHOWN_ROWS:
        console.print(f"The first {_SHOWN_ROWS} of {len(names)} are shown; --out keeps all.")
    console.print(
        f"{len(images)} private predictions. Loading and sharing the weights took {loaded - began:.2f} s, "
        f"predicting {done - loaded:.2f} s, tracing the graph included."
    )
    if report:
        with console.status("measuring layer by layer"):
            measured = private.report(size)
        console.print(display.report_table(measured.layers, measured.total, f"One batch of {size}"))
    if out:
        _write(out, names, scores)
        console.print(f"Scores are in {out}.")


def _load_model(path: Path) -> keras.Model:
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


def _read_labels(path: Path, model: keras.Model) -> list[str]:
    try:
        names = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"--labels is a text file of class names, one a line; '{path}': {error}.") from None
    classes = model.output_shape[-1] if model.built else len(names)
    if len(names) != classes:
        raise DataError(f"--labels has one line for each of the model's {classes} classes; '{path}' has {len(names)}.")
    return names


def _check_writable(path: Path, option: str, suffixes: tuple[str, ...]) -> None:
    # Before anything is computed: what was computed for minutes is not lost to a mistyped name.
    if path.suffix.lower() not in suffixes:
        raise DataError(f"{option} writes {' or '.join(suffixes)}; got '{path}'. Rename it.")
    if not path.parent.is_dir() or path.is_dir():
        raise DataError(f"{option} writes a file into a folder that exists; '{path}' is none. Make the folder first.")


def _write(path: Path, names: list[str], scores: np.ndarray) -> None:
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


@app.command(epilog=_DEMO_EXAMPLE)
def demo(
    data: Annotated[
        Path | None, typer.Option(help="MNIST as an .npz file of x_train, y_train, x_test, y_test.")
    ] = None,
    images: Annotated[int, typer.Option(min=8, help="Test images to predict privately.")] = 500,
    picture: Annotated[Path, typer.Option(help="Where to write what each party saw, as PNG.")] = Path("shares.png"),
) -> None:
    """Train a network on handwritten digits, predict privately, and show what each party saw."""
    from shareflow import demonstration

    _check_writable(picture, "--picture", (".png",))
    demonstration.run(Console(), data, images, picture)


@app.command(
    epilog="**Examples**\n\n"
    "`shareflow audit digits.keras` proves, from the graph of a prediction, what each party can learn.\n\n"
    "`shareflow audit digits.keras --json` gives the same to scripts; the exit status is 1 where something is found."
)
def audit(
    model: Annotated[Path, typer.Argument(help="A trained Keras model (.keras).")],
    batch_size: Annotated[int, typer.Option(min=1, help="Samples that are predicted together.")] = 1,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON: views, orders of removal, findings.")] = False,
) -> None:
    """Prove what each party of a private prediction can learn, from its graph alone; nothing is run."""
    import shareflow as sf
    from shareflow import display

    private = sf.private_model(_load_model(model), owner=MODEL_OWNER)
    checked = private.audit(batch_size)
    if json_:
        print(json.dumps(dataclasses.asdict(checked), default=_plain, indent=2))
    else:
        Console().print(display.audit_table(checked, private.cost(batch_size)))
    if not checked.passed:
        raise typer.Exit(1)


@app.command(
    epilog="**Example**\n\n"
    "`shareflow worker --party server0 --listen 127.0.0.1:7000`, the same for `server1` and `dealer` on ports of their "
    "own, and then in Python: `with shareflow.Cluster({'server0': '127.0.0.1:7000', ...}): model.predict(...)`."
)
def worker(
    party: Annotated[str, typer.Option(help="The party that it computes for, as server0.")],
    listen: Annotated[str, typer.Option(help="Address and port; port 0 lets the system choose.")] = "127.0.0.1:7000",
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Allow an address that other machines can reach, as 0.0.0.0.")
    ] = False,
) -> None:
    """Compute for one party of a cluster, until it is stopped.

    For a cluster under one administration: whoever can connect to a worker controls it, connections are neither
    authenticated nor encrypted, and the driver has all keys; organisations that do not trust each other use
    `shareflow party`.
    """
    from shareflow.ring import kernels
    from shareflow.runtime.worker import Worker

    serving = Worker(party, listen, kernels=kernels.instruction_set(), allow_remote=allow_remote)
    about = f"party {party}, {kernels.instruction_set()} kernels"
    signal = serving.wait(lambda address: print(f"Worker ready on {address} ({about}).", flush=True))
    print(f"Worker stopped by {signal}.", flush=True)


def _plain(value: object) -> object:
    return sorted(value) if isinstance(value, frozenset) else str(value)


def main() -> None:
    """Runs the command."""
    app()


if __name__ == "__main__":
    main()
