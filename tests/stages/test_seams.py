"""With enough overlap there are no seams: the stitched maps equal those of one inference over the entire slide.

The reference is one inference over the slide, padded as the tiles are: reflected up to the end of the last tile.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nuclei_segmentation.operators.filter.inference import Engine, open_engine
from nuclei_segmentation.operators.filter.stage import infer
from nuclei_segmentation.operators.load.stage import load
from nuclei_segmentation.operators.load.tiling import foreground_tiles
from nuclei_segmentation.operators.segmentation.journal import Journal
from nuclei_segmentation.shared.batches import Pixels
from nuclei_segmentation.shared.geometry import TileGrid
from nuclei_segmentation.shared.runtime.worker_pool import WorkerPool
from nuclei_segmentation.shared.settings import ModelsSettings, Settings
from nuclei_segmentation.shared.slides.array_slide import ArraySlide
from tests.helpers.nets import unet


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    path = folder / "random" / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    unet(path, base=4, depth=2, seed=3)
    return folder


def stitched(engine: Engine, slide: ArraySlide, grid: TileGrid, journal: Path) -> Pixels:
    """Return the (height, width, C) maps of the cores, laid side by side."""
    foreground = foreground_tiles(grid, None)
    channels = len(engine.info.channels)
    result = np.zeros((grid.height, grid.width, channels), np.uint8)
    journal.unlink(missing_ok=True)
    with WorkerPool(2) as pool, Journal(journal, (grid.tile, grid.tile, channels)) as kept:
        for batch in infer(load(slide, grid, foreground, pool, 3), engine, kept, pool):
            for tile_id, maps in zip(batch.tile_ids.tolist(), batch.maps, strict=True):
                row, column = foreground[tile_id].tolist()
                core, region = grid.core(row, column), grid.region(row, column)
                inside = maps[core.y - region.y : core.bottom - region.y, core.x - region.x : core.right - region.x]
                result[core.y : core.bottom, core.x : core.right] = inside
    return result


def one_inference(repository: Path, slide: ArraySlide, grid: TileGrid) -> Pixels:
    """Return the maps of one inference over the padded slide, cut to the slide."""
    last = grid.region(grid.rows - 1, grid.columns - 1)
    padding = ((0, last.bottom - grid.height), (0, last.right - grid.width), (0, 0))
    padded = np.pad(slide.pixels, padding, mode="reflect")
    session = onnxruntime.InferenceSession(repository / "random" / "1" / "model.onnx")
    maps: Pixels = session.run(None, {"tiles": padded[None]})[0][0]
    return maps[: grid.height, : grid.width]


@settings(max_examples=12)
@given(
    width=st.integers(1, 400), height=st.integers(1, 400), extra=st.integers(1, 5), more=st.integers(0, 2),
    seed=st.integers(0, 9),
)  # fmt: skip
def test_with_twice_the_halo_as_overlap_there_are_no_seams(
    repository: Path, tmp_path_factory: pytest.TempPathFactory,
    width: int, height: int, extra: int, more: int, seed: int,
) -> None:  # fmt: skip
    settings = Settings(model_name="random", models=ModelsSettings(repository))
    with open_engine(settings) as engine:
        halo = engine.info.halo
    assert halo is not None
    overlap = 16 * (-(-2 * halo // 16) + more)
    grid = TileGrid(width, height, overlap + 16 * extra, overlap)
    slide = ArraySlide(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))
    with open_engine(replace(settings, tile_size=grid.tile)) as engine:
        ours = stitched(engine, slide, grid, tmp_path_factory.mktemp("run") / "maps")
    assert np.abs(ours.astype(int) - one_inference(repository, slide, grid)).max() <= 1


def test_without_overlap_there_are_seams(repository: Path, tmp_path: Path) -> None:
    """Otherwise the test above would prove nothing."""
    slide = ArraySlide(np.random.default_rng(1).integers(0, 256, (200, 200, 3), np.uint8))
    grid = TileGrid(200, 200, 64)
    with open_engine(Settings(model_name="random", models=ModelsSettings(repository), tile_size=64)) as engine:
        ours = stitched(engine, slide, grid, tmp_path / "maps")
    assert np.abs(ours.astype(int) - one_inference(repository, slide, grid)).max() > 1
