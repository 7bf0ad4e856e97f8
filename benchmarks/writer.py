"""How fast stitch writes a pyramid, beside libvips on the same pixels.

Both write a tiled JPEG pyramid (quality 85, 4:2:0, tiles of 256) from an image in memory, with the same number of
threads, in turns; the best of each counts.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import pyvips

from operators.stitch import stitch
from shared.batches import Pixels
from shared.crew import Crew
from shared.geometry import TileGrid, Window
from shared.settings import JpegSettings, OverlaySettings
from shared.slides.slide import Region, Slide, SlideInfo


class ArraySlide(Slide):
    """A slide in memory."""

    def __init__(self, pixels: Pixels) -> None:
        height, width = pixels.shape[:2]
        self._pixels = pixels
        self.info = SlideInfo(
            Path("memory"), "array", "array", width, height, ((width, height),), (0.25, 0.25), "", None, None
        )

    def read(self, window: Window) -> Region:
        """Return a view."""
        return Region(self._pixels[window.y : window.bottom, window.x : window.right], damaged=False)

    def overview(self, limit: int) -> Pixels:
        """Return nothing of use: nobody asks here."""
        raise NotImplementedError

    def close(self) -> None:
        """Nothing is open."""


def tissue(side: int, seed: int = 0) -> Pixels:
    """Return (side, side, 3) uint8 that compresses about like stained tissue: soft colour, nuclei, grain."""
    noise = np.random.default_rng(seed)
    piece = 2048
    soft = cv2.resize(noise.normal(0, 1, (piece // 32, piece // 32, 3)).astype(np.float32), (piece, piece))
    picture = np.array([214, 160, 196], np.float32) + soft * np.array([14, 24, 14], np.float32)
    for x, y in noise.integers(0, piece, (piece * piece // 1200, 2)).tolist():
        axes = tuple(noise.integers(5, 10, 2).tolist())
        cv2.ellipse(picture, (x, y), axes, float(noise.integers(180)), 0, 360, (96, 64, 140), -1, cv2.LINE_AA)
    picture = cv2.GaussianBlur(picture, (0, 0), 1.2) + noise.normal(0, 3.5, picture.shape).astype(np.float32)
    return np.tile(np.clip(picture, 0, 255).astype(np.uint8), (side // piece, side // piece, 1))


def measure(side: int = 8192, workers: int = 2, rounds: int = 3) -> dict[str, float]:
    """Write the same image both ways.

    Parameters
    ----------
    side
        Of the square image in pixels, a multiple of 2048.
    workers
        Threads.
    rounds
        How often; the best counts.

    Returns
    -------
    Wall seconds and level-0 megapixels a second of both, how many times faster stitch is, and both files' megabytes.
    """
    slide = ArraySlide(tissue(side))
    megapixels = side * side / 1e6
    pyvips.voperation.cache_set_max(0)
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as folder:
        mine, other = Path(folder, "stitch.tif"), Path(folder, "vips.tif")
        for _ in range(rounds):
            ours.append(_stitch(slide, workers, mine))
            theirs.append(_vips(slide, other))
        sizes = mine.stat().st_size / 1e6, other.stat().st_size / 1e6
    return {
        "stitch_seconds": min(ours),
        "stitch_megapixels_per_second": megapixels / min(ours),
        "vips_seconds": min(theirs),
        "vips_megapixels_per_second": megapixels / min(theirs),
        "speedup": min(theirs) / min(ours),
        "stitch_megabytes": sizes[0],
        "vips_megabytes": sizes[1],
    }


def _stitch(slide: ArraySlide, workers: int, target: Path) -> float:
    grid = TileGrid(slide.info.width, slide.info.height, 256)
    start = time.perf_counter()
    with Crew(workers) as crew:
        stitch(
            slide,
            grid,
            np.empty((0, 2), np.int32),
            iter(()),
            target,
            target.with_suffix(".spool"),
            OverlaySettings(),
            JpegSettings(),
            crew,
            lambda done, total: None,
        )
    return time.perf_counter() - start


def _vips(slide: ArraySlide, target: Path) -> float:
    pixels = slide.read(Window(0, 0, slide.info.width, slide.info.height)).pixels
    start = time.perf_counter()
    image = pyvips.Image.new_from_memory(pixels.data, slide.info.width, slide.info.height, 3, "uchar")
    image.tiffsave(
        str(target),
        pyramid=True,
        tile=True,
        tile_width=256,
        tile_height=256,
        compression="jpeg",
        Q=85,
        bigtiff=True,
        subifd=False,
    )
    return time.perf_counter() - start


if __name__ == "__main__":
    for name, value in measure().items():
        print(f"{name:<30} {value:10.3f}")
