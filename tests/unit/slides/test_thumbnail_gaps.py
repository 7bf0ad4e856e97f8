"""What is missing or unreadable in the level that the thumbnail is made from comes from a larger one, or is unknown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile

from nuclei_segmentation.shared.batches import Pixels
from nuclei_segmentation.shared.slides import Slide
from tests.helpers.broken_tiff import break_tile
from tests.helpers.slides import tissue_like

Opened = Callable[..., Slide]
SIDE, SMALL = 1024, 256 * 256
TISSUE = slice(300, 700)  # rows and columns; over several tiles of each level
APERIO = "Aperio Image Library v11.2.1\r\n1024x1024 (256x256) J2K/KDU Q=30|AppMag = 20|MPP = 0.4990"


def picture() -> Pixels:
    image = np.full((SIDE, SIDE, 3), 240, np.uint8)
    image[TISSUE, TISSUE] = tissue_like(SIDE, SIDE)[TISSUE, TISSUE]
    return image


def pyramid(path: Path, compression: str, *, factors: tuple[int, ...] = (1, 4), description: str | None = None) -> Path:
    """Write a slide whose levels are smaller by `factors`, in tiles that shrink with them."""
    with tifffile.TiffWriter(path) as file:
        for factor in factors:
            pixels = cv2.resize(picture(), (SIDE // factor, SIDE // factor), interpolation=cv2.INTER_AREA)
            tile = max(64, 256 // factor)
            file.write(
                pixels, tile=(tile, tile), photometric="rgb", subfiletype=int(factor > 1), metadata=None,
                compression=None if compression == "none" else compression, description=description,
            )  # fmt: skip
    return path


# name of the file, compression, reader, description
KINDS = {
    "JPEG": ("x.tif", "jpeg", "jpeg", None),
    "deflate": ("x.tif", "deflate", "openslide", None),
    "JPEG 2000": ("x.svs", "APERIO_JP2000_RGB", "openslide", APERIO),
    "none": ("x.tif", "none", "openslide", None),
    "zstd": ("x.tif", "zstd", "tiff", None),
}


@pytest.mark.parametrize("how", ["missing", "unreadable", "zeroed", "outside"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_bad_tile_of_a_reduced_level_comes_from_level_0(tmp_path: Path, opened: Opened, kind: str, how: str) -> None:
    name, compression, reader, description = KINDS[kind]
    if kind == "none" and how == "unreadable":
        pytest.skip("any bytes are an uncompressed image")
    path = pyramid(tmp_path / name, compression, description=description)
    with_all = opened(path, reader).thumbnail(SMALL)
    assert not with_all.unknown.any()
    for tile in (5, 6, 9):
        break_tile(path, 1, tile, how)
    slide = opened(path, None if how == "outside" else reader)  # OpenSlide opens no file with such a tile
    assert len(slide.info.levels) == 2
    found = slide.thumbnail(SMALL)
    assert not found.unknown.any()
    # JPEG stores the reduced level and level 0 each with its own losses.
    assert np.abs(found.pixels.astype(int) - with_all.pixels.astype(int)).mean() < 2
    assert found.pixels[80:170, 80:170].mean() < 200


@pytest.mark.parametrize("compression", ["jpeg", "deflate"])
def test_several_bad_levels_are_skipped(tmp_path: Path, opened: Opened, compression: str) -> None:
    path = pyramid(tmp_path / "x.tif", compression, factors=(1, 2, 4))
    expected = opened(path).thumbnail(SMALL).pixels
    for tile in (5, 6):
        break_tile(path, 2, tile, "missing")
    for tile in range(64 // 4):
        break_tile(path, 1, tile, "unreadable")
    found = opened(path).thumbnail(SMALL)
    assert not found.unknown.any()
    assert np.abs(found.pixels.astype(int) - expected.astype(int)).mean() < 2


@pytest.mark.parametrize("kind", ["JPEG", "deflate", "JPEG 2000"])
def test_what_no_level_can_give_is_unknown_and_nothing_else_is(tmp_path: Path, opened: Opened, kind: str) -> None:
    name, compression, reader, description = KINDS[kind]
    path = pyramid(tmp_path / name, compression, description=description)
    expected = opened(path, reader).thumbnail(SMALL).pixels
    break_tile(path, 0, 5, "unreadable")
    break_tile(path, 1, 5, "unreadable")
    break_tile(path, 1, 10, "unreadable")
    found = opened(path, reader).thumbnail(SMALL)
    unknown = np.zeros((256, 256), np.bool_)
    unknown[63:129, 63:129] = True  # tile 5, and the pixels that touch it
    assert np.array_equal(found.unknown, unknown)
    assert np.abs(found.pixels.astype(int) - expected.astype(int))[~unknown].mean() < 2


@pytest.mark.parametrize("kind", ["JPEG", "deflate", "JPEG 2000", "zstd"])
def test_one_bad_tile_of_level_0_costs_only_itself(tmp_path: Path, opened: Opened, kind: str) -> None:
    name, compression, reader, description = KINDS[kind]
    path = pyramid(tmp_path / name, compression, factors=(1,), description=description)
    expected = opened(path, reader).thumbnail(SIDE**2).pixels
    break_tile(path, 0, 3, "unreadable")
    found = opened(path, reader).thumbnail(SIDE**2)
    unknown = np.zeros((SIDE, SIDE), np.bool_)
    unknown[:256, 768:] = True
    assert np.array_equal(found.unknown, unknown)
    assert np.array_equal(found.pixels[~unknown], expected[~unknown])


@pytest.mark.parametrize("compression", ["jpeg", "deflate", "zstd"])
def test_a_small_piece_of_tissue_under_a_missing_tile(tmp_path: Path, opened: Opened, compression: str) -> None:
    """It lies between all places that a look at samples of level 0 would see."""
    image = np.full((SIDE, SIDE, 3), 240, np.uint8)
    image[40:70, 40:70] = (120, 40, 110)
    path = tmp_path / "x.tif"
    with tifffile.TiffWriter(path) as file:
        for factor in (1, 4):
            file.write(
                image[::factor, ::factor], tile=(1024 // factor, 1024 // factor), photometric="rgb", metadata=None,
                compression=compression, subfiletype=int(factor > 1),
            )  # fmt: skip
    break_tile(path, 1, 0, "missing")
    assert opened(path).thumbnail(SMALL).pixels[12:15, 12:15].mean() < 120


def test_a_tile_that_no_level_stores_is_background(tmp_path: Path, opened: Opened) -> None:
    """Sparse files, whose writer left out the glass, are sound."""
    for compression in ("jpeg", "deflate", "zstd"):
        path = pyramid(tmp_path / f"{compression}.tif", compression)
        for level in (0, 1):
            break_tile(path, level, 0, "missing")
        found = opened(path).thumbnail(SMALL)
        assert not found.unknown.any()
        assert (found.pixels[:60, :60] == 255).all()


def test_a_slide_that_cannot_be_read_at_all_is_unknown_soon(
    tmp_path: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenSlide opens a file anew after each failure: after many, readable parts are no longer looked for."""
    path = pyramid(tmp_path / "x.tif", "deflate", factors=(1,))
    slide = opened(path, "openslide")
    reads = []
    monkeypatch.setattr("nuclei_segmentation.shared.slides.openslide_reader._MOST_FAILURES", 3)
    monkeypatch.setattr(slide._handle, "read", lambda *where: reads.append(where))
    assert slide.thumbnail(SMALL).unknown.all()
    assert len(reads) < 20
