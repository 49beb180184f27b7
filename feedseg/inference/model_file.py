"""A trained model as one file, `model.feedseg.zip`: anybody can check it, no code is in it.

    model.json           network and its arguments, classes, colors, normalization, the side seen
                         in training, licence, citation, scores, SHA-256 of all other files
    weights.safetensors  parameters and running statistics, float32, named by their place in the
                         tree (`params/enc1_conv1/conv/kernel`)
    test_input.npy       an image [1, H, W, C] float32 in [0, 1]
    test_output.npy      the probabilities [1, H, W, K] that the model gave for it
    members/0.feedseg.zip ...  of an ensemble, whose network is called `ensemble` and whose weights
                         are those of its members (`feedseg.inference.ensemble`)

Reading it parses JSON, arrays and nothing else. The same model gives the same bytes.
"""

import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import feedseg
from feedseg.runs import checkpoint_format
from feedseg.runtime import files as atomic
from feedseg.runtime.errors import UserError, one_line

Tree = Any

VERSION = 1
MAX_BYTES = 4 * 2**30  # of all files together, unpacked
_MANIFEST, _WEIGHTS = "model.json", "weights.safetensors"
_INPUT, _OUTPUT = "test_input.npy", "test_output.npy"
_CHECKED = (_WEIGHTS, _INPUT, _OUTPUT)
_FACTS = ("class_names", "class_colors", "channels", "size_px", "normalization", "percentiles")
_LATER_FACTS = ("training_images",)  # which files of older versions lack
_KINDS = {"format": str, "version": int, "network": dict, "compute_dtype": str, "facts": dict}
_FACT_KINDS = {**dict.fromkeys(_FACTS, list), "channels": int, "normalization": str}
_UNREADABLE = (
    OSError,
    EOFError,
    KeyError,  # a file is missing in it
    RuntimeError,  # encrypted, or a compression that is not known
    ValueError,
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
)
_LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the time of every file in it


class ModelCard(NamedTuple):
    """What people should know of a model, whatever file it is written to.

    network: `config.model`; data: name of its data set; card: texts under `description`, `licence`,
    `data_licence`, `citation`, `limits`, `authors`; scores: by output, on its own test part.
    """

    network: dict
    data: str
    card: dict[str, str]
    scores: dict[str, dict]

    @classmethod
    def of(cls, manifest: dict) -> "ModelCard":
        """The card in the manifest of a model file."""
        return cls(*(manifest[field] for field in cls._fields))


class Package(NamedTuple):
    """The content of a package, checked against its digests."""

    manifest: dict
    variables: Tree
    test_input: np.ndarray
    test_output: np.ndarray
    members: tuple["Package", ...] = ()  # of an ensemble


def is_package(path: Path) -> bool:
    """Whether a path is to be read as a package: a file, or what is called one."""
    return Path(path).suffix.lower() == ".zip" or Path(path).is_file()


def manifest(
    settings: dict, dtype: str, facts: dict, *, card: dict | None = None, scores: dict | None = None
) -> dict:
    """What model.json says, without the digests.

    settings: `config.model`; facts: as in data.json; card: free text under `description`,
    `licence`, `data_licence`, `citation`, `limits`; scores: of the model on its own test part.
    """
    return {
        "format": "feedseg model",
        "version": VERSION,
        "feedseg": feedseg.__version__,
        "network": dict(settings),
        "compute_dtype": dtype,
        "facts": {key: facts[key] for key in _FACTS}
        | {key: facts[key] for key in _LATER_FACTS if key in facts},
        "data": facts.get("name", ""),
        "card": dict(card or {}),
        "scores": dict(scores or {}),
    }


def write(
    path: Path,
    described: dict,
    variables: Tree,
    test_input: np.ndarray,
    test_output: np.ndarray,
    check: Callable[[Path], object],
    members: Sequence[bytes] = (),
) -> None:
    """Write a package; described: of `manifest`; check: called with it before it gets its name.

    members: the packages of an ensemble's members.

    Raises SaveFailed if it cannot be written, and what `check` raises.
    """
    from safetensors.numpy import save

    from feedseg.runtime.files import write_atomically

    arrays = {
        name: np.ascontiguousarray(leaf, np.float32)
        for name, leaf in checkpoint_format.to_host(variables).items()
    }
    files = {
        _WEIGHTS: save(dict(sorted(arrays.items()))),
        _INPUT: _npy(test_input),
        _OUTPUT: _npy(test_output),
        **{_member(index): data for index, data in enumerate(members)},
    }
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    text = atomic.to_json({**described, "sha256": digests}, indent=1) + "\n"
    files = {_MANIFEST: text.encode(), **files}

    def pack(temporary: Path) -> None:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            for name, data in files.items():
                entry = zipfile.ZipInfo(name, _LONG_AGO)
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, data)
        check(temporary)

    write_atomically(path, pack)


def read(path: Path) -> Package:
    """The content of a package.

    Raises UserError, naming the file, if it is none, of a newer form, or damaged.
    """
    return _read(Path(path), Path(path))


def _read(path: Path, archive_file: Path | io.BytesIO, inner: bool = False) -> Package:
    """path: what the file is called in messages; inner: it is that of a member."""
    with _opened(path, archive_file) as archive:
        described, files = _files(path, archive)
    if inner and _members(described):
        raise UserError(f"{path}: an ensemble in an ensemble; make one of all their members")
    for name, data in files.items():
        if hashlib.sha256(data).hexdigest() != described["sha256"].get(name):
            raise UserError(f"{path}: {name} is not what {_MANIFEST} says; copy the file again")
    members = (_read(path / name, io.BytesIO(files[name]), True) for name in _members(described))
    return Package(described, *_arrays(path, files), tuple(members))


def _members(described: dict) -> list[str]:
    """Names of the packages inside an ensemble's, in order."""
    count = len(described["network"].get("members", ()))
    return [_member(index) for index in range(count)]


def _member(index: int) -> str:
    return f"members/{index}.feedseg.zip"


def read_manifest(path: Path) -> dict:
    """model.json of a package alone; UserError as in `read`."""
    with _opened(Path(path), Path(path)) as archive:
        return _manifest(Path(path), archive)


@contextmanager
def _opened(path: Path, archive_file: Path | io.BytesIO) -> Iterator[zipfile.ZipFile]:
    """The archive; every failure becomes one line that names it."""
    try:
        with zipfile.ZipFile(archive_file) as archive:
            yield archive
    except FileNotFoundError:
        raise UserError(f"{path}: no such model file") from None
    except IsADirectoryError:
        raise UserError(f"{path}: a folder; `feedseg export` makes a model file of a run") from None
    except _UNREADABLE as error:
        raise _damaged(path, error) from None


def _files(path: Path, archive: zipfile.ZipFile) -> tuple[dict, dict[str, bytes]]:
    """model.json and the bytes of the files it vouches for."""
    size = sum(entry.file_size for entry in archive.infolist())
    if size > MAX_BYTES:
        raise UserError(f"{path}: {size:,} bytes unpacked, the limit is {MAX_BYTES:,}")
    described = _manifest(path, archive)
    return described, {name: archive.read(name) for name in (*_CHECKED, *_members(described))}


def _manifest(path: Path, archive: zipfile.ZipFile) -> dict:
    described = json.loads(archive.read(_MANIFEST))
    if not isinstance(described, dict) or described.get("format") != "feedseg model":
        raise UserError(f"{path}: is no feedseg model; `feedseg export RUN` makes one")
    if described.get("version") != VERSION:
        raise UserError(
            f"{path}: form {described.get('version')} of a model file, this feedseg knows "
            f"{VERSION}; it was made by feedseg {described.get('feedseg')}, install that"
        )
    _check_kinds(path, described, {**_KINDS, "sha256": dict})
    _check_kinds(path, described["network"], {"name": str})
    if described["network"]["name"] == "ensemble":
        _check_kinds(path, described["network"], {"members": list, "rule": str})
    _check_kinds(path, described["facts"], _FACT_KINDS)
    return described


def _check_kinds(path: Path, entries: dict, kinds: dict) -> None:
    for key, kind in kinds.items():
        if not isinstance(entries.get(key), kind):
            raise UserError(f"{path}: {_MANIFEST} has no proper {key!r}; export the model again")


def _arrays(path: Path, files: dict[str, bytes]) -> tuple[Tree, np.ndarray, np.ndarray]:
    """Variables, test input and expected output."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        variables = {"params": {}, "batch_stats": {}} | checkpoint_format.nest(
            load(files[_WEIGHTS])
        )
        pair = [np.load(io.BytesIO(files[name]), allow_pickle=False) for name in (_INPUT, _OUTPUT)]
    except (SafetensorError, ValueError, OSError, EOFError) as error:
        raise _damaged(path, error) from None
    return variables, *pair


def _npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.ascontiguousarray(array, np.float32), allow_pickle=False)
    return stream.getvalue()


def _damaged(path: Path, error: Exception) -> UserError:
    reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {one_line(error)}"
    return UserError(
        f"{path}: is no whole feedseg model ({reason}); copy it again, or name a run directory"
    )
