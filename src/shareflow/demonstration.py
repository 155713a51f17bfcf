"""The demo: a network trained on digits, private predictions, and what each party saw of them."""

from __future__ import annotations

import time
from pathlib import Path

import keras
import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from shareflow import data, display, networks
from shareflow.compiler.private_model import PrivateModel, private_model
from shareflow.protocol.placement import private_tensor
from shareflow.share.additive import Additive

_SHOWN = 8
_RUNS = 20


def run(console: Console, source: Path | None, images: int, picture: Path) -> None:
    """Trains network B in plaintext, predicts privately, and prints agreement, accuracy, latency and views.

    Raises:
        DataError: the digits cannot be read.
    """
    digits = data.load_digits(source)
    console.rule("[bold]1. In the clear: the model owner trains network B")
    console.print(f"Digits: {digits.source}. {len(digits.x_train):,} to train on, {len(digits.x_test):,} to test.")
    model = _train(console, digits)

    console.rule("[bold]2. In private: the client's images meet the model as secret shares")
    private = private_model(model, owner="model-owner")
    count = min(images, len(digits.x_test))
    x, y = digits.x_test[:count], digits.y_test[:count]
    scores = private.predict(x, receiver="client", input_owner="client", batch_size=min(100, count), progress=True)
    plain = model.predict(x, verbose=0)
    _show(console, x, y, scores, plain)
    _latency(console, private, model, x)

    console.rule("[bold]3. What each party saw")
    _views(console, private, x, picture)


def _train(console: Console, digits: data.Digits) -> keras.Model:
    keras.utils.set_random_seed(1)
    model = networks.network_b()
    # The bundled digits are few: they want more passes, which take no longer.
    epochs = 1 if len(digits.x_train) > 10_000 else 20
    began = time.perf_counter()
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("training", total=None)

        class Advance(keras.callbacks.Callback):
            def on_train_begin(self, logs: object = None) -> None:
                bar.update(task, total=epochs * self.params["steps"])

            def on_train_batch_end(self, batch: int, logs: object = None) -> None:
                bar.advance(task)

        accuracy = networks.train(model, digits, epochs, callbacks=[Advance()])
    console.print(f"Trained in {time.perf_counter() - began:.1f} s; {accuracy:.2%} of the test digits right.")
    return model


def _show(console: Console, x: np.ndarray, y: np.ndarray, scores: np.ndarray, plain: np.ndarray) -> None:
    private_class, plain_class = scores.argmax(1), plain.argmax(1)
    shown = min(_SHOWN, len(x))
    captions = [f"private {private_class[i]}\nplain {plain_class[i]}" for i in range(shown)]
    per_row = max(1, min(shown, console.width // 30))
    for start in range(0, shown, per_row):
        chosen = slice(start, min(start + per_row, shown))
        console.print(display.images_in_a_row(list(x[chosen, :, :, 0]), captions[chosen]))
    table = Table(show_header=False)
    table.add_row("images predicted privately", f"{len(x):,}")
    table.add_row("private and plain say the same digit", f"{np.mean(private_class == plain_class):.2%}")
    table.add_row("private predictions right", f"{np.mean(private_class == y):.2%}")
    table.add_row("plain predictions right", f"{np.mean(plain_class == y):.2%}")
    table.add_row("largest difference of a score", f"{np.abs(scores - plain).max():.6f}")
    console.print(table)


def _latency(console: Console, private: PrivateModel, model: keras.Model, x: np.ndarray) -> None:
    one = x[:1]
    private.predict(one, receiver="client")
    times = {"private, one image": [], "plain Keras, one image": []}  # type: dict[str, list[float]]
    for _ in range(_RUNS):
        began = time.perf_counter()
        private.predict(one, receiver="client")
        middle = time.perf_counter()
        model(one).numpy()
        times["private, one image"].append(middle - began)
        times["plain Keras, one image"].append(time.perf_counter() - middle)
    console.print(display.latency_bars({name: 1e3 * float(np.median(values)) for name, values in times.items()}))
    report = private.report(1)
    console.print(display.report_table(report.layers, report.total, "One image, all three parties on this machine"))


def _views(console: Console, private: PrivateModel, x: np.ndarray, picture: Path) -> None:
    shared = private_tensor(x[:4], "client").shared(private.protocol)
    if not isinstance(shared.share, Additive):
        raise TypeError("the demo shows additive shares")
    part0, part1 = (part.numpy() for part in shared.share.parts)
    display.share_png(picture, x[:4], part0, part1)
    console.print(display.audit_table(private.audit(1), private.cost(1)))
    console.print("Each message counted as saying nothing is uniform to its receiver; the dealer is sent none.")
    console.print(f"The shares of four images as pictures: {picture}")
