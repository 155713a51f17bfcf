"""Table 1 of the tf-encrypted paper, its int64 half: private predictions of networks A, B and C on MNIST.

Run from the root of the repository:

    python -m benchmarks.mnist                                         # all of it; accuracy takes longest
    python -m benchmarks.mnist --networks A --images 1000 --runs 20    # a quick look

The networks are trained in plaintext first and kept in --models. Then, for each network and activation:

* latency of `predict`, offline and online together as in the paper, over --runs predictions after warm-up;
* accuracy over the test images, private against the same Keras model in plaintext; agreement of the classes,
  the mean KL divergence D(plaintext || private) of the softmax of the logits, and the largest error of a
  logit;
* rounds and bytes, from the model's report.

The paper's activations are polynomials; `--activations relu` is exact ReLU, which the paper does not have.
Here all three parties run in one process on one machine, so nothing crosses a network; the paper's figures are from
machines of 36 cores each in one region. They stand beside ours for orientation and are not a like-for-like comparison.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from shareflow import data, networks
from shareflow.display import softmax
from shareflow.errors import DataError, ShareflowError

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED_MNIST = REPOSITORY.parent / "shared" / "data" / "mnist.npz"

# Said wherever the figures are.
SETTING = "all parties in one process, no network"

SEED = 1
EPOCHS = {"A": 5, "B": 3, "C": 3}
ACTIVATIONS = ("relu", "polynomial")
WARM_UPS = 3
ACCURACY_BATCH = 100


@dataclass(frozen=True)
class Published:
    """A row of the paper's Table 1 for int64; accuracies in 0..1, latencies by batch size in ms."""

    latency: dict[int, float]
    deviation: float
    plain_accuracy: float
    private_accuracy: float
    kl_divergence: float


# Batches 10 and 100 of network C stand in the text of the paper, not in the table.
PAPER = {
    "A": Published({1: 14}, 3.8, 0.9735, 0.9718, 0.0065),
    "B": Published({1: 126}, 115, 0.9926, 0.9900, 0.2086),
    "C": Published({1: 124, 10: 182, 100: 541}, 93, 0.9944, 0.9941, 0.2311),
}

# The project's targets: ms by network and batch on two cores, all parties together; closeness to plaintext.
TARGET_LATENCY = {"A": {1: 4.0}, "C": {1: 15.0, 100: 600.0}}
TARGET_AGREEMENT = 0.9995
TARGET_KL_DIVERGENCE = 1e-4


@dataclass(frozen=True)
class Latency:
    """Milliseconds of `runs` predictions of one batch size, and what one of them sends."""

    batch: int
    runs: int
    mean: float
    deviation: float
    median: float
    rounds: int
    online_bytes: int
    offline_bytes: int


@dataclass(frozen=True)
class Accuracy:
    """Private against plaintext over `images` test images; accuracies and agreement in 0..1."""

    images: int
    plain: float
    private: float
    agreement: float
    kl_divergence: float
    largest_logit_error: float


@dataclass(frozen=True)
class Result:
    """All that was measured for one network with one activation."""

    network: str
    activation: str
    epochs: int
    accuracy: Accuracy | None
    latencies: list[Latency]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark as asked on the command line; the exit status."""
    options = _parser().parse_args(arguments)
    # A file or a pipe has no width of its own, and 80 characters would cut the tables.
    console = Console(width=None if sys.stdout.isatty() else 120)
    try:
        digits = data.load_digits(_data_file(options.data))
        results = []
        for letter in options.networks:
            for activation in options.activations:
                model = trained(letter, activation, digits, options.models, options.retrain, console)
                results.append(measure(letter, activation, model, digits, options, console))
    except ShareflowError as error:
        console.print(f"error: {error}", style="red", markup=False)
        return 1
    console.print(latency_table(results))
    if options.images:
        console.print(accuracy_table(results))
    if options.json:
        record = {
            "benchmark": "mnist",
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "data": {
                "file": Path(digits.source).name,
                "training_images": len(digits.x_train),
                "test_images": len(digits.x_test),
            },
            "seed": SEED,
            "setting": SETTING,
            "machine": machine(),
            "paper": {letter: asdict(row) for letter, row in PAPER.items()},
            "results": [asdict(result) for result in results],
        }
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        console.print(f"written to {options.json}", markup=False)
    return 0


def trained(
    letter: str, activation: str, digits: data.Digits, folder: Path, retrain: bool, console: Console
) -> keras.Model:
    """The network, trained on all training images; from the folder where it was trained before."""
    epochs = EPOCHS[letter]
    file = folder / f"{letter}-{activation}-{epochs}epochs-seed{SEED}.keras"
    if file.exists() and not retrain:
        return keras.saving.load_model(file)
    keras.utils.set_random_seed(SEED)
    model = networks.NETWORKS[letter](activation)
    with console.status(f"training network {letter} with {activation}, {epochs} epochs"):
        start = time.perf_counter()
        accuracy = networks.train(model, digits, epochs, seed=SEED)
        seconds = time.perf_counter() - start
    console.print(f"network {letter}, {activation}: trained in {seconds:.0f} s, accuracy {accuracy:.2%}")
    folder.mkdir(parents=True, exist_ok=True)
    model.save(file)
    return model


def measure(
    letter: str,
    activation: str,
    model: keras.Model,
    digits: data.Digits,
    options: argparse.Namespace,
    console: Console,
) -> Result:
    """Makes the model private and measures it."""
    # Here and not above, so that training works where the private part cannot be loaded.
    import shareflow as sf

    private = sf.private_model(model, owner="model-owner")

    def predict(images: NDArray[np.float32]) -> NDArray[Any]:
        result: NDArray[Any] = private.predict(
            images,
            batch_size=len(images),
            receiver="prediction-client",
            input_owner="prediction-client",
            progress=False,
        )
        return result

    latencies = []
    for batch in options.batches:
        with console.status(f"network {letter}, {activation}: latency at batch {batch}"):
            times = time_runs(predict, digits.x_test, batch, options.runs)
        rounds, online_bytes, offline_bytes = cost_of(private, batch)
        latencies.append(
            Latency(
                batch=batch,
                runs=options.runs,
                mean=float(times.mean()),
                deviation=float(times.std(ddof=1)) if len(times) > 1 else 0.0,
                median=float(np.median(times)),
                rounds=rounds,
                online_bytes=online_bytes,
                offline_bytes=offline_bytes,
            )
        )
    accuracy = None
    if options.images:
        images, labels = digits.x_test[: options.images], digits.y_test[: options.images]
        with console.status(f"network {letter}, {activation}: accuracy over {len(images)} images"):
            plain_logits = model.predict(images, batch_size=500, verbose=0)
            private_logits = np.concatenate(
                [
                    predict(images[start : start + ACCURACY_BATCH])
                    for start in range(0, len(images), ACCURACY_BATCH)
                ]
            )
        accuracy = compare(plain_logits, private_logits, labels)
    return Result(letter, activation, EPOCHS[letter], accuracy, latencies)


def time_runs(
    predict: Callable[[NDArray[np.float32]], NDArray[Any]], images: NDArray[np.float32], batch: int, runs: int
) -> NDArray[np.float64]:
    """Milliseconds of each of `runs` predictions of `batch` images, [runs]; going round the test set."""
    times = []
    for run in range(-WARM_UPS, runs):
        inputs = images[np.arange(run * batch, (run + 1) * batch) % len(images)]
        start = time.perf_counter()
        predict(inputs)
        if run >= 0:
            times.append((time.perf_counter() - start) * 1e3)
    return np.array(times)


def cost_of(private: Any, batch: int) -> tuple[int, int, int]:
    """Rounds online, bytes online, bytes offline of one prediction of `batch` images."""
    total = private.report(batch_size=batch, repeats=1).total
    return total.rounds, total.online_bytes, total.offline_bytes


def compare(plain: NDArray[Any], private: NDArray[Any], labels: NDArray[np.int64]) -> Accuracy:
    """Plaintext and private logits, both [n, 10], against the labels [n] and each other."""
    plain_classes, private_classes = plain.argmax(axis=1), private.argmax(axis=1)
    return Accuracy(
        images=len(labels),
        plain=float((plain_classes == labels).mean()),
        private=float((private_classes == labels).mean()),
        agreement=float((plain_classes == private_classes).mean()),
        kl_divergence=float(kl_divergence(plain, private).mean()),
        largest_logit_error=float(np.abs(plain.astype(np.float64) - private).max()),
    )


def kl_divergence(plain: NDArray[Any], private: NDArray[Any]) -> NDArray[np.float64]:
    """D(p || q) = sum_j p_j (log p_j - log q_j) with p, q the softmax of the logits; [n]."""
    terms = softmax(plain) * (_log_softmax(plain) - _log_softmax(private))
    result: NDArray[np.float64] = terms.sum(axis=-1)
    return result


def machine() -> dict[str, Any]:
    """What the figures depend on: processor, cores, memory, versions."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **{name: _version(name) for name in ("shareflow", "tensorflow-cpu", "keras", "numpy")},
    }


def latency_table(results: Sequence[Result]) -> Table:
    """Latencies beside the paper's; green where the median is within the target, red where not."""
    table = Table(title=f"Latency, offline and online together ({SETTING}), and what would be sent")
    for header in ("network", "activation", "batch", "mean ms", "deviation", "median ms", "paper ms"):
        table.add_column(header, justify="left" if header in ("network", "activation") else "right")
    for header in ("rounds", "online kB", "offline kB"):
        table.add_column(header, justify="right")
    for result in results:
        for row in result.latencies:
            target = TARGET_LATENCY.get(result.network, {}).get(row.batch)
            published = PAPER[result.network].latency.get(row.batch)
            table.add_row(
                result.network,
                result.activation,
                str(row.batch),
                f"{row.mean:.1f}",
                f"{row.deviation:.1f}",
                _judged(f"{row.median:.1f}", None if target is None else row.median <= target),
                "" if published is None else f"{published:g}",
                str(row.rounds),
                f"{row.online_bytes / 1e3:,.1f}",
                f"{row.offline_bytes / 1e3:,.1f}",
            )
    return table


def accuracy_table(results: Sequence[Result]) -> Table:
    """Accuracies beside the paper's; green where the target is met, red where not."""
    table = Table(title="Accuracy, private against plaintext; in brackets the paper's, for int64")
    for header in ("network", "activation"):
        table.add_column(header)
    for header in ("images", "plaintext", "private", "same class", "KL divergence", "logit error"):
        table.add_column(header, justify="right")
    for result in results:
        found, published = result.accuracy, PAPER[result.network]
        if found is None:
            continue
        table.add_row(
            result.network,
            result.activation,
            f"{found.images:,}",
            f"{found.plain:.2%} ({published.plain_accuracy:.2%})",
            f"{found.private:.2%} ({published.private_accuracy:.2%})",
            _judged(f"{found.agreement:.2%}", found.agreement >= TARGET_AGREEMENT),
            _judged(f"{found.kl_divergence:.1e}", found.kl_divergence <= TARGET_KL_DIVERGENCE)
            + f" ({published.kl_divergence:g})",
            f"{found.largest_logit_error:.1e}",
        )
    return table


def _judged(text: str, met: bool | None) -> str:
    if met is None:
        return text
    return f"[green]{text}[/green]" if met else f"[red]{text}[/red]"


def _log_softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def _data_file(given: Path | None) -> Path:
    """The full MNIST; the small bundled digits would not be the paper's task."""
    for candidate in (given,) if given else (SHARED_MNIST, data.KERAS_CACHE):
        if candidate.exists():
            return candidate
    raise DataError(
        f"This benchmark needs the full MNIST, and there is none at {given or data.KERAS_CACHE}. Give it "
        "with --data FILE.npz (x_train, y_train, x_test, y_test), or let Keras fetch it once: "
        "keras.datasets.mnist.load_data()."
    )


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.mnist", description="Private predictions on MNIST: latency and accuracy."
    )
    parser.add_argument("--data", type=Path, help="MNIST as .npz; otherwise ../shared/data or Keras' cache")
    parser.add_argument("--networks", type=_choices(tuple(networks.NETWORKS)), default="A,B,C")
    parser.add_argument("--activations", type=_choices(ACTIVATIONS), default=",".join(ACTIVATIONS))
    parser.add_argument("--batches", type=_counts, default="1,10,100")
    parser.add_argument("--runs", type=_count, default=100, help="predictions timed at each batch size")
    parser.add_argument(
        "--images", type=int, default=10_000, help="test images for accuracy; 0 leaves it out"
    )
    parser.add_argument("--json", type=Path, help="also write the results here, such as results/mnist.json")
    parser.add_argument("--models", type=Path, default=REPOSITORY / "results" / "models")
    parser.add_argument("--retrain", action="store_true", help="do not use trained models kept from before")
    return parser


def _choices(allowed: tuple[str, ...]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        chosen = text.split(",")
        wrong = [name for name in chosen if name not in allowed]
        if wrong:
            raise argparse.ArgumentTypeError(f"choose from {','.join(allowed)}; got {','.join(wrong)}")
        return chosen

    return parse


def _counts(text: str) -> list[int]:
    return [_count(part) for part in text.split(",")]


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a whole number from 1 on; got {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
