"""Stitch against a naive reference: the whole slide as one array, in plain NumPy."""

from __future__ import annotations

import resource
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from nuclei_segmentation.operators.stitch import stitch
from nuclei_segmentation.shared.batches import MapBatch, Pixels
from nuclei_segmentation.shared.errors import NoSpace, NucleiError, TooMuchDamage
from nuclei_segmentation.shared.geometry import Region
from nuclei_segmentation.shared.runtime.worker_pool import WorkerPool
from nuclei_segmentation.shared.slides.hatching import hatch
from nuclei_segmentation.shared.slides.slide import RegionPixels
from tests.helpers.stitch_cases import BrokenSlide, Case, halved


def raw_levels(path: Path) -> list[Pixels]:
    """Read what a raw encoder wrote; check that edge tiles are padded with their last row and column."""
    levels = []
    with tifffile.TiffFile(path) as tiff, path.open("rb") as file:
        for page in tiff.pages:
            side, height, width = page.tilewidth, page.imagelength, page.imagewidth
            rows, columns = -(-height // side), -(-width // side)
            image = np.zeros((rows * side, columns * side, 3), np.uint8)
            for number, (offset, count) in enumerate(zip(page.dataoffsets, page.databytecounts, strict=True)):
                file.seek(offset)
                tile = np.frombuffer(file.read(count), np.uint8).reshape(side, side, 3)
                row, column = divmod(number, columns)
                image[row * side : (row + 1) * side, column * side : (column + 1) * side] = tile
            level = image[:height, :width]
            padding = ((0, rows * side - height), (0, columns * side - width), (0, 0))
            np.testing.assert_array_equal(image, np.pad(level, padding, mode="edge"))
            levels.append(level)
    return levels


def check(case: Case, folder: Path) -> None:
    result = case.stitch(folder)
    expected = case.reference()
    levels = raw_levels(folder / "image.tif")
    for level in levels:
        np.testing.assert_array_equal(level, expected)
        expected = halved(expected)
    assert max(levels[-1].shape[:2]) <= case.side
    assert all(max(level.shape[:2]) > case.side for level in levels[:-1])
    assert result.nuclei_pixels == case.nuclei().sum()
    assert result.damaged == case.damaged_cores()
    assert result.bytes == (folder / "image.tif").stat().st_size
    assert [path.name for path in folder.iterdir()] == ["image.tif"]


sizes = st.one_of(st.integers(1, 40), st.integers(100, 300))


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.builds(
        Case,
        width=sizes,
        height=st.integers(1, 90),
        tile=st.sampled_from([32, 48, 64, 128]),
        overlap=st.sampled_from([0, 0, 16]),
        side=st.sampled_from([16, 32, 64]),
        style=st.sampled_from(["outline", "fill"]),
        share=st.sampled_from([0.0, 0.3, 0.8, 1.0]),
        batch=st.integers(1, 20),
        workers=st.integers(1, 4),
        damage=st.sampled_from([0.0, 0.0, 0.2]),
        channels=st.integers(1, 3),
        seed=st.integers(0, 1000),
    )
)
@example(Case(1, 1, 16))
@example(Case(1, 1, 256, side=256))
@example(Case(255, 257, 256, side=256, share=1.0))
@example(Case(256, 256, 256, side=256, share=1.0))
@example(Case(257, 255, 256, side=256, share=1.0, style="fill"))
@example(Case(513, 300, 256, overlap=64, side=256, share=1.0))
@example(Case(290, 70, 16, overlap=0, share=1.0, damage=0.1))
@example(Case(290, 70, 16, overlap=0, share=0.7, damage=1.0))
@example(Case(300, 60, 64, overlap=48, side=16, share=0.9))
def test_every_level_equals_the_naive_reference(tmp_path_factory: pytest.TempPathFactory, case: Case) -> None:
    check(case, tmp_path_factory.mktemp("stitch"))


@pytest.mark.parametrize(("tile", "overlap"), [(256, 0), (512, 0), (256, 64)])
def test_the_same_bytes_whatever_the_workers_and_batches(tmp_path: Path, tile: int, overlap: int) -> None:
    files = []
    for workers, batch in ((1, 1), (2, 7), (5, 64)):
        case = Case(3000, 700, tile, overlap, side=256, workers=workers, batch=batch, damage=0.05)
        case.pixels[:] = np.repeat(np.repeat(case.pixels[::10, ::10], 10, 0), 10, 1)[:700, :3000]
        case.stitch(tmp_path, raw=False, reserve_bytes=workers * 1_000_000)
        files.append((tmp_path / "image.tif").read_bytes())
    assert files[0] == files[1] == files[2]


def test_inferred_tiles_are_not_read_again_and_adjacent_background_is_read_in_one_call(tmp_path: Path) -> None:
    case = Case(640, 64, 16, share=0.5)
    slide = BrokenSlide(case.pixels)
    case.stitch(tmp_path, slide)
    seen = np.zeros((64, 640), int)
    for region in slide.reads:
        seen[region.y : region.bottom, region.x : region.right] += 1
    for row, column in case.grid:
        wanted = 0 if [row, column] in case.foreground.tolist() else 1
        core = case.grid.core(row, column)
        assert (seen[core.y : core.bottom, core.x : core.right] == wanted).all()
    assert len(slide.reads) < len(case.grid) - len(case.foreground)


@pytest.mark.parametrize(("tile", "overlap"), [(16, 0), (32, 0), (64, 16)])
def test_unreadable_parts_of_the_slide_are_hatched_counted_and_located(tmp_path: Path, tile: int, overlap: int) -> None:
    case = Case(400, 100, tile, overlap, share=0.0)
    broken = [Region(130, 20, 1, 1), Region(399, 99, 1, 1)]
    slide = BrokenSlide(case.pixels, broken=broken)
    result = case.stitch(tmp_path, slide)
    level = raw_levels(tmp_path / "image.tif")[0]
    hit = [core for place in case.grid if any((core := case.grid.core(*place)).intersect(part).area for part in broken)]
    assert list(result.damaged) == hit
    outside = np.ones((100, 400), bool)
    for core in hit:
        outside[core.y : core.bottom, core.x : core.right] = False
    np.testing.assert_array_equal(level[outside], case.pixels[outside])
    for part in broken:
        there = np.zeros((1, 1, 3), np.uint8)
        hatch(there, part)
        np.testing.assert_array_equal(level[part.y, part.x], there[0, 0])


def test_damage_seen_by_load_and_again_by_stitch_counts_once(tmp_path: Path) -> None:
    case = Case(400, 100, 32, share=1.0, damage=0.1)
    slide = BrokenSlide(case.pixels, broken=case.damaged_cores())
    damaged = case.damaged_cores()
    assert case.stitch(tmp_path, slide, limit=len(damaged) / len(case.grid)).damaged == damaged


@pytest.mark.parametrize("seen_by", ["load", "stitch"])
def test_too_much_damage_ends_the_work_early(tmp_path: Path, seen_by: str) -> None:
    case = Case(400, 800, 16, share=1.0 if seen_by == "load" else 0.0, damage=1.0)
    slide = BrokenSlide(case.pixels, broken=[Region(0, 0, 400, 800)])
    with pytest.raises(TooMuchDamage, match=r"of 1250 tiles could not be read, `damaged\.limit` allows 1;"):
        case.stitch(tmp_path, slide, limit=0.001)
    assert all(region.y < 160 for region in slide.reads), "it did not read on"


def test_maps_are_taken_no_sooner_than_needed_and_up_to_their_end(tmp_path: Path) -> None:
    case = Case(256, 640, 16, share=1.0, batch=16, workers=1)  # batch = a row of tiles
    drawn: list[int] = []
    behind: list[int] = []

    def watched() -> Iterator[MapBatch]:
        for number, batch in enumerate(case.batches()):
            drawn.append(number)
            yield batch
        drawn.append(-1)

    with WorkerPool(1) as pool:
        stitch(
            case.source(),
            watched(),
            case.output(tmp_path, raw=False),
            pool,
            lambda done, total: behind.append(drawn[-1] - done // 16),
        )
    assert drawn == [*range(40), -1]
    assert max(behind) <= 4, "rows of maps drawn ahead of the row that is written"


def test_batches_are_freed_one_row_after_they_arrived(tmp_path: Path) -> None:
    case = Case(1024, 160, 16, share=1.0, batch=8, workers=1)  # 8 batches, and 8 spans, in a row
    alive: list[weakref.ref[Pixels]] = []
    most = 0

    def watched() -> Iterator[MapBatch]:
        nonlocal most
        for batch in batches:
            most = max(most, sum(pixels() is not None for pixels in alive))
            alive.append(weakref.ref(batch.tiles.pixels))
            yield batch

    batches, case.batches = case.batches(), watched  # type: ignore[method-assign] # watches which batches are alive
    case.stitch(tmp_path)
    assert len(alive) == 80
    assert most <= 8 + 1 + 4 + 1, "a row, the next below, what is under way, what is being drawn"


@pytest.mark.parametrize("fault", ["short", "long", "order"])
def test_a_stream_of_maps_that_is_short_long_or_out_of_order_is_refused(tmp_path: Path, fault: str) -> None:
    case = Case(200, 100, 16, share=1.0)
    batches = list(case.batches())
    wrong = {"short": batches[:-1], "long": [*batches, batches[-1]], "order": [batches[1], batches[0], *batches[2:]]}
    case.batches = lambda: iter(wrong[fault])  # type: ignore[method-assign] # the fault
    with pytest.raises(NucleiError, match="maps"):
        case.stitch(tmp_path)


class Stop(BaseException):
    """Stands for what a signal handler raises."""


@pytest.mark.parametrize("after", [1, 5, 11])
def test_stopped_anywhere_it_leaves_no_task_behind_and_the_next_run_writes_the_same_bytes(
    tmp_path: Path, after: int
) -> None:
    case = Case(600, 200, 16, side=16, share=0.7)
    case.stitch(tmp_path, raw=False)
    wanted = (tmp_path / "image.tif").read_bytes()
    with WorkerPool(3) as pool:
        calls = 0

        def progress(done: int, total: int) -> None:
            nonlocal calls
            calls += 1
            if calls == after:
                raise Stop

        slide = BrokenSlide(case.pixels)
        with pytest.raises(Stop):
            stitch(case.source(slide), case.batches(), case.output(tmp_path, raw=False), pool, progress)
        reads = len(slide.reads)
        pool.submit("probe", lambda _: None, None).result()
        assert len(slide.reads) == reads
    case.stitch(tmp_path, raw=False)
    assert (tmp_path / "image.tif").read_bytes() == wanted


def test_an_error_in_a_worker_is_raised_unchanged(tmp_path: Path) -> None:
    class Broken(BrokenSlide):
        def read(self, region: Region) -> RegionPixels:
            if region.x > 100:
                raise MemoryError("no more")
            return super().read(region)

    case = Case(600, 200, 16, share=0.0)
    with pytest.raises(MemoryError, match="no more"):
        case.stitch(tmp_path, Broken(case.pixels))


@pytest.mark.parametrize("reserved", [0, 10_000_000])
def test_a_limit_on_file_sizes_raises_no_space_before_or_during_the_work(tmp_path: Path, reserved: int) -> None:
    case = Case(600, 200, 16, share=0.5)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(NoSpace, match=r"image\.tif|spool"):
            case.stitch(tmp_path, reserve_bytes=reserved)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    case.stitch(tmp_path)
    np.testing.assert_array_equal(raw_levels(tmp_path / "image.tif")[0], case.reference())
