"""Makes a picture of napari with the widget: python docs/napari_screenshot.py IMAGE MODEL PNG.

It needs the extra `napari`, a Qt and a display (or `xvfb-run`).
"""

import sys
import time

import napari
from PIL import Image
from qtpy.QtWidgets import QApplication


def main(image: str, model: str, to: str) -> None:
    viewer = napari.Viewer(show=False)
    viewer.open(image)
    _, widget = viewer.window.add_plugin_dock_widget("feedseg", "Segment an image")
    widget.model.value = model
    viewer.window.show()
    viewer.window.resize(1240, 620)
    widget.run.changed.emit(True)
    while widget.cancel.enabled:
        QApplication.processEvents()
        time.sleep(0.01)
    viewer.layers.selection.active = viewer.layers[-1]
    viewer.reset_view()
    viewer.cursor.position = [size / 2 for size in viewer.layers[0].extent.world[1]]
    for _ in range(50):
        QApplication.processEvents()
        time.sleep(0.01)
    picture = Image.fromarray(viewer.screenshot(canvas_only=False, flash=False)).convert("RGB")
    picture.quantize(256, Image.Quantize.MAXCOVERAGE).save(to, optimize=True)
    viewer.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
