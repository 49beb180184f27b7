"""Weights & Biases: what is sent, with a stand-in, and the files of its offline mode."""

import json
import sys
import time
from types import SimpleNamespace

import pytest

from feedseg.runs.loggers.wandb import Logger
from tests.support.epochs import LIVE, ROWS


@pytest.fixture
def sent(monkeypatch) -> list:
    """Calls of a stand-in for the package."""
    calls = []

    def init(**options):
        calls.append(("init", options))
        return SimpleNamespace(
            log=lambda values, step: calls.append(("log", step, values)),
            config=SimpleNamespace(update=lambda config, **_: calls.append(("config", config))),
            finish=lambda: calls.append(("finish",)),
        )

    stand_in = SimpleNamespace(init=init, Settings=dict, Image=lambda path: f"image {path}")
    monkeypatch.setitem(sys.modules, "wandb", stand_in)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    return calls


def log(run, done, rows) -> None:
    logger = Logger(run, done)
    logger.config({"seed": 0})
    for row in rows:
        logger.scalars(row["step"], row)
    logger.images(12, {"panel": run / "panel.png"})
    logger.close()


def test_what_is_sent(sent, tmp_path, monkeypatch):
    log(tmp_path / "", [], LIVE)
    options = sent[0][1]
    assert (options["project"], options["name"]) == ("feedseg", tmp_path.name)
    assert options["dir"] == str(tmp_path) and options["resume"] == "allow"
    assert sent[1] == ("config", {"seed": 0}) and sent[-1] == ("finish",)
    known = [{k: v for k, v in row.items() if v is not None} for row in LIVE]
    assert sent[2:5] == [("log", row["step"], row) for row in known]
    assert sent[5] == ("log", 12, {"panel": f"image {tmp_path}/panel.png"})
    monkeypatch.setenv("WANDB_PROJECT", "cells")
    log(tmp_path, ROWS, [])
    again = next(call[1] for call in sent[1:] if call[0] == "init")
    assert again["project"] == "cells" and again["id"] == options["id"]


@pytest.mark.parametrize("saved", [0, 1, 2, 3])
def test_a_run_that_goes_back_sends_no_step_twice(sent, tmp_path, saved):
    log(tmp_path, [], LIVE[:2])
    log(tmp_path, ROWS[:saved], LIVE[saved:])
    steps = [call[1] for call in sent if call[0] == "log" and "loss" in call[2]]
    assert steps == [4, 8, 12]


def test_chosen_later_it_begins_with_the_first_epoch(sent, tmp_path):
    log(tmp_path, ROWS[:2], LIVE[2:])
    assert [call[1] for call in sent if call[0] == "log"] == [4, 8, 12, 12]


def test_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="the extra is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    (tmp_path / "panel.png").write_bytes(PNG)
    log(tmp_path, [], LIVE[:2])
    time.sleep(1.1)  # a folder is named by its second
    log(tmp_path, ROWS[:1], LIVE[1:])
    paths = sorted((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))
    stored = [path.read_bytes() for path in paths]
    assert [each.count(b"images_per_s") > 0 for each in stored] == [True, True]
    notes = json.loads((tmp_path / "wandb" / "feedseg.json").read_text())
    assert notes["step"] == 12 and all(notes["id"].encode() in each for each in stored)


PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b550000000a49444154789c63f80f00"
    "010101001ab3f6b80000000049454e44ae426082"
)
