"""The manifest of a store: what it holds, of which slide, made how. `manifest.schema.json` beside this is its schema.

A reader refuses another major version, and ignores keys that it does not know: a minor version only ever adds some.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nuclei_segmentation.shared.clara.fastio import FASTIO
from nuclei_segmentation.shared.errors import StoreError
from nuclei_segmentation.shared.geometry import TileGrid
from nuclei_segmentation.shared.runtime.files import read_small
from nuclei_segmentation.shared.settings.shard import MOST, Shard
from nuclei_segmentation.shared.store.array import SHARED

FILE = "manifest.json"
COMPLETE = "COMPLETE"
WORK = ".run"
"""Folder of work in a store's folder, or in that of an image: the lock, and what is not finished."""
FORMAT = "nuclei-store"
VERSION = (1, 1)
LIMIT = 1 << 20
"""Most bytes of a manifest; ours have two thousand."""

ARRAYS = ("tiles", "masks", "index", "tissue")

Kind = Literal["tiles", "masks"]


@dataclass(frozen=True, slots=True)
class ArrayMetadata:
    """One array of a store.

    Attributes
    ----------
    file : str
        Its name in the store's folder, or its absolute path in shared memory.
    shape, dtype : tuple of int, str
        Of the array.
    channels : tuple of str
        Names along the last axis, of maps.
    crc32 : int or None
        Of the content; None for the large array, of whose items the ledger has one each.
    """

    file: str
    shape: tuple[int, ...]
    dtype: str
    channels: tuple[str, ...] = ()
    crc32: int | None = None

    @property
    def bytes(self) -> int:
        """Bytes of its content."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True, slots=True)
class SlideMetadata:
    """The slide that a store is made of; sizes in level-0 pixels, `mpp` in µm per pixel, in x and y."""

    name: str
    fingerprint: str
    width: int
    height: int
    mpp: tuple[float, float] | None
    objective: float | None


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """The model that made maps; see `ModelInfo` of the stage filter."""

    name: str
    engine: str
    identity: str


@dataclass(frozen=True, slots=True)
class ShardMetadata:
    """The share of all tiles that a store of masks has: shard `number` of `count`.

    Attributes
    ----------
    number, count : int
        As in `Shard`.
    first : int
        The store's first tile, among all.
    total : int
        Number of all tiles, those of the other shards included.
    """

    number: int
    count: int
    first: int
    total: int

    @property
    def shard(self) -> Shard:
        """Which shard it is."""
        return Shard(self.number, self.count)


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a store says of itself.

    Attributes
    ----------
    kind : Kind
        What its large array holds: ``tiles`` or ``masks``.
    generation : str
        Of this very store, 32 hexadecimal digits: a store that was made again has another.
    run : str
        The run that it belongs to, as ``NUCLEI_RUN_ID`` named it; empty if that was not set.
    key : str
        Hash of everything that decides its content (`shared.settings.run_key`).
    source : str
        Key of the store that it was made from; empty for tiles.
    slide : SlideMetadata
        The slide.
    tile, overlap : int
        Of the grid, pixels.
    n : int
        Number of tiles with tissue; of a shard, of those that are its own. Arrays have one item where there are none.
    mask : str
        How the tissue was found: ``tissue`` or ``none``.
    model : ModelMetadata or None
        Of masks.
    shard : ShardMetadata or None
        Of a store of masks that has a share of the tiles; None where it has all.
    arrays : Mapping of str to ArrayMetadata
        By name: ``tiles`` or ``masks``, ``index`` and, where there is a tissue mask, ``tissue``.
    """

    kind: Kind
    generation: str
    run: str
    key: str
    source: str
    slide: SlideMetadata
    tile: int
    overlap: int
    n: int
    mask: str
    model: ModelMetadata | None = None
    shard: ShardMetadata | None = None
    arrays: Mapping[str, ArrayMetadata] = field(default_factory=dict)

    @property
    def grid(self) -> TileGrid:
        """The slide's tiles."""
        return TileGrid(self.slide.width, self.slide.height, self.tile, self.overlap)

    @property
    def total(self) -> int:
        """Number of tiles with tissue, whatever part of them is in this store."""
        return self.n if self.shard is None else self.shard.total

    def to_json(self) -> bytes:
        """Return the file's content."""
        document = {"format": FORMAT, "version": ".".join(map(str, VERSION)), **asdict(self)}
        document["crc32"] = _checksum(document)
        return (json.dumps(document, indent=2) + "\n").encode()

    @staticmethod
    def from_json(content: bytes, path: Path) -> Manifest:
        """Read a manifest.

        Raises
        ------
        StoreError
            It is none, of another major version, or lacks something; the message says what.
        """
        try:
            document = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise StoreError(f"{path} is not JSON ({error}); make the store again") from None
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise StoreError(f'{path} is not the manifest of a store (no "format": "{FORMAT}")')
        version = str(document.get("version"))
        if version.split(".")[0] != str(VERSION[0]):
            raise StoreError(
                f"{path} has version {version}; this program reads {VERSION[0]}.x: use the program that wrote it, or "
                "make the store again"
            )
        try:
            if _take(document, "crc32", int) != _checksum(document):
                raise _Wrong("its checksum differs")
            manifest = _manifest(document)
            _check(manifest)
            return manifest
        except _Wrong as error:
            raise StoreError(f"{path}: {error}; make the store again") from None


def read_manifest(folder: Path) -> Manifest | None:
    """Return a store's manifest, or None where there is none (yet).

    Raises
    ------
    StoreError
        There is one that cannot be understood.
    """
    try:
        content = read_small(folder / FILE, LIMIT)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return Manifest.from_json(content, folder / FILE)


def is_complete(folder: Path, manifest: Manifest) -> bool:
    """Tell whether a store is complete: `COMPLETE` is there, and names its generation.

    Raises
    ------
    StoreError
        It is there, and names another, or nothing.
    """
    return bool(completion(folder, manifest))


def completion(folder: Path, manifest: Manifest) -> dict[str, Any]:
    """Return what `COMPLETE` says of a store, the generation among it; nothing where the store is not complete.

    Raises
    ------
    StoreError
        It is there, and names another generation, or none.
    """
    path = folder / COMPLETE
    try:
        content = json.loads(read_small(path, LIMIT))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path} is not JSON ({error}); make the store again") from error
    if not isinstance(content, dict) or content.get("generation") != manifest.generation:
        raise StoreError(f"{path} belongs to another store than the manifest beside it; make the store again")
    return content


class _Wrong(Exception):
    """A value is missing, or of the wrong type."""


def _take(document: Mapping[str, Any], key: str, kind: type | tuple[type, ...]) -> Any:  # noqa: ANN401 - as JSON has it
    if key not in document:
        raise _Wrong(f'"{key}" is missing')
    value = document[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise _Wrong(f'"{key}" is {value!r:.60}')
    return value


def _whole(document: Mapping[str, Any], key: str, low: int, high: int = 1 << 31) -> int:
    value = int(_take(document, key, int))
    if not low <= value <= high:
        raise _Wrong(f'"{key}" is {value}, not from {low} to {high}')
    return value


def _manifest(document: Mapping[str, Any]) -> Manifest:
    kind = _take(document, "kind", str)
    if kind not in ("tiles", "masks"):
        raise _Wrong(f'"kind" is {kind!r:.60}')
    generation = _take(document, "generation", str)
    if len(generation) != 32 or set(generation) - set("0123456789abcdef"):
        raise _Wrong(f'"generation" is {generation!r:.60}')
    slide = _take(document, "slide", dict)
    mpp = _take(slide, "mpp", (list, type(None)))
    if mpp is not None and not (len(mpp) == 2 and all(map(_is_number, mpp))):
        raise _Wrong(f'"mpp" is {mpp!r:.60}')
    objective = _take(slide, "objective", (int, float, type(None)))
    if objective is not None and not _is_number(objective):
        raise _Wrong(f'"objective" is {objective!r:.60}')
    model = _take(document, "model", (dict, type(None)))
    shard = _take(document, "shard", (dict, type(None))) if "shard" in document else None  # 1.0 had none
    tile = _whole(document, "tile", 16, 8192)
    return Manifest(
        kind=kind,
        generation=generation,
        source=_take(document, "source", str),
        slide=SlideMetadata(
            name=_take(slide, "name", str),
            fingerprint=_take(slide, "fingerprint", str),
            width=_whole(slide, "width", 1),
            height=_whole(slide, "height", 1),
            mpp=None if mpp is None else (float(mpp[0]), float(mpp[1])),
            objective=objective,
        ),
        tile=tile,
        overlap=_whole(document, "overlap", 0, tile - 1),
        n=_whole(document, "n", 0),
        model=None
        if model is None
        else ModelMetadata(**{f.name: _take(model, f.name, str) for f in fields(ModelMetadata)}),
        shard=None if shard is None else _shard(shard),
        arrays={
            name: _array(name, facts, generation)
            for name, facts in _take(document, "arrays", dict).items()
            if name in ARRAYS  # a later minor version may have more
        },
        **{name: _take(document, name, str) for name in ("run", "key", "mask")},
    )


def _shard(facts: Mapping[str, Any]) -> ShardMetadata:
    return ShardMetadata(
        number=_whole(facts, "number", 0, MOST - 1),
        count=_whole(facts, "count", 1, MOST),
        first=_whole(facts, "first", 0),
        total=_whole(facts, "total", 0),
    )


def _is_number(value: object) -> bool:
    try:
        return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type] # it is one by then
    except OverflowError:
        return False


def _array(name: str, facts: object, generation: str) -> ArrayMetadata:
    if not isinstance(facts, dict):
        raise _Wrong(f'array "{name}" is {facts!r:.60}')
    shape, channels = _take(facts, "shape", list), _take(facts, "channels", list)
    if not shape or not all(type(side) is int and 0 < side < 1 << 31 for side in shape):
        raise _Wrong(f'"shape" of array "{name}" is {shape!r:.60}')
    if not all(isinstance(channel, str) for channel in channels):
        raise _Wrong(f'"channels" of array "{name}" is {channels!r:.60}')
    # A store names files of its own only: what others wrote must not lead a reader anywhere else.
    file = _take(facts, "file", str)
    if file not in (f"{name}.npy", shared_name(generation, name), f"{FASTIO}{memory_name(generation, name)}"):
        raise _Wrong(f'"file" of array "{name}" is {file!r:.60}, neither {name}.npy nor its own in shared memory')
    crc32 = _take(facts, "crc32", (int, type(None)))
    return ArrayMetadata(file, tuple(shape), _take(facts, "dtype", str), tuple(channels), crc32)


def shared_name(generation: str, name: str) -> str:
    """Return the path of an array in shared memory; that knows no folders a server could look into."""
    return str(SHARED / f"{memory_name(generation, name)}.npy")


def memory_name(generation: str, name: str) -> str:
    """Return the name of an array in memory that others share: it tells whose it is."""
    return f"nuclei-{generation}-{name}"


def _check(manifest: Manifest) -> None:
    """Raise `_Wrong` unless all that a manifest says fits together."""
    tile, items = manifest.tile, max(1, manifest.n)
    if tile % 16 or manifest.overlap % 16:
        raise _Wrong(f'"tile" and "overlap" are {tile} and {manifest.overlap}, not multiples of 16')
    if manifest.total > len(manifest.grid):
        raise _Wrong(f'"n" is {manifest.total}, of a slide with {len(manifest.grid)} tiles')
    if (part := manifest.shard) is not None:
        if manifest.kind != "masks" or part.number >= part.count:
            raise _Wrong(f'"shard" is {part.number} of {part.count}, in a store of {manifest.kind}')
        if (part.first, part.first + manifest.n) != part.shard.range(part.total):
            raise _Wrong(f'"shard" and "n" do not fit: {part.shard} of {part.total} tiles has others than it says')
    if (manifest.model is None) != (manifest.kind == "tiles"):
        raise _Wrong('"model" must be there for masks, and for nothing else')
    masks = manifest.arrays.get("masks")
    expected = {
        "tiles": ((items, tile, tile, 3), "uint8"),
        "masks": ((items, tile, tile, masks.shape[-1] if masks else 0), "uint8"),
        "index": ((items, 2), "int32"),
        "tissue": (None, "bool"),
    }
    for name, facts in manifest.arrays.items():
        shape, dtype = expected[name]
        if facts.dtype != dtype or (len(facts.shape) != 2 if shape is None else facts.shape != shape):
            raise _Wrong(f'array "{name}" is {facts.dtype} {list(facts.shape)!r:.60}; it does not fit tiles and n')
        if (facts.crc32 is None) != (name == manifest.kind):
            raise _Wrong(f'"crc32" of array "{name}" is {facts.crc32}')
    if masks and len(masks.channels) != masks.shape[-1]:
        raise _Wrong(f'"channels" of array "masks" names {len(masks.channels)} of {masks.shape[-1]}')
    if manifest.kind not in manifest.arrays or "index" not in manifest.arrays:
        raise _Wrong(f'"arrays" lacks "{manifest.kind}" or "index"')


def _checksum(document: Mapping[str, Any]) -> int:
    """Return the CRC-32 of a manifest: of the JSON of all other keys, sorted, without spaces."""
    rest = {key: value for key, value in document.items() if key != "crc32"}
    return zlib.crc32(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode())
