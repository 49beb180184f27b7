"""Configurations that come along: found by name from any folder, described by `train --help`."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from feedseg.runs import config as configs
from feedseg.runs import shipped, train_help
from feedseg.runtime.errors import UserError
from tests.support import tiny

NAMES = {path.stem for path in (tiny.ROOT / "configs").glob("*.py")} - {"__init__"}


@pytest.mark.parametrize("name", ["unet", "unet.py", "configs/unet.py"])
def test_names_work_in_any_folder(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    found, _ = configs.parse_flags(["--config", f"{name}:dataset=folder,seed=3"])
    assert found.experiment == "unet" and found.data.name == "folder" and found.seed == 3
    equal, _ = configs.parse_flags([f"--config={name}:dataset=folder,seed=3"])
    assert equal.to_json() == found.to_json()


def test_a_file_of_the_user_comes_first_and_takes_what_configs_share(tmp_path, monkeypatch):
    (tmp_path / "configs").mkdir()
    text = "from configs import common\ndef get_config(arg=None):\n    return common.base()\n"
    (tmp_path / "configs" / "unet.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    found, _ = configs.parse_flags(["--config", "configs/unet.py"])
    assert found.experiment == ""
    assert shipped.find("unet").is_relative_to(tiny.ROOT)


def test_a_file_that_hides_that_of_a_published_table_is_refused(tmp_path, monkeypatch):
    (tmp_path / "configs").mkdir()
    own = tmp_path / "configs" / "feedback_unet.py"
    own.write_bytes(shipped.find("feedback_unet").read_bytes())
    monkeypatch.chdir(tmp_path)
    shipped.require("configs/feedback_unet.py")
    own.write_text("# mine")
    with pytest.raises(UserError, match="hides the configuration 'feedback_unet'"):
        shipped.require("configs/feedback_unet.py")


def test_an_unknown_name_lists_those_there_are():
    with pytest.raises(UserError, match=r"unt: no such configuration file, did you mean 'unet'"):
        configs.parse_flags(["--config", "unt"])
    with pytest.raises(UserError, match=r"missing/unet\.py: no such configuration file"):
        configs.parse_flags(["--config", "missing/unet.py"])
    with pytest.raises(UserError, match=r"--config NAME, of aep, aep_irpe"):
        configs.parse_flags([])
    assert set(shipped.files()) == NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_help_lists_configurations_arguments_and_keys(name):
    text = train_help.text(name)
    assert all(f"\n  {each} " in text for each in NAMES)
    assert f"Arguments of {name}" in text and "\n  dataset " in text and "\n  seed " in text
    config, _ = configs.parse_flags(["--config", name])
    (epochs,) = (line for line in text.splitlines() if "--config.train.epochs" in line)
    assert epochs.split()[1] == str(config.train.epochs)
    (group,) = (line for line in text.splitlines() if "--config.split.group" in line)
    assert group.endswith("empty: by file")  # a comment of several lines


def run(*arguments: str, cwd: Path, path: Path) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(path), "FEEDSEG_DATA": ""}
    command = [sys.executable, "-m", "feedseg.cli", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def test_help_of_the_command(tmp_path):
    for arguments in (["train", "--help"], ["train", "-h"]):
        done = run(*arguments, cwd=tmp_path, path=tiny.ROOT)
        assert done.returncode == 0 and "usage: feedseg train" in done.stdout, done.stderr
    done = run("train", "--config", "unt", "--help", cwd=tmp_path, path=tiny.ROOT)
    assert done.returncode == 2 and "did you mean 'unet'" in done.stderr


@pytest.mark.long
def test_a_wheel_holds_them(tmp_path):
    """Built, unpacked and used in an empty folder."""
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    source = tmp_path / "source"
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=tiny.ROOT, capture_output=True, text=True).stdout
    for name in filter(None, names.split("\0")):
        if name.startswith(("feedseg/", "configs/", "pyproject", "README", "setup.py")):
            target = source / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if (tiny.ROOT / name).is_file():
                target.write_bytes((tiny.ROOT / name).read_bytes())
    if not names:
        pytest.skip("no checkout of git")
    subprocess.run([*command, "-w", str(tmp_path), str(source)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    site, empty = tmp_path / "site", tmp_path / "empty"
    zipfile.ZipFile(wheel).extractall(site)
    assert not (site / "configs").exists()
    empty.mkdir()
    done = run("train", "--config", "feedback_unet", "--help", cwd=empty, path=site)
    assert done.returncode == 0 and str(site) in done.stdout, done.stderr
    small = ["data.synthetic_count=6", "data.synthetic_size=32", "data.crop_size=32"]
    small += ["train.epochs=1", "train.batch_size=2", "model.filters=(4,)", "runtime.devices=1"]
    overrides = [f"--config.{each}" for each in small]
    config = "unet:dataset=synthetic"
    done = run("train", "--config", config, *overrides, cwd=empty, path=site)
    assert done.returncode == 0, done.stderr
    assert len(list((empty / "runs" / "unet").glob("*/result.json"))) == 1
    (empty / "data" / "sstem").mkdir(parents=True)  # a plan needs its name alone
    done = run("reproduce", "fba-t1", "--plan", "plan.json", cwd=empty, path=site)
    assert done.returncode == 0 and (empty / "plan.json").exists(), done.stderr
