"""The recipes of docs/outputs.md do what they say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.nuclei import MEASUREMENTS, header, nuclei
from nuclei_segmentation.operators.stitch.outputs.csv_table import CsvWriter
from nuclei_segmentation.operators.stitch.outputs.geojson import geojson_writer
from nuclei_segmentation.operators.stitch.outputs.parquet import ParquetWriter
from tests.helpers.command import ROOT
from tests.helpers.nuclei_files import write

PAGE = (ROOT / "docs" / "outputs.md").read_text().partition("\n## Label image\n")[0]
RECIPES = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
NOT_INSTALLED = {"spatialdata", "anndata", "wsidata", "tiatoolbox"}
"""What is too large to install for tests: over a gigabyte. The page names the versions that these were tried with."""
COUNT = 250


def imports(recipe: str) -> set[str]:
    return set(re.findall(r"^(?:import|from) (\w+)", recipe, re.MULTILINE))


EXECUTED = [recipe for recipe in RECIPES if not imports(recipe) & NOT_INSTALLED]


@pytest.mark.parametrize("recipe", EXECUTED, ids=[" ".join(sorted(imports(recipe))) for recipe in EXECUTED])
def test_a_recipe_runs(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    about, found = header(COUNT, classes=2), nuclei(COUNT, classes=2)
    write(geojson_writer(tmp_path / "nuclei.geojson.gz", about), [found])
    write(CsvWriter(tmp_path / "nuclei.csv.gz", about, MEASUREMENTS), [found])
    write(ParquetWriter(tmp_path / "nuclei.parquet", about, MEASUREMENTS), [found])
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(recipe, names)
    assert capsys.readouterr().out
    if imports(recipe) != {"polars"}:  # whose table is not read before it is asked
        assert len(names["nuclei"]) == COUNT  # type: ignore[arg-type] # a table of some kind


def test_a_recipe_that_is_not_run_names_the_version_that_was_tried() -> None:
    assert set().union(*map(imports, EXECUTED)) == {"gzip", "json", "geopandas", "pandas", "polars"}
    assert len(RECIPES) - len(EXECUTED) == len(NOT_INSTALLED)
    before = [PAGE[: PAGE.index(recipe)].rsplit("**", 1)[1] for recipe in RECIPES if recipe not in EXECUTED]
    assert all(re.search(r"tried with \d+\.\d+", text) for text in before)


def test_the_page_names_every_measurement_in_order() -> None:
    rows = re.findall(r"^\| ((?:`[^`]+`(?:, )?)+) \|", PAGE.split("The measurements, in this order:")[1], re.MULTILINE)
    assert [name for row in rows for name in re.findall(r"`([^`]+)`", row)] == list(MEASUREMENTS)
