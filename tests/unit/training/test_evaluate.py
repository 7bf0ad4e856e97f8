"""The evaluation uses the program's own stages, and reads any data directory."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile

from nuclei_segmentation.segmenter import Segmentation, Segmenter
from nuclei_segmentation.shared.geometry import Region
from nuclei_segmentation.shared.settings import Settings
from tests.helpers.labels import discs
from training.baseline import otsu
from training.evaluate import main
from training.metrics import Score
from training.nucleus_free import REGIONS, FalsePositives, false_positives, table, training_fields


def test_tiles_give_what_the_whole_image_gives() -> None:
    random = np.random.default_rng(0)
    image = cv2.GaussianBlur(random.integers(0, 256, (352, 352, 3), np.uint8), (0, 0), 4.0)
    image = np.clip((image.astype(np.float32) - 128) * 6 + 128, 0, 255).astype(np.uint8)
    with Segmenter() as whole, Segmenter(tile_size=256, overlap=224) as tiled:
        one, many = whole(image), tiled(image)
    assert one.maps.shape == (352, 352, 2)
    assert one.maps[..., 0].max() > 127
    assert np.abs(one.maps.astype(int) - many.maps).max() <= 1
    assert one.count == one.labels.max()


@pytest.mark.parametrize("light", [True, False])
def test_otsu_finds_discs_light_or_dark(light: bool) -> None:
    labels = discs(160, 6, 9, 4)
    image = np.where(labels[..., None] > 0, np.uint8(200), np.uint8(20)).repeat(3, axis=2)
    image = image if light else 255 - image
    found = otsu(image)
    score = Score()
    score.add(labels, found, found > 0, int(found.max()))
    assert score.measures()["Dice"] > 0.95
    assert score.measures()["F1@0.5"] > 0.8
    assert not otsu(np.full((32, 32, 3), 243, np.uint8)).any()


def test_small_labels_can_be_left_out(folder: Path, tmp_path: Path) -> None:
    path = folder / "labels" / "stained_he-1.png"
    labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    free = np.argwhere(cv2.dilate(labels, np.ones((9, 9))) == 0)[0]
    labels[free[0] : free[0] + 4, free[1] : free[1] + 4] = 999  # 16 pixels at most
    cv2.imwrite(str(path), labels)
    whole = [area for area in np.bincount(labels.ravel())[1:-1] if area >= 17]
    counts = []
    for least in (0, 17):
        written = tmp_path / f"{least}.json"
        assert main(["--data", str(folder), "--least-area", str(least), "--json", str(written)]) == 0
        counts.append(json.loads(written.read_text())[0]["nuclei"])
    assert counts[0] > counts[1] == len(whole)


def test_scores_any_folder_by_modality_scale_and_method(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = (folder / "index.csv").read_text()
    (folder / "index.csv").write_text(index.replace("stained_he,val", "confocal,val"))
    written = tmp_path / "scores.json"
    arguments = ["--data", str(folder), "--scale", "1", "--scale", "0.5", "--json", str(written)]
    assert main(arguments) == 0
    rows = json.loads(written.read_text())
    keys = [(row["modality"], row["scale"], row["images"]) for row in rows]
    assert keys == [("confocal", scale, 1) for scale in ("1", "1", "0.5", "0.5")]
    otsu_row = rows[1]
    assert otsu_row["method"] == "Otsu and watershed"
    assert otsu_row["Dice"] > 0.9
    assert capsys.readouterr().out.count("| confocal |") == 4


def test_purple_of_both_kinds_has_a_row_of_its_own(folder: Path, tmp_path: Path) -> None:
    index = (folder / "index.csv").read_text()
    index = index.replace("fluorescence_gray,train", "stained_purple_on_white,val")
    (folder / "index.csv").write_text(index.replace("brightfield_gray,train", "stained_purple_on_purple,val"))
    written = tmp_path / "scores.json"
    assert main(["--data", str(folder), "--json", str(written)]) == 0
    together = [row for row in json.loads(written.read_text()) if row["modality"] == "stained_purple"]
    assert [row["images"] for row in together] == [2, 2]


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--model", "no_such"], 15, "no_such"),
        (["--split", "none"], 1, "'none'"),
        (["--data", "/no/such/folder"], 1, "/no/such/folder"),
        (["--json", "/no/such/folder/scores.json"], 1, "/no/such/folder"),
    ],
)
def test_a_mistake_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, text: str
) -> None:
    assert main(["--data", str(folder), *arguments]) == code
    printed = capsys.readouterr()
    assert text in printed.err
    assert printed.err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["--workers", "0"],
        ["--scale", "0"],
        ["--scale", "nan"],
        ["--tile-size", "100"],
        ["--tile-size", "256", "--overlap", "256"],
        ["--precision", "int4"],
    ],
)
def test_a_wrong_option_is_a_usage_error(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--data", str(folder), *arguments])
    assert arguments[-2] in capsys.readouterr().err


def test_false_positives_are_counted_in_regions_without_nuclei(small_slide_folder: Path, tmp_path: Path) -> None:
    regions = tmp_path / "regions.csv"
    regions.write_text(
        "split,slide,kind,x,y,width,height\n"
        "val,a.tif,glass,0,0,20,10\ntrain,a.tif,glass,20,0,20,10\nval,a.tif,fat,50,30,10,10\nval,a.tif,fat,118,86,10,10\n"
    )
    sizes = []

    def left_half(image: np.ndarray) -> Segmentation:
        sizes.append(image.shape[:2])
        maps = np.zeros((*image.shape[:2], 1), np.uint8)
        maps[:, :10] = 255
        return Segmentation(maps, ("nucleus",), maps[..., 0].astype(np.int32), 1, image, Settings())

    found = false_positives(small_slide_folder, left_half, regions)
    assert list(found) == ["fat", "glass", "all"]
    assert found["glass"] == FalsePositives(200, 100)
    assert found["fat"] == FalsePositives(200, 0)  # the positive pixels are in the margin
    assert found["all"].rate == 0.25
    assert sizes == [(74, 84), (96, 124), (74, 74)]
    assert "| all | 400 | 25.00% |" in table({"left": found})


def test_regions_without_nuclei_are_training_fields(small_slide_folder: Path, tmp_path: Path) -> None:
    regions = tmp_path / "regions.csv"
    regions.write_text(
        "split,slide,kind,x,y,width,height\n"
        "val,a.tif,glass,0,0,20,10\ntrain,a.tif,keratin,20,10,30,15\ntrain,elsewhere.tif,keratin,0,0,9,9\n"
    )
    (field,) = training_fields(small_slide_folder, regions)
    assert field.modality == "nucleus_free"
    assert np.array_equal(field.image, tifffile.imread(small_slide_folder / "a.tif")[10:25, 20:50])
    assert field.labels.shape == (15, 30)
    assert not field.labels.any()


def test_no_region_is_both_trained_on_and_measured_on() -> None:
    with REGIONS.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["split"] for row in rows} == {"train", "val"}
    for one in rows:
        for other in rows:
            if (one["split"], other["split"], one["slide"]) == ("train", "val", other["slide"]):
                first, second = (
                    Region(*(int(row[key]) for key in ("x", "y", "width", "height"))) for row in (one, other)
                )
                shared = first.intersect(second)
                assert shared.width * shared.height == 0, (one, other)


def test_the_regions_lie_in_the_slides_they_name() -> None:
    with REGIONS.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["slide"] for row in rows} >= {"CMU-1-Small-Region.svs"}
    for row in rows:
        if row["slide"] == "CMU-1-Small-Region.svs":
            assert int(row["x"]) + int(row["width"]) <= 2220
            assert int(row["y"]) + int(row["height"]) <= 2967
