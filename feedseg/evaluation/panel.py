"""The panel of a run: images, their truth, and the maps that the network computes."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from feedseg.io.colors import VOID_COLOR, color_labels, grey_as_rgb, unit_range
from feedseg.io.style import drawing


def panel(
    rows: Sequence[Mapping[str, np.ndarray]],
    path: Path,
    class_names: Sequence[str],
    class_colors: Sequence[Sequence[int]],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """A row of pictures per image, a titled column per name, and a legend of the classes.

    rows: name -> array for each image, names in column order (a name may be missing in a row).
    Integer [H, W] arrays are label maps; float [H, W] arrays are gray images, black and white
    being the 0.5 and 99.5 percentile over the column, stated under its title; [H, W, 3] arrays
    are RGB in [0, 1] (float) or 0-255 (uint8). metadata: kept in the file.
    Raises ValueError without pictures or for another shape, SaveFailed as `curves`.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    if not names:
        raise ValueError("no pictures to draw")
    columns = {name: [row.get(name) for row in rows] for name in names}
    cell = 2.0 if len(names) <= 6 else 1.6  # inch
    shapes = [np.shape(array)[:2] for row in rows for array in row.values()]
    ratio = max(height / width for height, width in shapes)
    size = cell * len(names), cell * ratio * len(rows) + 0.7
    with drawing(*size, path, layout="compressed", metadata=metadata) as figure:
        figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
        axes = figure.subplots(len(rows), len(names), squeeze=False)
        for column, name in enumerate(names):
            pictures, note = _pictures(columns[name], class_colors)
            _head(axes[0, column], name, note)
            for row, picture in enumerate(pictures):
                _show(axes[row, column], picture)
        _class_legend(figure, [a for row in rows for a in row.values()], class_names, class_colors)


def _pictures(column, colors) -> tuple[list, str]:
    """RGB or None for every array of a column, and the note about its gray range."""
    arrays = [None if array is None else _plain(np.asarray(array)) for array in column]
    gray = [a for a in arrays if a is not None and a.ndim == 2 and a.dtype.kind == "f"]
    low, high = _gray_range(gray) if gray else (0.0, 1.0)
    return [_picture(a, colors, low, high) for a in arrays], _range_note(low, high) if gray else ""


def _plain(array: np.ndarray) -> np.ndarray:
    """Integers and bool as integers, everything else (bfloat16 too) as float32."""
    if array.dtype.kind == "b":
        return array.astype(np.uint8)
    return array if array.dtype.kind in "iu" else array.astype(np.float32)


def _picture(array, colors, low: float, high: float):
    if array is None:
        return None
    if array.ndim == 2 and array.dtype.kind in "iu":
        return color_labels(array, colors)
    if array.ndim == 2 and array.dtype.kind == "f":
        return grey_as_rgb(np.clip((array - low) / max(high - low, 1e-12), 0, 1))
    if array.ndim == 3 and array.shape[2] == 3:
        return unit_range(array)
    raise ValueError(f"a picture is [H, W] or [H, W, 3], not {array.dtype} {array.shape}")


def _gray_range(arrays) -> tuple[float, float]:
    values = np.concatenate([np.asarray(a, np.float64).ravel() for a in arrays])
    low, high = np.percentile(values, (0.5, 99.5))
    return float(low), float(high)


def _range_note(low: float, high: float) -> str:
    if high - low < 1e-6:
        return f"constant {low:.3g}"
    digits = 2 if high - low >= 0.05 else 4
    return f"{low:.{digits}f} to {high:.{digits}f}"


def _head(axes, name: str, note: str) -> None:
    """Column title; the note below it has its own place, so that all names are level."""
    name = textwrap.fill(name.replace("_", " ").replace("/", " "), 16)
    above = {"xy": (0.5, 1), "xycoords": "axes fraction", "textcoords": "offset points"}
    above |= {"ha": "center", "va": "bottom", "annotation_clip": False}
    axes.annotate(name, xytext=(0, 11), fontsize=9, **above)
    axes.annotate(note or " ", xytext=(0, 1), fontsize=7.5, color="#555555", **above)


def _show(axes, picture) -> None:
    axes.set_axis_off()
    if picture is not None:
        axes.imshow(picture, interpolation="nearest" if picture.shape[0] < 200 else "antialiased")


def _class_legend(figure, arrays, names, colors) -> None:
    """Color patches of the classes below the panel; void only where it occurs."""
    from matplotlib.patches import Patch

    patches = [
        Patch(facecolor=np.array(color) / 255, edgecolor="#444444", linewidth=0.6, label=name)
        for name, color in zip(names, colors, strict=True)
    ]
    labels = [a for a in map(np.asarray, arrays) if a.ndim == 2 and a.dtype.kind in "iu"]
    if any((a >= len(names)).any() or (a < 0).any() for a in labels):
        void = np.array(VOID_COLOR) / 255
        patches.append(
            Patch(facecolor=void, edgecolor="#444444", linewidth=0.6, label="not labeled")
        )
    figure.legend(handles=patches, loc="outside lower center", ncols=min(len(patches), 6))
