"""Figures: what is in them, and that a failure leaves the old file."""

import jax.numpy as jnp
import matplotlib.image
import numpy as np
import pytest

from feedseg.evaluation import figures, panel
from feedseg.io import colors
from feedseg.runtime.errors import SaveFailed

NAMES = ("cytoplasm", "membrane", "nucleus")
COLORS = ((0, 0, 0), (255, 0, 0), (0, 0, 255))


def rows(count):
    return [
        {
            "epoch": e,
            "loss": 3.0 / e,
            "loss/final/cross_entropy": 2.0 / e,
            "loss/members/0/dice": None if e == 2 else 1.0 / e,
            "val/miou": 0.5 + 0.004 * e,
            "val/iou/cytoplasm": 0.9,
            "val/iou/nucleus": float("nan"),
        }
        for e in range(1, count + 1)
    ]


def pixels(path):
    return np.rint(255 * matplotlib.image.imread(path)[..., :3]).astype(int)


def share(path, color):
    """Fraction of the picture's pixels that have exactly this color."""
    return (pixels(path) == color).all(-1).mean()


@pytest.mark.parametrize("count", [1, 2, 40])
def test_curves_are_drawn_for_any_number_of_epochs(tmp_path, count):
    figures.curves(rows(count), tmp_path / "curves.png")
    assert [p.name for p in tmp_path.iterdir()] == ["curves.png"]
    blue = share(tmp_path / "curves.png", (0x00, 0x72, 0xB2))  # the total loss
    assert blue > 0.0002
    assert min(pixels(tmp_path / "curves.png").shape[:2]) > 400


def test_curves_state_the_scores_at_the_best_epoch(monkeypatch, tmp_path):
    seen = texts(monkeypatch, lambda: figures.curves(rows(40), tmp_path / "c.png"))
    assert {"%, at epoch 40", "mean  66.0", "cytoplasm  90.0", "nucleus"} <= seen
    assert {"total, training", "final: cross entropy", "members 0: dice"} <= seen


def test_curves_need_an_epoch(tmp_path):
    with pytest.raises(ValueError):
        figures.curves([], tmp_path / "c.png")
    assert not list(tmp_path.iterdir())


def texts(monkeypatch, draw):
    """All strings in the figure that `draw` makes."""
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    seen = set()
    save = Figure.savefig

    def savefig(figure, *args, **kwargs):
        seen.update(text.get_text() for text in figure.findobj(Text))
        return save(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", savefig)
    draw()
    return seen


def example(size=32):
    x = np.full((size, size), 0.25, np.float32)
    x[size // 2 :] = 0.75
    label = np.zeros((size, size), np.uint8)
    label[:, size // 2 :] = 1
    return {"input": x, "truth": label, "filter_1": 3 * x, "final": label.astype(np.int32)}


def test_panel_shows_every_map_in_its_colors(monkeypatch, tmp_path):
    path = tmp_path / "panel.png"
    data = [example(), example()]
    data[1]["truth"] = np.full((32, 32), 255)
    seen = texts(monkeypatch, lambda: panel.panel(data, path, NAMES, COLORS))
    assert {"input", "truth", "filter 1", "final", *NAMES, "not labeled"} <= seen
    assert {"0.25 to 0.75", "0.75 to 2.25"} <= seen  # the gray ranges of the two float columns
    assert share(path, (255, 0, 0)) > 0.1  # half of three label maps out of eight pictures
    assert share(path, colors.VOID_COLOR) > 0.05
    assert share(path, (0, 0, 255)) < 0.01  # no nucleus but in the legend


@pytest.mark.parametrize("columns", [2, 12])
def test_panel_takes_few_and_many_columns_gaps_and_all_types(tmp_path, columns):
    one = {f"map {i}": np.zeros((16, 24), np.float32) for i in range(columns - 2)}
    one |= {"mask": np.ones((16, 24), bool), "half": jnp.ones((16, 24), jnp.bfloat16)}
    rgb = {"mask": np.zeros((16, 24), bool), "rgb": np.full((16, 24, 3), 200, np.uint8)}
    panel.panel([one, rgb], tmp_path / "p.png", NAMES, COLORS)
    assert share(tmp_path / "p.png", (200, 200, 200)) > 0.01
    height, width = pixels(tmp_path / "p.png").shape[:2]
    assert width > 1.2 * height


def test_panel_says_when_a_map_is_constant():
    pictures, note = panel._pictures([np.zeros((4, 4), np.float32)], COLORS)
    assert note == "constant 0"
    assert (pictures[0] == 0).all()


def test_panel_refuses_other_shapes(tmp_path):
    with pytest.raises(ValueError, match="picture"):
        panel.panel([{"x": np.zeros((4, 4, 2))}], tmp_path / "p.png", NAMES, COLORS)
    with pytest.raises(ValueError, match="no pictures"):
        panel.panel([{}], tmp_path / "p.png", NAMES, COLORS)
    assert not list(tmp_path.iterdir())


def test_confusion_figure_shows_percent_and_counts(monkeypatch, tmp_path):
    matrix = np.array([[900, 100, 0], [50, 150, 0], [0, 0, 0]])
    seen = texts(monkeypatch, lambda: figures.confusion_figure(matrix, NAMES, tmp_path / "m.png"))
    assert {"90.0", "10.0", "25.0", "75.0", "900", "150", "–", *NAMES} <= seen


def test_white_and_grey_classes_are_tinted_in_colors_that_show():
    found = colors.tints([(0, 0, 0), (255, 255, 255), (0, 255, 0), (128, 128, 128)])
    assert found[0] == (0, 0, 0) and found[2] == (0, 255, 0) and found[1] != found[3]
    assert all(len(set(found[k])) > 1 for k in (1, 3))


def test_overlay_tints_classes_and_leaves_black_ones_and_void():
    image = np.array([[0.5, 0.5, 0.5]], np.float32)
    label = np.array([[0, 1, 255]])
    tinted = colors.overlay(image, label, COLORS)
    assert tinted.dtype == np.uint8
    np.testing.assert_array_equal(tinted, [[[128, 128, 128], [178, 76, 76], [128, 128, 128]]])


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (np.array([[0, 51]], np.uint8), [0, 51]),
        (np.array([[-1.0, 2.0]]), [0, 255]),
        (np.array([[100, 300]], np.uint16), [0, 255]),
        (np.array([[[10], [20]]], np.uint8), [10, 20]),
        (np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8), [1, 4]),
    ],
)
def test_overlay_takes_every_kind_of_image(image, expected):
    tinted = colors.overlay(image, np.zeros((1, 2), int), COLORS)
    np.testing.assert_array_equal(tinted[0, :, 0], expected)


def test_color_labels():
    rgb = colors.color_labels(np.array([[0, 1, 2, 3, 255, -1]]), COLORS)
    assert rgb.dtype == np.uint8
    np.testing.assert_array_equal(rgb[0, :3], COLORS)
    assert (rgb[0, 3:] == colors.VOID_COLOR).all()


def test_a_figure_that_cannot_be_saved_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "m.png"
    figures.confusion_figure(np.eye(3), NAMES, path)
    before = path.read_bytes()

    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(SaveFailed, match=r"m\.png: cannot be written \(No space left"):
        figures.confusion_figure(np.ones((3, 3)), NAMES, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["m.png"]


def test_missing_folder_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SaveFailed, match=r"c\.png: cannot be written"):
        figures.curves(rows(3), tmp_path / "file" / "c.png")
