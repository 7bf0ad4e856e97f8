"""Hostile files are refused with UnreadableSlide, in little time and memory."""

from __future__ import annotations

import contextlib
import os
import resource
import struct
import subprocess
import sys
import time
import zlib

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from nuclei_segmentation.shared.errors import UnreadableSlide
from nuclei_segmentation.shared.geometry import Region
from nuclei_segmentation.shared.slides import open_slide
from nuclei_segmentation.shared.slides.tiff_index import read_index
from tests.helpers.slides import damaged_tiles

LONG, SHORT = 4, 3


def tiff(entries, following=0, tail=b"") -> bytes:
    """Return a little-endian TIFF file with one directory; an entry is (tag, type, count, value)."""
    data = b"II*\0" + struct.pack("<IH", 8, len(entries))
    for tag, kind, count, value in sorted(entries):
        data += struct.pack("<HHII", tag, kind, count, value)
    return data + struct.pack("<I", following) + tail


def image(width=256, height=256, tile=256, count=1, **more):
    """Return the entries of an image with one tile. Arguments replace or add entries."""
    entries = {256: width, 257: height, 258: 8, 259: 7, 262: 6, 277: 3, 322: tile, 323: tile, 324: 8, 325: 100}
    entries |= {int(tag[1:]): value for tag, value in more.items()}
    return [(tag, LONG, count if tag in (324, 325) else 1, value) for tag, value in entries.items()]


HOSTILE = {
    "empty": b"",
    "text": b"This is not a slide.\n" * 10,
    "two bytes": b"II",
    "header only": b"II*\0\x08\0\0\0",
    "offset beyond the end": b"II*\0\xff\xff\xff\x7f",
    "no directory": b"II*\0\0\0\0\0",
    "BigTIFF cut": b"II+\0\x08\0\0\0",
    "BigTIFF with offsets of 4 bytes": b"II+\0\x04\0\0\0" + struct.pack("<Q", 16),
    "BigTIFF with 2^63 tags": b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 1 << 63),
    "directory with no tags": tiff([]),
    "loop to itself": tiff(image(), following=8),
    "2^31 x 2^31": tiff(image(1 << 31, 1 << 31)),
    "2^31-1 x 2^31-1": tiff(image((1 << 31) - 1, (1 << 31) - 1, tile=1 << 15)),
    "2^24 x 2^24": tiff(image(1 << 24, 1 << 24, tile=1 << 13)),
    "tile 1 x 1": tiff(image(tile=1)),
    "tile 0 x 0": tiff(image(tile=0)),
    "tile 2^31": tiff(image(tile=1 << 31)),
    "size 0": tiff(image(0, 0)),
    "size -1": tiff(image(0xFFFFFFFF, 0xFFFFFFFF)),
    "2^32-1 offsets": tiff(image(count=0xFFFFFFFF)),
    "too few offsets": tiff(image(2000, 2000), tail=bytes(4000)),
    "ratio": tiff(image(16000, 16000), tail=bytes(2000)),
    "2^32-1 samples": tiff(image(t277=0xFFFFFFFF)),
    "rows per strip 0": tiff([*((t, k, c, v) for t, k, c, v in image(16, 16) if t < 320), (278, LONG, 1, 0)]),
    "description of 4 GB": tiff([*image(), (270, 2, 0xFFFFFFFF, 8)]),
    "tables outside": tiff([*image(), (347, 7, 1000, 0x7FFFFFFF)], tail=bytes(5000)),
    "depth": tiff([*image(), (32997, LONG, 1, 5)], tail=bytes(5000)),
    "tags of unknown types": tiff([(tag, 99, 1, 1) for tag in range(250, 350)]),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("suffix", [".svs", ".tif"])
def test_hostile_header_is_refused(tmp_path, data, suffix):
    path = tmp_path / f"hostile{suffix}"
    path.write_bytes(data)
    start = time.perf_counter()
    with pytest.raises(UnreadableSlide, match=r"^hostile\.\w+ (cannot be read: .|is empty)") as caught:
        open_slide(path)
    assert time.perf_counter() - start < 30
    assert "\n" not in str(caught.value)


def many_directories(count: int) -> bytes:
    """Return a TIFF file with a chain of directories that have one tag each."""
    size = 2 + 12 + 4
    data = bytearray(b"II*\0\x08\0\0\0")
    for number in range(count):
        data += struct.pack("<HHHII", 1, 256, LONG, 1, 16) + struct.pack("<I", 8 + (number + 1) * size)
    data[-4:] = bytes(4)
    return bytes(data)


def same_bytes_many_times() -> bytes:
    """Return a TIFF file in which 900 directories each claim the same 15 MB as their colour profile."""
    entries = [*image(16, 16, tile=16), (34675, 7, 15_000_000, 8)]
    size = 2 + 12 * len(entries) + 4
    one = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    data = bytearray(b"II*\0\x08\0\0\0")
    for number in range(900):
        data += struct.pack("<H", len(entries)) + one + struct.pack("<I", 8 + (number + 1) * size)
    data[-4:] = bytes(4)
    return bytes(data) + bytes(15_000_000)


@pytest.mark.parametrize(
    "make", [lambda: many_directories(1_000_000), same_bytes_many_times], ids=["million", "shared"]
)
def test_large_hostile_file_takes_little_time_and_memory(tmp_path, make):
    path = tmp_path / "large.tif"
    path.write_bytes(make())
    script = (
        "import sys, time, resource; from pathlib import Path\n"
        "from nuclei_segmentation.shared.slides import open_slide\n"
        "from nuclei_segmentation.shared.errors import UnreadableSlide\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; start = time.perf_counter()\n"
        "try: open_slide(Path(sys.argv[1]))\n"
        "except UnreadableSlide as error: print(error)\n"
        "print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    message, figures = done.stdout.splitlines()
    seconds, kilobytes = map(float, figures.split())
    assert "cannot be read" in message
    assert seconds < 30
    assert kilobytes < 256 << 10


@pytest.mark.parametrize("compression", ["deflate", "lzw", "zstd", "packbits"])
def test_bomb_in_a_tile_is_damage(tmp_path, opened, compression):
    """A tile that unpacks to far more than its size must not take that much memory."""
    import imagecodecs

    bombs = {
        "deflate": lambda: zlib.compress(bytes(1 << 27), 9),
        "lzw": lambda: imagecodecs.lzw_encode(bytes(1 << 25)),
        "zstd": lambda: imagecodecs.zstd_encode(bytes(1 << 28)),
        "packbits": lambda: bytes([129, 0]) * (1 << 17),
    }
    good = np.zeros((256, 512, 3), np.uint8)
    path = tmp_path / "bomb.tif"
    tifffile.imwrite(path, good, tile=(256, 256), compression=compression, photometric="rgb", metadata=None)
    bomb = bombs[compression]()
    with path.open("r+b") as file:
        at = file.seek(0, os.SEEK_END)
        file.write(bomb)
    with tifffile.TiffFile(path, mode="r+") as file:
        tags = file.pages[0].tags
        tags["TileOffsets"].overwrite([tags["TileOffsets"].value[0], at])
        tags["TileByteCounts"].overwrite([tags["TileByteCounts"].value[0], len(bomb)])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    slide = opened(path, "tiff")
    if compression == "lzw":  # its decoder stops when the buffer is full, without an error
        slide.read(Region(256, 0, 256, 256))
    else:
        assert damaged_tiles(slide, 256) == {(0, 1)}
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10


def test_jpeg2000_bomb_is_damage(tmp_path, opened):
    import imagecodecs

    data = bytearray(imagecodecs.jpeg2k_encode(np.zeros((64, 64, 3), np.uint8), codecformat="j2k"))
    at = data.find(b"\xff\x4f\xff\x51")
    struct.pack_into(">2I", data, at + 8, 1 << 16, 1 << 16)
    path = tmp_path / "bomb.tif"
    tifffile.imwrite(
        path, iter([bytes(data)]), shape=(64, 64, 3), dtype=np.uint8, tile=(64, 64), compression=34712,
        photometric="rgb", metadata=None,
    )  # fmt: skip
    assert opened(path, "tiff").read(Region(0, 0, 64, 64)).damaged


def parse(data: bytes) -> None:
    """Read the directories of a file with these bytes."""
    descriptor = os.memfd_create("tiff")
    try:
        os.write(descriptor, data)
        read_index(descriptor)
    finally:
        os.close(descriptor)


@given(st.sampled_from([b"II*\0", b"MM\0*", b"II+\0\x08\0\0\0", b"MM\0+\0\x08\0\0"]), st.binary(max_size=400))
def test_any_bytes_give_directories_or_the_one_error(head, data):
    with contextlib.suppress(UnreadableSlide):
        parse(head + data)


@given(st.lists(st.tuples(st.integers(0, 700), st.integers(0, 255)), min_size=1, max_size=8), st.integers(0, 1))
def test_any_change_to_real_directories_gives_directories_or_the_one_error(real_files, changes, which):
    data = bytearray(real_files[which])
    for at, value in changes:
        data[at % len(data)] = value
    with contextlib.suppress(UnreadableSlide):
        parse(bytes(data))


@pytest.fixture(scope="module")
def real_files(tmp_path_factory):
    """Two small TIFF files, classic and BigTIFF."""
    path, found = tmp_path_factory.mktemp("real") / "real.tif", []
    for bigtiff in (False, True):
        with tifffile.TiffWriter(path, bigtiff=bigtiff) as writer:
            for size in (64, 32):
                pixels = np.zeros((size, size, 3), np.uint8)
                writer.write(pixels, tile=(16, 16), compression="jpeg", photometric="rgb", metadata=None)
        found.append(path.read_bytes())
    return found
