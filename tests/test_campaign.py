"""The fault-injection campaign: its framework, and the faults that take seconds."""

import json
import os
import random
import signal
import sys

import pytest

from tests.campaign import campaign, faults, fuzz, materials, process, tasks, worker
from tests.campaign.__main__ import main
from tests.campaign.outcome import refused, survived, wrong

QUICK = {  # fault: numbers of tries
    "damaged_images": range(20),
    "damaged_json": range(3),
    "damaged_labels": range(10),
}


@pytest.fixture(scope="module", autouse=True)
def cleared():
    yield
    worker.stop()
    materials.remove()


def test_every_fault_is_found_with_its_attempt():
    assert {"kill_training", "full_disk", "damaged_images", "races", "many"} <= set(faults.names())
    for name in faults.names():
        assert callable(faults.load(name)) and sys.modules[faults.load(name).__module__].__doc__


def test_a_wrong_outcome_is_reported_with_the_command_that_repeats_it(
    tmp_path, monkeypatch, capsys
):
    outcomes = {"good": survived(), "shy": refused("no"), "broken": wrong("a\x1b line is lost")}
    monkeypatch.setattr(faults, "names", lambda: list(outcomes))
    monkeypatch.setattr(faults, "load", lambda name: lambda rng, folder: outcomes[name])
    output = tmp_path / "found.json"
    given = ["--minutes", "0", "--seed", "7", "--output", str(output)]
    assert main(given) == 1
    shown = capsys.readouterr()
    again = "python -m tests.campaign --only broken --seed 7 --try 0"
    assert again in shown.err and "| broken | 1 | 0 | 0 | 1 | 0 |" in shown.out
    found = json.loads(output.read_text())
    assert {"seed", "cores", "commit", "versions"} <= set(found) and found["seed"] == 7
    by_name = {each["fault"]: each for each in found["faults"]}
    (failure,) = by_name["broken"]["failures"]
    assert failure["again"] == again and failure["text"] == "a\x1b line is lost"
    assert by_name["good"]["survived"] == by_name["shy"]["refused"] == 1
    assert again in output.with_suffix(".md").read_text()
    assert main([*given, "--only", "good", "shy"]) == 0


def test_a_try_is_repeated_by_its_number_and_leaves_nothing(capsys):
    seen = []

    def attempt(rng, folder):
        (folder / "left").write_text("")
        seen.append((rng.random(), folder))
        return survived()

    campaign.run({"one": attempt}, 0.2, seed=3)
    campaign.run({"one": attempt}, 0, seed=3, number=1)
    assert len(seen) > 2 and seen[1][0] == seen[-1][0] != seen[0][0]
    assert not any(folder.exists() for _, folder in seen)


def test_a_stopped_campaign_reports_what_it_found(tmp_path, monkeypatch, capsys):
    def attempt(rng, folder):
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(faults, "names", lambda: ["bad", "stops"])
    found = {"bad": lambda rng, folder: wrong("lost"), "stops": attempt}
    monkeypatch.setattr(faults, "load", found.get)
    assert main(["--minutes", "0", "--output", str(tmp_path / "found.json")]) == 1
    signal.signal(signal.SIGTERM, before)
    tries = [each["tries"] for each in json.loads((tmp_path / "found.json").read_text())["faults"]]
    assert tries == [1, 0] and "stopped" in capsys.readouterr().err


def test_a_check_that_fails_counts_as_wrong():
    def attempt(rng, folder):
        raise KeyError("x")

    (tally,) = campaign.run({"one": attempt}, 0, seed=0)
    assert "KeyError: 'x' (test_campaign.py:" in tally.failures[0]["text"]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("raise KeyError(3)", "traceback, exit code 1: KeyError: 3"),
        ("import sys; sys.exit(3)", "exit code 3"),
        ("import sys; sys.exit(2)", "exit code 2 without a word"),
        ("import sys; [print('feedseg: x', file=sys.stderr) for _ in 'ab']", "2 lines of error"),
        ("import time; time.sleep(60)", "not ended after 1 s"),
        ("import time; a = b'x' * 300_000_000; time.sleep(60)", "of memory, more than 200"),
        ("import os; os.kill(os.getpid(), 9)", "exit code -9"),
        ("import sys; print('feedseg: x.tif: no', file=sys.stderr); sys.exit(2)", ""),
    ],
)
def test_what_is_no_proper_end(code, words):
    problem = process.python("-c", code, limit_s=1, memory_mb=200).problem()
    assert words in problem and bool(words) == bool(problem)


def test_a_signal_is_sent_at_its_time_and_children_are_ended():
    starts = (
        "import subprocess, sys, time; subprocess.Popen(['sleep', '60'], start_new_session=True)"
    )
    sent = [(0.4, process.sender(signal.SIGTERM))]
    ended = process.python("-c", f"{starts}; time.sleep(60)", actions=sent)
    assert ended.code == -signal.SIGTERM and 0.4 <= ended.seconds < 5
    assert not ended.problem([signal.SIGTERM]) and ended.problem()
    process.end_orphans()


def test_files_are_compared(tmp_path):
    for name in ("wanted", "found"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").write_text("a")
    wanted, found = tmp_path / "wanted", tmp_path / "found"
    assert not tasks.same_files(wanted, found, True)
    (found / ".a.5.part").touch()
    assert not tasks.same_files(wanted, found, False)
    assert tasks.same_files(wanted, found, True) == ".a.5.part is left over"
    (found / ".a.5.part").unlink()
    (found / "a").write_text("b")
    assert "differs" in tasks.same_files(wanted, found, False)
    (found / "a").unlink()
    assert not tasks.same_files(wanted, found, False)
    assert tasks.same_files(wanted, found, True) == "a is missing"


def test_damage_is_the_same_for_the_same_seed():
    data = bytes(range(256)) * 4
    found = [[fuzz.damaged(random.Random(k), data)[0] for k in range(40)] for _ in range(2)]
    assert found[0] == found[1] and sum(each != data for each in found[0]) > 35


def check(name: str, numbers) -> None:
    outcomes = [campaign.one(name, faults.load(name), 0, number) for number in numbers]
    assert not [each.text for each in outcomes if each.kind == "wrong"]
    assert any(each.kind != "skipped" for each in outcomes)


@pytest.mark.parametrize("name", QUICK)
def test_quick_fault(name):
    check(name, QUICK[name])


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(set(faults.names()) - set(QUICK)))
def test_slow_fault(name):
    check(name, range(1))
