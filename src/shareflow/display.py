"""Showing images, shares, predictions and costs to people: in the terminal with rich, and as a PNG.

Nothing here computes privately or decides anything; the caller passes what may be seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from rich.align import Align
from rich.bar import Bar
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.segment import Segment
from rich.style import Style
from rich.table import Table
from rich.text import Text

from shareflow.audit.cost import Cost
from shareflow.audit.view import Audit
from shareflow.errors import ShapeError

# Dark to bright, for terminals that have neither colours nor block characters.
_ASCII_RAMP = " .:-=+*#%@"
_PNG_SCALE = 4
_PNG_GAP = 16
_PNG_LABEL_HEIGHT = 40


class CostRow(Protocol):
    """One layer's cost, or the sum over all: what a report of a private model holds."""

    @property
    def name(self) -> str:
        """The layer."""

    @property
    def offline_seconds(self) -> float:
        """Time of the dealer and of loading its material."""

    @property
    def online_seconds(self) -> float:
        """Time from the input on."""

    @property
    def rounds(self) -> int:
        """Sequential steps of communication, online."""

    @property
    def online_bytes(self) -> int:
        """Sent by all parties, online."""

    @property
    def offline_bytes(self) -> int:
        """Sent by the dealer."""


class TerminalImage:
    """A grey image as a rich renderable: two pixels a character, one above the other, by half blocks.

    With colours, each half has its grey; without, each half is set or not; where the terminal can only write
    ASCII, a character is the mean of its two pixels.

    Args:
        image: [height, width] or [height, width, 1], 0..1 (clipped); uint8 is taken as 0..255.

    Raises:
        ShapeError: the image has another shape.
    """

    def __init__(self, image: NDArray[Any]) -> None:
        self._pixels = _grey(image)
        if len(self._pixels) % 2:
            self._pixels = np.vstack([self._pixels, np.zeros_like(self._pixels[:1])])

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        width = self._pixels.shape[1]
        return Measurement(width, width)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        coloured = console.color_system is not None and not console.no_color
        for upper, lower in zip(self._pixels[0::2], self._pixels[1::2], strict=True):
            for top, bottom in zip(upper.tolist(), lower.tolist(), strict=True):
                if options.ascii_only:
                    yield Segment(_ASCII_RAMP[(top + bottom) * (len(_ASCII_RAMP) - 1) // (2 * 255)])
                elif coloured:
                    yield Segment("▀", Style(color=_rgb(top), bgcolor=_rgb(bottom)))
                else:
                    yield Segment(" ▄▀█"[2 * (top > 127) + (bottom > 127)])
            yield Segment.line()


def images_in_a_row(images: Iterable[NDArray[Any]], captions: Sequence[str]) -> Table:
    """Images side by side, each with its caption below.

    Args:
        images: as for TerminalImage; one for each caption.
        captions: plain text.

    Raises:
        ShapeError: there are more images than captions or fewer, or an image is not grey.
    """
    drawn = [TerminalImage(image) for image in images]
    if len(drawn) != len(captions):
        raise ShapeError(f"Each image has one caption; got {len(drawn)} images and {len(captions)} captions.")
    grid = Table.grid(padding=(0, 2))
    for _ in drawn:
        grid.add_column(justify="center")
    grid.add_row(*drawn)
    grid.add_row(*(Align.center(Text(caption)) for caption in captions))
    return grid


def report_table(layers: Sequence[CostRow], totals: CostRow | None = None, title: str | None = None) -> Table:
    """What each layer costs: offline and online milliseconds, rounds, bytes; the totals below.

    Args:
        layers: one row a layer, in order.
        totals: the last row; where missing, the sums over the layers.
        title: above the table.
    """
    table = Table(title=title, show_footer=True)
    rounds = totals.rounds if totals else sum(row.rounds for row in layers)
    offline = totals.offline_seconds if totals else sum(row.offline_seconds for row in layers)
    online = totals.online_seconds if totals else sum(row.online_seconds for row in layers)
    offline_bytes = totals.offline_bytes if totals else sum(row.offline_bytes for row in layers)
    online_bytes = totals.online_bytes if totals else sum(row.online_bytes for row in layers)
    table.add_column("layer", footer="total")
    table.add_column("offline ms", justify="right", footer=_milliseconds(offline))
    table.add_column("online ms", justify="right", footer=_milliseconds(online))
    table.add_column("rounds", justify="right", footer=str(rounds))
    table.add_column("offline sent", justify="right", footer=size_text(offline_bytes))
    table.add_column("online sent", justify="right", footer=size_text(online_bytes))
    for row in layers:
        table.add_row(
            Text(row.name),
            _milliseconds(row.offline_seconds),
            _milliseconds(row.online_seconds),
            str(row.rounds),
            size_text(row.offline_bytes),
            size_text(row.online_bytes),
        )
    return table


def audit_table(audit: Audit, cost: Cost) -> Table:
    """What each party receives and what it can learn of it; what the audit cannot account for stands below.

    Args:
        audit: the views.
        cost: of the same graph, for the bytes.
    """
    table = Table(title="Proved from the graph" if audit.passed else "[bold red]Not accounted for", show_lines=True)
    for header in ("party", "receives", "says nothing", "learns"):
        table.add_column(header, justify="left" if header in ("party", "learns") else "right")
    for view in audit.views:
        received = sum(message.bytes for message in cost.messages if message.to == view.party)
        learns = "its own result" if view.learned else "nothing"
        proved = f"{len(view.removed)} of {len(view.removed) + len(view.learned)} messages"
        table.add_row(Text(view.party), size_text(received), proved, learns)
    for finding in audit.findings:
        table.add_row(Text(finding.party), "", "", Text(f"{finding.where}: {finding.why}", style="red"))
    return table


def predictions_table(
    names: Sequence[str],
    scores: NDArray[Any],
    class_names: Sequence[str] | None = None,
    labels: Sequence[int] | NDArray[np.integer] | None = None,
) -> Table:
    """The predicted class of each input and its score; with the true classes given, whether they agree.

    Args:
        names: of the inputs, n of them.
        scores: [n, classes]: whatever is to be shown as the score: logits, or their softmax (see `softmax`).
        class_names: one for each class; numbers where missing.
        labels: the true classes, [n].

    Raises:
        ShapeError: the lengths do not go together.
    """
    if scores.ndim != 2 or len(scores) != len(names) or scores.shape[1] == 0:
        raise ShapeError(f"Scores are [{len(names)}, classes] for {len(names)} names; got shape {scores.shape}.")
    if class_names is not None and len(class_names) != scores.shape[1]:
        raise ShapeError(f"Each class has one name; got {len(class_names)} names for {scores.shape[1]} classes.")
    if labels is not None and len(labels) != len(names):
        raise ShapeError(f"Each input has one label; got {len(labels)} labels for {len(names)} inputs.")
    table = Table()
    table.add_column("input")
    table.add_column("class")
    table.add_column("score", justify="right")
    if labels is not None:
        table.add_column("label")
    for index, (name, row) in enumerate(zip(names, scores, strict=True)):
        best = int(np.argmax(row))
        cells: list[Text | str] = [
            Text(name),
            Text(_class_name(best, class_names)),
            f"{float(row[best]):.4f}",
        ]
        if labels is not None:
            label = int(labels[index])
            cells.append(Text(_class_name(label, class_names), style="green" if label == best else "bold red"))
        table.add_row(*cells)
    return table


def latency_bars(milliseconds: Mapping[str, float], width: int = 40) -> Table:
    """One bar for each name, all to one scale that starts at zero, with its milliseconds.

    Args:
        milliseconds: name to time; times are not negative.
        width: of the longest bar, in characters.
    """
    grid = Table.grid(padding=(0, 2))
    grid.add_column()
    grid.add_column(width=width)
    grid.add_column(justify="right")
    longest = max([*milliseconds.values(), 0.0]) or 1.0
    for name, value in milliseconds.items():
        grid.add_row(Text(name), Bar(longest, 0, value, width=width, color="cyan"), f"{_number(value)} ms")
    return grid


def softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    """exp(z_i) / sum_j exp(z_j) over the last axis, in plaintext, for showing revealed logits as scores; "
    "float64."""
    # The largest logit is subtracted so that no exponential overflows; the quotient stays the same.
    exponentials = np.exp(np.asarray(logits, np.float64) - np.max(logits, axis=-1, keepdims=True))
    result: NDArray[np.float64] = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return result


def share_png(
    path: str | Path,
    images: NDArray[Any],
    server0: NDArray[Any],
    server1: NDArray[Any],
    names: Sequence[str] = ("client", "server 0", "server 1", "dealer"),
) -> None:
    """Writes a picture of who sees what: a row for each image; columns for the client, both servers and the
    dealer.

    A share is drawn by the top byte of each 64-bit word: grey noise, since a share by itself is uniform. The
    dealer is sent nothing that depends on an input, so its panel is empty.

    Args:
        path: the PNG file to write; an existing one is replaced.
        images: what the client sees, [n, height, width] or [n, height, width, 1], as for TerminalImage; n >=
        1. server0: server 0's shares, uint64 or int64, of the same shape as `images`.
        server1: server 1's shares likewise.
        names: above the four columns.

    Raises:
        ShapeError: shapes or types differ from the above.
    """
    if len(names) != 4:
        raise ShapeError(f"The picture has four columns; got {len(names)} names.")
    if len(images) == 0 or server0.shape != images.shape or server1.shape != images.shape:
        raise ShapeError(
            f"Images and shares have one shape and there is at least one; got {images.shape}, "
            f"{server0.shape} and {server1.shape}."
        )
    rows = [
        [_grey(image), _grey(_top_byte(share0)), _grey(_top_byte(share1)), None]
        for image, share0, share1 in zip(images, server0, server1, strict=True)
    ]
    height, width = (_PNG_SCALE * size for size in _grey(images[0]).shape)
    font = ImageFont.load_default(size=14)
    # A column is as wide as its label at least, so that labels of small images do not run into each other.
    column = max(width, *(int(font.getlength(name)) + 2 for name in (*names, "sees nothing")))
    canvas = Image.new(
        "L",
        (_PNG_GAP + 4 * (column + _PNG_GAP), _PNG_LABEL_HEIGHT + len(rows) * (height + _PNG_GAP)),
        color=255,
    )
    draw = ImageDraw.Draw(canvas)
    for position, name in enumerate(names):
        left = _PNG_GAP + position * (column + _PNG_GAP)
        draw.text((left + column / 2, _PNG_LABEL_HEIGHT / 2), name, fill=0, font=font, anchor="mm")
        for number, row in enumerate(rows):
            corner = (left + (column - width) // 2, _PNG_LABEL_HEIGHT + number * (height + _PNG_GAP))
            pixels = row[position]
            if pixels is None:
                draw.rectangle((*corner, corner[0] + width - 1, corner[1] + height - 1), outline=160)
                draw.text(
                    (left + column / 2, corner[1] + height / 2),
                    "sees nothing",
                    fill=96,
                    font=font,
                    anchor="mm",
                )
            else:
                # Nearest: smoothing would average the noise of a share to an even grey.
                panel = Image.fromarray(pixels).resize((width, height), Image.Resampling.NEAREST)
                canvas.paste(panel, corner)
    canvas.save(path, format="PNG")


def _grey(image: NDArray[Any]) -> NDArray[np.uint8]:
    """uint8 [height, width]."""
    pixels = np.asarray(image)
    if pixels.ndim == 3 and pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim != 2 or pixels.size == 0:
        raise ShapeError(f"A grey image is [height, width] or [height, width, 1]; got shape {np.shape(image)}.")
    if pixels.dtype == np.uint8:
        return pixels
    return (np.clip(pixels.astype(np.float64), 0, 1) * 255).round().astype(np.uint8)


def _top_byte(share: NDArray[Any]) -> NDArray[np.uint8]:
    """Bits 56 to 63 of each word."""
    if share.dtype not in (np.uint64, np.int64):
        raise ShapeError(f"A share to be drawn is uint64 or int64; got {share.dtype}.")
    return (share.view(np.uint64) >> np.uint64(56)).astype(np.uint8)


def _rgb(grey: int) -> str:
    return f"rgb({grey},{grey},{grey})"


def _class_name(number: int, class_names: Sequence[str] | None) -> str:
    if class_names is None or not 0 <= number < len(class_names):
        return str(number)
    return class_names[number]


def _milliseconds(seconds: float) -> str:
    return _number(seconds * 1e3)


def _number(value: float) -> str:
    """Three figures, or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def size_text(count: int) -> str:
    """Decimal units, as networks are measured."""
    if count < 1_000:
        return f"{count} B"
    if count < 1_000_000:
        return f"{count / 1e3:.1f} kB"
    return f"{count / 1e6:,.2f} MB"
