"""Nuclei found block by block are those of the whole map, whatever the tiles and the workers."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from nuclei_segmentation.operators.stitch.objects import spool
from nuclei_segmentation.operators.stitch.objects.describe import HEMATOXYLIN_DEVIATION, HEMATOXYLIN_MEAN
from nuclei_segmentation.operators.stitch.objects.stains import HEMATOXYLIN, HematoxylinTable
from nuclei_segmentation.shared.instances import instances
from tests.helpers.object_runs import CHANNELS, Found, crowded, find

SHAPE = (1300, 2300)
"""Three rows of blocks and three columns."""


@pytest.fixture(scope="module")
def maps() -> np.ndarray:
    return crowded(*SHAPE, step=22)


@pytest.fixture(scope="module")
def found(maps: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Found:
    return find(tmp_path_factory.mktemp("nuclei"), maps)


def overlaps(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Return for each label of `ours` its best intersection over union with one of `theirs`."""
    pairs, counts = np.unique(np.stack((ours.ravel(), theirs.ravel())), axis=1, return_counts=True)
    sizes, other = np.bincount(ours.ravel()), np.bincount(theirs.ravel())
    best = np.zeros(len(sizes))
    for (label, known), count in zip(pairs.T.tolist(), counts.tolist(), strict=True):
        if label and known:
            best[label] = max(best[label], count / (sizes[label] + other[known] - count))
    return best[1:]


def test_they_are_the_instances_of_the_whole_map(maps: np.ndarray, found: Found) -> None:
    known = instances(maps, CHANNELS)
    painted = found.painted(*SHAPE)
    assert len(found.all("labels")) == known.max() > 3000
    best = overlaps(painted, known)
    assert (best >= 0.99).mean() >= 0.995
    assert best.min() > 0.8
    assert ((painted > 0) == (known > 0)).mean() > 0.9999


@pytest.mark.parametrize(("tile", "overlap", "workers"), [(256, 0, 1), (512, 64, 3), (1024, 224, 2), (96, 32, 4)])
def test_tiles_and_workers_change_nothing(
    maps: np.ndarray, found: Found, tmp_path: Path, tile: int, overlap: int, workers: int
) -> None:
    other = find(tmp_path, maps, tile=tile, overlap=overlap, workers=workers)
    for name in ("labels", "vertices", "centroids", "probability", "at_border"):
        assert np.array_equal(other.all(name), found.all(name)), name
    assert [chunk.horizon for chunk in other.chunks] == [chunk.horizon for chunk in found.chunks]


def test_no_later_nucleus_reaches_above_the_horizon(
    maps: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "CHUNK", 100)
    chunks = find(tmp_path, maps).chunks
    assert len(chunks) > 10
    labels = np.concatenate([chunk.labels for chunk in chunks])
    assert np.array_equal(labels, np.arange(1, len(labels) + 1))
    for chunk, later in pairwise(chunks):
        assert later.vertices[:, 1].min() // 4 >= chunk.horizon
    assert chunks[2].horizon < chunks[-2].horizon


def test_a_nucleus_on_the_corner_of_four_blocks_is_one(tmp_path: Path) -> None:
    maps = np.zeros((1100, 2100, 2), np.uint8)
    maps[500:530, 1010:1040] = 255
    found = find(tmp_path, maps)
    assert len(found.chunks[0]) == 1
    assert found.chunks[0].measurements["Area µm^2"][0] == 900 / 16
    assert found.chunks[0].tiles.tolist() == [[2, 4]]
    assert np.isnan(found.chunks[0].measurements["Nearest neighbour distance µm"][0])


@pytest.mark.parametrize("mirrored", [False, True])
def test_halves_that_touch_at_the_corner_of_four_blocks_only_are_one(tmp_path: Path, mirrored: bool) -> None:
    """As the count has it: seeds are connected by corners too."""
    maps = np.zeros((1100, 2048, 2), np.uint8)
    maps[500:512, 1010:1024] = 255
    maps[512:524, 1024:1036] = 255
    found = find(tmp_path, maps[:, ::-1].copy() if mirrored else maps)
    assert len(found.all("labels")) == 1
    assert found.chunks[0].measurements["Area µm^2"][0] == (12 * 14 + 12 * 12) / 16


def test_a_net_through_all_blocks_is_left_out_and_what_lies_in_it_is_not(tmp_path: Path) -> None:
    maps = np.zeros((2600, 3000, 2), np.uint8)
    maps[::100] = maps[:, ::100] = 255
    maps[40:60, 40:60] = maps[1540:1560, 2140:2160] = 255
    found = find(tmp_path, maps)
    assert len(found.all("labels")) == 2
    assert found.too_large == 1


def test_a_worm_through_many_blocks_is_one_nucleus(tmp_path: Path) -> None:
    maps = np.zeros((2100, 2100, 2), np.uint8)
    maps[100:2000, 1000:1060] = 255
    maps[1940:2000, 200:1060] = 255  # it turns, and ends in a column of blocks to the left
    maps[100:160, 1000:1900] = 255
    found = find(tmp_path, maps)
    assert len(found.all("labels")) == 1
    assert (found.painted(2100, 2100) > 0).sum() == (maps[..., 0] > 0).sum()


def test_a_nucleus_that_is_too_large_is_left_out(tmp_path: Path) -> None:
    maps = np.zeros((600, 4400, 2), np.uint8)
    maps[10:20, 100:2149] = 255  # 2,049 wide
    maps[40:50, 100:2148] = 255  # 2,048
    maps[300:320, 300:320] = 255
    found = find(tmp_path, maps)
    assert len(found.all("labels")) == 2
    assert found.too_large == 1


def test_a_map_of_ones_is_one_nucleus_too_large(tmp_path: Path) -> None:
    found = find(tmp_path, np.full((1600, 3000, 2), 255, np.uint8))
    assert not found.chunks
    assert found.too_large == 1


def test_the_rim_of_a_nucleus_whose_seed_lies_in_the_next_block_belongs_to_it(tmp_path: Path) -> None:
    maps = np.zeros((600, 1200, 2), np.uint8)
    maps[100:140, 990:1070, 0] = 255  # its seed is to the right of column 1024, 6 pixels of rim around it
    maps[110:130, 1030:1060, 1] = 255
    found = find(tmp_path, maps)
    assert len(found.all("labels")) == 1
    assert (found.painted(600, 1200) > 0).sum() == 40 * 80


def test_nuclei_without_a_seed_are_none(tmp_path: Path) -> None:
    maps = np.zeros((600, 1200, 2), np.uint8)
    maps[100:140, 990:1070, 0] = 255
    assert not find(tmp_path, maps).chunks


def test_small_ones_are_left_out_and_counted(tmp_path: Path) -> None:
    maps = np.zeros((100, 100, 2), np.uint8)
    maps[10:14, 10:14] = 255
    maps[40:45, 40:44] = 255
    found = find(tmp_path, maps, smallest=17)
    assert len(found.all("labels")) == 1
    assert found.too_small == 1
    assert found.chunks[0].measurements["Area µm^2"][0] == 20 / 16


def test_only_those_at_the_border_of_the_slide_or_of_damage_touch_it(tmp_path: Path) -> None:
    places = {
        (0, 50): True, (1, 150): False, (620, 250): True, (619, 350): False, (300, 0): True, (400, 1): False,
        (350, 1180): True, (450, 1179): False,
        (300, 492): True, (400, 491): False, (236, 600): True, (235, 650): False, (512, 550): True, (513, 600): False,
    }  # fmt: skip
    maps = np.zeros((640, 1200, 2), np.uint8)
    for y, x in places:
        maps[y : y + 20, x : x + 20] = 255
    found = find(tmp_path, maps, damaged=[(1, 2)])  # rows 256 to 511, columns 512 to 767
    corners = (found.all("centroids") - 10).astype(int)
    ours = {(y, x): at_border for (x, y), at_border in zip(corners.tolist(), found.all("at_border"), strict=True)}
    assert ours == places


def test_neighbours_are_the_nearest_of_the_whole_slide(maps: np.ndarray, found: Found) -> None:
    centroids = found.all("centroids")
    distances = cdist(centroids, centroids)
    np.fill_diagonal(distances, np.inf)
    ours = np.concatenate([chunk.measurements["Nearest neighbour distance µm"] for chunk in found.chunks])
    assert ours == pytest.approx(distances.min(axis=1) * 0.25)


def test_neighbours_are_looked_for_within_100_micrometres(tmp_path: Path) -> None:
    maps = np.zeros((40, 1200, 2), np.uint8)
    for x in (0, 398, 800):
        maps[10:20, x : x + 10] = 255
    nearest = find(tmp_path, maps).chunks[0].measurements["Nearest neighbour distance µm"]
    assert nearest[:2] == pytest.approx([99.5, 99.5])
    assert np.isnan(nearest[2])


def test_the_stain_is_measured_where_the_nucleus_is(tmp_path: Path) -> None:
    maps = np.zeros((600, 1200, 2), np.uint8)
    maps[100:120, 1000:1050] = 255  # in two blocks
    image = np.full((600, 1200, 3), 255, np.uint8)
    stained = np.rint(255 * 10 ** -np.array(HEMATOXYLIN)).astype(np.uint8)
    image[100:120, 1000:1050] = stained
    image[100:110, 1000:1050] = 255  # half of it is not stained
    values = find(tmp_path, maps, image=image).chunks[0].measurements
    density = float(HematoxylinTable.of()(stained[None])[0])
    assert density == pytest.approx(np.linalg.norm(HEMATOXYLIN), abs=0.01)
    assert values[HEMATOXYLIN_MEAN][0] == pytest.approx(density / 2, abs=1e-5)
    assert values[HEMATOXYLIN_DEVIATION][0] == pytest.approx(density / 2, abs=1e-3)
    assert values["Area µm^2"][0] == 1000 / 16


def test_without_a_pixel_size_all_is_in_pixels(tmp_path: Path) -> None:
    maps = np.zeros((100, 100, 2), np.uint8)
    maps[10:20, 10:20] = maps[10:20, 40:50] = 255
    values = find(tmp_path, maps, mpp=None).chunks[0].measurements
    assert values["Area px^2"].tolist() == [100, 100]
    assert values["Nearest neighbour distance px"].tolist() == [30, 30]
