from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import pyvips
import tifffile

from nuclei_segmentation.operators.stitch.objects.nuclei import Nuclei
from nuclei_segmentation.operators.stitch.outputs import label_file
from nuclei_segmentation.operators.stitch.outputs.label_file import LabelFile, encode_tile
from nuclei_segmentation.operators.stitch.outputs.labels import LabelsWriter
from nuclei_segmentation.operators.stitch.outputs.new_file import NewFile
from nuclei_segmentation.operators.stitch.pyramid.levels import levels_of
from nuclei_segmentation.shared.runtime.worker_pool import WorkerPool
from tests.helpers.drawn_nuclei import LabelImage, blobs, chunks_of, header, nuclei_from, outline

_SIDE = 64  # not 512, so that small images have many tiles


@pytest.fixture(name="pool")
def make_pool() -> Iterator[WorkerPool]:
    with WorkerPool(2) as pool:
        yield pool


def write(path: Path, shape: tuple[int, int], chunks: Sequence[Nuclei], pool: WorkerPool, side: int = _SIDE) -> Path:
    height, width = shape
    with LabelsWriter(path, header(width, height), pool, side) as writer:
        for encoded in pool.map("stitch", writer.encode, chunks, 4):
            writer.append(encoded)
        writer.finish()
    return path


def levels_in(path: Path) -> list[LabelImage]:
    with tifffile.TiffFile(path) as tiff:
        assert len(tiff.series) == 1
        return [level.asarray() for level in tiff.series[0].levels]


@pytest.mark.parametrize(("width", "height", "sigma"), [(300, 200, 1.5), (157, 99, 0.6), (64, 64, 4), (63, 190, 2.5)])
def test_each_pixel_has_the_label_of_its_nucleus(
    tmp_path: Path, pool: WorkerPool, width: int, height: int, sigma: float
) -> None:
    image = blobs(width, height, seed=7, sigma=sigma)
    levels = levels_in(write(tmp_path / "labels.tif", image.shape, chunks_of(image, 10), pool))
    assert levels[0].dtype == np.uint32
    np.testing.assert_array_equal(levels[0], image)


def test_the_smallest_and_the_raggedest_nuclei_are_exact(tmp_path: Path, pool: WorkerPool) -> None:
    image = np.zeros((40, 100), np.uint32)
    image[0, 0] = 1  # a pixel in the slide's corner
    image[[3, 4, 5], [3, 4, 3]] = 2  # joined at corners only
    image[2:9, 8:15] = 3
    image[np.arange(1, 11), np.arange(20, 30)] = 4  # a diagonal line
    image[4, 40:90] = 5  # a line over two tile borders
    image[5:40, 64] = 6  # beside it; ends at the slide's lower border
    image[8, [50, 52, 54]] = image[9, 50:55] = 7  # a comb
    image[10:40, 99] = 8  # at the slide's right border
    image[20:30, 10:20] = 9
    image[20:30, 20:30] = 10  # touches 9
    image[31, 0:60:2] = image[32, 1:60:2] = 11  # a zigzag of corners
    levels = levels_in(write(tmp_path / "labels.tif", image.shape, chunks_of(image, 4), pool, side=16))
    np.testing.assert_array_equal(levels[0], image)


def test_outlines_may_run_either_way_and_begin_anywhere(tmp_path: Path, pool: WorkerPool) -> None:
    image = blobs(100, 80, seed=3)
    (nuclei,) = chunks_of(image, 10_000)
    outlines = np.split(nuclei.vertices, nuclei.starts[1:-1])
    for number, vertices in enumerate(outlines):
        outlines[number] = np.roll(vertices[:: -1 if number % 2 else 1], number, axis=0)
    turned = nuclei_from(nuclei.labels.tolist(), outlines, len(image))
    np.testing.assert_array_equal(levels_in(write(tmp_path / "labels.tif", image.shape, [turned], pool))[0], image)


def test_a_chunk_may_hold_thousands(tmp_path: Path, pool: WorkerPool) -> None:
    places = [(x, y) for y in range(0, 120, 4) for x in range(0, 320, 4)]
    image = np.zeros((120, 320), np.uint32)
    for label, (x, y) in enumerate(places, 1):
        image[y : y + 3, x : x + 2] = label
    dot = outline(np.ones((3, 2), np.bool_))
    dots = [dot + 4 * np.array(place, np.int32) for place in places]
    nuclei = nuclei_from(range(1, len(dots) + 1), dots, 120)
    np.testing.assert_array_equal(levels_in(write(tmp_path / "labels.tif", image.shape, [nuclei], pool))[0], image)


def test_holes_are_filled_and_what_lies_in_them_keeps_its_label(tmp_path: Path, pool: WorkerPool) -> None:
    y, x = np.mgrid[:100, :100]
    distance = np.hypot(x - 50, y - 50)
    ring, disc, beside = (distance > 20) & (distance < 30), distance < 8, np.hypot(x - 15, y - 15) < 6
    outlines = [outline(beside), outline(ring), outline(disc)]
    nuclei = nuclei_from([1, 2, 3], outlines, 100)
    expected = np.select([disc, distance < 30, beside], [3, 2, 1], 0)
    for level, pixels in enumerate(levels_in(write(tmp_path / "labels.tif", (100, 100), [nuclei], pool, side=32))):
        np.testing.assert_array_equal(pixels, expected[:: 1 << level, :: 1 << level])


@pytest.mark.parametrize(("width", "height"), [(301, 203), (64, 513), (513, 64)])
def test_a_reduced_level_is_every_second_pixel_of_the_finer(
    tmp_path: Path, pool: WorkerPool, width: int, height: int
) -> None:
    image = blobs(width, height, seed=1, sigma=2.2)
    path = write(tmp_path / "labels.tif", image.shape, chunks_of(image, 25), pool)
    levels = levels_in(path)
    sizes = [(level.height, level.width) for level in levels_of(width, height, _SIDE)]
    assert [level.shape for level in levels] == sizes
    for number, level in enumerate(levels):
        np.testing.assert_array_equal(level, image[:: 1 << number, :: 1 << number])


@pytest.mark.parametrize("seed", range(8))
def test_images_of_any_size_are_exact_at_every_level(tmp_path: Path, pool: WorkerPool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    width, height, size = rng.integers(1, (120, 120, 40)).tolist()
    image = blobs(width, height, seed, sigma=rng.uniform(0.5, 4))
    path = write(tmp_path / "labels.tif", image.shape, chunks_of(image, size), pool, side=16)
    for number, level in enumerate(levels_in(path)):
        np.testing.assert_array_equal(level, image[:: 1 << number, :: 1 << number])


def test_a_nucleus_may_reach_a_tile_in_rows_that_a_level_leaves_out(tmp_path: Path, pool: WorkerPool) -> None:
    image = np.zeros((32, 64), np.uint32)
    image[8:13, 20:30] = 1
    image[9, 30:37] = 1  # over a border of tiles of level 1, in the last row of them
    levels = levels_in(write(tmp_path / "labels.tif", image.shape, chunks_of(image, 1), pool, side=16))
    for number, level in enumerate(levels):
        np.testing.assert_array_equal(level, image[:: 1 << number, :: 1 << number])


def test_a_slide_without_nuclei_is_all_zero_and_holds_one_tile(tmp_path: Path, pool: WorkerPool) -> None:
    path = write(tmp_path / "labels.tif", (700, 900), [], pool)
    assert not levels_in(path)[0].any()
    with tifffile.TiffFile(path) as tiff:
        pages = [tiff.pages.first, *tiff.pages.first.pages]
        assert len({offset for page in pages for offset in page.dataoffsets}) == 1
        assert all(count > 0 for page in pages for count in page.databytecounts)  # not all readers know sparse tiles


def test_a_level_in_which_nothing_is_left_costs_no_tile(tmp_path: Path, pool: WorkerPool) -> None:
    image = np.zeros((200, 300), np.uint32)
    image[1, 1], image[0, 101] = 1, 2  # single pixels that no reduced level keeps
    path = write(tmp_path / "labels.tif", image.shape, chunks_of(image, 1), pool)
    with tifffile.TiffFile(path) as tiff:
        reduced = {offset for page in tiff.pages.first.pages for offset in page.dataoffsets}
        assert len(reduced) == 1
        assert reduced < set(tiff.pages.first.dataoffsets)
    np.testing.assert_array_equal(levels_in(path)[0], image)


def test_bytes_depend_neither_on_chunks_nor_on_horizons_nor_on_workers(tmp_path: Path) -> None:
    image = blobs(250, 300, seed=5, sigma=3)
    written = set()
    for number, (workers, size) in enumerate([(1, int(image.max())), (1, 3), (3, 17), (2, 100)]):
        with WorkerPool(workers) as pool:
            written.add(write(tmp_path / str(number), image.shape, chunks_of(image, size), pool).read_bytes())
    assert len(written) == 1


def test_what_lies_above_the_horizon_is_written_and_forgotten(tmp_path: Path, pool: WorkerPool) -> None:
    width, height, step = 80, 6000, 40
    dots = [outline(np.ones((3, 3), np.bool_), x, y) for y in range(0, step, 8) for x in range(0, width, 8)]
    held = []
    with LabelsWriter(tmp_path / "labels.tif", header(width, height), pool, 16) as writer:
        for number, y in enumerate(range(0, height, step)):
            labels = range(number * len(dots) + 1, (number + 1) * len(dots) + 1)
            below = [dot + np.array((0, 4 * y), np.int32) for dot in dots]
            writer.append(writer.encode(nuclei_from(labels, below, y + step)))
            pending = [steps for row in writer._pending.values() for parts in row.values() for steps in parts]
            assert all(steps.base is None for steps in pending)  # a view would keep all of its chunk
            held.append(sum(steps.size for steps in pending))
        writer.finish()
    assert max(held) < 0.05 * sum(6 * len(dots) for _ in held)  # level 0 alone has 6 steps for each dot
    np.testing.assert_array_equal(np.unique(levels_in(tmp_path / "labels.tif")[0]), range(len(held) * len(dots) + 1))


def test_a_nucleus_above_the_horizon_is_a_fault_of_the_program(tmp_path: Path, pool: WorkerPool) -> None:
    dot = outline(np.ones((3, 3), np.bool_))
    with LabelsWriter(tmp_path / "labels.tif", header(100, 300), pool, 32) as writer:
        writer.append(writer.encode(nuclei_from([1], [dot], 64)))
        writer.append(writer.encode(nuclei_from([2], [dot + np.int32(40)], 300)))
        with pytest.raises(AssertionError, match="horizon"):
            writer.finish()


def test_large_labels_are_exact(tmp_path: Path, pool: WorkerPool) -> None:
    squares = [outline(np.ones((5, 5), np.bool_), x, 3) for x in (0, 5, 59)]
    label = 2_000_000_000
    nuclei = nuclei_from(range(label, label + 3), squares, 64)
    (level, *_) = levels_in(write(tmp_path / "labels.tif", (64, 64), [nuclei], pool))
    assert level[4, [0, 4, 5, 9, 10, 58, 59, 63]].tolist() == [*[label] * 2, *[label + 1] * 2, 0, 0, *[label + 2] * 2]


def test_tags_and_ome_xml_hold_sizes_and_nothing_else(tmp_path: Path, pool: WorkerPool) -> None:
    image = blobs(301, 203, seed=2)
    with LabelsWriter(tmp_path / "labels.ome.tif", header(301, 203, mpp=(0.25, 0.5)), pool, _SIDE) as writer:
        writer.append(writer.encode(chunks_of(image, 10_000)[0]))
        writer.finish()
    with tifffile.TiffFile(tmp_path / "labels.ome.tif") as tiff:
        first = tiff.pages.first
        assert len(tiff.pages) == 1  # the reduced levels are SubIFDs only
        assert not tiff.is_bigtiff
        assert tiff.is_ome
        assert first.tile == (_SIDE, _SIDE)
        assert first.compression == tifffile.COMPRESSION.ADOBE_DEFLATE
        assert first.predictor == tifffile.PREDICTOR.HORIZONTAL
        assert first.get_resolution(tifffile.RESUNIT.MICROMETER) == (4.0, 2.0)
        assert [level.subfiletype for level in (first, *first.pages)] == [0, 1, 1, 1]
        assert not {"Software", "DateTime", "DocumentName"} & {tag.name for tag in first.tags}
        xml = first.description
    assert xml.isascii()
    pixels = ElementTree.fromstring(xml)[0][0]
    wanted = {"SizeX": "301", "SizeY": "203", "SizeC": "1", "SizeZ": "1", "SizeT": "1", "Type": "uint32"}
    assert wanted.items() <= pixels.attrib.items()
    assert (pixels.attrib["PhysicalSizeX"], pixels.attrib["PhysicalSizeY"]) == ("0.25", "0.5")
    assert "UUID" not in xml


def test_without_pixel_size_none_is_invented(tmp_path: Path, pool: WorkerPool) -> None:
    with LabelsWriter(tmp_path / "labels.tif", header(100, 100, mpp=None), pool, _SIDE) as writer:
        writer.finish()
    with tifffile.TiffFile(tmp_path / "labels.tif") as tiff:
        assert tiff.pages.first.resolutionunit == tifffile.RESUNIT.NONE
        assert "PhysicalSize" not in tiff.pages.first.description


def test_libtiff_reads_every_level(tmp_path: Path, pool: WorkerPool) -> None:
    image = blobs(301, 203, seed=4)
    path = str(write(tmp_path / "labels.tif", image.shape, chunks_of(image, 50), pool))
    np.testing.assert_array_equal(pyvips.Image.new_from_file(path).numpy(), image)
    for number in range(len(levels_of(301, 203, _SIDE)) - 1):
        pixels = pyvips.Image.new_from_file(path, subifd=number).numpy()
        np.testing.assert_array_equal(pixels, image[:: 2 << number, :: 2 << number])


def test_a_bigtiff_has_the_same_pixels(tmp_path: Path) -> None:
    image = blobs(100, 60, seed=6)
    levels = levels_of(100, 60, 128)
    file = NewFile(tmp_path / "labels.tif")
    tiff = LabelFile(file, levels, (0.25, 0.25), bigtiff=True)
    padded = np.zeros((128, 128), np.uint32)
    padded[:60, :100] = image
    tiff.write(levels[0], 0, 0, encode_tile(np.diff(padded, axis=1, prepend=np.uint32(0))))
    tiff.finish()
    file.finish()
    with tifffile.TiffFile(tmp_path / "labels.tif") as read:
        assert read.is_bigtiff
        np.testing.assert_array_equal(read.asarray(), image)
        assert read.pages.first.get_resolution(tifffile.RESUNIT.MICROMETER) == (4.0, 4.0)


@pytest.mark.parametrize(("limit", "big"), [(1 << 32, False), (10_000, True)])
def test_a_file_becomes_a_bigtiff_where_offsets_need_it(
    monkeypatch: pytest.MonkeyPatch, limit: int, big: bool, tmp_path: Path, pool: WorkerPool
) -> None:
    monkeypatch.setattr(label_file, "_CLASSIC_LIMIT", limit)  # else the file would have to be as large
    image = blobs(300, 200, seed=9)
    path = write(tmp_path / "labels.tif", image.shape, chunks_of(image, 50), pool)
    with tifffile.TiffFile(path) as tiff:
        assert tiff.is_bigtiff == big
    np.testing.assert_array_equal(levels_in(path)[0], image)


def test_closing_early_leaves_nothing_open(tmp_path: Path, pool: WorkerPool) -> None:
    image = blobs(300, 200, seed=8)
    writer = LabelsWriter(tmp_path / "labels.tif", header(300, 200), pool, _SIDE)
    writer.append(writer.encode(chunks_of(image, 10_000)[0]))
    writer.close()
    writer.close()
    assert writer._file.closed
    with pytest.raises(tifffile.TiffFileError):  # the header comes last
        tifffile.TiffFile(tmp_path / "labels.tif")
