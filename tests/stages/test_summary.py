"""summary.json: complete before config.meta, printed again, the same for one process and for three."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nuclei_segmentation.shared.result import SegmentationResult, read_document, read_result
from tests.helpers.broken_tiff import break_tile
from tests.helpers.command import Done, refused
from tests.helpers.slides import tiff

VARYING = {"times", "num_workers", "peak_memory_bytes", "warnings"}


@pytest.fixture
def finished(run, small_slide: Path, tmp_path: Path) -> Path:
    """Return an output folder with a finished result."""
    done = run("segmentation", "--input-path", small_slide.parent, "--output-path", tmp_path / "out")
    assert done.code == 0, done.err
    return tmp_path / "out"


def test_the_summary_holds_what_was_found(finished: Path) -> None:
    document = read_document(finished)
    assert document is not None
    assert document["format"] == "nuclei-summary"
    assert document["key"] == json.loads((finished / "config.meta").read_text())["run"]
    assert document["slide"]["width"] == 700
    assert document["tiles"]["all"] >= document["tiles"]["with_tissue"] > 0
    assert document["image"]["bytes"] == (finished / "image.tif").stat().st_size
    assert document["program"]["version"]
    assert document["settings"]["overlay.threshold"] == 0.5
    result = read_result(finished, document["key"])
    assert isinstance(result, SegmentationResult)
    assert json.loads(result.to_json()) == document
    assert read_result(finished, "another key") is None


def test_done_already_prints_the_summary_again(run, finished: Path, small_slide: Path) -> None:
    before = (finished / "summary.json").read_bytes()
    again = run("segmentation", "--input-path", small_slide.parent, "--output-path", finished)
    assert again.code == 0
    assert "already done" in again.err
    assert "nuclei  " in again.out
    assert str(finished / "image.tif") in again.out
    assert (finished / "summary.json").read_bytes() == before


@pytest.mark.parametrize("content", [None, "", "{}", "[1]", '{"format": "nuclei-summary", "version": "9.0"}'])
def test_an_older_result_without_a_summary_is_done_all_the_same(
    run, finished: Path, small_slide: Path, content: str | None
) -> None:
    (finished / "summary.json").unlink()
    if content is not None:
        (finished / "summary.json").write_text(content)
    again = run("segmentation", "--input-path", small_slide.parent, "--output-path", finished)
    assert again.code == 0, again.err
    assert "already done" in again.err
    assert again.out == ""


def test_another_result_says_what_differs(run, finished: Path, small_slide: Path, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("overlay: {opacity: 0.25}\n")
    refused = run(
        "segmentation", "--input-path", small_slide.parent, "--output-path", finished, "--config-path", tmp_path
    )
    assert refused.code == 13
    assert "holds another result (overlay.opacity 0.9 -> 0.25)" in refused.err


def test_another_store_says_what_differs(run, small_slide: Path, dark_config: Path, tmp_path: Path) -> None:
    tiles, masks = tmp_path / "in" / "tiles", tmp_path / "masks"

    def stage(name: str, source: Path, target: Path, *options: str) -> Done:
        config = ["--config-path", dark_config] if "fp32" not in options else ["--config-path", tmp_path]
        more = [option for option in options if option != "fp32"]
        return run(name, "--input-path", source, "--output-path", target, *config, *more, NVIDIA_CLARA_NOSYNCLOCK="1")

    (tmp_path / "config.yaml").write_text("inference: {precision: fp32}\n")
    assert stage("load", small_slide.parent, tiles, "-t", "64").code == 0
    other = stage("load", small_slide.parent, tiles, "-t", "96", "-o", "32")
    refused(other, 13, "holds another tile store (tile size 64 -> 96; overlap 0 -> 32)")
    assert stage("filter", tmp_path / "in", masks).code == 0
    other = stage("filter", tmp_path / "in", masks, "fp32")
    refused(other, 13, "holds another map store (model segmentation_unet_nuclei (embedded, ")


def staged_summary(run, slide: Path, folder: Path, *options: object) -> dict[str, Any]:
    """Return the summary of three stages that run one after the other."""
    payload = folder / "payload"
    payload.mkdir()
    shutil.copy(slide, payload)
    for stage, source, target in (
        ("load", slide.parent, payload / "tiles"),
        ("filter", payload, payload / "masks"),
        ("stitch", payload, folder / "staged"),
    ):
        done = run(stage, "--input-path", source, "--output-path", target, *options, NVIDIA_CLARA_NOSYNCLOCK="TRUE")
        assert done.code == 0, done.err
    document = read_document(folder / "staged")
    assert document is not None
    return document


def test_three_stages_leave_the_summary_that_one_process_leaves(
    run, finished: Path, small_slide: Path, tmp_path: Path
) -> None:
    fused, staged = read_document(finished), staged_summary(run, small_slide, tmp_path)
    assert fused is not None
    staged["settings"]["wait.limit"] = fused["settings"]["wait.limit"]  # a stage that runs alone waits for none
    assert {k: v for k, v in fused.items() if k not in VARYING} == {k: v for k, v in staged.items() if k not in VARYING}
    assert fused["tissue_guessed"] == []
    assert fused["tissue_guessed_pixels"] == 0


def test_where_tissue_is_only_guessed_is_said(run, tmp_path: Path) -> None:
    """A tile that cannot be read counts as tissue, in one process and in three, and is named."""
    (tmp_path / "in").mkdir()
    slide = tmp_path / "in" / "slide.tif"
    tiff(slide, np.full((480, 720, 3), 243, np.uint8))
    break_tile(slide, 0, 4, "unreadable")
    (tmp_path / "config.yaml").write_text("damaged: {limit: 1}\n")
    options = ("--config-path", tmp_path, "--tile-size", "240")
    done = run("segmentation", "--input-path", slide.parent, "--output-path", tmp_path / "out", *options)
    assert done.code == 0, done.err
    assert "17% of the slide cannot be read: that it is tissue is only guessed (x 240 to 479, y 240 to 479)" in done.err
    assert "only guessed, since the slide cannot be read there" in done.out
    for document in (read_document(tmp_path / "out"), staged_summary(run, slide, tmp_path, *options)):
        assert document is not None
        assert document["tissue_guessed"] == [{"x": 240, "y": 240, "width": 240, "height": 240}]
        assert document["tissue_guessed_pixels"] == 240 * 240
        assert document["tiles"]["with_tissue"] >= 1
        assert any("only guessed" in warning for warning in document["warnings"])
