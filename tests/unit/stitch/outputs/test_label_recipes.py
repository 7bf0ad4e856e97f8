"""The recipes for the label image and the density do what they say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nuclei_segmentation.operators.stitch.outputs.density import DensityWriter
from nuclei_segmentation.operators.stitch.outputs.labels import LabelsWriter
from nuclei_segmentation.operators.stitch.outputs.names import DENSITY, LABELS
from nuclei_segmentation.shared.runtime.worker_pool import WorkerPool
from tests.helpers.command import ROOT
from tests.helpers.drawn_nuclei import blobs, chunks_of, header

PAGE = (ROOT / "docs" / "outputs.md").read_text().partition("\n## Label image\n")[2]
RECIPES = [one for one in re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL) if "napari" not in one]


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_runs(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    about = header(600, 500)
    (nuclei,) = chunks_of(blobs(600, 500, seed=1, sigma=4), 10_000)
    with (
        WorkerPool(1) as pool,
        LabelsWriter(tmp_path / LABELS, about, pool) as labels,
        DensityWriter(tmp_path / DENSITY, about) as density,
    ):
        for writer in (labels, density):
            writer.append(writer.encode(nuclei))
            writer.finish()
    monkeypatch.chdir(tmp_path)
    exec(recipe, {})
    assert capsys.readouterr().out


def test_all_recipes_but_napari_are_run() -> None:
    assert len(RECIPES) == 4
