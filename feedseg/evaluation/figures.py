"""Figures of a run: learning curves, confusion matrix, ensemble weights.

Figures need no display and replace their file atomically: an interrupted run leaves the old one or
the new one.
"""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from feedseg.io.style import drawing

# Okabe & Ito: colors that color-blind readers can tell apart, without yellow, which is too light
# for lines. Each cycle through the colors shifts the line styles.
LINE_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINE_STYLES = ("-", "--", ":", "-.")


def curves(metrics_rows: Sequence[Mapping], path: Path) -> None:
    """Losses, and IoU on the validation images, against the epoch.

    metrics_rows: one mapping per epoch with `epoch` and any of `loss`, `loss/<output>/<kind>`,
    `val/loss`, `val/miou`, `val/iou/<class>`; values that are missing, None or NaN are gaps.
    The loss axis is logarithmic if the values span more than a factor of 20. A dot marks the
    epoch of the best mean IoU, whose values the legend gives.
    Raises ValueError without rows, SaveFailed if `path` cannot be written.
    """
    if not metrics_rows:
        raise ValueError("no epochs to draw")
    keys = list(dict.fromkeys(key for row in metrics_rows for key in row))
    losses = [key for key in ("loss", "val/loss") if key in keys]
    losses += [key for key in keys if key.startswith("loss/")]
    scores = [key for key in keys if key == "val/miou"]
    scores += [key for key in keys if key.startswith("val/iou/")]
    with drawing(9.6, 3.4, path) as figure:
        left, right = figure.subplots(1, 2)
        _draw_losses(left, metrics_rows, losses)
        _draw_scores(right, metrics_rows, scores)


def confusion_figure(matrix: np.ndarray, class_names: Sequence[str], path: Path) -> None:
    """Confusion matrix: percentage of the truth's pixels of a class, and the pixel counts.

    matrix: integers [K, K], truth in rows. Rows of classes without a pixel are left empty.
    Raises SaveFailed as `curves`.
    """
    matrix = np.asarray(matrix, np.int64)
    totals = matrix.sum(1, keepdims=True)
    shares = np.where(totals > 0, 100.0 * matrix / np.maximum(totals, 1), np.nan)
    count = len(class_names)
    side = 1.6 + 0.95 * count
    with drawing(side + 0.9, side, path) as figure:
        axes = figure.subplots()
        image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
        for i, j in np.ndindex(count, count):
            _write_cell(axes, i, j, shares[i, j], matrix[i, j])
        labels = [textwrap.fill(name, 14) for name in class_names]
        axes.set_xticks(range(count), labels, rotation=0 if count <= 6 else 90)
        axes.set_yticks(range(count), labels)
        axes.set(xlabel="predicted class", ylabel="true class")
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        bar = figure.colorbar(image, ax=axes, shrink=0.8)
        bar.set_label("% of the pixels of the true class")
        bar.outline.set_visible(False)


def line_style(index: int) -> dict:
    """Color and dashes of the `index`-th line; the dashes change too, for gray prints."""
    count = len(LINE_COLORS)
    return {
        "color": LINE_COLORS[index % count],
        "linestyle": LINE_STYLES[(index + 2 * (index // count)) % len(LINE_STYLES)],
    }


def _draw_losses(axes, rows, keys) -> None:
    from matplotlib.ticker import LogLocator

    lowest, highest = np.inf, 0.0
    for index, key in enumerate(keys):
        epochs, values = _series(rows, key)
        width = 1.8 if key in ("loss", "val/loss") else 1.1
        style = line_style(index) | _marker(epochs)
        axes.plot(epochs, values, linewidth=width, label=_loss_name(key), **style)
        known = values[np.isfinite(values)]
        if known.size:
            lowest, highest = min(lowest, known.min()), max(highest, known.max())
    if lowest > 0 and highest > 20 * lowest:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
    axes.set(xlabel="epoch", ylabel="loss", title="Loss")
    _finish(axes, rows, keys)


def _draw_scores(axes, rows, keys) -> None:
    best = _best_epoch(rows)
    for index, key in enumerate(keys):
        epochs, values = _series(rows, key)
        mean = key == "val/miou"
        name = "mean" if mean else key.removeprefix("val/iou/")
        at_best = 100 * values[epochs == best]
        if at_best.size and np.isfinite(at_best[-1]):
            name += f"  {at_best[-1]:.1f}"
        style = ({"color": "#000000"} if mean else line_style(index - 1)) | _marker(epochs)
        axes.plot(epochs, 100 * values, lw=2.2 if mean else 1.3, label=name, **style)
        if mean and at_best.size:
            axes.plot(best, at_best[-1], "o", ms=5, color="#000000", clip_on=False)
    axes.set(xlabel="epoch", ylabel="IoU, %", title="IoU on the validation images")
    axes.set_ylim(0, 100)
    _finish(axes, rows, keys, "" if best is None else f"%, at epoch {best:g}")


def _best_epoch(rows) -> float | None:
    """The epoch of the highest `val/miou`, the earliest of equals; None without values."""
    epochs, values = _series(rows, "val/miou")
    return float(epochs[np.nanargmax(values)]) if np.isfinite(values).any() else None


def _marker(epochs) -> dict:
    """Dots where there are too few epochs for a line."""
    return {"marker": "o", "markersize": 3} if len(epochs) < 3 else {}


def _finish(axes, rows, keys, legend_title: str = "") -> None:
    """Whole-numbered epochs from 0 on, a faint grid, the legend beside the axes."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    axes.set_xlim(0, max(2, *(row["epoch"] for row in rows)))
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    if keys:
        place = {"loc": "upper left", "bbox_to_anchor": (1.02, 1.0), "borderaxespad": 0}
        legend = axes.legend(handlelength=2.2, title=legend_title, title_fontsize=8, **place)
        legend.set_alignment("left")


def _series(rows, key) -> tuple[np.ndarray, np.ndarray]:
    """Epochs and values of one key, float64; None becomes NaN, rows without it are left out."""
    pairs = [(row["epoch"], row[key]) for row in rows if key in row]
    values = np.array([np.nan if v is None else v for _, v in pairs], np.float64)
    return np.array([epoch for epoch, _ in pairs], np.float64), values


def _loss_name(key: str) -> str:
    if key == "loss":
        return "total, training"
    if key == "val/loss":
        return "total, validation"
    *output, kind = key.removeprefix("loss/").replace("_", " ").split("/")
    return f"{' '.join(output)}: {kind}" if output else kind


def _write_cell(axes, row: int, column: int, share: float, count: int) -> None:
    if np.isnan(share):
        axes.text(column, row, "–", ha="center", va="center", color="#777777")
        return
    place = {"ha": "center", "va": "center", "color": "white" if share > 55 else "#222222"}
    axes.text(column, row - 0.08, f"{share:.1f}", fontsize=11, **place)
    axes.text(column, row + 0.18, f"{count:,}", fontsize=7, **place)


def ensemble_weights(weights: np.ndarray, path: Path) -> Path:
    """Learned weights of the ensemble, network 1 first (AEP Fig. 11)."""
    with drawing(1.6 + 0.7 * len(weights), 2.8, path) as figure:
        axes = figure.subplots()
        names = ["network 1", *(f"image {i}" for i in range(1, len(weights)))]
        bars = axes.bar(names, weights, width=0.6, color="#0072B2")
        axes.bar_label(bars, fmt="%.2f", padding=2, fontsize=8)
        axes.axhline(0, color="#444444", linewidth=0.8)
        axes.margins(y=0.15)
        axes.set(ylabel="weight", title="Ensemble weights (AWEL)")
    return path
