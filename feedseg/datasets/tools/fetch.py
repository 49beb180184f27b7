"""Downloads a public dataset and checks every file against its SHA-256 before it may be used.

Files land in a folder beside the final one, which takes its name only when all of them are right:
a wrong byte or a broken connection leaves nothing behind and an older copy untouched.
"""

import hashlib
import logging
import shutil
import tempfile
from pathlib import Path

from feedseg import datasets
from feedseg.datasets.common.download import Download
from feedseg.runtime.errors import SaveFailed, UserError

TIMEOUT_S = 30  # without an answer from the server


def fetch(name: str, root: Path) -> Path:
    """The folder of dataset `name` below `root`, downloaded unless it is there and intact.

    Raises UserError for an unknown name, for a dataset that cannot be fetched (telling how to
    obtain it), for a file that differs from its checksum, and for a failed download.
    """
    dataset = datasets.module(name)
    downloads = getattr(dataset, "DOWNLOADS", ())
    if not downloads:
        raise UserError(f"{name} cannot be fetched. {dataset.OBTAIN} Expected: {dataset.LAYOUT}")
    target = Path(root) / dataset.FOLDERS[0]
    if target.is_dir() and any(target.iterdir()):
        verify(target, downloads)
        return target
    note = f"{dataset.CITATION}\nLicence: {dataset.LICENCE}\n"
    download(downloads, target, note)
    return target


def verify(folder: Path, downloads: tuple[Download, ...]) -> None:
    """Raises UserError naming the first file that is missing or differs from its SHA-256."""
    for item in downloads:
        path = folder / item.path
        if not path.is_file():
            problem = "is missing"
        elif hashlib.sha256(path.read_bytes()).hexdigest() != item.sha256:
            problem = "is not the published file"
        else:
            continue
        raise UserError(f"{path}: {problem}; move {folder} away and fetch again")


def download(downloads: tuple[Download, ...], target: Path, note: str) -> None:
    """All files below `target`, which must not exist or be empty, with `note` in CITATION.txt.

    Raises UserError if a file cannot be had or differs from its checksum, SaveFailed if it cannot
    be written.
    """
    from tqdm import tqdm

    staging = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        for item in tqdm(downloads, desc=target.name, unit="file", disable=None):
            _retrieve(item, staging)
        (staging / "CITATION.txt").write_text(note, encoding="utf-8")
        staging.chmod(0o755)  # mkdtemp makes it private
        staging.replace(target)
    except OSError as error:
        reason = error.strerror or error
        raise SaveFailed(
            f"{target}: cannot be written ({reason}); free space or choose another folder"
        ) from None
    finally:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)  # gone already after the rename


def _retrieve(item: Download, staging: Path) -> None:
    """One file into `staging`, checked."""
    import pooch
    import requests

    pooch.get_logger().setLevel(logging.ERROR)
    path = staging / item.path
    try:
        pooch.retrieve(
            url=item.url,
            known_hash=f"sha256:{item.sha256}",
            fname=path.name,
            path=path.parent,
            downloader=pooch.HTTPDownloader(timeout=TIMEOUT_S),
        )
    except requests.RequestException as error:
        kind = type(error).__name__
        status = getattr(error.response, "status_code", None)
        reason = f"the server answered {status}" if status else f"no connection: {kind}"
        raise UserError(f"{item.url}: {reason}; check the network and fetch again") from None
    except ValueError:  # pooch: the digest differs
        raise UserError(
            f"{item.url}: is not the published file (its SHA-256 differs); nothing was kept"
        ) from None
