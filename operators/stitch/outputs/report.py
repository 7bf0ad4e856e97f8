"""The output ``report``: one HTML file that a pathologist can read, print and pass on.

It holds its pictures and its style in itself, has no scripts, and opens without a network. Every text that comes from a
slide, a model or a configuration is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template

import numpy as np
import numpy.typing as npt

from nuclei_segmentation.operators.stitch.objects.nuclei import Nuclei, NucleiHeader
from nuclei_segmentation.operators.stitch.outputs.area_counts import AreaCounts, Areas
from nuclei_segmentation.operators.stitch.outputs.density import DensityGrid, Squares
from nuclei_segmentation.operators.stitch.outputs.new_file import NewFile
from nuclei_segmentation.operators.stitch.outputs.report_figures import density_map, size_histogram, thumbnail
from nuclei_segmentation.operators.stitch.outputs.report_style import STYLE
from nuclei_segmentation.operators.stitch.outputs.writer import Writer
from nuclei_segmentation.shared.batches import Pixels
from nuclei_segmentation.shared.geometry import Region
from nuclei_segmentation.shared.result import SegmentationResult
from nuclei_segmentation.shared.runtime.outside import harmless
from nuclei_segmentation.shared.runtime.progress import duration
from nuclei_segmentation.shared.runtime.resources import human
from nuclei_segmentation.shared.runtime.summary import bottleneck
from nuclei_segmentation.shared.scale import can_count, describe_scale, doubt

_LISTED = 6  # damaged places, and warnings; so that the report stays at two pages
_PURPOSE = "For research use only; not for diagnosis."
_UNKNOWN = "not known"
_QUARTILES: Mapping[str, float] = {"lower quartile": 0.25, "median": 0.5, "upper quartile": 0.75}
_PAGE = Template("""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Nuclei in $name</title>
<style>
$style</style>
</head>
<body>
<header>
<h1>Nuclei in <span class="name">$name</span></h1>
<p class="purpose">$purpose</p>
$cautions</header>
<main>
<section class="figures">
$figures
</section>
<section class="pictures">
$pictures
</section>
<section class="sizes">
$sizes
</section>
<section class="tables">
$tables
</section>
</main>
<footer><p>$purpose $program</p></footer>
</body>
</html>
""")


@dataclass(frozen=True, slots=True)
class EncodedStatistics:
    """What the report takes of a chunk.

    Attributes
    ----------
    squares : numpy.ndarray
        (n,) int64, the squares of the density grid in which the nuclei lie.
    areas : numpy.ndarray
        (n,) int64, their areas in pixels.
    classes : numpy.ndarray
        (256,) int64, nuclei by number of their class.
    """

    squares: Squares
    areas: Areas
    classes: npt.NDArray[np.int64]


class ReportWriter(Writer[EncodedStatistics]):
    """Writes ``report.html``.

    Parameters
    ----------
    path : pathlib.Path
        The file, in a work folder. What is there is lost.
    header : NucleiHeader
        Of the slide.
    result : SegmentationResult
        Of the run that made the image.
    overview : numpy.ndarray
        (h, w, 3) uint8 RGB, the slide with its nuclei drawn in; see `report_figures.read_overview`.
    """

    def __init__(
        self,
        path: Path,
        header: NucleiHeader,
        result: SegmentationResult,
        overview: Pixels,
    ) -> None:
        self._header, self._result = header, result
        self._overview = overview
        self._grid, self._areas = DensityGrid(header), AreaCounts(header)
        self._classes = np.zeros(256, np.int64)
        self._file = NewFile(path)

    def encode(self, nuclei: Nuclei) -> EncodedStatistics:
        """Return what is counted of a chunk."""
        classes = np.bincount(nuclei.classes, minlength=256).astype(np.int64)
        return EncodedStatistics(self._grid.squares(nuclei), self._areas.areas(nuclei), classes)

    def append(self, encoded: EncodedStatistics) -> None:
        """Count a chunk."""
        self._grid.add(encoded.squares)
        self._areas.add(encoded.areas)
        self._classes += encoded.classes

    def finish(self) -> None:
        """Write the page."""
        self._file.write(self._page().encode())
        self._file.finish()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _page(self) -> str:
        result = self._result
        return _PAGE.substitute(
            name=_text(result.slide.name),
            style=STYLE,
            purpose=_PURPOSE,
            cautions=_cautions(result),
            figures=_key_figures(result, self._areas),
            pictures="\n".join((
                _figure(thumbnail(self._overview), "The slide with its nuclei drawn in"),
                _figure(density_map(self._grid), f"{self._grid.unit.capitalize()}, {self._square()}"),
            )),
            sizes=self._sizes(),
            tables="\n".join((
                _class_table(self._header, self._classes),
                _table("Slide", _slide(result)),
                _table("Model", _model(result)),
                _table("Run", _run(result)),
                _damage(result.damaged),
                _table("Settings", ((name, _value(value)) for name, value in result.provenance.settings.items())),
            )),
            program=_text(f"Made by {result.provenance.program}."),
        )  # fmt: skip

    def _square(self) -> str:
        return "in squares of 400 pixels" if self._grid.mpp is None else "in squares of 100 µm"

    def _sizes(self) -> str:
        if not self._areas.total:
            return ""
        quartiles = ", ".join(f"{name} {_area(self._areas, share)}" for name, share in _QUARTILES.items())
        return _figure(size_histogram(self._areas), f"Areas of {self._areas.total:,} nuclei: {quartiles}")


def _text(text: object) -> str:
    """Return a text that may come from anywhere as HTML."""
    return escape(harmless(str(text)))


def _figure(content: str, caption: str) -> str:
    return f"<figure>\n{content}\n<figcaption>{_text(caption)}</figcaption>\n</figure>"


def _table(title: str, rows: Iterable[tuple[str, str]]) -> str:
    lines = "\n".join(
        f'<tr><th scope="row">{_text(name)}</th><td>{_text(value)}</td></tr>' for name, value in rows if value
    )
    return f'<table id="{title.lower()}">\n<caption>{title}</caption>\n<tbody>\n{lines}\n</tbody>\n</table>'


def _cautions(result: SegmentationResult) -> str:
    """Return what a reader must know before the numbers."""
    meaningless = () if can_count(result.slide.mpp) else ("The number of nuclei" + doubt(result.slide.mpp),)
    texts = tuple(dict.fromkeys((*meaningless, *result.warnings)))  # each once
    if not texts:
        return ""
    rest = f"<li>and {len(texts) - _LISTED} more, in summary.json</li>\n" if len(texts) > _LISTED else ""
    items = "".join(f"<li>{_text(text)}</li>\n" for text in texts[:_LISTED])
    return f'<section class="cautions">\n<h2>Warnings</h2>\n<ul>\n{items}{rest}</ul>\n</section>\n'


def _key_figures(result: SegmentationResult, areas: AreaCounts) -> str:
    density = result.density if can_count(result.slide.mpp) else None
    spread = f"half of them {_area(areas, 0.25)} to {_area(areas, 0.75)}" if areas.total else ""
    figures = (
        ("nuclei", f"{result.nuclei:,}", "Nuclei", ""),
        ("density", _UNKNOWN if density is None else f"{density:,.0f}", "Nuclei per mm² of tissue", ""),
        ("median", _area(areas, 0.5) if areas.total else _UNKNOWN, "Median area", spread),
        ("tissue", _mm2(result.tissue_area), "Area of the tissue", ""),
        ("nuclear", _mm2(result.nuclear_area), "Area of all nuclei", ""),
    )
    return "\n".join(
        f'<div class="key" id="{name}"><strong>{_text(value)}</strong><span>{title}</span>'
        f"<small>{_text(note)}</small></div>"
        for name, value, title, note in figures
    )


def _class_table(header: NucleiHeader, counts: npt.NDArray[np.int64]) -> str:
    """Return the nuclei by class; empty for a model without classes."""
    if len(header.classes) < 2:
        return ""
    total = max(1, int(counts.sum()))
    rows = "\n".join(
        f'<tr><th scope="row"><i style="background:rgb{one.color}"></i>{_text(one.name)}</th>'
        f"<td>{count:,}</td><td>{count / total:.1%}</td></tr>"
        for one, count in zip(header.classes, counts.tolist(), strict=False)
    )
    return f'<table id="classes">\n<caption>Nuclei by class</caption>\n<tbody>\n{rows}\n</tbody>\n</table>'


def _slide(result: SegmentationResult) -> Iterable[tuple[str, str]]:
    slide = result.slide
    guessed = f"{result.guessed_pixels:,} pixels, since the slide cannot be read there" if result.guessed_pixels else ""
    return (
        ("name", slide.name),
        ("format", slide.format),
        ("size", f"{slide.width:,} × {slide.height:,} pixels"),
        ("scale", describe_scale(slide.mpp, slide.objective)),
        ("tiles", f"{result.tiles:,}, {result.foreground:,} of them with tissue"),
        ("tissue only guessed", guessed),
        ("fingerprint", slide.fingerprint),
    )


def _model(result: SegmentationResult) -> Iterable[tuple[str, str]]:
    model = result.model
    return ("name", model.name), ("engine", model.engine), ("precision", model.precision), ("identity", model.identity)


def _run(result: SegmentationResult) -> Iterable[tuple[str, str]]:
    program = result.provenance.program
    waits = {f"time for {name}": f"{one.cpu:.1f} s of processor time" for name, one in result.stages.items()}
    return (
        ("key", result.key),
        (
            "time",
            f"{duration(result.seconds)} with {result.num_workers} worker{'' if result.num_workers == 1 else 's'}",
        ),
        *waits.items(),
        ("bottleneck", bottleneck(result.seconds, result.stages, result.waited)),
        ("peak memory", human(result.peak_memory)),
        ("image", human(result.image_bytes)),
        ("python", program.python),
        ("libraries", ", ".join(f"{name} {version}" for name, version in program.libraries.items())),
    )


def _damage(places: Sequence[Region]) -> str:
    if not places:
        return _table("Damage", (("places", "none: all of the slide could be read"),))
    listed = [
        (f"{number}", f"x {place.x} to {place.right - 1}, y {place.y} to {place.bottom - 1}")
        for number, place in enumerate(places[:_LISTED], 1)
    ]
    rest = f"; the first {_LISTED}, the others are in summary.json" if len(places) > _LISTED else ""
    return _table("Damage", (("places", f"{len(places):,} could not be read and are hatched{rest}"), *listed))


def _area(areas: AreaCounts, share: float) -> str:
    area = areas.quantile(share) * areas.pixel
    return f"{area:,.0f} {areas.unit}" if area >= 100 else f"{area:.3g} {areas.unit}"


def _mm2(area: float | None) -> str:
    return _UNKNOWN if area is None else f"{area:.3g} mm²"


def _value(value: object) -> str:
    if value is None:
        return "not set"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
