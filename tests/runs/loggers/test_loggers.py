"""All loggers: how they are found, chosen and refused, and that one which fails harms nobody."""

import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from feedseg.runs import loggers
from feedseg.runtime.errors import UserError
from tests.support import tiny
from tests.support.epochs import ROWS


def test_every_file_is_a_logger():
    assert loggers.names() == ["csv", "tensorboard", "wandb"]
    extras = tomllib.loads((tiny.ROOT / "pyproject.toml").read_text("utf-8"))
    extras = extras["project"]["optional-dependencies"]
    for name in loggers.names():
        module = loggers._module(name)
        assert issubclass(module.Logger, loggers.Logger) and module.__doc__
        if module.PACKAGE:
            assert extras[name][0].startswith(f"{module.PACKAGE}>=")


def test_files_import_their_packages_when_they_are_used():
    code = "import sys; from feedseg.runs import loggers; "
    code += "[loggers._module(n) for n in loggers.names()]; "
    code += "sys.exit(bool({'wandb', 'tensorboardX', 'jax'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=tiny.ROOT).returncode == 0


def test_names_on_a_command_line():
    assert loggers.chosen(("csv, wandb", "csv")) == ["csv", "wandb"]
    assert loggers.chosen(()) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("tensorbord", r"'tensorbord' is unknown, did you mean 'tensorboard'\? There are: csv, "),
        ("x,csv", r"'x' is unknown\. There are: csv, tensorboard, wandb\.$"),
        ("csv,", r"'' is unknown"),
    ],
)
def test_unknown_names(name, text):
    with pytest.raises(UserError, match=text):
        loggers.check((name,))


def test_a_missing_package_is_named_with_its_command(monkeypatch, tmp_path):
    monkeypatch.setattr(loggers, "find_spec", lambda name: None)
    loggers.check(("csv",))
    with pytest.raises(
        UserError, match=r"needs tensorboardX; pip install 'feedseg\[tensorboard\]'"
    ):
        loggers.check(("csv", "tensorboard"))


def test_a_folder_is_no_package(monkeypatch, tmp_path):
    """Where wandb has written, the present folder holds one of its name."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "nothing_inside").mkdir()
    assert not loggers._installed("nothing_inside")
    assert loggers._installed("numpy") and not loggers._installed("nowhere_at_all")


class Recorder(loggers.Logger):
    """Remembers its calls; fails in one of them if told so."""

    calls: list = []
    fails_in = ""

    def __init__(self, run, rows):
        self.note("open", run, rows)

    def note(self, *call):
        self.calls.append(call)
        if call[0] == self.fails_in:
            raise RuntimeError("no\nspace")

    def config(self, config):
        self.note("config", config)

    def scalars(self, step, row):
        self.note("scalars", step, row)

    def images(self, step, pictures):
        self.note("images", step, pictures)

    def close(self):
        self.note("close")


@pytest.fixture
def two(monkeypatch):
    """Two loggers, the first of which may fail."""
    kinds = {name: type(name, (Recorder,), {"calls": []}) for name in ("first", "second")}
    modules = {name: type("module", (), {"Logger": kind}) for name, kind in kinds.items()}
    monkeypatch.setattr(loggers, "_module", modules.get)
    return kinds


def use(run: Path, said: list) -> None:
    picture = run / "panel.png"
    Image.new("RGB", (2, 2)).save(picture)
    with loggers.Loggers(("first", "second"), run, {"seed": 1}, ROWS[:1], said.append) as some:
        some.scalars(8, {"loss": np.nan, "val/miou": None, "lr": 0.5})
        some.scalars(12, {"loss": 1.0, "lr": 0.5})
        some.images(12, [picture, run / "curves.png"])


def test_calls(two, tmp_path):
    said = []
    use(tmp_path, said)
    assert not said
    for kind in two.values():
        assert kind.calls == [
            ("open", tmp_path, ROWS[:1]),
            ("config", {"seed": 1}),
            ("scalars", 8, {"loss": None, "val/miou": None, "lr": 0.5}),
            ("scalars", 12, {"loss": 1.0, "lr": 0.5}),
            ("images", 12, {"panel": tmp_path / "panel.png"}),
            ("close",),
        ]


@pytest.mark.parametrize("method", ["open", "config", "scalars", "images", "close"])
def test_one_that_fails_warns_once_and_is_off(two, tmp_path, method):
    two["first"].fails_in, said = method, []
    use(tmp_path, said)
    assert len(said) == 1
    assert said[0].startswith("warning: logger first is off from now on (RuntimeError: no space)")
    names = [call[0] for call in two["first"].calls]
    assert names[-1] == method and names.count(method) == 1
    assert len(two["second"].calls) == 6


def test_other_processes_log_nothing(two, tmp_path, monkeypatch):
    monkeypatch.setattr(loggers.processes, "is_first", lambda: False)
    use(tmp_path, [])
    assert not two["first"].calls
