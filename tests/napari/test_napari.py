"""The napari plugin: layers in, layers out; the widget in a viewer that is not shown."""

import importlib.util
import os
import sys
import time
import tomllib
from pathlib import Path
from threading import Event
from types import SimpleNamespace

import numpy as np
import pytest

import feedseg
from configs import baseline
from feedseg.inference import bundled
from feedseg.inference.outputs.instances import InstanceSpec
from feedseg.napari import images, results, samples, segmenting
from feedseg.runtime.errors import BadImage, UserError
from tests.inference.test_model_file import make_run

ROOT = Path(__file__).parents[2]
RNG = np.random.default_rng(0)
QT = ("PyQt6", "PySide6", "PyQt5")
needs_napari = pytest.mark.skipif(
    not (importlib.util.find_spec("napari") and any(map(importlib.util.find_spec, QT))),
    reason="needs napari and a Qt: pip install 'feedseg[napari]' 'napari[pyqt6]'",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("napari") / "run", baseline.get_config("model=unet"))


def layer_of(data, rgb=False, multiscale=False):
    return SimpleNamespace(data=data, rgb=rgb, multiscale=multiscale, name="cells")


def finish(layer, request, stop=None):
    """Result of all steps and the numbers of rows they told."""
    told, work = [], segmenting.guarded(*images.source_of(layer), request, stop or Event())
    while True:
        try:
            told.append(next(work))
        except StopIteration as end:
            return end.value, told


class Lazy:
    """An array that records what is read of it."""

    def __init__(self, array):
        self.array, self.shape, self.dtype, self.read = array, array.shape, array.dtype, []

    def __getitem__(self, place):
        self.read.append(place)
        return self.array[place]


def test_a_stack_is_read_by_rows_of_its_pages():
    data = Lazy(RNG.integers(0, 2**16, (2, 3, 10, 12), np.uint16))
    source, shape = images.source_of(layer_of(data))
    assert (source.count, source.height, source.width, source.channels) == (6, 10, 12, 1)
    assert shape == (2, 3, 10, 12) and not data.read
    np.testing.assert_array_equal(source.rows(4, 2, 5)[..., 0], data.array[1, 1, 2:5])
    assert data.read == [(1, 1, slice(2, 5))]


def test_color_opacity_and_several_resolutions():
    image = RNG.integers(0, 256, (8, 9, 4), np.uint8)
    with pytest.raises(BadImage, match="cells: partly transparent"):
        images.source_of(layer_of(image, rgb=True))[0].rows(0, 0, 8)
    image[..., 3] = 255
    source, shape = images.source_of(layer_of([image, image[::2, ::2]], True, True))
    assert shape == (8, 9) and source.channels == 3
    np.testing.assert_array_equal(source.rows(0, 3, 8), image[3:8, :, :3])


@pytest.mark.parametrize("data", [np.zeros((0, 4)), np.zeros((4, 4), complex)])
def test_what_is_no_image_is_named(data):
    with pytest.raises(BadImage, match="cells: "):
        images.source_of(layer_of(data))


def test_a_layer_gets_what_an_array_gets(run):
    data = RNG.integers(0, 256, (2, 1, 40, 24), np.uint8)
    request = segmenting.Request(str(run), dihedral=True, uncertainty=True)
    result, told = finish(layer_of(data), request)
    expected = feedseg.load(run).predict(data[:, 0], dihedral=True, uncertainty=True)
    np.testing.assert_array_equal(result.labels[:, 0], expected.labels)
    np.testing.assert_allclose(result.uncertainty[:, 0], expected.uncertainty, atol=1e-6)
    assert result.labels.shape == data.shape and result.labels.dtype == np.uint8
    assert sum(told) == 2 * 40 and result.class_names == ("background", "membrane")


def test_instances_of_every_page(run):
    data = RNG.integers(0, 256, (2, 24, 24), np.uint8)
    result, _ = finish(
        layer_of(data), segmenting.Request(str(run), instances=InstanceSpec("membrane"))
    )
    np.testing.assert_array_equal(result.instances > 0, result.labels == 1)
    for page, ids in zip(result.labels, result.instances, strict=True):
        np.testing.assert_array_equal(ids, InstanceSpec("membrane").find(page, result.class_names))


def test_an_image_that_does_not_fit_gives_a_line_with_the_remedy(run):
    colors = RNG.integers(0, 256, (16, 16, 3), np.uint8)
    error, _ = finish(layer_of(colors, rgb=True), segmenting.Request(str(run)))
    assert "cells: 3 channel(s), the model takes 1" in error and "Split RGB" in error
    error, _ = finish(layer_of(colors[..., 0]), segmenting.Request(str(run), uncertainty=True))
    assert "one answer only" in error and "--" not in error
    error, _ = finish(layer_of(colors[..., 0]), segmenting.Request("sstm"))
    assert "did you mean 'sstem'" in error


def test_a_grey_layer_for_a_color_model():
    error, _ = finish(layer_of(np.zeros((16, 16), np.uint8)), segmenting.Request("wbc"))
    assert "cells: 1 channel(s), the model takes 3" in error and "Merge to RGB" in error


def test_it_stops_before_the_next_tile(run):
    stop = Event()
    data = Lazy(RNG.integers(0, 256, (3, 16, 16), np.uint8))
    work = segmenting.guarded(*images.source_of(layer_of(data)), segmenting.Request(str(run)), stop)
    assert next(work) == 16
    stop.set()
    with pytest.raises(StopIteration) as end:
        next(work)
    assert end.value.value == ""


def test_layers_show_names_colors_and_place():
    labels, place = np.array([[0, 1]], np.uint8), {"scale": np.array([2.0, 3.0])}
    spread = np.zeros((1, 2), np.float32)
    found = segmenting.Result(labels, spread, labels, ("cell", "rim"), ((0, 0, 0), (0, 255, 0)))
    layers = results.layers(found, "cells", "wbc", place)
    assert [kind for *_, kind in layers] == ["image", "labels", "labels"]
    assert all(settings["scale"] is place["scale"] for _, settings, _ in layers)
    settings = layers[1][1]
    assert settings["name"] == "cells_labels"
    assert settings["features"] == {"index": [0, 1], "class": ["cell", "rim"]}
    clear = (0, 0, 0, 0)
    assert settings["colormap"] == {None: clear, 0: clear, 1: (0, 1, 0, 1)}
    assert settings["metadata"]["feedseg"]["model"] == "wbc"


def test_about_a_model_before_it_is_loaded(run):
    names, description, card = segmenting.about("sstem")
    assert names[1] == "membrane" and "tissue" in description and "licence" in card
    assert segmenting.about(str(run)).class_names == ("background", "membrane")
    with pytest.raises(UserError, match="no such model"):
        segmenting.about("nothing")


def test_installed_with_its_manifest():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["entry-points"]["napari.manifest"] == {
        "feedseg": "feedseg.napari:napari.yaml"
    }
    data = project["tool"]["setuptools"]["package-data"]["feedseg.napari"]
    assert data == ["napari.yaml"] and (ROOT / "feedseg/napari/napari.yaml").is_file()


@needs_napari
def test_the_manifest_names_what_exists_and_every_model_of_the_box():
    from npe2 import PluginManifest

    manifest = PluginManifest.from_file(ROOT / "feedseg/napari/napari.yaml")
    manifest.validate_imports()
    contributions = manifest.contributions
    keys = {sample.key for sample in contributions.sample_data}
    assert keys == set(bundled.models())
    for key in keys:
        data, settings, kind = getattr(samples, key)()[0]
        assert kind == "image" and settings["rgb"] == (data.ndim == 3)


@pytest.fixture
def qt(tmp_path, monkeypatch):
    if "DISPLAY" not in os.environ:
        os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    monkeypatch.setenv("NAPARI_CONFIG", str(tmp_path / "settings.yaml"))
    from napari.qt import get_qapp

    return get_qapp()


@pytest.fixture
def viewer(qt):
    from napari.components import ViewerModel  # without a window, whose canvas needs OpenGL

    return ViewerModel()


@pytest.fixture
def widget(viewer, run):
    from feedseg.napari.widget import RUN, SegmentWidget

    widget = SegmentWidget(viewer)
    viewer.layers.events.inserted.connect(widget.reset_choices)  # as the window does
    widget.model.value, widget.path.value = RUN, run
    return widget


@pytest.fixture
def told(monkeypatch):
    """What the user is told, by severity; an unexpected error is told too."""
    from napari.utils.notifications import notification_manager

    records = []
    notification_manager.notification_ready.connect(records.append)
    with notification_manager:  # as in the application, errors that nobody catches are told
        yield lambda: [(record.severity.value, record.message) for record in records]
    notification_manager.notification_ready.disconnect(records.append)


def work(widget):
    """Press the button, wait for the end."""
    from napari.qt import get_qapp

    widget.run.changed.emit(True)
    until = time.monotonic() + 50
    while widget.cancel.enabled and time.monotonic() < until:
        get_qapp().processEvents()
        time.sleep(0.01)
    assert not widget.cancel.enabled and widget.run.enabled


@needs_napari
def test_labels_lie_on_the_image(viewer, widget, run, told):
    import dask.array

    data = RNG.integers(0, 256, (2, 24, 32), np.uint8)
    place = dict(scale=(5, 0.5, 0.25), translate=(0, 3, 4), units=("s", "um", "um"), rotate=30)
    lazy = [dask.array.from_array(data), dask.array.from_array(data[:, ::2, ::2])]
    image = viewer.add_image(lazy, name="cells", multiscale=True, contrast_limits=(0, 255), **place)
    widget.dihedral.value = widget.uncertainty.value = True
    widget.instances.value, widget.objects.value = "components", "membrane"
    work(widget)
    names = ["cells", "cells_uncertainty", "cells_labels", "cells_instances"]
    assert [layer.name for layer in viewer.layers] == names and not told()
    labels = viewer.layers["cells_labels"]
    np.testing.assert_array_equal(
        labels.data, feedseg.load(run).predict(data, dihedral=True).labels
    )
    for layer in viewer.layers[1:]:
        np.testing.assert_allclose(layer.extent.world[1], image.extent.world[1], rtol=0.02)
        np.testing.assert_array_equal(layer.scale, image.scale)
        assert layer.units == image.units
    np.testing.assert_allclose(labels.colormap.map(1), (1, 0, 0, 1), atol=1e-6)
    at = labels.data_to_world((1, 4, 6))
    status = labels.get_status(at, view_direction=None, dims_displayed=[1, 2], world=True)
    assert f"class: {('background', 'membrane')[labels.data[1, 4, 6]]}" in status["value"]


@needs_napari
def test_a_user_is_told_and_nothing_is_added(viewer, widget, told):
    work(widget)
    assert told() == [("info", "feedseg: open an image first")]
    viewer.add_image(RNG.integers(0, 256, (16, 16, 3), np.uint8), name="stain", rgb=True)
    work(widget)
    severity, message = told()[-1]
    assert severity == "error" and message.startswith("stain: 3 channel(s), the model takes 1")
    widget.path.value = "/nowhere"
    assert told()[-1][0] == "error" and "/nowhere" in told()[-1][1]
    assert len(viewer.layers) == 1 and not widget.objects.choices


@needs_napari
def test_cancelled_work_leaves_no_layer(viewer, widget, told):
    viewer.add_image(np.zeros((500, 16, 16), np.uint8))
    widget.bar.changed.connect(lambda: widget.cancel.changed.emit(True))
    work(widget)
    assert len(viewer.layers) == 1 and not told()


@needs_napari
def test_an_error_that_is_a_bug_is_not_hidden(viewer, widget, told, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(segmenting, "_model", broken)
    viewer.add_image(np.zeros((16, 16), np.uint8))
    work(widget)
    assert told()[0][0] == "error" and "a bug" in told()[0][1]
    assert len(viewer.layers) == 1


@needs_napari
@pytest.mark.skipif(
    sys.platform == "linux" and "DISPLAY" not in os.environ,
    reason="napari draws with OpenGL: needs a display, or xvfb-run",
)
def test_a_window_with_the_widget(qt):
    import napari

    viewer = napari.Viewer(show=False)
    _, widget = viewer.window.add_plugin_dock_widget("feedseg", "Segment an image")
    viewer.open_sample("feedseg", "wbc")
    widget.model.value = "wbc"
    widget.dihedral.value = widget.uncertainty.value = True
    work(widget)
    assert len(viewer.layers) == 3
    assert viewer.screenshot(flash=False).std() > 0
    viewer.close()
    assert widget.closed
