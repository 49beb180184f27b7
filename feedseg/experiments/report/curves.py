"""Learning curves and box plots of methods, a color each."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from feedseg.evaluation.figures import line_style
from feedseg.experiments.report.collect import FinishedRun, Method, has_own_log
from feedseg.io.style import drawing
from feedseg.runs.directory import RunDir

_FEWEST_IN_BOX = 3
BOX_NOTE = (
    f"A dot is a run, the black diamond their mean. From {_FEWEST_IN_BOX} runs on a box spans the "
    "quartiles; its line is the median, its whiskers end at the last runs within 1.5 box lengths."
)


def learning_curves(
    methods: Sequence[Method], path: Path, also: Sequence[Path], metadata: Mapping[str, str]
) -> bool:
    """Training loss and validation mean IoU against the epoch; False if no epoch is recorded.

    A line is the mean over the runs of a method, its band reaches from the lowest to the highest
    run. Epochs that not all runs of a method have are left out.
    """
    rows = {method.name: [_epochs(run) for run in method.runs] for method in methods}
    if not any(row for runs in rows.values() for row in runs):
        return False
    height = 3.4 + 0.17 * len(methods)
    with drawing(9.6, height, path, also=also, metadata=metadata) as figure:
        left, right = figure.subplots(1, 2)
        for index, (name, runs) in enumerate(rows.items()):
            _draw_band(left, runs, "loss", 1, index, name)
            _draw_band(right, runs, "val/miou", 100, index, name)
        left.set(xlabel="epoch", ylabel="loss", title="Training loss")
        right.set(xlabel="epoch", ylabel="mean IoU, %", title="Validation images")
        for axes in (left, right):
            _tidy(axes)
        handles, labels = right.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=_legend_columns(rows))
    return True


def _epochs(run: FinishedRun) -> dict[float, dict]:
    """The rows of metrics.jsonl by epoch; none if it is missing or not as it was written."""
    return {row["epoch"]: row for row in RunDir(run.folder).rows()} if has_own_log(run) else {}


def _draw_band(axes, runs: Sequence[dict], key: str, scale: float, index: int, name: str) -> None:
    runs = [epochs for epochs in runs if epochs]
    common = sorted(set.intersection(*map(set, runs))) if runs else []
    values = np.array([[e[epoch].get(key) for epoch in common] for e in runs], np.float64) * scale
    known = np.isfinite(values).all(0) if len(common) else np.zeros(0, bool)
    x, values = np.array(common)[known], values[:, known] if len(common) else np.zeros((1, 0))
    style = line_style(index)
    marker = {"marker": "o", "markersize": 3} if len(x) < 3 else {}
    axes.plot(x, values.mean(0), linewidth=1.6, label=name, **style, **marker)
    if len(values) > 1:
        band = {"color": style["color"], "alpha": 0.18, "linewidth": 0}
        axes.fill_between(x, values.min(0), values.max(0), **band)


def _tidy(axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    axes.set_xlim(left=0)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)


def _legend_columns(names) -> int:
    return max(1, min(len(names), 110 // (8 + max(map(len, names)))))


def boxes(
    methods: Sequence[Method],
    columns: Mapping[str, str],
    path: Path,
    also: Sequence[Path],
    metadata: Mapping[str, str],
) -> None:
    """Scores of the runs of each method in percent, a panel per score.

    `BOX_NOTE` describes the elements. columns: key of a score -> title.
    """
    height = 1.1 + 0.34 * len(methods)
    with drawing(2.0 + 2.1 * len(columns), height, path, also=also, metadata=metadata) as figure:
        panels = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
        for axes, (key, title) in zip(panels, columns.items(), strict=True):
            for row, method in enumerate(methods):
                _draw_box(axes, row, [v for v in method.scores(key) if v is not None])
            axes.set(title=title, xlabel="%")
            axes.grid(axis="x", color="#dddddd", linewidth=0.6)
            axes.use_sticky_edges = False  # a box that begins at 0 leaves room for its dots
            axes.set_axisbelow(True)
        panels[0].set_yticks(range(len(methods)), [method.name for method in methods])
        panels[0].set_ylim(len(methods) - 0.4, -0.6)


def _draw_box(axes, row: int, values: Sequence[float]) -> None:
    from matplotlib.colors import to_rgba

    color = line_style(row)["color"]
    if len(values) >= _FEWEST_IN_BOX:
        low, middle, high = np.percentile(values, (25, 50, 75))
        reach = [v for v in values if low - 1.5 * (high - low) <= v <= high + 1.5 * (high - low)]
        box = {"facecolor": to_rgba(color, 0.15), "edgecolor": color, "linewidth": 1.0}
        axes.barh(row, high - low, left=low, height=0.55, **box)
        axes.vlines(middle, row - 0.275, row + 0.275, color=color, linewidth=1.0)
        ends = [min(reach), high], [low, max(reach)]
        axes.hlines([row, row], *ends, color=color, linewidth=1.0)
    if len(values) > 1:
        mean = {"color": "#000000", "markersize": 5, "markeredgecolor": "white", "zorder": 4}
        axes.plot([np.mean(values)], [row], "D", **mean)
    shift = 0.12 * (np.arange(len(values)) % 3 - 1) if len(values) > 1 else [0.0]
    dots = {
        "markeredgecolor": "white",
        "markeredgewidth": 0.4,
        "markersize": 4.5 if len(values) < 10 else 3,
        "zorder": 3,
    }
    axes.plot(values, row + np.asarray(shift)[: len(values)], "o", color=color, **dots)
