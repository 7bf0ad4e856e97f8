from __future__ import annotations

import base64
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import imagecodecs
import numpy as np
import pytest

from nuclei_segmentation.operators.stitch.objects.nuclei import Nuclei, NucleiHeader, NucleusClass
from nuclei_segmentation.operators.stitch.outputs.report import ReportWriter
from nuclei_segmentation.operators.stitch.outputs.report_figures import nice, read_overview
from nuclei_segmentation.operators.stitch.pyramid.jpeg_segments import encode_jpeg, shared_tables
from nuclei_segmentation.operators.stitch.pyramid.levels import levels_of
from nuclei_segmentation.operators.stitch.pyramid.tiff import PyramidFile
from nuclei_segmentation.shared.geometry import Region
from nuclei_segmentation.shared.result import SegmentationResult
from nuclei_segmentation.shared.runtime.stage_timer import StageTime
from nuclei_segmentation.shared.settings import JpegSettings
from tests.helpers.drawn_nuclei import header, nuclei_at
from tests.helpers.results import result

_VOID = {"meta", "img", "br"}
_HEADER = header(4000, 2000, 3)
_PIXELS = np.full((100, 200, 3), (200, 120, 160), np.uint8)
_POINTS = [(100, 100), (150, 100), (3000, 1900)]
_NUCLEI = nuclei_at(_POINTS, [40.0, 50.0, 90.0])


class _Page(HTMLParser):
    """What a page holds; fails where its elements are not nested as they should be."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[tuple[str, str | None]] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {}  # by id or, where there is none, name of the element
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append((tag, dict(attrs).get("id")))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        for name in {name or tag for tag, name in self.open}:
            self.texts[name] = self.texts.get(name, "") + data


def report(
    folder: Path,
    of: SegmentationResult,
    slide: NucleiHeader = _HEADER,
    chunks: Sequence[Nuclei] = (_NUCLEI,),
    warnings: Sequence[str] = (),
    overview: np.ndarray = _PIXELS,
) -> str:
    of = replace(of, warnings=(*of.warnings, *warnings))
    with ReportWriter(folder / "report.html", slide, of, overview) as writer:
        for nuclei in chunks:
            writer.append(writer.encode(nuclei))
        writer.finish()
    return (folder / "report.html").read_text("utf-8")


def rows(text: str, table: str) -> dict[str, str]:
    """The rows of a table, by their first column."""
    body = re.search(rf'<table id="{table}">(.*?)</table>', text, re.DOTALL)
    assert body is not None
    return dict(re.findall(r'<th scope="row">(?:<i [^>]*></i>)?(.*?)</th><td>(.*?)</td>', body[1]))


def test_the_figures_are_those_of_the_result(tmp_path: Path) -> None:
    of = result()
    text = report(tmp_path, of)
    page = _Page(text)
    assert page.texts["nuclei"].startswith(f"{of.nuclei:,}Nuclei")
    assert page.texts["density"].startswith(f"{of.density:,.0f}Nuclei per mm² of tissue")
    assert page.texts["tissue"].startswith(f"{of.tissue_area:.3g} mm²")
    assert page.texts["nuclear"].startswith(f"{of.nuclear_area:.3g} mm²")
    assert page.texts["median"] == "50 µm²Median areahalf of them 45 µm² to 70 µm²"
    assert rows(text, "slide")["scale"] == "0.25 µm per pixel, 40x"
    assert rows(text, "slide")["size"] == "4,000 × 2,000 pixels"
    assert rows(text, "model") == {
        "name": "unet", "engine": "embedded", "precision": "int8", "identity": "sha256:0123:int8"
    }  # fmt: skip
    run = rows(text, "run")
    assert (run["key"], run["time"], run["time for filter"]) == (
        of.key,
        "61 s with 2 workers",
        "98.7 s of processor time",
    )
    assert run["bottleneck"].startswith("inference")
    assert rows(text, "settings") == {"overlay.threshold": "0.5", "tile_size": "512"}
    assert rows(text, "damage") == {"places": "none: all of the slide could be read"}
    assert "Warnings" not in text
    assert text.count("For research use only; not for diagnosis.") == 2


def test_it_is_one_file_that_asks_for_nothing_and_runs_nothing(tmp_path: Path) -> None:
    text = report(tmp_path, result(), warnings=["see https://example.org"])
    for tag, attributes in _Page(text).tags:
        assert tag not in {"script", "link", "iframe", "object", "embed", "base", "form"}
        assert not any(name.startswith("on") for name in attributes)
        assert not {"href", "srcset", "action"} & attributes.keys()
        if "src" in attributes:
            assert (attributes["src"] or "").startswith("data:image/")
    assert re.findall(r"url\((.*?)\)", text) == ["#scale"]
    assert "@import" not in text
    assert "https://example.org" in text  # a text, not a link


@pytest.mark.parametrize(
    "hostile", ["<script>alert(1)</script>\"'&", "</style></title><img src=x onerror=y>", "$name\n\x1b\u202e"]
)
def test_texts_from_outside_stay_texts(tmp_path: Path, hostile: str) -> None:
    of = result(warnings=(hostile,), stages={hostile: StageTime(1, 1, 1)})
    provenance = of.provenance
    of = replace(
        of,
        provenance=replace(
            provenance,
            slide=replace(provenance.slide, name=hostile, format=hostile),
            model=replace(provenance.model, name=hostile, identity=hostile),
            settings={hostile: [hostile]},
        ),
    )
    slide = replace(_HEADER, classes=(NucleusClass(hostile, (1, 2, 3)), NucleusClass("b", (4, 5, 6))))
    text = report(tmp_path, of, slide, warnings=[hostile + "!"])
    plain = _Page(
        report(
            tmp_path,
            result(warnings=("w",), stages={"s": StageTime(1, 1, 1)}),
            replace(slide, classes=(NucleusClass("a", (1, 2, 3)), NucleusClass("b", (4, 5, 6)))),
            warnings=["c"],
        )
    )
    page = _Page(text)
    settings_less = [tag for tag, _ in plain.tags].count("tr") - [tag for tag, _ in page.tags].count("tr")
    assert settings_less == 1  # one setting instead of two; no other element more or less
    assert {tag for tag, _ in page.tags} == {tag for tag, _ in plain.tags}
    shown = hostile.replace("\n", "\\n").replace("\x1b", "\\x1b").replace("\u202e", "\\u202e")
    for where in ("h1", "slide", "model", "run", "settings", "classes", "li"):
        assert shown in page.texts[where]


def test_it_fits_phones_dark_screens_and_paper(tmp_path: Path) -> None:
    text = report(tmp_path, result())
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in text
    assert "@media (prefers-color-scheme: dark)" in text
    assert "@page { size: A4;" in text
    assert ".tables { break-before: page; }" in text[text.index("@media print") :]


def test_warnings_come_first_and_each_once(tmp_path: Path) -> None:
    text = report(tmp_path, result(warnings=("b", "a", "b")))
    assert re.findall("<li>(.*?)</li>", text) == ["b", "a"]
    assert text.index("<li>") < text.index('id="nuclei"')
    many = report(tmp_path, result(warnings=tuple(f"w{number}" for number in range(30))))
    assert re.findall("<li>(.*?)</li>", many)[-1] == "and 24 more, in summary.json"


def test_a_count_that_means_nothing_is_said_to(tmp_path: Path) -> None:
    of = result()
    of = replace(of, provenance=replace(of.provenance, slide=replace(of.slide, mpp=(8.0, 8.0))))
    text = report(tmp_path, of, replace(_HEADER, mpp=(8.0, 8.0)))
    assert "The number of nuclei (this means nothing: at 8 µm per pixel" in text
    assert _Page(text).texts["density"].startswith("not known")


def test_without_a_pixel_size_it_says_so(tmp_path: Path) -> None:
    of = result(tissue_pixels=None)
    of = replace(of, provenance=replace(of.provenance, slide=replace(of.slide, mpp=None, objective=None)))
    text = report(tmp_path, of, replace(_HEADER, mpp=None), [nuclei_at(_POINTS, [400, 500, 600], name="Area px^2")])
    page = _Page(text)
    assert page.texts["median"].startswith("500 px")
    assert page.texts["density"].startswith("not known")
    assert "Nuclei per 1,000,000 pixels, in squares of 400 pixels" in text


def test_a_slide_without_nuclei_has_a_report(tmp_path: Path) -> None:
    page = _Page(report(tmp_path, result(nuclei=0, nuclear_pixels=0, stages={}), chunks=[]))
    assert page.texts["nuclei"].startswith("0Nuclei")
    assert page.texts["median"].startswith("not known")


def test_classes_are_counted(tmp_path: Path) -> None:
    slide = replace(_HEADER, classes=(NucleusClass("Tumor", (200, 0, 0)), NucleusClass("Stroma", (0, 0, 200))))
    chunks = [nuclei_at(_POINTS, 40.0, [0, 1, 1]), nuclei_at(_POINTS, 40.0, [1, 1, 1])]
    text = report(tmp_path, result(), slide, chunks)
    assert rows(text, "classes") == {"Tumor": "1", "Stroma": "5"}
    assert "83.3%" in text
    assert "background:rgb(200, 0, 0)" in text
    assert '<table id="classes">' not in report(tmp_path, result())


def test_damage_is_listed(tmp_path: Path) -> None:
    places = tuple(Region(256 * number, 0, 256, 256) for number in range(20))
    damage = rows(report(tmp_path, result(damaged=places)), "damage")
    assert damage["places"] == "20 could not be read and are hatched; the first 6, the others are in summary.json"
    assert damage["1"] == "x 0 to 255, y 0 to 255"
    assert len(damage) == 7


def test_pictures_are_of_the_slide_and_of_the_density(tmp_path: Path) -> None:
    page = _Page(report(tmp_path, result(), overview=np.repeat(_PIXELS, 16, axis=0)))
    photo, density = (
        base64.b64decode((attributes["src"] or "").partition(",")[2]) for tag, attributes in page.tags if tag == "img"
    )
    decoded = imagecodecs.jpeg8_decode(photo)
    assert decoded.shape == (1000, 125, 3)  # reduced from 1600 x 200
    assert np.abs(decoded.astype(int) - _PIXELS[0, 0]).max() < 6
    pixels = imagecodecs.png_decode(density)
    expected = np.zeros((5, 10), np.bool_)  # squares of 100 µm on 1000 x 500 µm
    expected[0, 0] = expected[4, 7] = True
    np.testing.assert_array_equal(pixels[..., 3] > 0, expected)
    assert tuple(pixels[0, 0, :3]) == (253, 231, 37)  # 200 per mm² are the top of the scale
    assert tuple(pixels[4, 7, :3]) == (33, 145, 140)  # half as many


def test_the_histogram_counts_every_nucleus_in_bars_of_whole_pixels(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).lognormal(6.5, 0.5, 3000).astype(np.int64)
    pixels[0] = 60_000  # beyond the last bar
    text = report(tmp_path, result(), chunks=[nuclei_at(np.zeros((3000, 2)), pixels / 16)])
    bars = [(float(x), float(height), int(count.replace(",", ""))) for x, height, count in re.findall(
        r'<rect class="bar" x="([\d.]+)" .*?height="([\d.]+)"><title>.*?: ([\d,]+)</title>', text
    )]  # fmt: skip
    step = math.ceil((np.quantile(pixels, 0.995) + 1) / 40)
    expected = np.bincount(np.minimum(pixels // step, 39), minlength=40)
    assert [count for *_, count in bars] == expected[expected > 0].tolist()
    assert max(height for _, height, _ in bars) == 200
    median = float(re.findall(r'<line class="quartile" x1="([\d.]+)"', text)[1])
    assert median == pytest.approx(84 + 556 * (np.median(pixels) + 0.5) / (40 * step), abs=0.01)


@pytest.mark.parametrize(("size", "read"), [(4100, 1025), (4000, 1000), (3996, 1998), (900, 900), (10, 10)])
def test_the_overview_is_the_coarsest_level_that_is_large_enough(tmp_path: Path, size: int, read: int) -> None:
    jpeg, levels = JpegSettings(), levels_of(size, 20)
    segment = encode_jpeg(np.full((256, 256, 3), (200, 120, 160), np.uint8), jpeg)
    with (tmp_path / "image.tif").open("w+b") as file:
        image = PyramidFile(file, levels, jpeg, (0.25, 0.25), None, shared_tables(jpeg))
        for level in levels:
            image.write(level, iter([segment] * level.rows * level.columns))
        image.finish()
    overview = read_overview(tmp_path / "image.tif")
    assert overview.shape[1] == read
    assert np.abs(overview.astype(int) - (200, 120, 160)).max() < 6


@pytest.mark.parametrize(("value", "expected"), [(1, 1), (1.01, 2), (3, 5), (7, 10), (0.03, 0.05), (4200, 5000)])
def test_scales_end_at_round_numbers(value: float, expected: float) -> None:
    assert nice(value) == pytest.approx(expected)
