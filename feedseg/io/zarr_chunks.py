"""Zarr arrays whose chunks are checked before they are decoded; imports the Zarr library.

Blosc reads as many bytes as the header of a chunk announces, whether the file holds them or not,
and the Zarr library takes an absent chunk, or the absent end of a shard, for the fill value.
"""

import math
import operator
import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import zarr
from numcodecs.abc import Codec
from zarr.abc.codec import BytesBytesCodec
from zarr.abc.store import RangeByteRequest
from zarr.codecs import ShardingCodec
from zarr.storage import LocalStore, StorePath

_BLOSC = "<4B3I"  # versions, flags, size of a value; bytes decoded, of a block, compressed
_TRUSTING = ("blosc", "numcodecs.blosc")  # codecs that do not compare their input with its header


def checked(array: zarr.Array, folder: Path, most_bytes: int) -> zarr.Array:
    """The array of a folder, opened anew: reading raises ValueError for chunks that are cut.

    most_bytes: that a chunk may announce.
    """
    place = StorePath(_WholeFiles(folder, read_only=True))
    return zarr.Array(zarr.AsyncArray(_guarded(array.metadata, most_bytes), place))


def check_blosc(chunk: bytes, most_bytes: int) -> None:
    """Raises ValueError for a Blosc chunk that is shorter than its header says, or too large."""
    head = bytes(chunk[: struct.calcsize(_BLOSC)])
    if len(head) < struct.calcsize(_BLOSC):
        raise ValueError(f"a chunk of {len(head)} bytes is cut")
    *_, decoded, _, stored = struct.unpack(_BLOSC, head)
    if stored > len(chunk) or stored < len(head):
        raise ValueError(f"a chunk of {stored} bytes is cut to {len(chunk)}")
    if decoded > most_bytes:
        raise ValueError(f"a chunk announces {decoded:,} bytes")


def absent(array: zarr.Array) -> tuple[int, int]:
    """Number of chunks (shards where there are any) that have no file, and of all."""
    sides = array.shards or array.chunks
    counts = [-(-size // side) for size, side in zip(array.shape, sides, strict=True)]
    total = math.prod(counts)
    return total - sum(_is_chunk(array, counts, name) for name in _files(array)), total


def _files(array: zarr.Array) -> Iterator[str]:
    """Names of all files of an array, as keys."""
    folder = Path(array.store.root)
    for where, _, names in os.walk(folder):
        inner = Path(where).relative_to(folder)
        yield from ((inner / name).as_posix() for name in names)


def _is_chunk(array: zarr.Array, counts: list[int], name: str) -> bool:
    place = tuple(map(int, re.findall("[0-9]+", name)))[-len(counts) :]
    inside = len(place) == len(counts) and all(map(operator.lt, place, counts))
    return inside and array.metadata.encode_chunk_key(place) == name


class _WholeFiles(LocalStore):
    """Files whose parts are all there: the library takes empty ones for absent chunks."""

    async def get(self, key, prototype=None, byte_range=None):
        found = await super().get(key, prototype, byte_range)
        if found is None:
            return None
        part = isinstance(byte_range, RangeByteRequest)
        wanted = byte_range.end - byte_range.start if part else max(1, len(found))
        if len(found) != wanted:
            raise ValueError(f"{wanted} bytes or more of {key} are cut to {len(found)}")
        return found


class _CheckedV2(Codec):
    """A codec of Zarr 2 that trusts its input, which is checked."""

    codec_id = "checked"

    def __init__(self, codec: Codec, most_bytes: int) -> None:
        self._codec, self._most = codec, most_bytes

    def encode(self, buf):
        return self._codec.encode(buf)

    def decode(self, buf, out=None):
        check_blosc(memoryview(buf).cast("B"), self._most)
        return self._codec.decode(buf, out)


@dataclass(frozen=True)
class _CheckedV3(BytesBytesCodec):
    """A step before the decoding of a codec of Zarr 3 that trusts its input."""

    most_bytes: int
    is_fixed_size = True

    def to_dict(self):
        return {"name": "checked", "configuration": {}}

    def compute_encoded_size(self, input_byte_length, _chunk_spec):
        return input_byte_length

    async def _decode_single(self, chunk_bytes, chunk_spec):
        check_blosc(chunk_bytes.to_bytes(), self.most_bytes)
        return chunk_bytes


def _guarded(metadata, most_bytes: int):
    if metadata.zarr_format == 3:
        return replace(metadata, codecs=_steps(metadata.codecs, most_bytes))
    compressor, filters = metadata.compressor, metadata.filters
    return replace(
        metadata,
        compressor=compressor and _guarded_v2(compressor, most_bytes),
        filters=filters and tuple(_guarded_v2(each, most_bytes) for each in filters),
    )


def _guarded_v2(codec: Codec, most_bytes: int) -> Codec:
    return _CheckedV2(codec, most_bytes) if codec.codec_id in _TRUSTING else codec


def _steps(codecs, most_bytes: int) -> tuple:
    """Codecs of Zarr 3 with checks, also those within shards."""
    steps = []
    for codec in codecs:
        if isinstance(codec, ShardingCodec):
            inner, index = (_steps(c, most_bytes) for c in (codec.codecs, codec.index_codecs))
            codec = replace(codec, codecs=inner, index_codecs=index)
        steps.append(codec)
        if codec.to_dict().get("name") in _TRUSTING:
            steps.append(_CheckedV3(most_bytes))
    return tuple(steps)
