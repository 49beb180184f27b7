"""`check` reports everything that is wrong with a folder at once; `doctor` judges the machine."""

import itertools
import json
import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from configs import common
from feedseg.datasets import folder as folder_data
from feedseg.datasets.tools import overlay_sheet
from feedseg.datasets.tools.check import check
from feedseg.datasets.tools.scan import Sample
from feedseg.io import style
from feedseg.io.reading import ReadOptions
from feedseg.runtime import doctor
from feedseg.runtime.errors import UserError

RNG = np.random.default_rng(0)


def folder(root: Path, labels, images=None) -> Path:
    """images/ and labels/ with one PNG each per label given."""
    for part in ("images", "labels"):
        (root / part).mkdir(parents=True)
    for index, label in enumerate(labels):
        image = RNG.integers(0, 256, (32, 40), dtype=np.uint8) if images is None else images[index]
        Image.fromarray(image).save(root / "images" / f"c{index}.png")
        Image.fromarray(np.asarray(label)).save(root / "labels" / f"c{index}.png")
    return root


def ids(num_classes: int) -> np.ndarray:
    return RNG.integers(0, num_classes, (32, 40)).astype(np.uint8)


def checked(root: Path, capsys, **options) -> tuple[str, str, dict]:
    """(error or "", what was printed, fingerprint) of a check."""
    output = root.parent / "report"
    try:
        assert check(root, output=output, progress=False, **options) == 0
        error = ""
    except UserError as raised:
        assert raised.exit_code == 2 and "\n" not in str(raised)
        error = str(raised)
    written = output / "fingerprint.json"
    facts = json.loads(written.read_text()) if written.exists() else {}
    return error, capsys.readouterr().out, facts


def test_a_good_folder(tmp_path, capsys):
    root = folder(tmp_path / "data", [ids(3) for _ in range(4)])
    error, text, facts = checked(root, capsys, classes=("a", "membrane", "c"))
    assert not error and "To be fixed" not in text and "can be used" in text
    assert "membrane" in text and "4 of 4" in text
    assert [c["name"] for c in facts["classes"]] == ["a", "membrane", "c"]
    assert sum(c["pixels"] for c in facts["classes"]) == 4 * 32 * 40
    assert len(facts["pairs"]) == 4 and facts["pairs"][0]["image"] == "images/c0.png"
    with Image.open(tmp_path / "report" / "overlay.png") as sheet:
        assert min(sheet.size) > 300
    tables = [line for line in text.splitlines() if line.startswith("  ") and "uint8" in line]
    assert tables and tables[0].split() == ["4", "32", "40", "1", "uint8", "0", "255"]


def test_the_fingerprint_follows_the_pixels(tmp_path, capsys):
    root = folder(tmp_path / "data", [ids(2) for _ in range(3)])
    first = checked(root, capsys)[2]["sha256"]
    assert checked(root, capsys)[2]["sha256"] == first
    with Image.open(root / "labels" / "c1.png") as image:
        label = np.array(image)
    label[0, 0] ^= 1
    Image.fromarray(label).save(root / "labels" / "c1.png")
    assert checked(root, capsys)[2]["sha256"] != first


def test_masks_of_0_and_255_are_refused_with_a_map_that_works(tmp_path, capsys):
    root = folder(tmp_path / "data", [ids(2) * 255 for _ in range(3)])
    error, text, _ = checked(root, capsys)
    assert "--config.data.label_map=0:0,255:1" in error and error in text.replace("  - ", "")
    error, text, facts = checked(root, capsys, map_text="0:0,255:1")
    assert not error and [c["value"] for c in facts["classes"]] == [0, 1]
    error, *_ = checked(root, capsys, map_text="0:0,254:1")
    assert "c0.png" in error and "255" in error


def test_interpolated_masks_are_refused(tmp_path, capsys):
    smooth = np.tile(np.linspace(0, 255, 40).astype(np.uint8), (32, 1))
    error, *_ = checked(folder(tmp_path / "data", [smooth] * 3), capsys)
    assert "interpolated" in error and "label_map=0-127:0,128-255:1" in error


def test_everything_is_reported_at_once(tmp_path, capsys):
    root = folder(tmp_path / "data", [ids(2) for _ in range(7)])
    whole = (root / "images" / "c0.png").read_bytes()
    (root / "images" / "c0.png").write_bytes(whole[:100])
    (root / "labels" / "c1.png").write_bytes(b"nothing")
    (root / "labels" / "c2.png").unlink()
    (root / "images" / "c3.png").unlink()
    Image.fromarray(ids(2)[:-1]).save(root / "labels" / "c4.png")
    Image.fromarray(RNG.integers(0, 256, (32, 40, 3), dtype=np.uint8)).save(
        root / "images" / "c5.png"
    )
    tifffile.imwrite(root / "images" / "c8.tif", ids(2)[:5])
    error, text, facts = checked(root, capsys)
    for name in ("images/c0.png", "labels/c1.png", "images/c2.png", "labels/c3.png", "c4.png"):
        assert any(name in problem for problem in facts["problems"]), name
    assert any("31x40" in problem for problem in facts["problems"])
    assert any("channel" in problem for problem in facts["problems"])
    assert f"To be fixed ({len(facts['problems'])})" in text
    assert f"and {len(facts['problems']) - 1} more" in error


def test_repeated_images_are_named(tmp_path, capsys):
    image, label = RNG.integers(0, 256, (32, 40), dtype=np.uint8), ids(2)
    root = folder(tmp_path / "data", [label, label, 1 - label], [image] * 3)
    error, text, facts = checked(root, capsys)
    assert not error and "Notes (2)" in text  # and the split of three
    assert (
        "c0.png is the same image as c1.png, c2.png, but their labels differ" in facts["notes"][0]
    )


def test_ranges_that_training_would_lose(tmp_path, capsys):
    root = tmp_path / "data"
    for part in ("images", "labels"):
        (root / part).mkdir(parents=True)
    for index in range(3):
        image = RNG.integers(500, 4000, (32, 40)).astype(np.uint16)
        tifffile.imwrite(root / "images" / f"{index}.tif", image)
        tifffile.imwrite(root / "labels" / f"{index}.tif", ids(2))
    error, text, _ = checked(root, capsys)
    assert not error and "a camera of 12 bit" in text and "dtype_range would make them" in text


def test_folders_that_hold_no_pairs(tmp_path, capsys):
    with pytest.raises(UserError, match="no such folder"):
        check(tmp_path / "missing", output=tmp_path / "report")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="expected"):
        check(tmp_path / "empty", output=tmp_path / "report")
    assert not (tmp_path / "report").exists()
    (tmp_path / "report").touch()
    root = folder(tmp_path / "data", [ids(2) for _ in range(3)])
    with pytest.raises(UserError, match="report: is a file"):
        check(root, output=tmp_path / "report", progress=False)


def test_real_images(capsys, tmp_path):
    place = os.environ.get("FEEDSEG_DATA", "")
    root = Path(place) / "nist_phase16"
    if not place or not root.is_dir():
        pytest.skip("FEEDSEG_DATA holds no nist_phase16")
    assert check(root, output=tmp_path, progress=False) == 0
    assert "60 of 60" in capsys.readouterr().out


def test_outlines_lie_inside_their_region():
    ids_ = np.zeros((40, 40), int)
    ids_[10:30, 10:30] = 1
    drawn = overlay_sheet.outlines(np.full((40, 40, 3), 0.5), ids_, [(0, 0, 0), (255, 0, 0)])
    red = (drawn == (1, 0, 0)).all(-1)
    assert red[10, 10:30].all() and red[10:30, 29].all()
    assert not red[ids_ == 0].any() and not red[18:22, 18:22].any()
    np.testing.assert_array_equal(drawn[0, 0], 0.5)


@pytest.mark.parametrize("size", [(30, 50), (900, 2000), (1, 1), (5000, 3)])
def test_pictures_fit_the_sheet(size):
    image, label = overlay_sheet.fit(np.ones((*size, 2), np.uint16), np.ones(size, np.uint8), 420)
    assert image.shape == (*label.shape, 3) and max(label.shape) <= 840


def test_tables_are_aligned():
    from feedseg.datasets.tools.check import table

    lines = table([["n", "name"], [1, "a"], [100, "long name"]])
    assert lines == ["    n  name", "    1  a", "  100  long name"]


def test_the_split_is_that_of_training(tmp_path, capsys):
    """Refused here where training would refuse; else the groups and images of each part."""
    error, _, _ = checked(folder(tmp_path / "a", [ids(2)[:16, :16]], [ids(9)[:16, :16]]), capsys)
    assert "at least 3 are needed" in error
    error, _, facts = checked(folder(tmp_path / "one", [ids(2)], [ids(9)]), capsys)
    assert not error and any("crops of one image" in note for note in facts["notes"])
    error, text, facts = checked(folder(tmp_path / "b", [ids(2)] * 3), capsys)
    assert not error and "3 groups of images: train 1, val 1, test 1 images" in text
    assert any("one is tested" in note for note in facts["notes"])
    void = np.full((32, 40), 255, np.uint8)
    error, text, _ = checked(folder(tmp_path / "c", [ids(2), ids(2), void, void]), capsys)
    assert not error and "4 groups of images: train 1, val 1, test 1 images" in text


def test_groups_by_file_and_by_pattern(tmp_path, capsys):
    root = tmp_path / "data"
    for part in ("images", "labels"):
        (root / part).mkdir(parents=True)
    for name in ("P1_a", "P1_b", "P2_a", "P3_a"):
        stack = RNG.integers(0, 256, (5, 32, 40)).astype(np.uint8)
        tifffile.imwrite(root / "images" / f"{name}.tif", stack)
        tifffile.imwrite(root / "labels" / f"{name}.tif", stack // 128)
    error, text, _ = checked(root, capsys)
    assert not error and "4 groups of images: train 10, val 5, test 5 images" in text
    error, text, _ = checked(root, capsys, group="(P[0-9])_")
    assert not error and "3 groups of images" in text and "split.group=(P[0-9])_" in text


def test_ids_of_few_objects_are_noted(tmp_path, capsys):
    labels = []
    for count in (4, 2, 3):
        label = np.zeros((32, 40), np.uint8)
        for number in range(count):
            label[4:20, 9 * number : 9 * number + 7] = number + 1
        labels.append(label)
    error, text, facts = checked(folder(tmp_path / "data", labels), capsys)
    assert not error and any("label map 0:0,1-4:1" in note for note in facts["notes"])
    _, text, facts = checked(tmp_path / "data", capsys, map_text="0:0,1-4:1")
    assert not any("label map" in note for note in facts["notes"]) and "label_map=0:0,1-4:1" in text


def test_how_files_are_read_is_said(tmp_path, capsys):
    root = folder(tmp_path / "data", [ids(2)] * 3)
    for index in range(3):
        path = root / "images" / f"c{index}.png"
        image = np.asarray(Image.open(path))
        path.unlink()
        options = dict(photometric="miniswhite", software="Scanner", metadata=None)
        tifffile.imwrite(path.with_suffix(".tif"), image, **options)
    error, _, facts = checked(root, capsys)
    assert not error and sum("MinIsWhite" in note for note in facts["notes"]) == 1


def test_what_is_chosen_of_files_is_checked_and_handed_to_training(tmp_path, capsys):
    root = tmp_path / "data"
    for part in ("images", "labels"):
        (root / part).mkdir(parents=True)
    stack = RNG.integers(0, 256, (4, 3, 32, 40)).astype(np.uint8)  # file, slice
    for number, pages in enumerate(stack):
        Image.fromarray(ids(2)).save(root / "labels" / f"c{number}.png")
        for ending in ("_w1", "_w2"):
            path = root / "images" / f"c{number}{ending}.tif"
            tifffile.imwrite(path, pages, photometric="minisblack")
    how = ReadOptions(channels=(2,), z="max", channel_files=("_w1", "_w2"))
    error, text, facts = checked(root, capsys, how=how)
    assert not error and len(facts["pairs"]) == 4
    assert {(pair["height"], pair["channels"]) for pair in facts["pairs"]} == {(32, 1)}
    words = "--config.data.channels=2 --config.data.z=max --config.data.channel_files=_w1,_w2"
    assert words.split() == [w for w in text.split() if w.startswith("--config.data.")]
    with pytest.raises(UserError, match="images without a label"):
        folder_data.load(root, config_options())
    config = config_options(channels="2", z="max", channel_files="_w1,_w2")
    sections = folder_data.load(root, config).sections
    np.testing.assert_array_equal([s.image[..., 0] for s in sections], stack.max(1))


def test_mixed_pixel_sizes_are_noted(tmp_path, capsys):
    root = folder(tmp_path / "data", [ids(2)] * 3)
    for index, pixel in enumerate((0.25, 0.25, 0.5)):
        path = root / "images" / f"c{index}.png"
        stated = dict(imagej=True, resolution=(1 / pixel, 1 / pixel), metadata={"unit": "um"})
        tifffile.imwrite(path.with_suffix(".tif"), np.asarray(Image.open(path)), **stated)
        path.unlink()
    error, _, facts = checked(root, capsys)
    (note,) = [each for each in facts["notes"] if "pixel sizes differ" in each]
    assert not error and "0.25 µm in 2, 0.5 µm in 1" in note


def config_options(**changes):
    data = common.base().data
    data.update({"name": "folder", **changes})
    return data


# doctor


def test_doctor_on_this_machine(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEEDSEG_DATA", str(tmp_path / "gone"))
    assert doctor.doctor() == 0
    text = capsys.readouterr().out
    for word in (*doctor.PACKAGES, "devices", "convolution", "forward and backward", "disk"):
        assert word in text
    assert "gone is no folder" in text and "Usable, " in text
    assert list(tmp_path.iterdir()) == []


def test_missing_and_old_packages_are_reported(monkeypatch, capsys):
    from packaging.specifiers import SpecifierSet

    wanted = {"numpy": SpecifierSet(">=99"), "no-such-package": SpecifierSet(">=1")}
    monkeypatch.setattr(doctor, "requirements", lambda: wanted)
    found = {f.what: f for f in doctor.packages()}
    assert found["numpy"].kind == found["no-such-package"].kind == "bad"
    assert found["numpy"].remedy == 'pip install -U "numpy>=99"'
    assert found["no-such-package"].remedy == 'pip install "no-such-package>=1"'
    assert doctor.doctor() == 2
    assert "Not usable yet: fix numpy, no-such-package" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("driver", "variables", "remedy"),
    [
        (580, {}, 'pip install -U "jax[cuda13]"'),
        (535, {}, 'pip install -U "jax[cuda12]"'),
        (580, {"JAX_PLATFORMS": "cpu"}, "unset JAX_PLATFORMS JAX_PLATFORM_NAME"),
        (580, {"CUDA_VISIBLE_DEVICES": ""}, "unset CUDA_VISIBLE_DEVICES"),
    ],
)
def test_an_unused_gpu_is_noted(monkeypatch, driver, variables, remedy):
    for name in ("JAX_PLATFORMS", "JAX_PLATFORM_NAME", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    (finding,) = doctor._cpu_only([("NVIDIA H200", driver)])
    assert finding.kind == "note" and finding.remedy == remedy and "H200" in finding.text


def test_cards_are_read_from_nvidia_smi(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA H200, 580.65.06'\necho 'Tesla T4, 535.1'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert doctor.nvidia_cards() == [("NVIDIA H200", 580), ("Tesla T4", 535)]
    program.write_text("#!/bin/sh\nexit 9\n")
    assert doctor.nvidia_cards() == []


def test_a_wrong_convolution_is_bad(monkeypatch):
    right = doctor._reference
    monkeypatch.setattr(doctor, "_reference", lambda *args: right(*args) + 1)
    (finding,) = doctor.convolution()
    assert finding.kind == "bad" and "wrong by 1" in finding.text


def test_a_check_that_fails_is_a_finding(monkeypatch, capsys):
    def broken():
        raise RuntimeError("no device\nat all")

    monkeypatch.setattr(doctor, "convolution", broken)
    assert doctor.doctor() == 2
    assert "no device at all" in capsys.readouterr().out


def test_titles_of_the_sheet_do_not_meet(tmp_path, monkeypatch):
    figures, show = [], style._show_plainly
    monkeypatch.setattr(
        style, "_show_plainly", lambda figure: figures.append(figure) or show(figure)
    )
    label = np.zeros((2000, 2600), np.uint8)
    samples = [
        Sample("2024-03-12_EXPERIMENT_siRNA_PLATE_7_FIELD_001", label[..., None], label)
        for _ in range(4)
    ]
    overlay_sheet.draw_sheet(samples, [0, 1], ["a", "b"], tmp_path / "sheet.png")
    (figure,) = figures
    figure.draw_without_rendering()
    for row in (figure.axes[:6], figure.axes[6:12]):
        boxes = [axis._left_title.get_window_extent() for axis in row]
        assert all(a.x1 < b.x0 for a, b in itertools.pairwise(boxes))
