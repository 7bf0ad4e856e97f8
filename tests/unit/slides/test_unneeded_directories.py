"""A fault in a TIFF directory that is not needed costs that directory alone."""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from nuclei_segmentation.shared.batches import Pixels
from nuclei_segmentation.shared.slides import Slide
from tests.helpers.slides import read_all, tissue_like

Opened = Callable[..., Slide]
Break = Callable[[bytearray, "list[int]"], None]
APERIO = "Aperio Image Library v11.2.1\r\n512x512 (256x256) JPEG/RGB Q=90|AppMag = 20|MPP = 0.4990"
LEVELS, LABEL = 2, 3  # numbers of directories: level 0, thumbnail, level 1, label
WIDTH, COUNTS, STRIPS, SUBIFDS = 257, 279, 273, 330


def slide(path: Path) -> tuple[Pixels, list[int]]:
    """Write an Aperio slide of level 0, thumbnail, level 1 and label; return level 0 and where its directories lie."""
    pixels = tissue_like(512, 512)
    tiles = {"tile": (256, 256), "compression": "jpeg", "photometric": "rgb", "metadata": None}
    strips = {"compression": "lzw", "photometric": "rgb", "metadata": None}
    with tifffile.TiffWriter(path) as file:
        file.write(pixels, description=APERIO, **tiles)
        file.write(pixels[::8, ::8], description=APERIO, **strips)
        file.write(pixels[::2, ::2], description=APERIO, subfiletype=1, **tiles)
        file.write(pixels[:50, :60], description="Aperio\r\nlabel 60x50", subfiletype=1, **strips)
    with tifffile.TiffFile(path) as file:
        return pixels, [page.offset for page in file.pages]


def entry(data: bytearray, directory: int, tag: int) -> int:
    """Return where the entry of a tag lies."""
    for at in range(directory + 2, directory + 2 + 12 * data[directory], 12):
        if struct.unpack_from("<H", data, at)[0] == tag:
            return at
    raise KeyError(tag)


def link(data: bytearray, directory: int) -> int:
    """Return where the offset of the next directory lies."""
    return directory + 2 + 12 * data[directory]


def put(number: int, tag: int, value: int) -> Break:
    def breaks(data: bytearray, directories: list[int]) -> None:
        struct.pack_into("<II", data, entry(data, directories[number], tag) + 4, 1, value)

    return breaks


def without(number: int, tag: int) -> Break:
    def breaks(data: bytearray, directories: list[int]) -> None:
        struct.pack_into("<H", data, entry(data, directories[number], tag), 65000)

    return breaks


def follow(number: int, to: Callable[[bytearray, list[int]], int]) -> Break:
    def breaks(data: bytearray, directories: list[int]) -> None:
        struct.pack_into("<I", data, link(data, directories[number]), to(data, directories))

    return breaks


def zero(number: int) -> Break:
    def breaks(data: bytearray, directories: list[int]) -> None:
        data[directories[number] : link(data, directories[number])] = bytes(
            link(data, directories[number]) - directories[number]
        )

    return breaks


def cut(data: bytearray, directories: list[int]) -> None:
    del data[directories[LABEL] + 20 :]


def trailing(data: bytearray, directories: list[int]) -> None:
    """A directory of one tag, at the end of the chain."""
    struct.pack_into("<I", data, link(data, directories[LABEL]), len(data))
    data += struct.pack("<HHHIII", 1, 256, 4, 1, 16, 0)


FAULTS: dict[str, Break] = {
    "label without tags": zero(LABEL),
    "label without byte counts": without(LABEL, COUNTS),
    "label of height 0": put(LABEL, WIDTH, 0),
    "label of height 2^32-1": put(LABEL, WIDTH, 0xFFFFFFFF),
    "label without strips": without(LABEL, STRIPS),
    "thumbnail without tags": zero(1),
    "thumbnail of height 0": put(1, WIDTH, 0),
    "level 1 without byte counts": without(LEVELS, 325),
    "level 1 of height 0": put(LEVELS, WIDTH, 0),
    "level 1 with tiles of 2^31": put(LEVELS, 322, 1 << 31),
    "trailing directory": trailing,
    "link beyond the end": follow(LABEL, lambda data, _: len(data) + 1000),
    "link to level 0": follow(LABEL, lambda _, directories: directories[0]),
    "link to itself": follow(LABEL, lambda _, directories: directories[LABEL]),
    "label listed twice": follow(0, lambda _, directories: directories[LABEL]),
    "cut in the label": cut,
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_broken_directory_that_is_not_needed_costs_nothing_else(tmp_path: Path, opened: Opened, fault: Break) -> None:
    path = tmp_path / "x.svs"
    _, directories = slide(path)
    expected = read_all(opened(path))
    data = bytearray(path.read_bytes())
    fault(data, directories)
    path.write_bytes(data)
    found = opened(path)
    assert np.array_equal(read_all(found), expected)
    assert found.info.format == "aperio"
    assert found.info.mpp == (0.499, 0.499)
    assert not found.thumbnail(200 * 200).unknown.any()


def test_what_is_left_out_is_named(tmp_path: Path, opened: Opened, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "x.svs"
    _, directories = slide(path)
    data = bytearray(path.read_bytes())
    zero(LABEL)(data, directories)
    path.write_bytes(data)
    with caplog.at_level(logging.WARNING):
        opened(path)
    assert "x.svs: an image that is not needed is broken and is left out: a TIFF directory has 0 tags" in caplog.text


@pytest.mark.parametrize("how", ["listed twice", "in the chain too", "a broken one", "beyond the end"])
def test_levels_below_the_image(tmp_path: Path, opened: Opened, how: str) -> None:
    """OME-TIFF keeps the levels as SubIFDs."""
    path, pixels = tmp_path / "x.ome.tif", tissue_like(512, 512)
    tiles = {"tile": (128, 128), "compression": "jpeg", "photometric": "rgb", "metadata": None}
    with tifffile.TiffWriter(path) as file:
        file.write(pixels, subifds=2, description='<OME xmlns="x"><Pixels Type="uint8"/></OME>', **tiles)
        file.write(pixels[::2, ::2], subfiletype=1, **tiles)
        file.write(pixels[::4, ::4], subfiletype=1, **tiles)
    expected = read_all(opened(path, "tiff"))
    with tifffile.TiffFile(path) as file:
        base, subs = file.pages[0].offset, list(file.pages[0].tags[SUBIFDS].value)
    data = bytearray(path.read_bytes())
    at = struct.unpack_from("<I", data, entry(data, base, SUBIFDS) + 8)[0]
    if how == "listed twice":
        struct.pack_into("<II", data, at, subs[0], subs[0])
    elif how == "in the chain too":
        struct.pack_into("<I", data, link(data, base), subs[0])
    elif how == "a broken one":
        zero(0)(data, subs)
    else:
        struct.pack_into("<I", data, at, len(data) + 5)
    path.write_bytes(data)
    found = opened(path, "tiff")
    assert np.array_equal(read_all(found), expected)
    assert 2 <= len(found.info.levels) <= 3
    assert len(set(found.info.levels)) == len(found.info.levels)


@pytest.mark.parametrize("tiled", [True, False])
def test_tags_of_tiles_and_of_strips_stand_for_each_other(tmp_path: Path, opened: Opened, tiled: bool) -> None:
    path, pixels = tmp_path / "x.tif", tissue_like(512, 512)
    options = {"tile": (256, 256)} if tiled else {"rowsperstrip": 64}
    tifffile.imwrite(path, pixels, photometric="rgb", compression="deflate", metadata=None, **options)
    with tifffile.TiffFile(path) as file:
        directory = file.pages[0].offset
    data = bytearray(path.read_bytes())
    for tile, strip in ((324, STRIPS), (325, COUNTS)):
        before, after = (tile, strip) if tiled else (strip, tile)
        struct.pack_into("<H", data, entry(data, directory, before), after)
    path.write_bytes(data)
    assert np.array_equal(read_all(opened(path)), pixels)
