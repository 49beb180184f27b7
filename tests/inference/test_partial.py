"""A large image whose prediction is stopped goes on at the row where it was."""

from pathlib import Path

import numpy as np
import pytest
import tifffile

from feedseg.inference import predict, segment, tiling
from feedseg.inference.outputs.partial import Unfinished
from feedseg.io.source import ImageSource
from feedseg.runtime import file_lock
from feedseg.runtime.errors import UserError
from tests.support.fake_model import Fake, bright, stand_in

RNG = np.random.default_rng(0)


def ids(image):
    return bright(image).argmax(-1)[..., None].astype(np.uint8)


def command(folder: Path, output: str, **options) -> list[Path]:
    run, images = folder / "run", folder / "in"
    return predict.predict(run, images, folder / output, tile=16, progress=False, **options)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tiling, "PIECE_BYTES", 150)
    (tmp_path / "in").mkdir()
    image = RNG.integers(0, 256, (2, 60, 40), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "in" / "a.tif", image, photometric="minisblack")
    return tmp_path


def stopped(folder: Path, monkeypatch, call: int, **options) -> None:
    """The command, interrupted at this call of the network."""
    calls = []

    def apply(image):
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        return ids(image)

    stand_in(monkeypatch, apply)
    with pytest.raises(KeyboardInterrupt):
        command(folder, "out", **options)


def counted(folder: Path, monkeypatch, output: str, **options) -> int:
    """Calls of the network that the command makes."""
    calls = []

    def apply(image):
        calls.append(1)
        return ids(image)

    stand_in(monkeypatch, apply)
    command(folder, output, **options)
    return len(calls)


@pytest.mark.parametrize("share", [0.3, 0.8])  # in the first page and in the second
def test_only_what_is_missing_is_computed(folder, monkeypatch, share):
    kinds = dict(tables=True, overlay=True)
    calls = counted(folder, monkeypatch, "whole", **kinds)
    stopped(folder, monkeypatch, int(share * calls), **kinds)
    assert (folder / "out" / ".a_labels.tif.unfinished").exists()
    left = counted(folder, monkeypatch, "out", **kinds)
    assert (1 - share) * calls <= left < (1.3 - share) * calls
    written = {path.name for path in (folder / "out").iterdir()}
    assert written == {path.name for path in (folder / "whole").iterdir()}
    for path in (folder / "whole").glob("a_*"):
        assert path.read_bytes() == (folder / "out" / path.name).read_bytes()


def test_other_options_another_image_and_maps_begin_anew(folder, monkeypatch):
    calls = counted(folder, monkeypatch, "whole")
    stopped(folder, monkeypatch, calls - 1)
    assert counted(folder, monkeypatch, "out", channels=(1,)) == calls
    stopped(folder, monkeypatch, calls - 1, overwrite=True)
    tifffile.imwrite(folder / "in" / "a.tif", np.zeros((2, 60, 40), np.uint8))
    assert counted(folder, monkeypatch, "out", overwrite=True) == calls
    left = [path.name for path in (folder / "out").iterdir() if path.name.startswith(".")]
    assert left == []


def test_an_image_that_fails_leaves_nothing(folder, monkeypatch):
    calls = counted(folder, monkeypatch, "whole")
    made = []

    def not_a_number(image):
        made.append(1)
        return np.where(len(made) < calls - 1, ids(image), segment.NOT_FINITE).astype(np.uint8)

    stand_in(monkeypatch, not_a_number)
    with pytest.raises(UserError, match="NaN"):
        command(folder, "out")
    assert [path.name for path in (folder / "out").iterdir()] == ["feedseg-predict.jsonl"]


def keep(path: Path, slabs: list[np.ndarray], key: str = "key") -> None:
    with pytest.raises(KeyboardInterrupt), Unfinished(path, key) as kept:
        for slab in slabs:
            kept.add(slab)
        raise KeyboardInterrupt


def kept_rows(path: Path, key: str = "key") -> np.ndarray:
    slabs = list(Unfinished(path, key).rows(7))
    return np.concatenate([np.zeros((0, 7), np.uint8), *slabs])


def test_a_file_cut_or_damaged_anywhere_gives_only_whole_slabs(tmp_path):
    path = tmp_path / "a.tif"
    labels = RNG.integers(0, 4, (12, 7), dtype=np.uint8)
    keep(path, [labels[:5], labels[5:6], labels[6:]])
    hidden = tmp_path / ".a.tif.unfinished"
    whole = hidden.read_bytes()
    np.testing.assert_array_equal(kept_rows(path), labels)
    for size in range(len(whole)):
        hidden.write_bytes(whole[:size])
        have = kept_rows(path)
        assert len(have) in (0, 5, 6)
        np.testing.assert_array_equal(have, labels[: len(have)])
        hidden.write_bytes(whole[:size] + bytes(len(whole) - size))  # as after a power loss
        assert len(kept_rows(path)) in (0, 5, 6, 12)


def test_rows_are_added_after_the_last_whole_slab(tmp_path):
    path = tmp_path / "a.tif"
    labels = RNG.integers(0, 4, (12, 7), dtype=np.uint8)
    keep(path, [labels[:5], labels[5:9]])
    hidden = tmp_path / ".a.tif.unfinished"
    hidden.write_bytes(hidden.read_bytes()[:-3])
    with pytest.raises(KeyboardInterrupt), Unfinished(path, "key") as kept:
        for slab in [*kept.rows(7), labels[5:7], labels[7:]]:
            kept.add(slab)
        raise KeyboardInterrupt
    np.testing.assert_array_equal(kept_rows(path), labels)
    assert len(kept_rows(path, "other")) == 0
    keep(path, [labels[:2]], "other")
    np.testing.assert_array_equal(kept_rows(path, "other"), labels[:2])


def test_of_two_processes_one_keeps_and_a_full_disk_keeps_nothing(tmp_path, monkeypatch):
    path, labels = tmp_path / "a.tif", np.zeros((3, 7), np.uint8)
    with Unfinished(path, "key") as first, Unfinished(path, "key") as second:
        first.add(labels)
        second.add(labels)
        assert len(kept_rows(path)) == 3
    with Unfinished(path, "key") as first:
        first.add(labels)
        with Unfinished(path, "key") as second:
            second.add(labels)
        assert len(kept_rows(path)) == 3  # the second did not remove it
    assert list(tmp_path.iterdir()) == []

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(file_lock.fcntl, "flock", full)
    with Unfinished(path, "key") as kept:
        kept.add(labels)
        kept.add(labels)
        assert len(kept_rows(path)) == 0


@pytest.mark.parametrize("model", [Fake(), Fake(window=32), Fake(margin=4, halo=4)])
def test_any_row_may_be_the_first(model):
    pages = RNG.integers(0, 256, (2, 75, 50, 1), dtype=np.uint8)
    source = ImageSource(Path("a"), pages.shape, pages.dtype, lambda p, a, b: pages[p, a:b])
    tile = 0 if model.window else 16

    def found(done: int) -> np.ndarray:
        return np.concatenate(list(segment.predict_rows(model, source, tile, done=done)))

    whole = found(0)
    for done in (1, 7, 8, 16, 40, 74, 75, 76, 149):
        np.testing.assert_array_equal(found(done), whole[done:])
