"""RGB or YCbCr: what a JPEG tile says of itself counts for more than the TIFF tag."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from nuclei_segmentation.shared.geometry import Region
from tests.helpers.slides import marked_jpeg, read_all, tissue_like

CASES = [
    # stored, markers, names of the components, subsampling
    ("ycbcr", "jfif", b"\x01\x02\x03", "444"),
    ("ycbcr", "jfif", b"\x01\x02\x03", "420"),  # as bfconvert writes it
    ("ycbcr", "adobe1", b"\x01\x02\x03", "444"),
    ("ycbcr", "jfif+adobe1", b"\x00\x01\x02", "422"),
    ("ycbcr", "", b"\x01\x02\x03", "420"),
    ("ycbcr", "", b"\x00\x01\x02", "422"),
    ("rgb", "adobe0", b"\x01\x02\x03", "444"),
    ("rgb", "adobe0", b"RGB", "444"),
    ("rgb", "", b"RGB", "444"),
]


def write(path, segments, photometric, **options):
    tifffile.imwrite(
        path, iter(segments), shape=(128, 256, 3), dtype=np.uint8, photometric="ycbcr", subsampling=(2, 2),
        compression="jpeg", metadata=None, **({"tile": (128, 128)} | options),
    )  # fmt: skip
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tiff.pages[0].tags["PhotometricInterpretation"].overwrite({"rgb": 2, "ycbcr": 6}[photometric])
    return path


@pytest.mark.parametrize("tag", ["rgb", "ycbcr"])
@pytest.mark.parametrize(("stored", "marks", "ids", "subsampling"), CASES)
@pytest.mark.parametrize("shape", [{}, {"tile": None, "rowsperstrip": 128}], ids=["tiles", "strips"])
def test_the_jpeg_data_win_over_the_tag(tmp_path, opened, tag, stored, marks, ids, subsampling, shape):
    image = tissue_like(256, 128)
    parts = [image] if shape else [image[:, :128], image[:, 128:]]
    segments = [marked_jpeg(part, stored, marks, ids=ids, subsampling=subsampling) for part in parts]
    slide = opened(write(tmp_path / "x.tif", segments, tag, **shape))
    assert np.abs(read_all(slide, 128).astype(int) - image).mean() < 8  # taken wrongly, it is off by more than 30
    assert np.abs(slide.thumbnail(512).pixels.astype(int).mean((0, 1)) - image.mean((0, 1))).max() < 6


@pytest.mark.parametrize("stored", ["rgb", "ycbcr"])
@pytest.mark.parametrize("ids", [b"\x00\x01\x02", b"\x01\x02\x03"])
def test_without_any_sign_the_tag_counts(tmp_path, opened, stored, ids):
    image = tissue_like(256, 128)
    segments = [marked_jpeg(part, stored, "", ids=ids) for part in (image[:, :128], image[:, 128:])]
    slide = opened(write(tmp_path / "x.tif", segments, stored))
    assert np.abs(read_all(slide, 128).astype(int) - image).mean() < 8


def test_tiles_of_one_slide_may_differ(tmp_path, opened):
    image = tissue_like(256, 128)
    segments = [marked_jpeg(image[:, :128], "ycbcr", "jfif"), marked_jpeg(image[:, 128:], "rgb", "adobe0")]
    assert np.abs(read_all(opened(write(tmp_path / "x.tif", segments, "rgb")), 128).astype(int) - image).mean() < 8


@pytest.mark.parametrize(("stored", "mark", "tag"), [("ycbcr", "adobe1", "rgb"), ("rgb", "adobe0", "ycbcr")])
def test_a_marker_in_the_shared_tables_counts_too(tmp_path, opened, stored, mark, tag):
    image = tissue_like(256, 128)
    whole = [marked_jpeg(part, stored, mark) for part in (image[:, :128], image[:, 128:])]
    start = whole[0].index(b"\xff\xc0")
    tables = whole[0][:start] + b"\xff\xd9"
    assert whole[1][:start] == whole[0][:start]
    segments = [b"\xff\xd8" + segment[start:] for segment in whole]
    path = write(tmp_path / "x.tif", segments, tag, extratags=[(347, 7, len(tables), tables, True)])
    assert np.abs(read_all(opened(path), 128).astype(int) - image).mean() < 8


def test_what_libvips_calls_rgb_is_subsampled_ycbcr(make_vips, opened):
    """OpenSlide and libvips itself read it with wrong colours."""
    image = tissue_like(300, 200)
    assert np.abs(read_all(opened(make_vips(image, Q=80, rgbjpeg=True))).astype(int) - image).mean() < 8


def test_tiles_that_openslide_would_misread_never_go_to_openslide(tmp_path, opened):
    """Our decoder refuses bytes before the end marker, which OpenSlide ignores: damage is better than wrong colours."""
    segments = []
    for _ in range(2):
        data = marked_jpeg(tissue_like(128, 128), "ycbcr", "jfif")
        segments.append(data[:-2] + bytes(64) + data[-2:])
    slide = opened(write(tmp_path / "x.tif", segments, "rgb"))
    assert slide.info.reader.startswith("stored JPEG")
    assert slide.read(Region(0, 0, 128, 128)).damaged
