"""The `shareflow` command."""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console, Group
from typer.core import TyperGroup

from shareflow import cli_calibrate, cli_check, cli_parties
from shareflow.cli_files import (
    check_writable,
    load_source,
    read_inputs,
    read_labels,
    result_shapes,
    show_scores,
    write_scores,
)
from shareflow.errors import DataError, ShareflowError

if TYPE_CHECKING:
    import numpy as np

    from shareflow.audit.cost import Cost
    from shareflow.compiler.private_model import PrivateModel

_PREDICT_EXAMPLES = (
    "**Examples**\n\n"
    "`shareflow predict digits.keras scans/` predicts every PNG and JPEG of a folder.\n\n"
    "`shareflow predict digits.keras batch.npy --out scores.npy --batch-size 100` keeps the scores.\n\n"
    "`shareflow predict --config client.toml scans/` asks servers that run elsewhere: the model stays with its owner."
)
_DEMO_EXAMPLE = "**Example**\n\n`shareflow demo --data mnist.npz --images 1000`"


class _Commands(TyperGroup):
    """Commands of which an error of shareflow ends with its text alone, and exit code 1."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except ShareflowError as error:
            _complain(error)
            raise typer.Exit(1) from None


def _complain(error: ShareflowError) -> None:
    console = Console(stderr=True)
    console.print(f"[bold red]{type(error).__name__}[/]: ", end="")
    console.print(str(error), markup=False, highlight=False)


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
    ctx: typer.Context,
    model: Annotated[Path, typer.Argument(help="A .keras or .onnx file, or a SavedModel. With --config: the inputs.")],
    inputs: Annotated[
        Path | None, typer.Argument(help="A .npy or .npz array, a PNG or JPEG, or a folder of images.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="A client's TOML file: ask the servers that it names, which have the model.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Also write scores here: .npy, .npz, or .csv with names.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Samples that are predicted together.")] = 32,
    labels: Annotated[Path | None, typer.Option(help="A text file of class names, one a line.")] = None,
    fractional_bits: Annotated[int, typer.Option(min=8, max=24, help="Bits behind the point.")] = 16,
    report: Annotated[bool, typer.Option(help="Show where the time goes, layer by layer.")] = True,
    network: Annotated[str | None, typer.Option(help=cli_calibrate.NETWORK_HELP)] = None,
    signature: Annotated[str | None, typer.Option(help="Of a SavedModel: which of its functions.")] = None,
) -> None:
    """Predict privately: the model's weights and the inputs meet only as secret shares.

    Two servers and a dealer run side by side in this process. The model belongs to party `model-owner`, the
    inputs and the result to party `client`. With `--config` they run elsewhere, and this process is the client.
    """
    if out:
        check_writable(out, "--out", (".npy", ".csv", ".npz"))
    if config is not None:
        if inputs is not None:
            raise typer.BadParameter("with --config the servers have the model; give the inputs alone", ctx)
        for option, given in (
            ("batch_size", "--batch-size"),
            ("fractional_bits", "--fractional-bits"),
            ("network", "--network"),
        ):
            source = ctx.get_parameter_source(option)
            if source is not None and source.name != "DEFAULT":
                raise typer.BadParameter(f"{given} is for predictions in this process; with --config the plan says it")
        names, scores = cli_parties.ask_servers(config, model, labels, Console())
        results = {"result": scores}
    elif inputs is None:
        raise typer.BadParameter("give a model and inputs, or --config and inputs", ctx)
    else:
        names, results = _predict_here(
            model, inputs, out, batch_size, labels, fractional_bits, report, signature, network
        )
    if out:
        write_scores(out, names, results)
        Console().print(f"Scores are in {out}.")


def _predict_here(
    model: Path,
    inputs: Path,
    out: Path | None,
    batch_size: int,
    labels: Path | None,
    fractional_bits: int,
    report: bool,
    signature: str | None,
    network: str | None,
) -> tuple[list[str], dict[str, np.ndarray]]:
    import shareflow as sf
    from shareflow import display

    console = Console()
    source = load_source(model, signature)
    class_names = None
    if len(source.outputs) > 1 and (labels or (out and out.suffix.lower() != ".npz")):
        raise DataError(
            f"--labels, and --out with .npy or .csv, are for one result; the model has {', '.join(source.outputs)}. "
            "Use --out results.npz."
        )
    if labels:
        (shape,) = result_shapes(source).values()
        class_names = read_labels(labels, shape[-1] if shape else None)
    protocol = sf.SPDZ(fixed_point=sf.FixedPoint(fractional_bits))
    began = time.perf_counter()
    private = sf.private_model(source, owner=MODEL_OWNER, protocol=protocol)
    names, arrays = read_inputs(inputs, source)
    loaded = time.perf_counter()
    size = min(batch_size, len(names)) if source.batched else 1
    choice = private.choose(network, size) if network else None
    with choice.choices if choice else contextlib.nullcontext():
        results = _results(private, arrays, size)
    done = time.perf_counter()
    for name, scores in results.items():
        if len(results) > 1:
            console.print(f"{name}:")
        show_scores(console, names, scores, class_names)
    console.print(
        f"{len(names)} private predictions. Loading and sharing the weights took {loaded - began:.2f} s, "
        f"predicting {done - loaded:.2f} s, tracing the graph included."
    )
    if report:
        with console.status("measuring layer by layer"):
            measured = private.report(size)
        console.print(display.report_table(measured.layers, measured.total, f"One batch of {size}"))
    if choice:
        for line in choice.lines(choice.measure()):
            console.print(line, highlight=False, soft_wrap=True)
    return names, results


def _results(private: PrivateModel, arrays: dict[str, np.ndarray], size: int) -> dict[str, np.ndarray]:
    """Results by name. A model that was exported for one sample at a time takes them one after the other."""
    import numpy as np

    def predicted(given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        found = private.predict(given, receiver=CLIENT, input_owner=CLIENT, batch_size=size, progress=True)
        return found if isinstance(found, dict) else {private.model.source.outputs[0]: found}

    source = private.model.source
    (name, argument), *more = source.inputs.items()
    if source.batched or more or arrays[name].shape == argument.shape or arrays[name].shape[1:] != argument.shape[1:]:
        return predicted(arrays)
    each = [predicted({name: sample[np.newaxis]}) for sample in arrays[name]]
    return {key: np.concatenate([one[key] for one in each]) for key in each[0]}


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

    check_writable(picture, "--picture", (".png",))
    demonstration.run(Console(), data, images, picture)


@app.command(
    epilog="**Examples**\n\n"
    "`shareflow audit digits.plan` proves, from the graphs of a plan, what each party can learn, and that it does what "
    "it declares.\n\n"
    "`shareflow audit digits.keras` does the same for the graph of a prediction by a model.\n\n"
    "`shareflow audit digits.plan --rtt 0.04 --bandwidth 1e8` also says how long predictions take over such a network."
    "\n\n"
    "`shareflow audit digits.plan --json` gives it to scripts."
)
def audit(
    file: Annotated[Path, typer.Argument(help="A plan (.plan), or a trained model: .keras, .h5, .onnx, a SavedModel.")],
    batch_size: Annotated[int, typer.Option(min=1, help="Of a model: samples that are predicted together.")] = 1,
    full: Annotated[bool, typer.Option("--full", help="Show whole orders of removal, paths and layers.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON; docs/audit.md tells its fields.")] = False,
    rtt: Annotated[float | None, typer.Option(min=0, help="Predict times: seconds of a round trip.")] = None,
    bandwidth: Annotated[float | None, typer.Option(min=1, help="And bit/s between two parties, each way.")] = None,
    computing: Annotated[float, typer.Option(min=0, help="And seconds of computing, if known.")] = 0.0,
    signature: Annotated[str | None, typer.Option(help="Of a SavedModel: which of its functions.")] = None,
) -> None:
    """Prove what each party of a private computation can learn, from its graphs alone; nothing is run.

    Exit status: 0 if all is proved, 1 if something is found, 2 if the file cannot be read.
    """
    from shareflow import audit_display
    from shareflow.audit.duration import predicted

    if (rtt is None) != (bandwidth is None):
        text = "a network has both, a round-trip time and a bandwidth"
        raise typer.BadParameter(text, param_hint="--rtt, --bandwidth")
    try:
        passed, report, shown, costs = _audited(file, batch_size, full, signature)
        if rtt is not None and bandwidth is not None:
            times = {n: predicted(c, rtt=rtt, bandwidth=bandwidth, computing=computing) for n, c in costs.items()}
            report["predicted"] = {name: {**asdict(time), "seconds": time.seconds} for name, time in times.items()}
            shown = Group(shown, "", audit_display.times_table(times))
    except ShareflowError as error:
        _complain(error)
        raise typer.Exit(2) from None
    if json_:
        print(json.dumps(report, indent=2))
    else:
        audit_display.print_report(shown)
    if not passed:
        raise typer.Exit(1)


def _audited(
    file: Path, batch_size: int, full: bool, signature: str | None
) -> tuple[bool, dict[str, Any], Any, dict[str, Cost]]:
    """Whether a plan or model passes, the report on it for scripts and for people, and what its graphs cost."""
    import shareflow as sf
    from shareflow import audit_display
    from shareflow.audit.plan import graph_json

    if _is_plan(file):
        from shareflow.plan_audit import audited
        from shareflow.runtime.plan import Plan

        plan = Plan.read(file)
        checked = audited(plan)
        report = {"fingerprint": plan.fingerprint, **checked.to_json()}
        costs = {graph.name: graph.cost for graph in checked.graphs}
        return checked.passed, report, audit_display.plan_report(checked, plan.fingerprint, full), costs
    private = sf.private_model(load_source(file, signature), owner=MODEL_OWNER)
    found, cost = private.audit(batch_size), private.cost(batch_size)
    report, shown = graph_json(found, cost), audit_display.graph_report(found, cost, full)
    return found.passed, report, shown, {f"batch of {batch_size}": cost}


def _is_plan(file: Path) -> bool:
    from shareflow_client.plan_file import MAGIC

    if file.suffix.lower() == ".plan":
        return True
    try:
        with file.open("rb") as opened:
            return opened.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


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


cli_parties.add_to(app)
cli_calibrate.add_to(app)
cli_check.add_to(app)


def main() -> None:
    """Runs the command."""
    app()


if __name__ == "__main__":
    main()
