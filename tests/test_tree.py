"""The tree stays small enough to be copied to another machine with data beside it."""

import subprocess
from pathlib import Path

import pytest

from tests.support import tiny

MOST_BYTES, MOST_PICTURE_BYTES = 16_000_000, 150_000


@pytest.fixture(scope="module")
def files() -> list[Path]:
    """Files of the checkout, as git knows them."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(listing, cwd=tiny.ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no checkout of git: its files are not known")
    paths = [tiny.ROOT / name for name in done.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]


def test_checkout_is_small(files):
    sizes = {path: path.stat().st_size for path in files}
    largest = sorted(files, key=sizes.get)[-5:]
    assert sum(sizes.values()) <= MOST_BYTES, [(str(each), sizes[each]) for each in largest]


def test_pictures_of_results_are_few_and_small(files):
    pictures = [p for p in files if "results" in p.relative_to(tiny.ROOT).parts[:1]]
    pictures = [p for p in pictures if p.suffix in (".png", ".jpg", ".pdf", ".tif")]
    readme = (tiny.ROOT / "README.md").read_text("utf-8")
    for path in pictures:
        assert path.stat().st_size <= MOST_PICTURE_BYTES, path
        assert str(path.relative_to(tiny.ROOT).as_posix()) in readme, f"no page shows {path}"
