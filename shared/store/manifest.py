"""The manifest of a store: what the store holds, of which slide, and how it was made.

`manifest.schema.json`, in this folder, is its JSON Schema. A reader refuses another major version, and ignores keys
that it does not know, for a minor version only adds keys.
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
from nuclei_segmentation.shared.runtime.outside import parse_json
from nuclei_segmentation.shared.settings.shard import MOST, Shard
from nuclei_segmentation.shared.store.array import SHARED
from nuclei_segmentation.shared.store.files import read_store_file

FILE = "manifest.json"
COMPLETE = "COMPLETE"
FORMAT = "nuclei-store"
VERSION = (1, 2)
LIMIT = 1 << 20
"""The most bytes of a manifest; those written here have two thousand."""

ARRAYS = ("tiles", "masks", "index", "tissue", "guessed")
"""The names that arrays may have."""

Kind = Literal["tiles", "masks"]
STORE_NAMES: Mapping[Kind, str] = {"tiles": "tile store", "masks": "map store"}
"""What messages call a store of each kind."""


@dataclass(frozen=True, slots=True)
class ArrayMetadata:
    """One array of a store.

    Attributes
    ----------
    file : str
        Its name in the store's folder, its absolute path in shared memory, or its id in NVIDIA's FastIO memory.
    shape : tuple of int
        Its shape.
    dtype : str
        NumPy's name of its type.
    channels : tuple of str
        For maps, the names along the last axis; else empty.
    crc32 : int or None
        CRC-32 of the content; None for the large array, whose items have checksums in the ledger.
    """

    file: str
    shape: tuple[int, ...]
    dtype: str
    channels: tuple[str, ...] = ()
    crc32: int | None = None

    @property
    def bytes(self) -> int:
        """Size of the content in bytes."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True, slots=True)
class SlideMetadata:
    """The slide that a store was made from.

    Attributes
    ----------
    name : str
        File name, without folders.
    fingerprint : str
        Hash by which slides are told apart.
    width, height : int
        Level-0 pixels.
    mpp : tuple of float or None
        Micrometres per level-0 pixel in x and y; None if the slide does not say.
    objective : float or None
        Magnification of the objective; None if the slide does not say.
    channel, plane : str, int or None
        Which channel and plane of several the pixels are of, as the settings named them.
    """

    name: str
    fingerprint: str
    width: int
    height: int
    mpp: tuple[float, float] | None
    objective: float | None
    channel: str | int | None = None
    plane: str | int | None = None


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """The model that made the maps.

    Attributes
    ----------
    name : str
        The model's name.
    engine : str
        What computed the maps: ``embedded`` or ``triton``.
    identity : str
        Hash of the model's exact content, and the precision.
    """

    name: str
    engine: str
    identity: str


@dataclass(frozen=True, slots=True)
class ShardMetadata:
    """The share of the tiles that a map store has: shard `number` of `count`.

    Attributes
    ----------
    number : int
        Which shard it is, from 0 to `count` - 1.
    count : int
        How many shards there are.
    first : int
        Id of the store's first tile.
    total : int
        Number of tiles in all shards.
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
    """What a store says about itself.

    Attributes
    ----------
    kind : Kind
        What its large array holds: ``tiles`` or ``masks``.
    generation : str
        32 hexadecimal digits of this very store. A store that is made again gets another generation.
    run : str
        The run that it belongs to, as ``NUCLEI_RUN_ID`` names it; empty if that was not set.
    key : str
        Hash of everything that decides the content (`shared.settings.run_key`).
    source : str
        Key of the tile store that maps were made from; empty for tiles.
    slide : SlideMetadata
        The slide.
    tile, overlap : int
        Of the grid, in level-0 pixels.
    n : int
        Number of foreground tiles; in a shard, of its own tiles. If it is 0, the arrays have one item, without meaning.
    mask : str
        How the tissue was found: ``tissue`` or ``none``.
    model : ModelMetadata or None
        For maps, the model that made them.
    shard : ShardMetadata or None
        For a map store with a share of the tiles, which share; None if it has all tiles.
    arrays : Mapping of str to ArrayMetadata
        By name: ``tiles`` or ``masks``, ``index``; if there is a tissue mask, ``tissue``, and ``guessed`` if part of it
        is only a guess.
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
        """Number of foreground tiles in all shards."""
        return self.n if self.shard is None else self.shard.total

    def made_from(self) -> dict[str, object]:
        """Return what decides the content, by the names that users know."""
        model = self.model
        return {
            "slide": f"{self.slide.name} ({self.slide.fingerprint[:8]})",
            "tile size": self.tile,
            "overlap": self.overlap,
            "mask": self.mask,
            "channel": self.slide.channel,
            "plane": self.slide.plane,
            "model": None if model is None else f"{model.name} ({model.engine}, {model.identity[:8]})",
        }

    def to_json(self) -> bytes:
        """Return the file's content."""
        document = {"format": FORMAT, "version": ".".join(map(str, VERSION)), **asdict(self)}
        for name in _CHOICES:  # version 1.0 had none
            if document["slide"][name] is None:
                del document["slide"][name]
        document["crc32"] = _checksum(document)
        return (json.dumps(document, indent=2) + "\n").encode()

    @staticmethod
    def from_json(content: bytes, path: Path) -> Manifest:
        """Return the manifest that a file holds.

        Parameters
        ----------
        content : bytes
            The file's content.
        path : pathlib.Path
            The file, for messages.

        Returns
        -------
        Manifest

        Raises
        ------
        StoreError
            The file is not a manifest, has another major version, or is invalid; the message says why.
        """
        try:
            document = parse_json(content)
        except ValueError as error:
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
                raise _Invalid("its checksum differs")
            manifest = _manifest(document)
            _check(manifest)
            return manifest
        except _Invalid as error:
            raise StoreError(f"{path}: {error}; make the store again") from None


def read_manifest(folder: Path) -> Manifest | None:
    """Return the manifest of the store in a folder; None if there is no manifest (yet).

    Raises
    ------
    StoreError
        The manifest cannot be read, or is invalid.
    """
    try:
        content = read_store_file(folder / FILE, LIMIT)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return Manifest.from_json(content, folder / FILE)


def is_complete(folder: Path, manifest: Manifest) -> bool:
    """Tell whether a store is complete: whether `COMPLETE` exists.

    Parameters
    ----------
    folder : pathlib.Path
        The store's folder.
    manifest : Manifest
        Its manifest.

    Returns
    -------
    bool

    Raises
    ------
    StoreError
        `COMPLETE` cannot be read, or names another generation than the manifest.
    """
    return bool(completion(folder, manifest))


def completion(folder: Path, manifest: Manifest) -> dict[str, Any]:
    """Return the content of `COMPLETE`; an empty dictionary if the store is not complete.

    Parameters
    ----------
    folder : pathlib.Path
        The store's folder.
    manifest : Manifest
        Its manifest.

    Returns
    -------
    dict of str to object
        dict of str to Any

    Raises
    ------
    StoreError
        `COMPLETE` cannot be read, or names another generation than the manifest.
    """
    path = folder / COMPLETE
    try:
        content = parse_json(read_store_file(path, LIMIT))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except ValueError as error:
        raise StoreError(f"{path} is not JSON ({error}); make the store again") from error
    if not isinstance(content, dict) or content.get("generation") != manifest.generation:
        raise StoreError(f"{path} belongs to another store than the manifest in its folder; make the store again")
    return content


_CHOICES = ("channel", "plane")


class _Invalid(Exception):
    """A value is missing or invalid."""


def _take(document: Mapping[str, Any], key: str, kind: type | tuple[type, ...]) -> Any:  # noqa: ANN401 - as JSON has it
    if key not in document:
        raise _Invalid(f'"{key}" is missing')
    value = document[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise _Invalid(f'"{key}" is {value!r:.60}')
    return value


def _integer(document: Mapping[str, Any], key: str, low: int, high: int = 1 << 31) -> int:
    value = int(_take(document, key, int))
    if not low <= value <= high:
        raise _Invalid(f'"{key}" is {value}, not from {low} to {high}')
    return value


def _manifest(document: Mapping[str, Any]) -> Manifest:
    kind = _take(document, "kind", str)
    if kind not in ("tiles", "masks"):
        raise _Invalid(f'"kind" is {kind!r:.60}')
    generation = _take(document, "generation", str)
    if len(generation) != 32 or set(generation) - set("0123456789abcdef"):
        raise _Invalid(f'"generation" is {generation!r:.60}')
    slide = _take(document, "slide", dict)
    mpp = _take(slide, "mpp", (list, type(None)))
    if mpp is not None and not (len(mpp) == 2 and all(map(_is_number, mpp))):
        raise _Invalid(f'"mpp" is {mpp!r:.60}')
    objective = _take(slide, "objective", (int, float, type(None)))
    if objective is not None and not _is_number(objective):
        raise _Invalid(f'"objective" is {objective!r:.60}')
    model = _take(document, "model", (dict, type(None)))
    shard = _take(document, "shard", (dict, type(None))) if "shard" in document else None  # 1.0 had none
    tile = _integer(document, "tile", 16, 8192)
    return Manifest(
        kind=kind,
        generation=generation,
        source=_take(document, "source", str),
        slide=SlideMetadata(
            name=_take(slide, "name", str),
            fingerprint=_take(slide, "fingerprint", str),
            width=_integer(slide, "width", 1),
            height=_integer(slide, "height", 1),
            mpp=None if mpp is None else (float(mpp[0]), float(mpp[1])),
            objective=objective,
            **{name: _take(slide, name, (str, int)) for name in _CHOICES if name in slide},
        ),
        tile=tile,
        overlap=_integer(document, "overlap", 0, tile - 1),
        n=_integer(document, "n", 0),
        model=None
        if model is None
        else ModelMetadata(**{f.name: _take(model, f.name, str) for f in fields(ModelMetadata)}),
        shard=None if shard is None else _shard(shard),
        arrays={
            name: _array(name, entry, generation)
            for name, entry in _take(document, "arrays", dict).items()
            if name in ARRAYS  # a later minor version may have others
        },
        **{name: _take(document, name, str) for name in ("run", "key", "mask")},
    )


def _shard(entry: Mapping[str, Any]) -> ShardMetadata:
    return ShardMetadata(
        number=_integer(entry, "number", 0, MOST - 1),
        count=_integer(entry, "count", 1, MOST),
        first=_integer(entry, "first", 0),
        total=_integer(entry, "total", 0),
    )


def _is_number(value: object) -> bool:
    try:
        return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type] # it is one by then
    except OverflowError:
        return False


def _array(name: str, entry: object, generation: str) -> ArrayMetadata:
    if not isinstance(entry, dict):
        raise _Invalid(f'array "{name}" is {entry!r:.60}')
    shape, channels = _take(entry, "shape", list), _take(entry, "channels", list)
    if not shape or not all(type(side) is int and 0 < side < 1 << 31 for side in shape):
        raise _Invalid(f'"shape" of array "{name}" is {shape!r:.60}')
    if not all(isinstance(channel, str) for channel in channels):
        raise _Invalid(f'"channels" of array "{name}" is {channels!r:.60}')
    # A store names its own files only: a forged manifest must not lead a reader anywhere else.
    file = _take(entry, "file", str)
    if file not in (f"{name}.npy", shared_name(generation, name), f"{FASTIO}{memory_name(generation, name)}"):
        raise _Invalid(
            f'"file" of array "{name}" is {file!r:.60}, neither {name}.npy nor the store\'s own shared memory'
        )
    crc32 = _take(entry, "crc32", (int, type(None)))
    return ArrayMetadata(file, tuple(shape), _take(entry, "dtype", str), tuple(channels), crc32)


def shared_name(generation: str, name: str) -> str:
    """Return the path of an array in shared memory, directly in `SHARED`: a server finds it there by its name.

    Parameters
    ----------
    generation : str
        The store's generation.
    name : str
        The array's name.

    Returns
    -------
    str
    """
    return str(SHARED / f"{memory_name(generation, name)}.npy")


def memory_name(generation: str, name: str) -> str:
    """Return the name of an array in shared memory, which says what store it belongs to.

    Parameters
    ----------
    generation : str
        The store's generation.
    name : str
        The array's name.

    Returns
    -------
    str
    """
    return f"nuclei-{generation}-{name}"


def _check(manifest: Manifest) -> None:
    """Raise `_Invalid` unless the values of a manifest fit together."""
    tile, items = manifest.tile, max(1, manifest.n)
    if tile % 16 or manifest.overlap % 16:
        raise _Invalid(f'"tile" and "overlap" are {tile} and {manifest.overlap}, not multiples of 16')
    if manifest.total > len(manifest.grid):
        raise _Invalid(f'"n" is {manifest.total}, of a slide with {len(manifest.grid)} tiles')
    if (shard := manifest.shard) is not None:
        if manifest.kind != "masks" or shard.number >= shard.count:
            raise _Invalid(f'"shard" is {shard.number} of {shard.count}, in a {STORE_NAMES[manifest.kind]}')
        if (shard.first, shard.first + manifest.n) != shard.shard.range(shard.total):
            raise _Invalid(
                f'"shard" and "n" do not fit: shard {shard.shard} of {shard.total} tiles has another range of tiles'
            )
    if (manifest.model is None) != (manifest.kind == "tiles"):
        raise _Invalid('"model" must be present in a map store, and only there')
    maps = manifest.arrays.get("masks")
    expected = {
        "tiles": ((items, tile, tile, 3), "uint8"),
        "masks": ((items, tile, tile, maps.shape[-1] if maps else 0), "uint8"),
        "index": ((items, 2), "int32"),
        "tissue": (None, "bool"),
        "guessed": (None, "bool"),
    }
    for name, array in manifest.arrays.items():
        shape, dtype = expected[name]
        if array.dtype != dtype or (len(array.shape) != 2 if shape is None else array.shape != shape):
            raise _Invalid(
                f'array "{name}" is {array.dtype} {list(array.shape)!r:.60}, which does not fit "tile" and "n"'
            )
        if (array.crc32 is None) != (name == manifest.kind):
            raise _Invalid(f'"crc32" of array "{name}" is {array.crc32}')
    if maps and len(maps.channels) != maps.shape[-1]:
        raise _Invalid(f'"channels" of array "masks" has {len(maps.channels)} names for {maps.shape[-1]} channels')
    if manifest.kind not in manifest.arrays or "index" not in manifest.arrays:
        raise _Invalid(f'"arrays" lacks "{manifest.kind}" or "index"')


def _checksum(document: Mapping[str, Any]) -> int:
    """Return the CRC-32 of a manifest: of the JSON of all its other keys, sorted and without spaces."""
    rest = {key: value for key, value in document.items() if key != "crc32"}
    return zlib.crc32(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode())
