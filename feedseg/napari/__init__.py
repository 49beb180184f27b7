"""feedseg in napari: a widget that segments image layers, and test images of the models.

`napari.yaml` tells napari what is here; napari and Qt come with the extra `napari`. Only `widget`
needs Qt.
"""
