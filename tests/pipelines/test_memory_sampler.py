"""Memory of containers, as control groups of both versions say it."""

from __future__ import annotations

from pathlib import Path

import pytest

from nuclei_segmentation.pipelines.runner import memory_sampler
from nuclei_segmentation.pipelines.runner.memory_sampler import MemorySampler
from nuclei_segmentation.shared.runtime import resources


@pytest.mark.parametrize(
    ("cgroups", "folder", "stat", "expected"),
    [
        ("0::/user.slice/container-12ab\n", "user.slice/container-12ab", "anon 100\nfile 7000\nshmem 20\n", 120),
        ("4:memory:/12ab\n0::/12ab\n", "memory/12ab", "cache 9\nrss 300\nshmem 4\ntotal_rss 999\n", 304),
        ("4:memory,hugetlb:/12ab\n", "memory/12ab", "rss 1\n", 1),
        ("4:memory:/another\n", "memory/another", "rss 1\n", None),
        ("0::/12ab\n", "elsewhere", "anon 1\n", None),
        ("", "12ab", "anon 1\n", None),
    ],
)
def test_what_a_container_takes(
    cgroups: str, folder: str, stat: str, expected: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine is a program that says that container 12ab is process 1."""
    groups = tmp_path / "groups"
    (groups / folder).mkdir(parents=True)
    (groups / folder / "memory.stat").write_text(stat)
    engine = tmp_path / "engine"
    engine.write_text("#!/bin/sh\necho 1 12ab\n")
    engine.chmod(0o755)
    read = resources._text
    monkeypatch.setattr(resources, "_CGROUPS", groups)
    monkeypatch.setattr(resources, "_text", lambda path: cgroups if path == Path("/proc/1/cgroup") else read(path))
    made = MemorySampler("false", "container")
    made.stop()
    made._inspect = (str(engine),)
    group = made._group()
    assert (memory_sampler._memory_used(group) if group is not None else None) == expected


def test_a_container_that_is_not_there() -> None:
    made = MemorySampler("false", "container")
    made.stop()
    assert made.peak is None
