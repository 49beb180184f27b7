"""metrics.csv: every epoch once, whatever happened to the file and the run."""

import csv

import pytest

from feedseg.runs.loggers.csv import Logger
from tests.support.epochs import LIVE, ROWS


def read(run) -> list[dict]:
    with (run / "metrics.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def expected(rows) -> list[dict]:
    return [{k: "" if v is None else repr(v) for k, v in row.items()} for row in rows]


def log(run, done, rows) -> None:
    logger = Logger(run, done)
    for row in rows:
        logger.scalars(row["step"], row)
    logger.close()


def test_a_row_per_epoch(tmp_path):
    log(tmp_path, [], LIVE)
    assert read(tmp_path) == expected(LIVE)
    assert (tmp_path / "metrics.csv").read_text().startswith("epoch,step,lr,loss,val/miou,images")


@pytest.mark.parametrize("saved", [0, 1, 2, 3])
def test_a_run_that_goes_back_has_no_epoch_twice(tmp_path, saved):
    log(tmp_path, [], LIVE)
    log(tmp_path, ROWS[:saved], LIVE[saved:])
    assert read(tmp_path) == expected(LIVE), "with the speeds of the epochs before"


def test_a_torn_line_is_written_again(tmp_path):
    log(tmp_path, [], LIVE[:2])
    path = tmp_path / "metrics.csv"
    path.write_text(path.read_text() + "3,12,0.05")
    log(tmp_path, ROWS[:2], LIVE[2:])
    assert read(tmp_path) == expected(LIVE)


def test_chosen_later_it_begins_with_the_first_epoch(tmp_path):
    log(tmp_path, ROWS[:2], LIVE[2:])
    before = [row | {"images_per_s": None} for row in ROWS[:2]]
    assert read(tmp_path) == expected([*before, LIVE[2]])


def test_something_else_in_the_file_is_replaced(tmp_path):
    (tmp_path / "metrics.csv").write_text("\n\nno,table\n1\n")
    log(tmp_path, ROWS[:1], [])
    assert read(tmp_path) == expected(ROWS[:1])
