"""Commands of parties on their own: compile a plan, make keys, run a party, deal, load weights."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from shareflow.cli_calibrate import NETWORK_HELP, show_model_choice
from shareflow.cli_files import check_writable, load_source, read_labels, show_scores
from shareflow.errors import ConfigError, DataError, PlanError

if TYPE_CHECKING:
    import numpy as np

    from shareflow.audit.plan import PlanAudit
    from shareflow.compiler.front.source import Source
    from shareflow.runtime.plan import Plan

keys = typer.Typer(
    no_args_is_help=True, rich_markup_mode="markdown", help="Certificates and keys of parties and clients."
)

_INTERRUPTED = 130


def add_to(app: typer.Typer) -> None:
    """Adds these commands to the `shareflow` command."""
    app.command(
        "compile",
        epilog="**Examples**\n\n"
        "`shareflow compile digits.keras --out digits.plan` writes a plan, without any weight in it.\n\n"
        "`shareflow compile digits.keras --out digits.plan --owner clinic --client patient --batch 1 --batch 64`\n\n"
        "`shareflow compile digits.keras --out digits.plan --calibration digits.ranges.json` as its ranges allow.\n\n"
        "`shareflow compile digits.keras --out digits.plan --calibration digits.ranges.json --network wan "
        "--allow-polynomial 2,4` in the fastest of all ways that the ranges and you allow.",
    )(compile_plan)
    app.add_typer(keys, name="keys")
    app.command(
        "party",
        epilog="**Examples**\n\n"
        "`shareflow party --config server0.toml` runs a server or the dealer until it is stopped.\n\n"
        "`shareflow party --config server0.toml --check` only checks configuration, keys and plan.",
    )(run_party)
    app.command(
        "deal",
        epilog="**Examples**\n\n"
        "`shareflow deal --config dealer.toml --count 1000` deals ahead for all predictions.\n\n"
        "`shareflow deal model.plan --config dealer.toml --count 200 --graph predict@8`",
    )(deal)
    app.command(
        "load",
        epilog="**Example**\n\n`shareflow load digits.keras --config owner.toml` shares the weights, masked once.",
    )(load)


def compile_plan(
    model: Annotated[Path, typer.Argument(help="A .keras or .onnx file, or a SavedModel; its weights stay out.")],
    out: Annotated[Path, typer.Option(help="The plan to write (.plan).")],
    owner: Annotated[str, typer.Option(help="The party that has the weights.")] = "model-owner",
    client: Annotated[str, typer.Option(help="The party that asks and learns the result.")] = "client",
    batch: Annotated[
        list[int] | None, typer.Option(min=1, help="A batch size to compile for; repeat for several. 1, 8 and 32.")
    ] = None,
    fractional_bits: Annotated[
        int | None, typer.Option(min=8, max=24, help="Bits behind the point; the calibration's, or 16.")
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="Ranges of the model (shareflow check --save): what overflows is refused.")
    ] = None,
    trust_ranges: Annotated[
        float | None,
        typer.Option(min=1, help="Compare only so many times the calibration's ranges: cheaper, and wrong beyond it."),
    ] = None,
    party: Annotated[
        list[str] | None, typer.Option(help="NAME=PARTY: who brings an input; the client, where not said. Repeat.")
    ] = None,
    signature: Annotated[str | None, typer.Option(help="Of a SavedModel: which of its functions.")] = None,
    network: Annotated[str | None, typer.Option(help=NETWORK_HELP)] = None,
    allow_polynomial: Annotated[
        str | None,
        typer.Option(
            metavar="DEGREE,BOUND",
            help="With --network and --calibration: a ReLU within the bound may be this polynomial. Results change.",
        ),
    ] = None,
    exact_truncation: Annotated[
        bool,
        typer.Option("--exact-truncation", help="With --network and --calibration: no optimistic truncation."),
    ] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Show what each pass did, and what it saved.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a plan that is another one.")] = False,
) -> None:
    """Compile a model to a plan: the file that all parties check, and of which each runs its part."""
    import shareflow as sf
    from shareflow.compiler.calibration import USUAL_BITS, Calibration
    from shareflow.compiler.compile_model import choose_model, compile_model
    from shareflow.compiler.passes.polynomial_relu import Polynomial
    from shareflow.parties import require_audited
    from shareflow.plan_audit import audited

    console = Console()
    check_writable(out, "--out", (".plan",))
    ranges = Calibration.load(calibration) if calibration else None
    bits = fractional_bits or (ranges.fractional_bits if ranges else USUAL_BITS)
    protocol = sf.SPDZ(fixed_point=sf.FixedPoint(bits))
    source = load_source(model, signature)
    if network is None and (allow_polynomial or exact_truncation):
        raise typer.BadParameter("--allow-polynomial and --exact-truncation say what a --network may decide; name one")
    with console.status("tracing and auditing"):
        compiled: dict[str, Any] = {
            "owner": owner,
            "client": client,
            "parties": _named_parties(party or [], source),
            "batch_sizes": tuple(batch) if batch else None,
            "protocol": protocol,
            "calibration": ranges,
            "trust_ranges": trust_ranges,
        }
        choice = None
        if network:
            allowed = Polynomial.parse(allow_polynomial) if allow_polynomial else None
            choice = choose_model(
                source, network=network, polynomial=allowed, weigh_truncation=not exact_truncation, **compiled
            )
        plan = choice.plan if choice else compile_model(source, **compiled)
        audit = audited(plan)
        require_audited(plan, audit)
    _write_plan(plan, out, force)
    if explain:
        from shareflow.compiler import explain as passes
        from shareflow.compiler.model import Model

        read = Model(source, owner, client, protocol.fixed_point, _named_parties(party or [], source))
        console.print(passes.explain(read, min(batch or [1])))
    _show_plan(console, plan, audit)
    if choice:
        show_model_choice(console, choice)
    console.print(f"The plan is in {out}.", highlight=False, soft_wrap=True)


def _named_parties(given: list[str], source: Source) -> dict[str, str]:
    """Who brings which input, of ``NAME=PARTY``."""
    found = {}
    for text in given:
        name, equals, who = text.partition("=")
        if not equals or not who or name not in source.inputs or name in found:
            raise typer.BadParameter(
                f"--party is NAME=PARTY, once for an input of the model ({', '.join(source.inputs)}); got {text!r}"
            )
        found[name] = who
    return found


def _write_plan(plan: Plan, out: Path, force: bool) -> None:
    from shareflow_client.plan_file import read_plan_file

    if out.exists() and not force:
        try:
            there = read_plan_file(out).fingerprint
        except PlanError:
            raise DataError(f"'{out}' exists and is no plan. Give --out another name, or --force.") from None
        if there != plan.fingerprint:
            raise DataError(
                f"'{out}' is another plan, with fingerprint {there}; this one has {plan.fingerprint}. Parties may have "
                "agreed on the old one: give --out another name, or --force."
            )
    plan.write(out)


def _show_plan(console: Console, plan: Plan, audit: PlanAudit) -> None:
    from shareflow.display import size_text

    manifest = plan.manifest
    protocol = manifest.protocol
    console.print(f"fingerprint  {plan.fingerprint}", highlight=False, soft_wrap=True)
    console.print(f"servers      {', '.join(protocol.servers)} (the first leads)", highlight=False)
    console.print(f"dealer       {protocol.dealer}", highlight=False)
    console.print(f"others       {', '.join(manifest.external)}", highlight=False)
    table = Table("entry", "graph", "keeps", "result to")
    for heading in ("rounds", "online", "offline"):
        table.add_column(heading, justify="right")
    for graph in audit.graphs:
        entry = manifest.entries[graph.entry]
        table.add_row(
            entry.name,
            graph.name,
            f"{len(entry.keeps)} states" if entry.keeps else "",
            ", ".join(entry.receivers),
            str(graph.cost.rounds),
            size_text(graph.cost.online_bytes),
            size_text(graph.cost.offline_bytes),
        )
    console.print(table)


# --- keys -------------------------------------------------------------------------------------------------------


@keys.command(
    "init", epilog="**Example**\n\n`shareflow keys init keys/` makes `authority.crt`, and `authority.key` to sign with."
)
def keys_init(
    directory: Annotated[Path, typer.Argument(help="Where to make the authority.")],
    name: Annotated[str, typer.Option(help="The authority's name, for people.")] = "shareflow authority",
    days: Annotated[int, typer.Option(min=1, help="How long it is valid.")] = 3650,
    force: Annotated[bool, typer.Option("--force", help="Replace one: what it signed no longer fits.")] = False,
) -> None:
    """Make a small certificate authority for one organisation."""
    from shareflow.runtime.keys import init_authority

    path = init_authority(directory, name, days=days, overwrite=force)
    print(f"The authority's certificate is {path}. Its key stays here: who has it can sign.")


@keys.command(
    "sign",
    epilog="**Examples**\n\n"
    "`shareflow keys sign keys/ server0 --kind party --host server0.example.org`\n\n"
    "`shareflow keys sign keys/ hospital-7 --kind client`",
)
def keys_sign(
    directory: Annotated[Path, typer.Argument(help="Where the authority is.")],
    name: Annotated[str, typer.Argument(help="The party as in the plan, or the client.")],
    kind: Annotated[str, typer.Option(help="party or client.")] = "party",
    host: Annotated[
        list[str] | None, typer.Option(help="A DNS name or address of its machine; may be repeated.")
    ] = None,
    days: Annotated[int, typer.Option(min=1, help="How long it is valid.")] = 825,
    into: Annotated[Path | None, typer.Option(help="Where to, instead of a folder of its name in DIRECTORY.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace its certificate and key.")] = False,
) -> None:
    """Make a key and a certificate for a party (with a storage key) or a client."""
    from shareflow.runtime.keys import describe, sign

    folder = sign(directory, name, kind, host or (), days, into=into, overwrite=force)
    about = describe(folder / f"{name}.crt")
    print(f"{name}.crt, {name}.key and what belongs to them are in {folder}. Give others {name}.crt alone.")
    print(f"fingerprint {about.fingerprint}")


@keys.command("show", epilog="**Example**\n\n`shareflow keys show server0.crt`")
def keys_show(certificate: Annotated[Path, typer.Argument(help="A certificate in PEM form.")]) -> None:
    """Show what a certificate says: its name, kind, time and fingerprint."""
    from shareflow.runtime.keys import describe

    about = describe(certificate)
    print(f"name         {about.name}")
    print(f"kind         {about.kind}")
    print(f"valid        {about.begins:%Y-%m-%d %H:%M} to {about.ends:%Y-%m-%d %H:%M} UTC")
    print(f"hosts        {', '.join(about.hosts) or 'none'}")
    print(f"fingerprint  {about.fingerprint}")


# --- parties ----------------------------------------------------------------------------------------------------


def run_party(
    config: Annotated[Path, typer.Option(help="The party's TOML file.")],
    log_format: Annotated[str | None, typer.Option(help="json or text; the file's [log] format otherwise.")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error; [log] level otherwise.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Check configuration, keys and plan, then end.")] = False,
) -> None:
    """Run one party of a plan, a server or the dealer, until SIGTERM or SIGINT.

    The plan is audited first. Logs go to standard error. The first signal lets run what runs; a second one stops at
    once.
    """
    from shareflow.parties import read_party
    from shareflow.runtime.logs import start_logging

    _one_of(log_format, "--log-format", ("json", "text"))
    _one_of(log_level, "--log-level", ("debug", "info", "warning", "error"))
    parts = read_party(config)
    if check:
        parts.config.identity()
        parts.config.storage_secret()
        print(f"{parts.config.name} of plan {parts.plan.fingerprint}: the configuration and the plan are right.")
        return
    log = parts.config.log
    start_logging(parts.config.name, log_level or log.level, log_format or log.format)
    with parts.start() as process:
        code = process.run()
    raise typer.Exit(code)


def _one_of(value: str | None, option: str, allowed: tuple[str, ...]) -> None:
    if value is not None and value not in allowed:
        raise typer.BadParameter(f"{option} is one of {', '.join(allowed)}, not {value!r}")


def deal(
    config: Annotated[Path, typer.Option(help="The dealer's TOML file.")],
    count: Annotated[int, typer.Option(min=1, help="Executions to deal for each graph.")],
    plan: Annotated[Path | None, typer.Argument(help="The plan, if it is not where the configuration says.")] = None,
    entry: Annotated[
        list[str] | None, typer.Option(help="Only this entry; may be repeated. All that keep no state.")
    ] = None,
    graph: Annotated[list[str] | None, typer.Option(help="Only this graph, as predict@8; may be repeated.")] = None,
    patience: Annotated[float, typer.Option(min=1, help="Seconds to wait for the servers to connect.")] = 60.0,
) -> None:
    """Deal ahead: make the material of executions to come, and have both servers store it.

    What uses a state is dealt for the version in use; before there is one, the entry that makes it is dealt once. Ends
    when both servers have stored all, which may be stopped and started again at any time.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    from shareflow.parties import read_party
    from shareflow.runtime.deal_ahead import Batch, deal_ahead
    from shareflow.runtime.dealing import Dealing
    from shareflow.runtime.logs import start_logging

    parts = read_party(config, plan)
    if parts.config.name != parts.plan.manifest.protocol.dealer:
        raise ConfigError(
            f"{config}: name: only the dealer, {parts.plan.manifest.protocol.dealer}, deals; it is {parts.config.name}."
        )
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    began = time.monotonic()
    with Progress(*columns, console=console) as bars:
        # Here, so that lines of the log stand above the bars.
        start_logging(parts.config.name, "warning", "text")
        bar: dict[Batch, tuple[TaskID, float]] = {}

        def progress(batch: Batch, done: int) -> None:
            about = f"{batch.graph} for state {batch.version}" if batch.version else batch.graph
            if batch not in bar:
                bar[batch] = bars.add_task(about, total=batch.executions, rate=""), time.monotonic()
            task, since = bar[batch]
            rate = done / max(time.monotonic() - since, 1e-9)
            bars.update(task, completed=done, rate=f"{rate:.1f}/s" if done else "")

        with parts.start() as process:
            if not isinstance(process.role, Dealing):
                raise ConfigError(f"{config}: name: {parts.config.name} is no dealer.")
            try:
                dealt = deal_ahead(
                    process.role, count, entries=entry or (), graphs=graph or (), progress=progress, patience=patience
                )
            except KeyboardInterrupt:
                process.close(parts.config.grace)
                console.print("Interrupted. What both servers have stored stays, the rest can be dealt later.")
                raise typer.Exit(_INTERRUPTED) from None
            process.close(parts.config.grace)
    total = sum(batch.executions for batch in dealt)
    took = time.monotonic() - began
    print(f"Dealt {total} executions in {took:.1f} s; both servers have stored them.")


# --- clients ----------------------------------------------------------------------------------------------------


def load(
    model: Annotated[Path, typer.Argument(help="The trained model that the plan was compiled from.")],
    config: Annotated[Path, typer.Option(help="The model owner's TOML file, that of a client.")],
    entry: Annotated[str, typer.Option(help="The entry that keeps the weights.")] = "load",
    signature: Annotated[str | None, typer.Option(help="Of a SavedModel: which of its functions.")] = None,
) -> None:
    """Give the servers a model's weights as secret shares; predictions use them from then on."""
    from shareflow.compiler.compile_model import parameters_of
    from shareflow_client.client import Client

    weights = parameters_of(load_source(model, signature))
    began = time.perf_counter()
    with Client(config) as client:
        wanted = set(client.entry(entry).inputs)
        if wanted != set(weights):
            differing = sorted(wanted ^ set(weights))[0]
            raise DataError(
                f"'{model}' has the weights that entry {entry!r} of the plan takes; they differ in {differing!r}. Give "
                "the model that the plan was compiled from, or compile it anew."
            )
        version = client.load(weights, entry=entry)
    print(f"The weights are with the servers, state version {version}, after {time.perf_counter() - began:.2f} s.")


def ask_servers(
    config: Path, inputs: Path, labels: Path | None, console: Console
) -> tuple[list[str], np.ndarray]:
    """Names of the inputs and their scores, from servers elsewhere; shown too.

    Raises:
        DataError: the inputs or labels cannot be read.
        ShareflowError: as shareflow_client.Client.predict.
    """
    from rich.progress import Progress

    from shareflow import data
    from shareflow_client.client import Client

    with Client(config, on_notice=lambda server, text: Console(stderr=True).print(f"{server}: {text}")) as client:
        rows = client.entry("predict")
        if len(rows.inputs) != 1 or len(rows.results) != 1 or not rows.batched:
            raise DataError(
                "This command predicts with an entry 'predict' of one input and one result, by rows; the plan's is "
                "another. Use shareflow_client, or `shareflow-client call`."
            )
        (info,) = rows.inputs.values()
        classes = read_labels(labels, rows.results[0].shape[-1]) if labels else None
        names, samples = data.load_images(inputs, info.shape[1:])
        began = time.perf_counter()
        with Progress(console=Console(stderr=True), transient=True) as bars:
            task = bars.add_task("predicting", total=len(samples))
            scores = client.predict(samples, progress=lambda done, _: bars.update(task, completed=done))
        took = time.perf_counter() - began
    show_scores(console, names, scores, classes)
    console.print(f"{len(samples)} private predictions in {took:.2f} s.")
    return names, scores
