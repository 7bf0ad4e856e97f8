"""The manifest of a store: what it holds, of which slide, made how. `manifest.schema.json` beside this is its schema.

A reader refuses another major version, and ignores keys that it does not know: a minor version only ever adds some.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from shared.errors import StoreError
from shared.geometry import TileGrid

FILE = "manifest.json"
COMPLETE = "COMPLETE"
WORK = ".run"
"""Folder of work in a store's folder, or in that of an image: the lock, and what is not finished."""
FORMAT = "nuclei-store"
VERSION = (1, 0)
FASTIO = "fastio:"
"""Marks an array that lies in memory of NVIDIA's driver; its id follows."""
LIMIT = 1 << 20
"""Most bytes of a manifest; ours have two thousand."""

Kind = Literal["tiles", "masks"]


@dataclass(frozen=True, slots=True)
class ArrayFacts:
    """One array of a store.

    Attributes
    ----------
    file
        Its name in the store's folder, its absolute path in shared memory, or `FASTIO` and the id of an allocation.
    shape, dtype
        Of the array.
    channels
        Names along the last axis, of maps.
    """

    file: str
    shape: tuple[int, ...]
    dtype: str
    channels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SlideFacts:
    """The slide that a store is made of; sizes in level-0 pixels, `mpp` in µm per pixel, in x and y."""

    name: str
    fingerprint: str
    width: int
    height: int
    mpp: tuple[float, float] | None
    objective: float | None


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """The model that made maps; see `ModelInfo` and `ModelSettings` of the stage filter."""

    name: str
    engine: str
    identity: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a store says of itself.

    Attributes
    ----------
    kind
        What its large array holds: ``tiles`` or ``masks``.
    generation
        Of this very store, 32 hexadecimal digits: a store that was made again has another.
    run
        The run that it belongs to, as ``NUCLEI_RUN_ID`` named it; empty if that was not set.
    key
        Hash of everything that decides its content (`shared.runkey`).
    source
        Key of the store that it was made from; empty for tiles.
    slide
        The slide.
    tile, overlap
        Of the grid, pixels.
    n
        Number of tiles with tissue. Arrays have one item where there are none.
    mask
        How the tissue was found: ``tissue`` or ``none``.
    model
        Of masks.
    arrays
        By name: ``tiles`` or ``masks``, ``index`` and, where there is a tissue mask, ``tissue``.
    """

    kind: Kind
    generation: str
    run: str
    key: str
    source: str
    slide: SlideFacts
    tile: int
    overlap: int
    n: int
    mask: str
    model: ModelFacts | None = None
    arrays: Mapping[str, ArrayFacts] = field(default_factory=dict)

    @property
    def grid(self) -> TileGrid:
        """The slide's tiles."""
        return TileGrid(self.slide.width, self.slide.height, self.tile, self.overlap)

    def to_json(self) -> bytes:
        """Return the file's content."""
        document = {"format": FORMAT, "version": ".".join(map(str, VERSION)), **asdict(self)}
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
            return _manifest(document)
        except _Wrong as error:
            raise StoreError(f"{path}: {error}; make the store again") from None


def read_manifest(folder: Path) -> Manifest | None:
    """Return a store's manifest, or None where there is none (yet)."""
    path = folder / FILE
    try:
        with path.open("rb") as file:
            content = file.read(LIMIT + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}") from error
    if len(content) > LIMIT:
        raise StoreError(f"{path} has more than {LIMIT} bytes: it is not the manifest of a store")
    return Manifest.from_json(content, path)


def is_complete(folder: Path, manifest: Manifest) -> bool:
    """Tell whether a store is complete: `COMPLETE` names its generation."""
    try:
        content = json.loads((folder / COMPLETE).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:
        raise StoreError(f"{folder / COMPLETE} cannot be read: {error}; make the store again") from error
    return isinstance(content, dict) and content.get("generation") == manifest.generation


class _Wrong(Exception):
    """A value is missing, or of the wrong type."""


def _take(document: Mapping[str, Any], key: str, kind: type | tuple[type, ...]) -> Any:  # noqa: ANN401 - as JSON has it
    if key not in document:
        raise _Wrong(f'"{key}" is missing')
    value = document[key]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
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
    if mpp is not None and not (len(mpp) == 2 and all(isinstance(value, int | float) for value in mpp)):
        raise _Wrong(f'"mpp" is {mpp!r:.60}')
    model = _take(document, "model", (dict, type(None)))
    tile = _whole(document, "tile", 16, 8192)
    return Manifest(
        kind=kind,
        generation=generation,
        source=_take(document, "source", str),
        slide=SlideFacts(
            name=_take(slide, "name", str),
            fingerprint=_take(slide, "fingerprint", str),
            width=_whole(slide, "width", 1),
            height=_whole(slide, "height", 1),
            mpp=None if mpp is None else (float(mpp[0]), float(mpp[1])),
            objective=_take(slide, "objective", (int, float, type(None))),
        ),
        tile=tile,
        overlap=_whole(document, "overlap", 0, tile - 1),
        n=_whole(document, "n", 0),
        model=None if model is None else ModelFacts(**{f.name: _take(model, f.name, str) for f in fields(ModelFacts)}),
        arrays={name: _array(name, facts) for name, facts in _take(document, "arrays", dict).items()},
        **{name: _take(document, name, str) for name in ("run", "key", "mask")},
    )


def _array(name: str, facts: object) -> ArrayFacts:
    if not isinstance(facts, dict):
        raise _Wrong(f'array "{name}" is {facts!r:.60}')
    shape, channels = _take(facts, "shape", list), _take(facts, "channels", list)
    if not shape or not all(type(side) is int and 0 < side < 1 << 31 for side in shape):
        raise _Wrong(f'"shape" of array "{name}" is {shape!r:.60}')
    dtype = _take(facts, "dtype", str)
    if dtype not in ("uint8", "int32", "bool"):
        raise _Wrong(f'"dtype" of array "{name}" is {dtype!r:.60}')
    file = _take(facts, "file", str)
    # A store names files of its own only: what others wrote must not lead a reader anywhere else.
    if file.startswith(FASTIO):
        if not re.fullmatch(r"nuclei-[0-9a-f]{32}-(tiles|masks)", file.removeprefix(FASTIO)):
            raise _Wrong(f'"file" of array "{name}" is {file!r:.60}, which names no allocation of a store')
    elif not file or "\0" in file or (Path(file).name != file and Path(file).parent != Path("/dev/shm")):  # noqa: S108
        raise _Wrong(f'"file" of array "{name}" is {file!r:.60}, which is neither beside it nor in /dev/shm')
    return ArrayFacts(file, tuple(shape), dtype, tuple(map(str, channels)))
