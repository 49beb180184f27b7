"""The command starts itself again with large pages, once, and only where they are on request."""

import os
import subprocess
import sys

import pytest

from feedseg.runtime import large_pages


@pytest.fixture
def offer(tmp_path, monkeypatch):
    def make(text: str) -> None:
        monkeypatch.setattr(large_pages, "_OFFER", tmp_path / "enabled")
        (tmp_path / "enabled").write_text(text)

    return make


@pytest.mark.parametrize(
    ("system", "environ", "value"),
    [
        ("always [madvise] never", {}, "glibc.malloc.hugetlb=1"),
        (
            "always [madvise] never",
            {"GLIBC_TUNABLES": "glibc.malloc.arena_max=1"},
            "glibc.malloc.arena_max=1:glibc.malloc.hugetlb=1",
        ),
        ("always [madvise] never", {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"}, None),
        ("[always] madvise never", {}, None),
        ("always madvise [never]", {}, None),
    ],
)
def test_only_where_it_is_of_use(offer, system, environ, value):
    offer(system)
    assert large_pages.tunables(environ) == value


def test_not_on_a_system_without_them(monkeypatch, tmp_path):
    monkeypatch.setattr(large_pages, "_OFFER", tmp_path / "none")
    assert large_pages.tunables({}) is None


def test_a_command_that_cannot_start_again_goes_on(offer, monkeypatch):
    offer("always [madvise] never")
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    large_pages.request()


def test_the_same_command_starts_again_once(tmp_path):
    """A process that asks prints from its second start, with its arguments."""
    (tmp_path / "offer").write_text("always [madvise] never")
    (tmp_path / "program.py").write_text(
        "import os, pathlib, sys\n"
        "from feedseg.runtime import large_pages\n"
        f"large_pages._OFFER = pathlib.Path({str(tmp_path / 'offer')!r})\n"
        "print('begun', flush=True)\n"
        "large_pages.request()\n"
        "print(os.environ['GLIBC_TUNABLES'], sys.argv[1:])\n"
    )
    environ = {key: value for key, value in os.environ.items() if key != "GLIBC_TUNABLES"}
    done = subprocess.run(
        [sys.executable, str(tmp_path / "program.py"), "--key", "a b"],
        capture_output=True,
        text=True,
        env=environ,
        check=True,
    )
    assert done.stdout.splitlines() == [
        "begun",
        "begun",
        "glibc.malloc.hugetlb=1 ['--key', 'a b']",
    ]
