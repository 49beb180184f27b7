"""A trained model as one file, `model.feedseg.zip`: anybody can check it, no code is in it.

    model.json           network and its arguments, classes, colors, normalization, the side seen
                         in training, licence, citation, scores, SHA-256 of all other files
    weights.safetensors  parameters and running statistics, float32, named by their place in the
                         tree (`params/enc1_conv1/conv/kernel`)
    test_input.npy       an image [1, H, W, C] float32 in [0, 1]
    test_output.npy      the probabilities [1, H, W, K] that the model gave for it
    members/0.feedseg.zip ...  of an ensemble, whose network is called `ensemble` and whose weights
                         are those of its members (`feedseg.inference.ensemble`)

Reading it parses JSON, arrays and nothing else, and unpacks what the network can have and no more.
The same model gives the same bytes.
"""

import hashlib
import io
import math
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import feedseg
from feedseg.inference import facts as model_facts
from feedseg.inference import weights
from feedseg.runs import checkpoint_format
from feedseg.runtime import archives, json_files
from feedseg.runtime import files as atomic
from feedseg.runtime.allowed import Choice, Fields, Listed, Maybe, Number, Table, Text
from feedseg.runtime.archives import BROKEN, Archive, parse_npy
from feedseg.runtime.errors import UserError, one_line

VERSION = 1
_MANIFEST, _WEIGHTS = "model.json", "weights.safetensors"
_INPUT, _OUTPUT = "test_input.npy", "test_output.npy"
_CHECKED = (_WEIGHTS, _INPUT, _OUTPUT)
_FACTS = ("class_names", "class_colors", "channels", "size_px", "normalization", "percentiles")
_LATER_FACTS = ("training_images",)  # which files of older versions lack
_ENSEMBLE = "ensemble"  # the network of several
_MOST_MEMBERS = 1000
_MANIFEST_BYTES = 4 * 2**20
_SIDE = 2048  # px of the test image at most, where training saw less
_NAME = 1024  # bytes at most that describe an array
_MANIFEST_ENTRIES = Fields(
    {
        "feedseg": Text(100),
        "network": Fields({"name": Text(100)}),
        "compute_dtype": Choice(("float32", "bfloat16")),
        "facts": model_facts.FACTS,
        "data": Text(1000),
        "card": Table(Text(20_000), 100),
        "scores": Table(Table(Maybe(Number()), 10_000), 100),
        "sha256": Table(Text(64, least=64), _MOST_MEMBERS + len(_CHECKED)),
    }
)
_ENSEMBLE_ENTRIES = Fields({"members": Listed(Text(1000), 2, _MOST_MEMBERS), "rule": Text(100)})
_LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the time of every file in it


class Package(NamedTuple):
    """The content of a package, checked against its digests."""

    manifest: dict
    variables: Any
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
    variables: Any,
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
    path = Path(path)
    with _opened(path, path) as archive:
        return _read(path, archive)


def read_manifest(path: Path) -> dict:
    """model.json of a package alone; UserError as in `read`."""
    with _opened(Path(path), Path(path)) as archive:
        return _manifest(Path(path), archive)


@contextmanager
def _opened(path: Path, source: Path | bytes, outer: Archive | None = None) -> Iterator[Archive]:
    """The archive; every failure becomes one line that names it."""
    try:
        with Archive(source, outer) as archive:
            yield archive
    except FileNotFoundError:
        raise UserError(f"{path}: no such model file") from None
    except IsADirectoryError:
        raise UserError(f"{path}: a folder; `feedseg export` makes a model file of a run") from None
    except BROKEN as error:
        raise _damaged(path, error) from None


def _read(path: Path, archive: Archive, inner: bool = False) -> Package:
    """The content of an archive that is called `path`; inner: of a member of an ensemble."""
    described = _manifest(path, archive)
    count = len(_members(described))
    if inner and count:
        raise UserError(f"{path}: an ensemble in an ensemble; make one of all their members")
    wanted = _shapes(path, described)
    most_bytes = _most_bytes(described, wanted)

    def checked(name: str) -> bytes:
        data = archive.read(name, most_bytes[name])
        if hashlib.sha256(data).hexdigest() != described["sha256"].get(name):
            raise UserError(f"{path}: {name} is not what {_MANIFEST} says; copy the file again")
        return data

    variables = _variables(path, checked(_WEIGHTS), wanted)
    image, answer = (_image(path, name, checked(name)) for name in (_INPUT, _OUTPUT))
    _require_pair(path, described["facts"], image, answer)
    members = []
    for name in _members(described):
        with _opened(path / name, checked(name), archive) as nested:
            members.append(_read(path / name, nested, True))
    return Package(described, variables, image, answer, tuple(members))


def _most_bytes(described: dict, wanted: dict[str, tuple[int, ...]]) -> dict[str, int]:
    """What the files of a package can take, by name; wanted: shapes of the variables.

    Members of an ensemble are what the archive has left.
    """
    facts, members = described["facts"], _members(described)
    pixels = max(_SIDE, *facts["size_px"]) ** 2
    copies = max(1, len(members))  # of the image, which each may normalize differently
    return {
        _WEIGHTS: sum(4 * math.prod(shape) + _NAME for shape in wanted.values()) + _NAME,
        _INPUT: 4 * pixels * facts["channels"] * copies + _NAME,
        _OUTPUT: 4 * pixels * len(facts["class_names"]) + _NAME,
        **dict.fromkeys(members, archives.MOST_BYTES),
    }


def _members(described: dict) -> list[str]:
    """Names of the packages inside an ensemble's, in order."""
    ensemble = described["network"]["name"] == _ENSEMBLE
    count = len(described["network"]["members"]) if ensemble else 0
    return [_member(index) for index in range(count)]


def _member(index: int) -> str:
    return f"members/{index}.feedseg.zip"


def _shapes(path: Path, described: dict) -> dict[str, tuple[int, ...]]:
    """Of the variables that the network has, by name."""
    if described["network"]["name"] == _ENSEMBLE:
        return {"params/weights": (len(described["network"]["members"]),)}
    return weights.shapes(described["network"], described["facts"], path)


def _manifest(path: Path, archive: Archive) -> dict:
    described = json_files.parse(archive.read(_MANIFEST, _MANIFEST_BYTES))
    if described.get("format") != "feedseg model":
        raise UserError(f"{path}: is no feedseg model; `feedseg export RUN` makes one")
    if described.get("version") != VERSION:
        raise UserError(
            f"{path}: form {one_line(described.get('version'))} of a model file, this feedseg "
            f"knows {VERSION}; it was made by feedseg {one_line(described.get('feedseg'))}, "
            "install that"
        )
    problem = _MANIFEST_ENTRIES.problem(described)
    if not problem and described["network"]["name"] == _ENSEMBLE:
        problem = _ENSEMBLE_ENTRIES.problem(described["network"], "network")
    if problem := problem or model_facts.problem(described["facts"], "facts"):
        raise UserError(f"{path}: {_MANIFEST}: {problem}; export the model again")
    return described


def _variables(path: Path, data: bytes, wanted: dict[str, tuple[int, ...]]) -> Any:
    """The variables in weights.safetensors, which have the shapes wanted."""
    from safetensors.numpy import load

    try:
        arrays = load(data)
    except Exception as error:  # SafetensorError, and what a type that NumPy lacks leads to
        raise _damaged(path, error) from None
    weights.require(path, {name: array.shape for name, array in arrays.items()}, wanted)
    for name, array in arrays.items():
        if array.dtype != np.float32 or not np.isfinite(array).all():
            raise UserError(f"{path}: {_WEIGHTS}: {name} is {array.dtype}, not finite float32")
    return {"params": {}, "batch_stats": {}} | checkpoint_format.nest(arrays)


def _image(path: Path, name: str, data: bytes) -> np.ndarray:
    """The test image or its answer, [1, H, W, C] float32, finite."""
    array = parse_npy(data)
    whole = array.dtype == np.float32 and array.ndim == 4 and len(array) == 1 and array.size
    if not whole or not np.isfinite(array).all():
        raise UserError(
            f"{path}: {name}: {array.dtype} of shape {array.shape}, not [1, H, W, C] of finite "
            "float32; export the model again"
        )
    return array


def _require_pair(path: Path, facts: dict, image: np.ndarray, answer: np.ndarray) -> None:
    """Raises UserError unless the test image and its answer are of this model and of one size."""
    wanted = (*image.shape[:3], len(facts["class_names"]))
    if answer.shape != wanted or image.shape[3] % facts["channels"]:
        raise UserError(
            f"{path}: {_INPUT} {image.shape} and {_OUTPUT} {answer.shape} do not fit "
            f"{facts['channels']} channels and {wanted[3]} classes; export the model again"
        )


def _npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.ascontiguousarray(array, np.float32), allow_pickle=False)
    return stream.getvalue()


def _damaged(path: Path, error: Exception) -> UserError:
    kind = "" if type(error) is ValueError else f"{type(error).__name__}: "  # feedseg's own words
    reason = getattr(error, "strerror", None) or f"{kind}{one_line(error)}"
    return UserError(
        f"{path}: is no whole feedseg model ({reason}); copy it again, or name a run directory"
    )
