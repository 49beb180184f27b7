"""Files for TensorBoard: read back record by record, with their checksums."""

import struct

import numpy as np
import pytest
from PIL import Image
from tensorboardX.crc32c import crc32c
from tensorboardX.proto.event_pb2 import Event

from feedseg.runs.loggers.tensorboard import Logger
from tests.support.epochs import LIVE, ROWS


def masked(data: bytes) -> int:
    """The checksum of the record format: CRC-32C, turned by 15 bits, plus a constant."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def events(run) -> list[Event]:
    """Those of the only file, all of which are whole."""
    (path,) = (run / "tensorboard").iterdir()
    content, found = path.read_bytes(), []
    assert "tfevents" in path.name, "by this TensorBoard knows them"
    while content:
        length, crc = struct.unpack("<QI", content[:12])
        data, (end,) = content[12 : 12 + length], struct.unpack("<I", content[12 + length :][:4])
        assert crc == masked(content[:8]) and end == masked(data)
        found.append(Event.FromString(data))
        content = content[16 + length :]
    assert found[0].file_version == "brain.Event:2"
    return found[1:]


def scalars(run) -> list[tuple]:
    return [
        (event.step, {value.tag: round(value.simple_value, 6) for value in event.summary.value})
        for event in events(run)
        if event.summary.value[0].WhichOneof("value") == "simple_value"
    ]


def expected(rows) -> list[tuple]:
    return [
        (row["step"], {k: round(v, 6) for k, v in row.items() if k != "step" and v is not None})
        for row in rows
    ]


def log(run, done, rows, pictures=None) -> None:
    logger = Logger(run, done)
    logger.config({"seed": 0, "train": {"epochs": 3}})
    for row in rows:
        logger.scalars(row["step"], row)
    if pictures:
        logger.images(12, pictures)
    logger.close()


def test_scalars_and_the_configuration(tmp_path):
    log(tmp_path, [], LIVE)
    assert scalars(tmp_path) == expected(LIVE)
    first = events(tmp_path)[0]
    assert first.step == 0 and b'"epochs": 3' in first.summary.value[0].tensor.string_val[0]


def test_pictures(tmp_path):
    picture = tmp_path / "panel.png"
    Image.fromarray(np.zeros((5, 7, 3), np.uint8)).save(picture)
    log(tmp_path, [], LIVE, {"panel": picture})
    last = events(tmp_path)[-1]
    (value,) = last.summary.value
    assert (last.step, value.tag, value.image.height, value.image.width) == (12, "panel", 5, 7)
    assert value.image.encoded_image_string == picture.read_bytes()


@pytest.mark.parametrize("saved", [0, 1, 2, 3])
def test_a_run_that_goes_back_has_no_step_twice(tmp_path, saved):
    log(tmp_path, [], LIVE)
    times = [event.wall_time for event in events(tmp_path)]
    log(tmp_path, ROWS[:saved], LIVE[saved:])
    assert scalars(tmp_path) == expected(LIVE)
    found = events(tmp_path)
    assert len(found) == 1 + len(LIVE), "the configuration once"
    kept = [event.wall_time for event in found][: 1 + saved]
    assert kept == times[: 1 + saved], "what stays has its time"


def test_killed_between_two_files_and_within_a_record(tmp_path):
    log(tmp_path, [], LIVE[:2])
    (path,) = (tmp_path / "tensorboard").iterdir()
    copy = path.with_name("events.out.tfevents.1.feedseg")
    copy.write_bytes(path.read_bytes())
    path.write_bytes(path.read_bytes()[:-3])
    log(tmp_path, ROWS[:2], LIVE[2:])
    assert scalars(tmp_path) == expected(LIVE)
    log(tmp_path, ROWS[:2], [])
    (path,) = (tmp_path / "tensorboard").iterdir()
    path.write_bytes(path.read_bytes()[:-3])
    log(tmp_path, ROWS[:2], LIVE[2:])
    found = scalars(tmp_path)
    assert [step for step, _ in found] == [4, 8, 12] and found[1] == expected(ROWS)[1]


def test_chosen_later_it_begins_with_the_first_epoch(tmp_path):
    log(tmp_path, ROWS[:2], LIVE[2:])
    assert scalars(tmp_path) == expected([*ROWS[:2], LIVE[2]])
