"""A stand-in for bioio and its plug-ins: files whose content the test gives, by their name."""

import sys
from types import ModuleType, SimpleNamespace
from typing import NamedTuple

import numpy as np


class Scene(NamedTuple):
    """pixels: [T, C, Z, Y, X] or with S at the end."""

    pixels: np.ndarray
    channel_names: tuple[str, ...] = ()
    pixel_um: tuple[float | None, ...] = (None, None, None)  # Z, Y, X


class Lazy:
    """As much of a dask array as is used."""

    def __init__(self, pixels: np.ndarray):
        self._pixels = pixels

    def compute(self, scheduler: str) -> np.ndarray:
        assert scheduler == "synchronous"
        return self._pixels


def install(monkeypatch, files: dict[str, dict[str, Scene]]) -> list[dict]:
    """`bioio.BioImage` of these files, by name and scene; returns the planes that are read."""
    read: list[dict] = []

    class BioImage:
        def __init__(self, path, reader):
            assert reader == f"reader of {path.suffix}"
            if path.name not in files:
                raise RuntimeError("requested: 544 bytes,\nactually got 3")
            self._scenes = files[path.name]
            self.scenes = tuple(self._scenes)
            self.set_scene(0)

        def set_scene(self, number: int) -> None:
            self._scene = self._scenes[self.scenes[number]]
            self.shape, self.dtype = self._scene.pixels.shape, self._scene.pixels.dtype
            self.dims = SimpleNamespace(order="TCZYXS"[: len(self.shape)])
            self.channel_names = list(self._scene.channel_names) or None
            sizes = zip("ZYX", self._scene.pixel_um, strict=True)
            self.physical_pixel_sizes = SimpleNamespace(**dict(sizes))

        def get_image_dask_data(self, order: str, **at: int) -> Lazy:
            assert order == "YX" + "S" * (len(self.shape) == 6)
            read.append(at)
            return Lazy(self._scene.pixels[at["T"], at["C"], at["Z"]])

    modules = {"bioio": dict(BioImage=BioImage)}
    modules |= {
        f"bioio_{kind}": dict(Reader=f"reader of .{kind}") for kind in ("czi", "nd2", "lif")
    }
    for name, content in modules.items():
        module = ModuleType(name)
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, module)
    return read
