"""JSON, archives and arrays of unknown origin: limited in size and depth, one reason each."""

import io
import tracemalloc
import zipfile

import numpy as np
import pytest

from feedseg.runtime import archives, json_files

DEEP = "[" * 200_000 + "]" * 200_000


@pytest.mark.parametrize(
    "data, reason",
    [
        (f'{{"a": {DEEP}}}', "nested more than 64"),
        ('{"a": ' + "[" * 80 + "]" * 80 + "}", "nested more than 64"),
        (b'\xff\xfe{"a": 1}', "no UTF-8"),
        ("[1]", "no JSON object"),
        ("{", "Expecting"),
        ('{"a": ' + "1" * 5000 + "}", "4300 digits"),
        (b" " * 101, "more than 100 bytes"),
    ],
)
def test_json_that_is_refused(data, reason):
    with pytest.raises(ValueError, match=reason):
        json_files.parse(data, most_bytes=100 if isinstance(data, bytes) else 10**6)


def test_json_that_is_read(tmp_path):
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a": [1]}')
    assert json_files.read(tmp_path / "a.json") == {"a": [1]}
    with pytest.raises(ValueError, match="more than 5 bytes"):
        json_files.read(tmp_path / "a.json", most_bytes=5)


def packed(members: dict[str, bytes], method=zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()


def test_a_bomb_is_not_unpacked():
    bomb = packed({"a": bytes(2**28)})
    lie = bytearray(bomb)  # of a size of 100 bytes in both places
    for at in (22, bomb.rindex(b"PK\1\2") + 24):
        lie[at : at + 4] = (100).to_bytes(4, "little")
    tracemalloc.start()
    with archives.Archive(bomb) as archive, pytest.raises(ValueError, match="1,000 bytes it may"):
        archive.read("a", 1000)
    with archives.Archive(bytes(lie)) as archive, pytest.raises(zipfile.BadZipFile):
        archive.read("a", 1000)
    with archives.Archive(bomb) as archive, pytest.raises(ValueError, match="unpacks to more"):
        archive.read("a", 2**40)  # of 64 MiB and 20 times the size of the archive
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


def test_archives_in_archives_share_a_limit(monkeypatch):
    monkeypatch.setattr(archives, "FREE", 1000)
    monkeypatch.setattr(archives, "RATIO", 0)
    inner = packed({"b": bytes(600)})
    with archives.Archive(packed({"a": inner, "c": bytes(600)})) as outer:
        data = outer.read("a", 10**6)
        with archives.Archive(data, outer) as nested:
            assert nested.read("b", 600) == bytes(600)
        with pytest.raises(ValueError, match="unpacks to more"):
            outer.read("c", 600)


def test_methods_without_a_limit_are_not_used():
    archive = archives.Archive(packed({"a": bytes(9)}, zipfile.ZIP_BZIP2))
    with archive, pytest.raises(ValueError, match="by a method"):
        archive.read("a", 100)


def npy(array) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


@pytest.mark.parametrize("order", "CF")
@pytest.mark.parametrize("kind", ["f4", "i8", ">u2", "?"])
def test_arrays_are_read(kind, order):
    array = np.asarray(np.arange(6).reshape(2, 3), kind, order=order)
    np.testing.assert_array_equal(archives.parse_npy(npy(array)), array)
    assert archives.parse_npy(npy(np.array(7))) == 7


def test_arrays_that_lie():
    whole = npy(np.zeros((2, 3), "f4"))
    cases = {
        "with 6 values": whole.replace(b"(2, 3)", b"(9**9)").replace(b"(9**9)", b"(2, 9)"),
        "not of numbers": npy(np.array(["a"])),
        "no header": whole.replace(b"(2, 3)", b"(((((("),
    }
    for reason, data in cases.items():
        with pytest.raises(ValueError, match=reason):
            archives.parse_npy(data)
    with pytest.raises(ValueError):
        archives.parse_npy(whole[:-3])
