"""The figures of the report, as HTML: pictures as data URLs, and diagrams as SVG in the colours of the page."""

from __future__ import annotations

import base64
import math
from pathlib import Path
from typing import Final, TypeVar

import cv2
import imagecodecs
import numpy as np
import numpy.typing as npt
import tifffile

from nuclei_segmentation.operators.stitch.outputs.area_counts import AreaCounts
from nuclei_segmentation.operators.stitch.outputs.density import DensityGrid
from nuclei_segmentation.shared.batches import Pixels

LARGEST: Final = 1000
"""Most pixels of a picture's side."""

_Kind = TypeVar("_Kind", np.uint8, np.float32)

_QUALITY = 85
_BARS = 40
_LEFT, _TOP, _WIDTH, _HEIGHT, _BELOW = 84, 40, 556, 200, 44  # of the histogram
# From few to many, each brighter or darker than the page in both of its schemes (the colours of viridis).
_COLORS = np.array([(68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37)], np.float64)


def read_overview(image: Path) -> Pixels:
    """Return ``image.tif`` reduced, for `thumbnail`.

    Parameters
    ----------
    image : pathlib.Path
        The pyramid, each of whose levels has half the width and height of the one before.

    Returns
    -------
    numpy.ndarray
        (h, w, 3) uint8 RGB: the coarsest level that is at least `LARGEST` pixels wide or high, or level 0.
    """
    with tifffile.TiffFile(image) as tiff:
        sizes = [max(page.shape[:2]) for page in tiff.pages]
        level = max((number for number, size in enumerate(sizes) if size >= LARGEST), default=0)
        pixels: Pixels = tiff.pages[level].asarray()
    return pixels


def thumbnail(pixels: Pixels) -> str:
    """Return the slide with the nuclei drawn in.

    Parameters
    ----------
    pixels : numpy.ndarray
        (h, w, 3) uint8 RGB, of any size.
    """
    data = imagecodecs.jpeg8_encode(np.ascontiguousarray(_fit(pixels)), level=_QUALITY)
    return _picture("image/jpeg", bytes(data), "The slide, reduced, with its nuclei drawn in", "photo")


def density_map(grid: DensityGrid) -> str:
    """Return the density as a picture, and its scale below it. Squares without nuclei show the page.

    Parameters
    ----------
    grid : DensityGrid
        Where the nuclei are.
    """
    density = _fit(grid.density)
    found = density[density > 0]
    top = nice(float(np.quantile(found, 0.99))) if len(found) else 1.0
    pixels = np.zeros((*density.shape, 4), np.uint8)
    pixels[..., :3] = _color(density / top)
    pixels[..., 3] = np.where(density > 0, 255, 0)
    picture = _picture("image/png", bytes(imagecodecs.png_encode(pixels)), f"Map of {grid.unit}", "map")
    stops = "".join(
        f'<stop offset="{place:g}" stop-color="rgb({red},{green},{blue})"/>'
        for place, (red, green, blue) in zip(np.linspace(0, 1, 9), _color(np.linspace(0, 1, 9)).tolist(), strict=True)
    )
    return (
        f'{picture}\n<svg viewBox="0 0 640 44" role="img" aria-label="Colours from 0 to {top:,.0f} {grid.unit}">'
        f'<defs><linearGradient id="scale">{stops}</linearGradient></defs>'
        '<rect x="0" y="0" width="640" height="16" fill="url(#scale)"/>'
        '<text x="0" y="36">0</text>'
        f'<text x="320" y="36" text-anchor="middle">{grid.unit}</text>'
        f'<text x="640" y="36" text-anchor="end">{_number(top)} and more</text></svg>'
    )


def size_histogram(areas: AreaCounts) -> str:
    """Return the histogram of the nuclei's areas, with lines at the quartiles; at least one nucleus.

    Parameters
    ----------
    areas : AreaCounts
        Of all nuclei.
    """
    # Bars of whole pixels, so that none has more values than its neighbours. The last one holds all larger nuclei.
    step = max(1, math.ceil((areas.quantile(0.995) + 1) / _BARS))
    inner = areas.counts[: step * (_BARS - 1)].reshape(-1, step).sum(axis=1)
    bars = [*inner.tolist(), areas.total - int(inner.sum())]
    width, highest, bottom = _WIDTH / _BARS, max(bars), _TOP + _HEIGHT
    span = step * _BARS * areas.pixel
    parts = [
        f'<rect class="bar" x="{_LEFT + number * width:.2f}" y="{bottom - height:.2f}" '
        f'width="{width - 1:.2f}" height="{height:.2f}"><title>{_range(number, step * areas.pixel, areas.unit)}: '
        f"{count:,}</title></rect>"
        for number, count in enumerate(bars)
        for height in (_HEIGHT * count / highest,)
        if count
    ]
    for share, name in ((0.25, "25%"), (0.5, "median"), (0.75, "75%")):
        x = _LEFT + _WIDTH * min(1.0, (areas.quantile(share) + 0.5) * areas.pixel / span)
        parts.append(f'<line class="quartile" x1="{x:.2f}" x2="{x:.2f}" y1="{_TOP - 6}" y2="{bottom}"/>')
        parts.append(
            f'<text x="{x:.2f}" y="{_TOP - 10 - (12 if share == 0.5 else 0)}" text-anchor="middle">{name}</text>'
        )
    tick = nice(span / 5)
    for number in range(int(span / tick) + 1):
        x = _LEFT + _WIDTH * number * tick / span
        parts.append(f'<line class="axis" x1="{x:.2f}" x2="{x:.2f}" y1="{bottom}" y2="{bottom + 5}"/>')
        parts.append(f'<text x="{x:.2f}" y="{bottom + 19}" text-anchor="middle">{_number(number * tick)}</text>')
    parts.append(f'<text x="{_LEFT - 6}" y="{_TOP + 5}" text-anchor="end">{highest:,}</text>')
    parts.append(f'<text x="{_LEFT - 6}" y="{bottom}" text-anchor="end">0</text>')
    parts.append(f'<text x="{_LEFT + _WIDTH / 2:g}" y="{bottom + 38}" text-anchor="middle">area in {areas.unit}</text>')
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{_LEFT + _WIDTH}" y1="{bottom}" y2="{bottom}"/>')
    size = f"{_LEFT + _WIDTH + 20} {bottom + _BELOW}"
    return f'<svg viewBox="0 0 {size}" role="img" aria-label="Histogram of areas">\n' + "\n".join(parts) + "\n</svg>"


def nice(value: float) -> float:
    """Return the smallest of 1, 2, 5, 10, 20, 50, … (or 0.5, 0.2, …) that is not below a positive value."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= value * (1 - 1e-9))


def _fit(pixels: npt.NDArray[_Kind]) -> npt.NDArray[_Kind]:
    """Return an image, reduced where it is larger than a picture may be."""
    height, width = pixels.shape[:2]
    part = LARGEST / max(height, width)
    if part >= 1:
        return pixels
    size = max(1, round(width * part)), max(1, round(height * part))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), pixels.dtype)


def _color(shares: npt.NDArray[np.floating]) -> Pixels:
    """Return (…, 3) uint8: the colour of each share of the scale."""
    places = np.linspace(0, 1, len(_COLORS))
    channels = [np.interp(shares, places, _COLORS[:, channel]) for channel in range(3)]
    color: Pixels = np.rint(np.stack(channels, axis=-1)).astype(np.uint8)
    return color


def _picture(kind: str, data: bytes, text: str, name: str) -> str:
    return f'<img class="{name}" alt="{text}" src="data:{kind};base64,{base64.b64encode(data).decode("ascii")}">'


def _range(number: int, step: float, unit: str) -> str:
    begin = _number(number * step)
    return f"{begin} {unit} and more" if number == _BARS - 1 else f"{begin} to {_number((number + 1) * step)} {unit}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
