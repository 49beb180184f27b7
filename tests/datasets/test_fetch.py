"""Fetching, against a local server: nothing unchecked stays, nothing is left behind."""

import hashlib
import os
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from feedseg.datasets import sstem
from feedseg.datasets.common.download import Download
from feedseg.datasets.tools import fetch
from feedseg.runtime.errors import SaveFailed, UserError

FILES = {"stack1/raw/00.tif": b"pixels", "stack1/labels/00.png": b"ids"}


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def site(tmp_path):
    """Address of a server of FILES."""
    folder = tmp_path / "site"
    for path, content in FILES.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.fixture
def listed(site, monkeypatch):
    """Gives sstem the files of the local server; takes changes of single digests."""

    def put(**digests):
        items = tuple(
            Download(site + path, digests.get(path[-3:], hashlib.sha256(content).hexdigest()), path)
            for path, content in FILES.items()
        )
        monkeypatch.setattr(sstem, "DOWNLOADS", items)

    return put


def test_fetch_brings_checked_files_once(listed, tmp_path):
    listed()
    root = tmp_path / "data"
    folder = fetch.fetch("sstem", root)
    assert folder == root / "sstem_vnc"
    assert {p: (folder / p).read_bytes() for p in FILES} == FILES
    assert "856713" in (folder / "CITATION.txt").read_text()
    assert [p.name for p in root.iterdir()] == ["sstem_vnc"]
    before = (folder / "CITATION.txt").stat().st_mtime_ns
    assert fetch.fetch("sstem", root) == folder
    assert (folder / "CITATION.txt").stat().st_mtime_ns == before


def test_a_wrong_byte_is_refused_and_nothing_stays(listed, tmp_path):
    listed(png="0" * 64)
    with pytest.raises(UserError, match=r"labels/00\.png: is not the published file") as error:
        fetch.fetch("sstem", tmp_path / "data")
    assert "\n" not in str(error.value)
    assert list((tmp_path / "data").iterdir()) == []


def test_a_missing_file_and_a_silent_server(listed, site, tmp_path, monkeypatch):
    gone = Download(site + "gone.png", "0" * 64, "gone.png")
    monkeypatch.setattr(sstem, "DOWNLOADS", (gone,))
    with pytest.raises(UserError, match=r"gone\.png: the server answered 404"):
        fetch.fetch("sstem", tmp_path / "data")
    nobody = Download("http://127.0.0.1:9/x.png", "0" * 64, "x.png")
    monkeypatch.setattr(sstem, "DOWNLOADS", (nobody,))
    with pytest.raises(UserError, match="no connection"):
        fetch.fetch("sstem", tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []


def test_an_older_copy_is_checked_and_not_touched(listed, tmp_path):
    listed()
    folder = fetch.fetch("sstem", tmp_path)
    damaged = folder / "stack1/raw/00.tif"
    damaged.write_bytes(b"pixel5")
    with pytest.raises(UserError, match=r"00\.tif: is not the published file; move .* away"):
        fetch.fetch("sstem", tmp_path)
    assert damaged.read_bytes() == b"pixel5"
    damaged.unlink()
    with pytest.raises(UserError, match=r"00\.tif: is missing"):
        fetch.fetch("sstem", tmp_path)


def test_a_target_that_cannot_be_written(listed, tmp_path):
    listed()
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(SaveFailed, match="cannot be written"):
        fetch.fetch("sstem", tmp_path / "file")
    (tmp_path / "sstem_vnc").write_text("a file of that name")
    with pytest.raises(SaveFailed, match="cannot be written"):
        fetch.fetch("sstem", tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "site", "sstem_vnc"]


def test_what_cannot_be_fetched_says_how_to_get_it(tmp_path):
    with pytest.raises(
        UserError, match=r"mouse_liver cannot be fetched\. The images are not public"
    ):
        fetch.fetch("mouse_liver", tmp_path)
    with pytest.raises(UserError, match=r"isbi2012 cannot be fetched.*imagej\.net"):
        fetch.fetch("isbi2012", tmp_path)
    with pytest.raises(UserError, match=r"'sstm' is unknown, did you mean 'sstem'"):
        fetch.fetch("sstm", tmp_path)


def test_the_published_list_fits_the_real_data():
    data_dir = os.environ.get("FEEDSEG_DATA")
    if not data_dir or not (Path(data_dir) / "sstem_vnc").is_dir():
        pytest.skip("no sstem_vnc in FEEDSEG_DATA")
    fetch.verify(Path(data_dir) / "sstem_vnc", sstem.DOWNLOADS)


def test_the_published_list_is_whole():
    items = sstem.DOWNLOADS
    assert len(items) == 100 and len({item.path for item in items}) == 100
    assert all(len(item.sha256) == 64 for item in items)
    assert all(item.url.startswith("https://raw.githubusercontent.com/") for item in items)
    assert all(item.url.endswith(item.path) for item in items)
