"""The command that says how near a private model comes to the one in floating point, on samples."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from shareflow.cli_files import check_writable, load_source, read_inputs

_EXAMPLES = (
    "**Examples**\n\n"
    "`shareflow check digits.keras samples.npz` compares every layer: floating point, fixed point, private.\n\n"
    "`shareflow check digits.keras scans/ --no-private --count 1000` leaves out the slow third.\n\n"
    "`shareflow check digits.keras samples.npz --save digits.ranges.json` keeps the ranges for `compile --calibration`."
)


def add_to(app: typer.Typer) -> None:
    """Adds this command to the `shareflow` command."""
    app.command("check", epilog=_EXAMPLES)(check_model)


def check_model(
    model: Annotated[Path, typer.Argument(help="A trained model: .keras, .h5, .onnx, or the folder of a SavedModel.")],
    samples: Annotated[
        Path, typer.Argument(help="A .npy or .npz array, an image, or a folder of images; .npz for several inputs.")
    ],
    count: Annotated[int | None, typer.Option(min=1, help="Only so many samples.")] = None,
    bits: Annotated[
        int | None, typer.Option(min=8, max=24, help="Fractional bits; otherwise the most, up to 16, that fit.")
    ] = None,
    per_layer: Annotated[
        bool, typer.Option("--per-layer", help="Where a layer overflows, its weights alone get fewer bits.")
    ] = False,
    private: Annotated[bool, typer.Option(help="Also compute privately, in this process.")] = True,
    tolerance: Annotated[
        float, typer.Option(min=0, help="Error of a result that passes, times max(1, its largest value).")
    ] = 0.01,
    batch_size: Annotated[int, typer.Option(min=1, help="Samples that go together.")] = 8,
    trust_ranges: Annotated[
        float | None, typer.Option(min=1, help="Compare only so many times the samples' range; wrong beyond it.")
    ] = None,
    allow_polynomial: Annotated[
        str | None,
        typer.Option(
            metavar="DEGREE,BOUND",
            help="All ReLUs within the bound as this polynomial; results are compared with the exact model.",
        ),
    ] = None,
    save: Annotated[Path | None, typer.Option(help="Write the ranges here (.json).")] = None,
    signature: Annotated[str | None, typer.Option(help="Of a SavedModel: which of its functions.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON; docs/accuracy.md tells its fields.")] = False,
) -> None:
    """Run samples in floating point, in fixed point and privately, and say in which layer they first differ.

    Exit status: 0 if every class is the same and errors are within the tolerance, 1 if not.
    """
    import shareflow as sf
    from shareflow.check_display import check_report
    from shareflow.compiler.calibration import LEAST_BITS, calibrate
    from shareflow.compiler.check import check
    from shareflow.compiler.model import Model
    from shareflow.compiler.overflow import overflows
    from shareflow.compiler.passes.polynomial_relu import Polynomial
    from shareflow.compiler.polynomials import replaceable
    from shareflow.compiler.samples import Samples

    if bits is not None and per_layer:
        raise typer.BadParameter(f"--per-layer finds bits, from 16 down to {LEAST_BITS}; leave out --bits")
    if save:
        check_writable(save, "--save", (".json",))
    polynomial = Polynomial.parse(allow_polynomial) if allow_polynomial else None
    if polynomial and trust_ranges:
        raise typer.BadParameter("--trust-ranges are those of the exact model; leave out --allow-polynomial")
    source = load_source(model, signature)
    given = Samples.of(source.inputs, read_inputs(samples, source)[1], count)
    began = Model(source, "model-owner", "client", sf.FixedPoint())
    ranges = functools.partial(
        calibrate, samples=given, batch=batch_size, fractional_bits=bits, per_layer=per_layer, progress=not json_
    )
    calibration = ranges(began)
    if save:
        calibration.save(save)
    exact, replaced = None, None
    if polynomial:
        replaced = replaceable(began.compiled(calibration.batch), calibration, polynomial)
        exact, began = began, began.approximated(replaced.allowed, polynomial)
        calibration = ranges(began)
    # With bits that overflow the check goes on: it shows where.
    if overflows(calibration):
        ready = began.at(calibration.point, calibration.parameter_bits)
    else:
        ready = began.calibrated(calibration, trust_ranges)
    protocol = sf.SPDZ(fixed_point=calibration.point) if private else None
    found = check(
        ready,
        given,
        calibration,
        private=protocol,
        batch=batch_size,
        tolerance=tolerance,
        progress=not json_,
        exact=exact,
    )
    if json_:
        print(json.dumps({**found.to_json(), "polynomials": sorted(replaced.allowed) if replaced else []}, indent=2))
    else:
        if replaced:
            total = len(replaced.allowed) + len(replaced.kept)
            print(f"{len(replaced.allowed)} of {total} ReLUs as {polynomial}.")
            for name, reason in replaced.kept.items():
                print(f"{name} stays exact: {reason}.")
            print("Layers are compared with the polynomials in floating point, results with the exact model.")
        Console().print(check_report(found))
    if not found.passed:
        raise typer.Exit(1)
