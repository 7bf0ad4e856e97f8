"""Small stores to be made, broken and read."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

import numpy as np

from nuclei_segmentation.shared.clara.render_config import RENDER
from nuclei_segmentation.shared.runtime.waiting import WaitLimit
from nuclei_segmentation.shared.store import (
    ArrayMetadata,
    Manifest,
    ModelMetadata,
    SlideMetadata,
    StoreFolder,
    StoreReader,
    StoreWriter,
)
from nuclei_segmentation.shared.store.manifest import read_manifest

SHARED = Path("/dev/shm")
TILE = 16
ALONE = WaitLimit(None)


def manifest_of(n: int, kind: str = "tiles", key: str = "key") -> Manifest:
    """Return the manifest of a store on a slide of 6 x 1 tiles."""
    channels = ("nucleus", "boundary") if kind == "masks" else ()
    return Manifest(
        kind=kind, generation="", run="", key=key, source="" if kind == "tiles" else "tiles' key",
        slide=SlideMetadata("a.svs", "f" * 64, 6 * TILE, TILE, (0.5, 0.5), 20.0),
        tile=TILE, overlap=0, n=n, mask="tissue",
        model=ModelMetadata("m", "mock", "1") if kind == "masks" else None,
        arrays={kind: ArrayMetadata("", (max(1, n), TILE, TILE, len(channels) or 3), "uint8", channels)},
    )  # fmt: skip


def value(item: int, channels: int = 3) -> np.ndarray:
    """Return the content of an item, (TILE, TILE, channels); no two are alike."""
    return np.random.default_rng(item).integers(0, 256, (TILE, TILE, channels), np.uint8)


@dataclass
class Maker:
    """Makes a store in a folder as a stage does."""

    folder: Path
    shared: bool
    n: int = 5
    kind: str = "tiles"

    def small(self) -> dict[str, np.ndarray]:
        index = np.array([(0, column) for column in range(self.n)] or [(0, 0)], np.int32)
        return {"index": index} | ({"tissue": np.eye(7, dtype=np.bool_)} if self.kind == "tiles" else {})

    def files(self) -> dict[str, bytes]:
        return {RENDER: b"{}"} if self.kind == "tiles" else {}

    def value(self, item: int) -> np.ndarray:
        return value(item, 2 if self.kind == "masks" else 3)

    def write(self, held: StoreFolder, *, key: str = "key") -> StoreWriter:
        manifest = manifest_of(self.n, self.kind, key)
        return StoreWriter(
            held.path, held.work, manifest, self.small(), self.files(), shared=self.shared, check=held.check
        )

    def make(self, *, items: range | None = None, key: str = "key", run: str = "", overwrite: bool = False) -> int:
        """Make the store, or the part of it that is missing; return how many items were made."""
        wanted = range(self.n) if items is None else items
        with StoreFolder(self.folder) as held:
            if not held.claim(self.kind, key, run, overwrite=overwrite, files=self.files()):  # type: ignore[arg-type]
                return 0
            with self.write(held, key=key) as store:
                todo = [item for item in wanted if item not in store.entries]
                for item in todo:
                    store.put([item], self.value(item)[np.newaxis])
                if items is None:
                    store.finish({"damaged": 0})
            if items is None:
                held.finish()
        return len(todo)

    def reader(self, wait_limit: WaitLimit = ALONE) -> StoreReader:
        manifest = read_manifest(self.folder)
        assert manifest is not None
        return StoreReader(self.folder, manifest, wait_limit)

    def content(self) -> bytes:
        """Read the whole store as the next stage does; return all that it says."""
        with self.reader() as reader:
            items, damaged = reader.read(0, self.n)
            rest = [reader.small(name).tobytes() for name in sorted(self.small())]
            return b"".join([items.tobytes(), damaged.tobytes(), reader.tile_positions.tobytes(), *rest])

    @property
    def array(self) -> Path:
        """The file of the large array."""
        manifest = read_manifest(self.folder)
        assert manifest is not None
        return self.folder / manifest.arrays[self.kind].file  # type: ignore[index]

    def rewrite(self, **facts: object) -> None:
        """Change the manifest, with a checksum that holds."""
        manifest = read_manifest(self.folder)
        assert manifest is not None
        (self.folder / "manifest.json").write_bytes(replace(manifest, **facts).to_json())  # type: ignore[arg-type]


def schema() -> dict[str, object]:
    return json.loads(files("nuclei_segmentation.shared.store").joinpath("manifest.schema.json").read_text())


def manifest(folder: Path) -> Manifest:
    found = read_manifest(folder)
    assert found is not None
    return found


def rewrite(folder: Path, **facts: object) -> None:
    (folder / "manifest.json").write_bytes(replace(manifest(folder), **facts).to_json())  # type: ignore[arg-type]
