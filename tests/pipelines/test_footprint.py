"""Memory of containers, as control groups of both versions say it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.runner import footprint
from pipelines.runner.footprint import Footprint


@pytest.mark.parametrize(
    ("told", "folder", "stat", "expected"),
    [
        ("0::/user.slice/box\n", "user.slice/box", "anon 100\nfile 7000\nshmem 20\n", 120),
        ("5:cpu:/x\n4:memory:/box\n0::/box\n", "memory/box", "cache 9\nrss 300\nshmem 4\ntotal_rss 999\n", 304),
        ("4:memory,hugetlb:/box\n", "memory/box", "rss 1\n", 1),
        ("0::/gone\n", "box", "anon 1\n", None),
        ("", "box", "anon 1\n", None),
    ],
)
def test_what_a_group_holds(
    told: str, folder: str, stat: str, expected: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(footprint, "_GROUPS", tmp_path)
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / "memory.stat").write_text(stat)
    group = next(footprint._groups(told), None)
    assert (footprint._taken(group) if group is not None else None) == expected


def test_a_container_that_is_not_there() -> None:
    made = Footprint("false", "box")
    made.stop()
    assert made.peak is None
