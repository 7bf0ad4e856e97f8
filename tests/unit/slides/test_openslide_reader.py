"""One bad tile makes an OpenSlide handle useless. Its neighbours must stay readable, however many threads read."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tifffile

from nuclei_segmentation.shared.errors import UnreadableSlide
from nuclei_segmentation.shared.geometry import Region
from nuclei_segmentation.shared.slides import open as opening
from nuclei_segmentation.shared.slides import open_slide


@pytest.mark.parametrize("threads", [1, 8])
def test_only_the_bad_tiles_are_damaged_whatever_the_threads(tmp_path: Path, threads: int) -> None:
    path = tmp_path / "x.tif"
    pixels = np.random.default_rng(1).integers(0, 256, (1024, 1024, 3), np.uint8)
    tifffile.imwrite(path, pixels, tile=(64, 64), photometric="rgb", compression="deflate", metadata=None)
    bad = set(range(0, 256, 3))
    with tifffile.TiffFile(path) as file:
        places = [(file.pages[0].dataoffsets[n], file.pages[0].databytecounts[n]) for n in sorted(bad)]
    with path.open("r+b") as raw:
        for offset, count in places:
            raw.seek(offset)
            raw.write(bytes(count))
    with open_slide(path, reader="openslide") as slide, ThreadPoolExecutor(threads) as pool:
        regions = [Region(64 * (n % 16), 64 * (n // 16), 64, 64) for n in range(256)]
        found = {n for n, region_pixels in enumerate(pool.map(slide.read, regions)) if region_pixels.damaged}
    assert found == bad


def jpeg2000(path: Path, pixels: np.ndarray, compression: str) -> None:
    aperio = "Aperio Image Library v11.2.1\r\n700x500 (240x240) J2K/KDU Q=30|AppMag = 20|MPP = 0.4990"
    tifffile.imwrite(
        path, pixels, tile=(240, 240), photometric="rgb", compression=compression, metadata=None,
        description=aperio if "APERIO" in compression else None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("compression", "name", "kind", "mpp"),
    [("APERIO_JP2000_RGB", "x.svs", "aperio", 0.499), ("JPEG2000", "x.tif", "generic-tiff", None)],
)
def test_jpeg_2000_is_read_by_openslide(
    tmp_path: Path, compression: str, name: str, kind: str, mpp: float | None
) -> None:
    y, x = np.mgrid[:500, :700]
    pixels = np.stack([x % 256, y % 256, (x + y) % 256], axis=2).astype(np.uint8)
    jpeg2000(tmp_path / name, pixels, compression)
    with open_slide(tmp_path / name) as slide:
        assert slide.info.format == kind
        assert (slide.info.mpp[0] if slide.info.mpp else None) == mpp
        region_pixels = slide.read(Region(100, 50, 400, 300))
    assert not region_pixels.damaged
    np.testing.assert_array_equal(region_pixels.pixels, pixels[50:350, 100:500])


def test_another_reader_is_used_for_a_file_that_openslide_opens_but_cannot_decode(tmp_path: Path) -> None:
    """Padded uncompressed tiles, as tifffile writes them for this tile size."""
    pixels = np.random.default_rng(2).integers(0, 256, (900, 1300, 3), np.uint8)
    tifffile.imwrite(tmp_path / "x.tif", pixels, tile=(240, 240), photometric="rgb", metadata=None)
    with open_slide(tmp_path / "x.tif") as slide:
        region_pixels = slide.read(Region(0, 0, 1300, 900))
    assert not region_pixels.damaged
    np.testing.assert_array_equal(region_pixels.pixels, pixels)


def test_a_disk_that_fails_while_the_slide_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The read fails by a patch, since no disk here can be made to fail."""
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, np.zeros((64, 64, 3), np.uint8), photometric="rgb", metadata=None)

    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(opening, "read_index", fail)
    with pytest.raises(UnreadableSlide, match=r"x\.tif cannot be read: Input/output error"):
        open_slide(path)
