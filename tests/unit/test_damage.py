from __future__ import annotations

import logging

import pytest

from nuclei_segmentation.shared.damage import LISTED, DamagedTiles, list_damage
from nuclei_segmentation.shared.errors import TooMuchDamage
from nuclei_segmentation.shared.geometry import Region, TileGrid

GRID = TileGrid(1000, 500, 100)  # 50 tiles


@pytest.mark.parametrize(("limit", "allowed"), [(0.0, 0), (0.01, 0), (0.02, 1), (0.05, 2), (0.1, 5), (1.0, 50)])
def test_the_limit_is_a_share_of_all_tiles(limit: float, allowed: int) -> None:
    damaged = DamagedTiles(GRID, limit)
    positions = list(GRID)
    damaged.add(positions[:allowed])
    assert len(damaged) == allowed
    if allowed < len(GRID):
        words = f"{allowed + 1} of 50 tiles could not be read, `damaged.limit` allows {allowed}; "
        with pytest.raises(TooMuchDamage, match=words):
            damaged.add(positions[allowed : allowed + 1])


def test_a_tile_that_is_added_twice_counts_once() -> None:
    damaged = DamagedTiles(GRID, 0.04)
    damaged.add([(3, 1), (0, 2)])
    damaged.add([[0, 2]])
    damaged.add([])
    assert damaged.cores == (Region(200, 0, 100, 100), Region(100, 300, 100, 100))


@pytest.mark.parametrize(("count", "last"), [(LISTED + 1, "... and 1 more tile"), (50, "... and 30 more tiles")])
def test_the_first_tiles_are_listed_and_the_others_counted(
    count: int, last: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("nuclei_segmentation"), "propagate", True)
    damaged = DamagedTiles(GRID, 1.0)
    damaged.add(list(GRID)[:count])
    list_damage(damaged.cores)
    assert caplog.messages[0] == "could not be read, hatched: x 0 to 99, y 0 to 99"
    assert caplog.messages[LISTED:] == [last]


def test_without_damage_nothing_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    list_damage(())
    assert caplog.messages == []
