"""Random damage: to bytes, files, archives, JSON and folders. Each returns what it did."""

import json
import os
import shutil
import struct
import warnings
import zipfile
from pathlib import Path
from random import Random

NUMBERS = (-1, 0, 0.5, 1e308, 2**31, 10**30, float("nan"), float("inf"), -(10**30))
ODD = (None, True, "", "x", "\x00", "é\n", [], {}, [[]], {"": None}, "../x", "9" * 400, *NUMBERS)
DEEP = 20_000  # brackets
BOMB_MB = 900


def damaged(rng: Random, data: bytes) -> tuple[bytes, str]:
    """The bytes with one kind of damage."""
    size, at = len(data), rng.randrange(max(1, len(data)))
    length = min(size - at, rng.choice((1, 4, 16, 200, size)))
    kind = rng.choice(("truncated", "flipped", "zeroed", "random", "removed", "doubled", "number"))
    if rng.random() < 0.5:  # headers are more worth it
        at = rng.randrange(max(1, min(size, 600)))
    before, middle, after = data[:at], data[at : at + length], data[at + length :]
    match kind:
        case "truncated":
            return before, f"truncated to {at} of {size} bytes"
        case "flipped":
            changed = bytearray(data)
            places = [rng.randrange(max(1, size)) for _ in range(rng.choice((1, 1, 3, 20)))]
            for place in places if size else ():
                changed[place] ^= 1 << rng.randrange(8)
            return bytes(changed), f"bits flipped at {places[:3]} of {size} bytes"
        case "zeroed":
            middle = bytes(len(middle))
        case "random":
            middle = rng.randbytes(len(middle))
        case "removed":
            middle = b""
        case "doubled":
            middle *= 2
        case "number":
            value = rng.choice((0, 1, 2**16 - 1, 2**31, 2**32 - 1, rng.randrange(2**32)))
            form = rng.choice("<>") + rng.choice("HI")
            middle = struct.pack(form, value & (0xFFFF if form[1] == "H" else 0xFFFFFFFF))
            after = data[at + len(middle) :]
    return before + middle + after, f"{kind} {length} bytes at {at} of {size}"


def damage_file(rng: Random, path: Path) -> str:
    if rng.random() < 0.05:
        path.unlink()
        return f"{path.name} removed"
    data, did = damaged(rng, path.read_bytes())
    path.write_bytes(data)
    return f"{path.name} {did}"


def damage_zip(rng: Random, path: Path) -> str:
    """The archive's bytes, or one of its members: gone, damaged, renamed, double, huge."""
    kind = rng.choice(("bytes", "removed", "damaged", "json", "renamed", "doubled", "bomb"))
    if kind == "bytes":
        return damage_file(rng, path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = rng.choice(sorted(members))
    did = f"member {name} {kind}"
    if kind == "removed":
        del members[name]
    elif kind == "damaged":
        members[name], how = damaged(rng, members[name])
        did = f"member {name} {how}"
    elif kind == "json":
        texts = [each for each in members if each.endswith(".json")]
        name = rng.choice(texts or sorted(members))
        members[name], how = damaged_json(rng, members[name])
        did = f"member {name}: {how}"
    elif kind == "renamed":
        new = rng.choice(("../x", "/tmp/x", "x", "x" * 300, "é", name.upper()))
        members[new] = members.pop(name)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for each, data in members.items():
            if kind == "bomb" and each == name:
                with archive.open(each, "w", force_zip64=True) as stream:
                    for _ in range(BOMB_MB):
                        stream.write(bytes(2**20))
            else:
                archive.writestr(each, data)
        if kind == "doubled":
            with warnings.catch_warnings(action="ignore"):
                archive.writestr(name, damaged(rng, members[name])[0])
    return f"{path.name}: {did}"


def damaged_json(rng: Random, data: bytes) -> tuple[bytes, str]:
    """JSON text with a node of another type or value, without it, or too deep."""
    try:
        tree = json.loads(data)
    except ValueError:
        return damaged(rng, data)
    kind = rng.choice(("value", "value", "value", "gone", "deep", "whole", "bytes"))
    if kind == "bytes":
        return damaged(rng, data)
    if kind == "deep":
        return b"[" * DEEP + b"]" * DEEP, "nested too deep"
    if kind == "whole":
        tree = rng.choice(ODD)
        return json.dumps(tree).encode(), f"replaced by {tree!r:.40}"
    places = list(_places(tree))
    if not places:
        return b"", "emptied"
    holder, key = rng.choice(places)
    if kind == "gone":
        del holder[key]
        return json.dumps(tree).encode(), f"without {key!r}"
    holder[key] = rng.choice(ODD)
    return json.dumps(tree).encode(), f"{key!r} is {holder[key]!r:.40}"


def _places(tree):
    """All (holder, key) of a tree of dicts and lists."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in list(items):
        yield tree, key
        if isinstance(value, dict | list):
            yield from _places(value)


def damage_json(rng: Random, path: Path) -> str:
    data, did = damaged_json(rng, path.read_bytes())
    path.write_bytes(data)
    return f"{path.name}: {did}"


def damage_folder(rng: Random, folder: Path) -> str:
    """One of the files below a folder, or a folder of it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if not files:
        return f"{folder.name} is empty"
    path = rng.choice(files)
    if rng.random() < 0.15:
        shutil.rmtree(path.parent)
        return f"{path.parent.relative_to(folder.parent)} removed"
    is_json = path.suffix == ".json" or path.name in (".zattrs", ".zarray", ".zgroup")
    did = damage_json(rng, path) if is_json and rng.random() < 0.6 else damage_file(rng, path)
    return f"{os.fspath(path.parent.relative_to(folder.parent))}: {did}"
