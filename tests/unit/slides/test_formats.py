"""Formats are told by their content; what only looks like a slide is refused, and so are impossible claims."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from nuclei_segmentation.shared.errors import InputError, UnreadableSlide
from nuclei_segmentation.shared.slides import Slide, find_slide, open_slide
from nuclei_segmentation.shared.slides.tiff_index import Directory, TiffIndex, read_index
from tests.helpers.slides import read_all, tissue_like

Opened = Callable[..., Slide]
BYTE, LONG = 1, 4


def write(path: Path, *, tags: tuple[tuple[int, int, int, object], ...] = ()) -> Path:
    """Write a sound TIFF file with some tags in addition, each (tag, type, count, value)."""
    tifffile.imwrite(
        path, tissue_like(256, 256), tile=(256, 256), photometric="rgb", compression="jpeg", metadata=None,
        extratags=[(*tag, True) for tag in tags],
    )  # fmt: skip
    return path


def refusal(path: Path) -> str:
    with pytest.raises(UnreadableSlide) as caught:
        open_slide(path)
    text = str(caught.value)
    assert text.startswith(f"{path.name} cannot be read: ")
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("tag", "kind"),
    [(34412, "a Zeiss LSM file"), (33628, "a MetaMorph STK file"), (33629, "a MetaMorph STK file"),
     (33630, "a MetaMorph STK file"), (33631, "a MetaMorph STK file"), (50706, "a raw camera file")],
)  # fmt: skip
def test_a_format_with_the_head_of_a_tiff_file_is_told_by_its_tags(tmp_path: Path, tag: int, kind: str) -> None:
    path = write(tmp_path / "x.tif", tags=((tag, BYTE, 4, (1, 4, 0, 0)),))
    text = refusal(path)
    assert f"it is {kind}, which is not supported; what is read: " in text
    assert all(word in text for word in ("Aperio", "Hamamatsu", "MIRAX", "DICOM", "OME-TIFF"))


@pytest.mark.parametrize("below", [True, False])
@pytest.mark.parametrize(("tag", "value"), [(262, 32803), (262, 34892), (259, 34713)])
def test_a_raw_camera_file_is_told_by_the_image_of_its_sensor(
    tmp_path: Path, tag: int, value: int, below: bool
) -> None:
    """It is the second image, or one below the first, which is a preview."""
    path = tmp_path / "x.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(tissue_like(64, 64), photometric="rgb", metadata=None, subifds=int(below))
        file.write(np.zeros((64, 64), np.uint8), photometric="minisblack", compression="zlib", metadata=None)
    with tifffile.TiffFile(path) as file:
        second = file.pages[0].pages[0] if below else file.pages[1]
        at = second.tags[tag].offset
    data = bytearray(path.read_bytes())
    struct.pack_into("<H", data, at + 8, value)
    path.write_bytes(data)
    assert "a raw camera file" in refusal(path)


def test_a_canon_raw_file_is_told_by_its_head(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tif")
    with tifffile.TiffFile(path) as file:
        directory = file.pages[0].offset
    data = bytearray(path.read_bytes())
    count = struct.unpack_from("<H", data, directory)[0]
    data += data[directory : directory + 2 + 12 * count + 4]  # behind the mark
    struct.pack_into("<I4s", data, 4, len(data) - (2 + 12 * count + 4), b"CR\2\0")
    path.write_bytes(data)
    assert "a raw camera file" in refusal(path)


@pytest.mark.parametrize("name", ["x.vsi", "X.VSI", "x.lsm", "x.stk", "x.nef", "x.dng", "x.CR2", "x.arw"])
def test_names_that_no_slide_has(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name)
    assert find_slide(tmp_path) == path
    assert "which is not supported; what is read: " in refusal(path)


def test_an_olympus_preview_is_told_by_the_folder_of_its_pixels(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tif")
    (tmp_path / "_x_" / "stack1").mkdir(parents=True)
    (tmp_path / "_x_" / "stack1" / "frame_t.ets").write_bytes(b"SIS")
    assert "an Olympus VSI file" in refusal(path)


def test_a_refusal_lists_what_is_read(tmp_path: Path) -> None:
    (tmp_path / "x.svs").write_bytes(b"no slide" * 100)
    assert "what is read: slides of Aperio (.svs)" in refusal(tmp_path / "x.svs")
    (tmp_path / "x.svs").rename(tmp_path / "x.txt")
    with pytest.raises(InputError, match=r"what is read: slides of Aperio \(\.svs\)"):
        find_slide(tmp_path)


def claims(path: Path, width: int, height: int, tile: int, *, count: int = 0, compression: int = 7) -> Path:
    """Write a TIFF file that claims an image; all of its tiles have the same number of bytes, and these are zeros."""
    tiles = -(-width // tile) * -(-height // tile)
    entries = {256: width, 257: height, 259: compression, 262: 2, 277: 3, 322: tile, 323: tile}
    data = b"II*\0" + struct.pack("<IH", 8, len(entries) + 3)
    end = 8 + 2 + 12 * (len(entries) + 3) + 4
    rows = [(tag, LONG, 1, value) for tag, value in entries.items()]
    rows += [(258, 3, 1, 8), (324, LONG, tiles, end), (325, LONG, tiles, end + 4 * tiles)]
    data += b"".join(struct.pack("<HHII", *row) for row in sorted(rows)) + bytes(4)
    offsets = end + 8 * tiles + count * np.arange(tiles, dtype="<u8") % (30 << 20)
    with path.open("wb") as file:
        file.write(data)
        file.write((offsets * (count > 0)).astype("<u4").tobytes())
        file.write(np.full(tiles, count, "<u4").tobytes())
        file.truncate(end + 8 * tiles + (31 << 20))
    return path


CLAIMS = {
    "no tile is stored": {"width": 1 << 24, "height": 8192, "tile": 512},
    "tiles of a few bytes": {"width": 1 << 24, "height": 8192, "tile": 512, "count": 20},
    "all tiles share their bytes": {"width": 1 << 22, "height": 1 << 17, "tile": 1024, "count": 1 << 20},
    "zeros as JPEG": {"width": 1 << 20, "height": 1 << 16, "tile": 512, "count": 500},
    "zeros without compression": {
        "width": 1 << 20,
        "height": 1 << 16,
        "tile": 1024,
        "count": 3 << 20,
        "compression": 1,
    },
}


@pytest.mark.parametrize("name", ["x.tif", "x.svs", "x.ndpi"])
@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS)
def test_an_area_that_the_bytes_cannot_hold_is_refused_soon(tmp_path: Path, claim: dict[str, int], name: str) -> None:
    path = claims(tmp_path / name, **claim)
    script = (
        "import sys, resource\n"
        "from nuclei_segmentation.shared.errors import UnreadableSlide\n"
        "from nuclei_segmentation.shared.slides import open_slide\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: open_slide(sys.argv[1])\n"
        "except UnreadableSlide as error: print(error)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True, timeout=60
    )
    *message, kilobytes = done.stdout.splitlines()
    assert len(message) == 1
    assert message[0].startswith(f"{name} cannot be read: ")
    assert int(kilobytes) < 200 << 10


@pytest.mark.parametrize("entry", [(322, 1 << 20), (323, 0), (256, 1 << 30), (277, 60000)])
def test_the_name_of_a_hamamatsu_slide_does_not_bypass_the_bounds(tmp_path: Path, entry: tuple[int, int]) -> None:
    found = []
    for name in ("x.tif", "x.ndpi"):
        path = write(tmp_path / "any.tif")  # tifffile goes by the name
        with tifffile.TiffFile(path) as file:
            at = file.pages[0].tags[entry[0]].offset
        path = path.rename(tmp_path / name)
        data = bytearray(path.read_bytes())
        struct.pack_into("<HII", data, at + 2, LONG, 1, entry[1])
        path.write_bytes(data)
        found.append(refusal(path).replace(name, ""))
    assert found[0] == found[1]


def test_a_plain_tiff_file_may_be_named_as_one_of_hamamatsu(tmp_path: Path, opened: Opened) -> None:
    expected = read_all(opened(write(tmp_path / "x.tif")))
    (tmp_path / "x.tif").rename(tmp_path / "x.ndpi")
    assert np.array_equal(read_all(opened(tmp_path / "x.ndpi")), expected)


def ndpi(path: Path, width: int, start: int) -> Path:
    """Write a file with Hamamatsu's directories, the first at byte `start`: links have 64 bits."""
    values = {256: width, 257: 4096, 258: 8, 259: 7, 262: 6, 273: 100, 277: 3, 278: 4096, 279: 1 << 20, 65420: 1}
    entries = [(tag, LONG, 1, value) for tag, value in values.items()]
    entries.append((270, 2, 20, (start - 20) % (1 << 32)))  # only the lower half of its place is stored
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    with path.open("wb") as file:
        file.write(b"II*\0" + struct.pack("<Q", start))
        file.seek(start - 20)  # no block of the disk is taken in between
        file.write(b"before the directory" + directory + bytes(8))
    return path


def index(path: Path) -> TiffIndex:
    with path.open("rb") as file:
        return read_index(file.fileno())


@pytest.mark.parametrize("start", [2 << 20, (1 << 32) + 10, 5 << 30], ids=["2 MiB", "4 GiB", "5 GiB"])
def test_directories_of_hamamatsu_are_bounded_too(tmp_path: Path, start: int) -> None:
    sound = index(ndpi(tmp_path / "sound", 8192, start))
    assert isinstance(sound.base, Directory)
    assert (sound.base.width, sound.base.description) == (8192, "before the directory")
    assert sound.oversized is None
    hostile = ndpi(tmp_path / "x.ndpi", 1 << 30, start)
    assert index(hostile).oversized is not None
    assert "1073741824 × 4096 pixels" in refusal(hostile)
