"""Small stores to be made, broken and read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nuclei_segmentation.shared.store import (
    release_shared_memory,
)
from nuclei_segmentation.shared.store.manifest import read_manifest
from tests.helpers.stores import Maker


@pytest.fixture
def ours(tmp_path: Path) -> Iterator[None]:
    """Give back the shared memory of a test's stores, and of nobody else's."""
    yield
    for path in tmp_path.rglob("manifest.json"):
        manifest = read_manifest(path.parent)
        if manifest is not None:
            release_shared_memory(manifest)


@pytest.fixture(params=["disk", "shared memory"])
def maker(request: pytest.FixtureRequest, tmp_path: Path, ours: None) -> Maker:
    return Maker(tmp_path / "store", request.param == "shared memory")


@pytest.fixture
def on_disk(tmp_path: Path) -> Maker:
    return Maker(tmp_path / "store", shared=False)
