"""Files of nuclei: asked for at once or later, fused or staged, undisturbed or killed, they are the same."""

from __future__ import annotations

import csv
import gzip
import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import tifffile

from tests.helpers.command import Run, command, environment, refused
from tests.helpers.outputs import FILES, digest, names

ALL = "geojson table labels density report"
STABLE = ["density.tif", "nuclei-labels.ome.tif", "nuclei.csv.gz", "nuclei.geojson.gz", "nuclei.parquet"]
"""The report says when and how fast it was made."""
WITH_ALL = sorted([*FILES, *STABLE, "report.html"])


@pytest.fixture(scope="module")
def config(dark_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Without a tissue mask, and with nuclei as small as the slide has them."""
    folder = tmp_path_factory.mktemp("config")
    text = (dark_config / "config.yaml").read_text()
    (folder / "config.yaml").write_text(f"{text}mask: none\nnuclei: {{min_area: 1}}\n")
    return folder


@pytest.fixture
def options(small_slide: Path, config: Path) -> list[str | Path]:
    return ["--input-path", small_slide.parent, "--config-path", config, "-w", "2"]


@pytest.fixture(scope="module")
def made(small_slide: Path, config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A result with all files, of tiles of 48 pixels."""
    out = tmp_path_factory.mktemp("made")
    line = ["segmentation", "--input-path", small_slide.parent, "--config-path", config, "-t", "48"]
    subprocess.run(
        command(*line, "--output-path", out), check=True, capture_output=True, env=environment(NUCLEI_OUTPUTS=ALL)
    )
    return out


@pytest.fixture(scope="module")
def bare(small_slide: Path, config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same result without any."""
    out = tmp_path_factory.mktemp("bare")
    line = ["segmentation", "--input-path", small_slide.parent, "--config-path", config, "-t", "48"]
    subprocess.run(command(*line, "--output-path", out), check=True, capture_output=True, env=environment())
    return out


def files(folder: Path, names: list[str] = STABLE) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in names}


def summary(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return document


def rows(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(gzip.decompress((folder / "nuclei.csv.gz").read_bytes()).decode().splitlines()))


def test_they_lie_beside_the_image_and_agree(made: Path) -> None:
    assert names(made) == WITH_ALL
    found = summary(made)["outputs"]
    assert {one["file"] for one in found["files"]} == set(WITH_ALL) - set(FILES)
    features = json.loads(gzip.decompress((made / "nuclei.geojson.gz").read_bytes()))["features"]
    assert len(features) == len(rows(made)) == found["written"] > 40
    assert found["written"] + found["too_small"] + found["too_large"] == summary(made)["nuclei"]
    areas = sorted(float(row["Area µm^2"]) for row in rows(made))
    assert found["areas"][1] == pytest.approx(areas[len(areas) // 2], rel=0.1)


def test_without_outputs_the_folder_and_the_image_are_as_ever(
    run: Run, options: list[str | Path], made: Path, tmp_path: Path
) -> None:
    done = run("segmentation", *options, "-t", "48", "--output-path", tmp_path / "out")
    assert done.code == 0, done.err
    assert names(tmp_path / "out") == FILES
    assert digest(tmp_path / "out") == digest(made)
    assert summary(tmp_path / "out")["outputs"] is None


@pytest.mark.parametrize("tile", ["64", "256"])
def test_other_tiles_have_the_same_nuclei(
    run: Run, options: list[str | Path], made: Path, tmp_path: Path, tile: str
) -> None:
    done = run(
        "segmentation", *options, "-t", tile, "-w", "3", "--output-path", tmp_path / "out", NUCLEI_OUTPUTS="geojson"
    )
    assert done.code == 0, done.err
    assert files(tmp_path / "out", ["nuclei.geojson.gz"]) == files(made, ["nuclei.geojson.gz"])


def test_staged_they_are_the_same(
    run: Run, options: list[str | Path], small_slide: Path, made: Path, tmp_path: Path
) -> None:
    inputs, more = tmp_path / "in", ["--config-path", options[3], "-w", "1"]
    shutil.copytree(small_slide.parent, inputs / "slide")
    alone = {"NVIDIA_CLARA_NOSYNCLOCK": "1"}
    for stage, out in (("load", inputs / "tiles"), ("filter", inputs / "masks"), ("stitch", tmp_path / "out")):
        line = [stage, "--input-path", inputs, "--output-path", out, *more, *(["-t", "48"] if stage == "load" else [])]
        done = run(*line, NUCLEI_OUTPUTS=ALL, **alone)
        assert done.code == 0, done.err
    assert files(tmp_path / "out") == files(made)
    # Asked for later, they are made from the stores.
    line = ["stitch", "--input-path", inputs, "--output-path", tmp_path / "later", *more]
    for outputs in ("none", ALL):
        done = run(*line, NUCLEI_OUTPUTS=outputs, **alone)
        assert done.code == 0, done.err
    assert names(tmp_path / "later") == WITH_ALL
    assert files(tmp_path / "later") == files(made)


def test_asked_for_later_they_are_made_alone(run: Run, options: list[str | Path], made: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    line = ["segmentation", *options, "-t", "48", "--output-path", out]
    assert run(*line).code == 0
    before = (out / "image.tif").stat()
    done = run(*line, NUCLEI_OUTPUTS="table, geojson")
    assert done.code == 0, done.err
    assert "of its outputs geojson, table will be made" in done.err
    assert names(out) == sorted([*FILES, "nuclei.csv.gz", "nuclei.geojson.gz", "nuclei.parquet"])
    done = run(*line, NUCLEI_OUTPUTS=ALL)
    assert done.code == 0, done.err
    assert names(out) == WITH_ALL
    assert files(out) == files(made)
    after = (out / "image.tif").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    done = run(*line, NUCLEI_OUTPUTS=ALL)
    assert "already done" in done.err
    assert "will be made" not in done.err
    assert names(out) == WITH_ALL


def test_with_maps_kept_nothing_is_inferred_again(
    run: Run, small_slide: Path, config: Path, made: Path, tmp_path: Path
) -> None:
    out, folder = tmp_path / "out", shutil.copytree(config, tmp_path / "config")
    with (folder / "config.yaml").open("a") as file:
        file.write("keep_maps: true\n")
    line = ["segmentation", "--input-path", small_slide.parent, "--output-path", out, "-t", "48", "--config-path"]
    assert run(*line, folder).code == 0
    assert names(out) == [".run", *FILES]
    done = run(*line, folder, NUCLEI_OUTPUTS=ALL)
    assert done.code == 0, done.err
    assert "(165 already inferred)" in done.err
    assert files(out) == files(made)
    assert names(out) == [".run", *WITH_ALL]
    assert run(*line, config, NUCLEI_OUTPUTS=ALL).code == 0
    assert names(out) == WITH_ALL


def test_maps_kept_of_another_run_are_not_used(
    run: Run, small_slide: Path, config: Path, made: Path, tmp_path: Path
) -> None:
    out, folder = tmp_path / "out", shutil.copytree(config, tmp_path / "config")
    with (folder / "config.yaml").open("a") as file:
        file.write("keep_maps: true\noverwrite: true\noverlay: {threshold: 0.7}\n")
    line = ["segmentation", "--input-path", small_slide.parent, "--output-path", out, "-t", "48", "--config-path"]
    assert run(*line, folder).code == 0
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace("overlay: {threshold: 0.7}\n", ""))
    done = run(*line, folder, NUCLEI_OUTPUTS=ALL)
    assert done.code == 0, done.err
    assert "already inferred" not in done.err
    assert files(out) == files(made)


def test_maps_that_a_later_run_left_are_not_used_for_another_slide(
    run: Run, small_slide: Path, config: Path, tmp_path: Path
) -> None:
    """The image was there when the maps were made, and is gone when the next slide comes."""
    out, folder = tmp_path / "out", shutil.copytree(config, tmp_path / "config")
    with (folder / "config.yaml").open("a") as file:
        file.write("keep_maps: true\n")
    other = tmp_path / "other" / "slide.tif"
    other.parent.mkdir()
    with tifffile.TiffFile(small_slide) as tiff:
        tifffile.imwrite(
            other, tiff.asarray()[::-1], tile=(240, 240), photometric="rgb", compression="deflate",
            resolution=(20000, 20000), resolutionunit="CENTIMETER", metadata=None,
        )  # fmt: skip
    options = ["-t", "48", "--config-path", folder]
    assert run("segmentation", "--input-path", small_slide.parent, "--output-path", out, *options[:2],
               "--config-path", config).code == 0  # fmt: skip
    first = ["segmentation", "--input-path", small_slide.parent, "--output-path", out, *options]
    assert run(*first, NUCLEI_OUTPUTS="density").code == 0
    for path in out.iterdir():
        if path.name != ".run":
            path.unlink()
    line = ["segmentation", "--input-path", other.parent, *options, "--output-path"]
    done = run(*line, out, NUCLEI_OUTPUTS="table")
    refused(done, 13, "holds an unfinished run, or kept maps, of another slide")
    with (folder / "config.yaml").open("a") as file:
        file.write("overwrite: true\n")
    for target in (out, tmp_path / "fresh"):
        done = run(*line, target, NUCLEI_OUTPUTS="table")
        assert done.code == 0, done.err
        assert "already inferred" not in done.err
    assert rows(out) == rows(tmp_path / "fresh")


@pytest.mark.parametrize("fatal", range(1, 8))
def test_killed_between_two_renames_nothing_is_orphaned(
    options: list[str | Path], bare: Path, made: Path, tmp_path: Path, fatal: int
) -> None:
    """The next run with other outputs leaves none of a result that no summary knows, and refuses none of its own."""
    out = shutil.copytree(bare, tmp_path / "out")
    code = (
        "import os, sys\n"
        "from nuclei_segmentation.operators.stitch import render_files\n"
        "from nuclei_segmentation.operators.commands import run\n"
        "real, count = render_files._replace, 0\n"
        "def replace(work, output, outputs, stale, check):\n"
        "    def counted():\n"
        "        global count\n"
        "        count += 1\n"
        f"        if count == {fatal}:\n"
        "            os.kill(os.getpid(), 9)\n"
        "        check()\n"
        "    real(work, output, outputs, stale, counted)\n"
        "    counted()\n"
        "render_files._replace = replace\n"
        "run(sys.argv[1:])\n"
    )
    line = [str(one) for one in ("segmentation", *options, "-t", "48", "--output-path", out)]
    died = subprocess.run(
        [sys.executable, "-c", code, *line], capture_output=True, check=False, env=environment(NUCLEI_OUTPUTS=ALL)
    )
    assert died.returncode == -9, died.stderr
    for outputs, expected in (("density", sorted([*FILES, "density.tif"])), (ALL, WITH_ALL)):
        done = subprocess.run(
            command(*line), capture_output=True, text=True, check=False, env=environment(NUCLEI_OUTPUTS=outputs)
        )
        assert done.returncode == 0, done.stderr
        assert names(out) == expected
    assert files(out) == files(made)


def test_a_summary_of_somebody_else_removes_nothing_elsewhere(
    run: Run, small_slide: Path, config: Path, made: Path, tmp_path: Path
) -> None:
    out, folder = shutil.copytree(made, tmp_path / "out"), shutil.copytree(config, tmp_path / "config")
    with (folder / "config.yaml").open("a") as file:
        file.write("overwrite: true\noverlay: {style: fill}\n")
    precious = tmp_path / "precious"
    precious.write_text("mine")
    document = summary(out)
    document["outputs"]["files"] += [
        {"output": "table", "file": name, "bytes": 4, "xxh3": ""} for name in (str(precious), "../precious")
    ]
    (out / "summary.json").write_text(json.dumps(document))
    line = ["segmentation", "--input-path", small_slide.parent, "--config-path", folder, "-t", "48"]
    assert run(*line, "--output-path", out).code == 0
    assert precious.read_text() == "mine"
    assert names(out) == FILES


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_with_the_name_of_an_output_is_refused_before_the_work(
    run: Run, small_slide: Path, config: Path, tmp_path: Path, overwrite: bool
) -> None:
    out, folder = tmp_path / "out", shutil.copytree(config, tmp_path / "config")
    with (folder / "config.yaml").open("a") as file:
        file.write(f"overwrite: {str(overwrite).lower()}\n")
    (out / "report.html").mkdir(parents=True)
    line = ["segmentation", "--input-path", small_slide.parent, "--config-path", folder, "--output-path", out]
    refused(run(*line, NUCLEI_OUTPUTS="report"), 13, "report.html is a folder")
    assert names(out) == ["report.html"]


def test_without_a_summary_outputs_are_refused_with_what_to_do(
    run: Run, options: list[str | Path], made: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(made, tmp_path / "out")
    (out / "summary.json").unlink()
    for name in (*STABLE, "report.html"):
        (out / name).unlink()
    line = ["segmentation", *options, "-t", "48", "--output-path", out]
    refused(run(*line, NUCLEI_OUTPUTS="table"), 13, "without a summary.json", f"remove {out / 'image.tif'}")
    (out / "image.tif").unlink()
    assert run(*line, NUCLEI_OUTPUTS=ALL).code == 0
    assert files(out) == files(made)


def test_a_file_that_is_missing_or_changed_is_made_again(
    run: Run, options: list[str | Path], made: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(made, tmp_path / "out")
    line = ["segmentation", *options, "-t", "48", "--output-path", out]
    (out / "nuclei.csv.gz").unlink()
    with (out / "density.tif").open("r+b") as file:
        file.seek(20)
        file.write(b"\xff")
    done = run(*line, NUCLEI_OUTPUTS=ALL)
    assert done.code == 0, done.err
    assert "of its outputs table, density will be made" in done.err
    assert files(out) == files(made)


def test_other_measurements_replace_all_files_and_not_the_image(
    run: Run, small_slide: Path, config: Path, made: Path, tmp_path: Path
) -> None:
    out, folder = shutil.copytree(made, tmp_path / "out"), shutil.copytree(config, tmp_path / "config")
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace("min_area: 1", "min_area: 30") + "outputs: [table]\n")
    line = ["segmentation", "--input-path", small_slide.parent, "--config-path", folder, "-t", "48"]
    done = run(*line, "--output-path", out)
    assert done.code == 0, done.err
    assert names(out) == sorted([*FILES, "nuclei.csv.gz", "nuclei.parquet"]), "the others are of other nuclei"
    assert digest(out) == digest(made)
    assert min(float(row["Area µm^2"]) for row in rows(out)) >= 30
    assert 0 < summary(out)["outputs"]["written"] < summary(made)["outputs"]["written"]


def test_another_run_takes_the_files_of_the_replaced_one_away(
    run: Run, small_slide: Path, config: Path, made: Path, tmp_path: Path
) -> None:
    out, folder = shutil.copytree(made, tmp_path / "out"), shutil.copytree(config, tmp_path / "config")
    (out / "notes.txt").write_text("mine")
    with (folder / "config.yaml").open("a") as file:
        file.write("overwrite: true\noverlay: {style: fill}\n")
    line = ["segmentation", "--input-path", small_slide.parent, "--config-path", folder, "-t", "48"]
    done = run(*line, "--output-path", out)
    assert done.code == 0, done.err
    assert names(out) == sorted([*FILES, "notes.txt"])


def test_a_file_of_somebody_else_is_not_replaced(run: Run, options: list[str | Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "report.html").write_text("mine")
    line = ["segmentation", *options, "-t", "48", "--output-path", out]
    done = run(*line, NUCLEI_OUTPUTS="report")
    refused(done, 13, f"{out}/report.html was not written by a run")
    assert (out / "report.html").read_text() == "mine"
    assert run(*line).code == 0
    done = run(*line, NUCLEI_OUTPUTS="report")
    refused(done, 13, f"{out}/report.html was not written by a run")
    assert names(out) == sorted([*FILES, "report.html"])
    assert (out / "report.html").read_text() == "mine"


@pytest.mark.parametrize("text", ["pdf", "geojson;table", "geojson none"])
def test_an_output_that_is_none_is_refused(run: Run, options: list[str | Path], tmp_path: Path, text: str) -> None:
    done = run("segmentation", *options, "--output-path", tmp_path / "out", NUCLEI_OUTPUTS=text)
    refused(done, 2, "NUCLEI_OUTPUTS", "geojson, table, labels, density, report")
    assert not (tmp_path / "out").exists()


def test_the_variable_wins_over_the_file(run: Run, small_slide: Path, config: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(config, tmp_path / "config")
    with (folder / "config.yaml").open("a") as file:
        file.write("outputs: [geojson]\n")
    line = ["segmentation", "--input-path", small_slide.parent, "--config-path", folder, "-t", "64"]
    assert run(*line, "--output-path", tmp_path / "none", NUCLEI_OUTPUTS="none").code == 0
    assert names(tmp_path / "none") == FILES
    assert run(*line, "--output-path", tmp_path / "file").code == 0
    assert names(tmp_path / "file") == sorted([*FILES, "nuclei.geojson.gz"])


def test_no_nuclei_are_files_without_nuclei(run: Run, small_slide: Path, config: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(config, tmp_path / "config")
    with (folder / "config.yaml").open("a") as file:
        file.write("overlay: {threshold: 1}\n")
    line = ["segmentation", "--input-path", small_slide.parent, "--config-path", folder, "-t", "64"]
    done = run(*line, "--output-path", tmp_path / "out", NUCLEI_OUTPUTS=ALL)
    assert done.code == 0, done.err
    assert names(tmp_path / "out") == WITH_ALL
    assert summary(tmp_path / "out")["nuclei"] == 0
    assert not rows(tmp_path / "out")


def test_killed_at_random_instants_they_are_the_same_in_the_end(
    options: list[str | Path], made: Path, tmp_path: Path
) -> None:
    out, dice, kills = tmp_path / "out", random.Random(4), 0
    line = command("segmentation", *options, "-t", "48", "--output-path", out)
    variables = environment(NUCLEI_OUTPUTS=ALL)
    start = time.monotonic()
    subprocess.run(line, check=True, capture_output=True, env=variables)
    seconds = time.monotonic() - start
    shutil.rmtree(out)
    while kills < 6:
        process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=variables)
        time.sleep(seconds * dice.uniform(0.3, 1.1))
        process.kill()
        if process.wait() == 0:
            shutil.rmtree(out)
            seconds *= 0.8
        else:
            kills += 1
        visible = [name for name in STABLE if (out / name).exists()]
        assert files(out, visible) == files(made, visible), "something half-written has a final name"
    subprocess.run(line, check=True, capture_output=True, env=variables)
    assert names(out) == WITH_ALL
    assert files(out) == files(made)
    assert not os.path.lexists(out / ".run")
