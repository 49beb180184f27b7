"""The widget: choose an image layer and a model, segment in a thread, get layers."""

from functools import partial
from threading import Event

from magicgui import widgets
from napari.layers import Image
from napari.qt.threading import create_worker
from napari.utils import progress
from napari.utils.notifications import show_error, show_info
from napari.viewer import Viewer

from feedseg.inference import bundled
from feedseg.inference.outputs.instances import METHODS, InstanceSpec
from feedseg.napari import images, results, segmenting
from feedseg.runtime.errors import UserError

FILE, RUN = "a model file ...", "a run directory ..."
NO_INSTANCES = "none"
TILES = (256, 512, 1024, 2048)  # px


class SegmentWidget(widgets.Container):
    """Segments an image layer of a viewer; results appear as layers when all of it is done."""

    def __init__(self, viewer: Viewer):
        super().__init__()
        self._viewer = viewer
        self._stop = Event()
        self.closed = False
        self._rules: dict[str, InstanceSpec] = {}  # of instances, by what is shown
        self.image = widgets.ComboBox(label="image", choices=self._images)
        self.model = widgets.ComboBox(label="model", choices=[*bundled.models(), FILE, RUN])
        self.path = widgets.FileEdit(label="from", mode="r", filter=f"*{bundled.SUFFIX}")
        self.about = widgets.Label(value="")
        self.dihedral = widgets.CheckBox(
            text="average over 8 orientations", tooltip="Better by a little, 8 times the work"
        )
        self.uncertainty = widgets.CheckBox(
            text="uncertainty", tooltip="How far answers of members, rounds, orientations disagree"
        )
        self.tile = widgets.ComboBox(
            label="tile",
            choices=[("automatic", 0), *((f"{side} px", side) for side in TILES)],
            tooltip="Seen at once; smaller ones take less memory",
        )
        self.instances = widgets.ComboBox(label="instances", choices=[NO_INSTANCES, *METHODS])
        self.objects = widgets.ComboBox(label="of", choices=lambda _: list(self._rules))
        self.run = widgets.PushButton(text="Segment")
        self.cancel = widgets.PushButton(text="Cancel", enabled=False)
        self.bar = widgets.ProgressBar(min=0, max=100, visible=False)
        self._lay_out()

    def _lay_out(self) -> None:
        self.about.native.setWordWrap(True)
        buttons = widgets.Container(widgets=[self.run, self.cancel], layout="horizontal")
        buttons.labels = False
        choices = [self.image, self.model, self.path, self.about, self.dihedral, self.uncertainty]
        self.extend([*choices, self.tile, self.instances, self.objects, buttons, self.bar])
        self.model.changed.connect(self._model_kind)
        self.path.changed.connect(self._describe)
        self.instances.changed.connect(self._show_objects)
        self.run.changed.connect(self._start)
        self.cancel.changed.connect(lambda: self._stop.set())
        self.native.destroyed.connect(self._leave)
        self._model_kind()
        self._show_objects()

    def _images(self, _) -> list[Image]:
        """napari asks anew when layers come and go."""
        return [layer for layer in self._viewer.layers if isinstance(layer, Image)]

    def chosen_model(self) -> str:
        """A name of `feedseg models` or the path of a file or a run."""
        return str(self.path.value) if self.model.value in (FILE, RUN) else self.model.value

    def _model_kind(self) -> None:
        elsewhere = self.model.value in (FILE, RUN)
        self.path.mode = "d" if self.model.value == RUN else "r"
        self.path.visible = elsewhere
        if elsewhere:
            self._tell_about(segmenting.About((), "", ""))
        else:
            self._describe()

    def _describe(self) -> None:
        try:
            self._tell_about(segmenting.about(self.chosen_model()))
        except UserError as error:
            self._tell_about(segmenting.About((), "", ""))
            show_error(str(error))

    def _tell_about(self, facts: segmenting.About) -> None:
        self.about.value, self.about.tooltip = facts.description, facts.card
        parts = {name: InstanceSpec(name) for name in facts.class_names}
        between = {f"what {name} separates": InstanceSpec(name, True) for name in facts.class_names}
        for rules in ({}, parts | between):  # emptied first: old choices would keep their order
            self._rules = rules
            self.objects.reset_choices()

    def _show_objects(self) -> None:
        self.objects.visible = self.instances.value != NO_INSTANCES

    def _request(self) -> segmenting.Request:
        rule, method = self._rules.get(self.objects.value), self.instances.value
        return segmenting.Request(
            self.chosen_model(),
            self.dihedral.value,
            self.tile.value,
            self.uncertainty.value,
            rule._replace(method=method) if rule and method != NO_INSTANCES else None,
        )

    def _start(self) -> None:
        layer = self.image.value
        if layer is None:
            show_info("feedseg: open an image first")
            return
        try:
            source, shape = images.source_of(layer)
        except UserError as error:
            show_error(str(error))
            return
        request, self._stop = self._request(), Event()
        bar = progress(total=source.count * source.height, desc=f"{layer.name}: compiling")
        worker = create_worker(segmenting.guarded, source, shape, request, self._stop)
        worker.yielded.connect(partial(self._advance, bar, f"{layer.name}"))
        origin = (layer.name, request.model, images.placement(layer))
        worker.returned.connect(partial(self._show, origin))
        worker.finished.connect(partial(self._done, bar))
        self._busy(True)
        worker.start()

    def _busy(self, busy: bool) -> None:
        self.run.enabled, self.cancel.enabled = not busy, busy
        self.bar.value = 0
        self.bar.visible = busy

    def _advance(self, bar: progress, name: str, rows: int) -> None:
        bar.set_description(name)
        bar.update(rows)
        if not self.closed:
            self.bar.value = 100 * bar.n // bar.total

    def _show(self, origin: tuple, result: segmenting.Result | str) -> None:
        if self.closed:
            return
        if isinstance(result, str):
            if result:
                show_error(result)
            return
        for data, settings, kind in results.layers(result, *origin):
            getattr(self._viewer, f"add_{kind}")(data, **settings)
        if result.note:
            show_info(result.note)

    def _done(self, bar: progress) -> None:
        bar.close()
        if not self.closed:
            self._busy(False)

    def _leave(self) -> None:
        self.closed = True
        self._stop.set()
