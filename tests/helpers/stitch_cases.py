"""Slides in memory, and what stitch must make of them, in plain NumPy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nuclei_segmentation.operators.stitch import OutputSpec, StitchResult, TiledSlide, stitch
from nuclei_segmentation.shared.batches import MapBatch, Pixels, TileBatch
from nuclei_segmentation.shared.geometry import Region, TileGrid
from nuclei_segmentation.shared.runtime.worker_pool import WorkerPool
from nuclei_segmentation.shared.settings import JpegSettings, OverlaySettings
from nuclei_segmentation.shared.slides.array_slide import ArraySlide
from nuclei_segmentation.shared.slides.hatching import hatch
from nuclei_segmentation.shared.slides.slide import RegionPixels, Slide


class BrokenSlide(ArraySlide):
    """A slide in memory, of which a part may be unreadable. It records its reads, and its pixels are read-only."""

    def __init__(
        self,
        pixels: Pixels,
        mpp: tuple[float, float] | None = (0.25, 0.25),
        icc: bytes | None = None,
        broken: Sequence[Region] = (),
    ) -> None:
        super().__init__(pixels, mpp, icc)
        self.broken = broken
        self.reads: list[Region] = []

    def read(self, region: Region) -> RegionPixels:
        self.reads.append(region)
        pixels = super().read(region).pixels
        damaged = any(region.intersect(part).area for part in self.broken)
        if damaged:
            hatch(pixels, region)
        else:
            pixels.flags.writeable = False
        return RegionPixels(pixels, damaged)

    def close(self) -> None:
        raise AssertionError("stitch does not open the slide, so it does not close it")


@dataclass
class Case:
    """A slide, its grid, its foreground and its maps, and the image that the stage must make from them."""

    width: int
    height: int
    tile: int
    overlap: int = 0
    side: int = 16
    style: str = "outline"
    share: float = 0.6
    batch: int = 5
    workers: int = 2
    damage: float = 0.0
    seed: int = 0
    opacity: float = 0.8
    channels: int = 1
    grid: TileGrid = field(init=False)

    def __post_init__(self) -> None:
        random = np.random.default_rng(self.seed)
        self.grid = TileGrid(self.width, self.height, self.tile, self.overlap)
        self.pixels = random.integers(0, 256, (self.height, self.width, 3), np.uint8)
        places = [place for place in self.grid if random.random() < self.share]
        self.foreground = np.array(places, np.int32).reshape(-1, 2)
        # Blobs, so that there are insides, contours and nuclei across tile borders; the rest of a map differs per tile.
        shape = (len(places), self.tile, self.tile, self.channels)
        self.maps = random.integers(0, 256, shape, np.uint8)
        coarse = random.integers(0, 2, (self.height // 5 + 1, self.width // 5 + 1), np.uint8) * 255
        blobs = np.repeat(np.repeat(coarse, 5, 0), 5, 1)[: self.height, : self.width]
        for number, place in enumerate(places):
            core, inside = self._core(place)
            self.maps[number, :, :, 0][inside] = blobs[core.y : core.bottom, core.x : core.right]
        self.damaged = random.random(len(places)) < self.damage

    def _core(self, place: tuple[int, int]) -> tuple[Region, tuple[slice, slice]]:
        core, region = self.grid.core(*place), self.grid.region(*place)
        return core, np.s_[core.y - region.y : core.bottom - region.y, core.x - region.x : core.right - region.x]

    @property
    def overlay(self) -> OverlaySettings:
        return OverlaySettings(style=self.style, color=(1, 250, 90), opacity=self.opacity)  # type: ignore[arg-type] # one of the two styles

    def batches(self) -> Iterator[MapBatch]:
        for start in range(0, len(self.foreground), self.batch):
            tile_ids = np.arange(start, min(start + self.batch, len(self.foreground)))
            tiles = np.stack([self._tile(self.grid.region(*self.foreground[number].tolist())) for number in tile_ids])
            tiles.flags.writeable = False
            yield MapBatch(tile_ids, self.maps[tile_ids], TileBatch(tile_ids, tiles, self.damaged[tile_ids]))

    def _tile(self, region: Region) -> Pixels:
        rows = np.abs(np.arange(region.y, region.bottom))
        columns = np.abs(np.arange(region.x, region.right))
        # Beyond the slide the tiles hold something else, which must never show.
        tile = np.full((self.tile, self.tile, 3), 77, np.uint8)
        inside = np.ix_(rows < self.height, columns < self.width)
        tile[inside] = self.pixels[np.ix_(rows[rows < self.height], columns[columns < self.width])]
        return tile

    def nuclei(self) -> npt.NDArray[np.bool_]:
        nuclei = np.zeros((self.height, self.width), bool)
        for number, place in enumerate(self.foreground.tolist()):
            core, inside = self._core(place)
            if not self.damaged[number]:
                nuclei[core.y : core.bottom, core.x : core.right] = self.maps[number, :, :, 0][inside] > 127
        return nuclei

    def reference(self) -> Pixels:
        nuclei = self.nuclei()
        drawn = nuclei
        if self.style == "outline":
            around = np.pad(nuclei, 1, mode="edge")
            drawn = nuclei & ~(around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:])
        part = round(self.opacity * 256)
        blended = (self.pixels.astype(int) * (256 - part) + np.array(self.overlay.color) * part + 128) >> 8
        image = np.where(drawn[..., None], blended, self.pixels).astype(np.uint8)
        for core in self.damaged_cores():
            hatch(image[core.y : core.bottom, core.x : core.right], core)
        return image

    def damaged_cores(self) -> tuple[Region, ...]:
        return tuple(self.grid.core(*place) for place in self.foreground[self.damaged].tolist())

    def source(self, slide: Slide | None = None) -> TiledSlide:
        return TiledSlide(slide or BrokenSlide(self.pixels), self.grid, self.foreground)

    def output(self, folder: Path, raw: bool = True, reserve_bytes: int = 0) -> OutputSpec:
        """Name the files ``image.tif`` and ``spool``; `raw` stores plain pixels instead of JPEG."""
        return OutputSpec(
            folder / "image.tif",
            folder / "spool",
            self.overlay,
            JpegSettings(),
            reserve_bytes,
            self.side,
            encode=(lambda tile: tile.tobytes()) if raw else None,
        )

    def stitch(
        self, folder: Path, slide: Slide | None = None, raw: bool = True, reserve_bytes: int = 0, limit: float = 1.0
    ) -> StitchResult:
        """Run the stage into ``folder/image.tif``."""
        output = self.output(folder, raw, reserve_bytes)
        with WorkerPool(self.workers) as pool:
            return stitch(
                self.source(slide), self.batches(), output, pool, lambda done, total: None, damage_limit=limit
            )


def write_image(
    path: Path,
    pixels: Pixels,
    jpeg: JpegSettings | None = None,
    mpp: tuple[float, float] | None = (0.25, 0.25),
    icc: bytes | None = None,
) -> None:
    """Write the image of a slide without tissue."""
    slide = BrokenSlide(pixels, mpp, icc)
    grid = TileGrid(slide.info.width, slide.info.height, 256)
    source = TiledSlide(slide, grid, np.empty((0, 2), np.int32))
    output = OutputSpec(path, path.with_suffix(".spool"), OverlaySettings(), jpeg or JpegSettings())
    with WorkerPool(2) as pool:
        stitch(source, iter(()), output, pool, lambda done, total: None)


def halved(image: Pixels) -> Pixels:
    height, width = image.shape[:2]
    even = np.pad(image.astype(int), ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return ((even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2] + 2) // 4).astype(np.uint8)
