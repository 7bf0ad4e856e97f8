"""Synthetic thumbnails with their ground truth: glass, tissue, pen marks, dust, coverslip edges, unscanned areas."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Image = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]

# RGB of pen marks in scans, from the ranges of the pen filters of HistoQC and deep-histopath.
PENS: dict[str, Colour] = {
    "blue": (40, 60, 170),
    "light blue": (70, 130, 200),
    "green": (30, 120, 80),
    "teal": (60, 160, 150),
    "black": (35, 33, 38),
    "red": (200, 30, 45),
}

# Optical density of one unit of stain in red, green and blue (Ruifrok and Johnston, 2001).
HAEMATOXYLIN = np.array([0.65, 0.70, 0.29], np.float32)
EOSIN = np.array([0.07, 0.99, 0.11], np.float32)
DAB = np.array([0.27, 0.57, 0.78], np.float32)


def tissue_density(shape: tuple[int, int], seed: int, ihc: bool = False) -> Floats:
    """Return the optical density of synthetic tissue, with a mean of about 0.5 in green.

    Parameters
    ----------
    shape : tuple of int
        Height and width, in pixels.
    seed : int
        Seed of the random structure.
    ihc : bool
        Whether the stain is immunohistochemistry (haematoxylin and DAB); otherwise it is H&E.

    Returns
    -------
    numpy.ndarray
        (h, w, 3) float32.
    """
    random = np.random.default_rng(seed)

    def cloud(sigma: float) -> Floats:
        noise = cv2.GaussianBlur(random.standard_normal(shape).astype(np.float32), (0, 0), sigma)
        return np.asarray(noise / max(float(noise.std()), 1e-6), np.float32)

    nuclei = np.clip(cloud(1.2) + 0.6 * cloud(12) - 0.6, 0, 2)
    fibres = np.clip(1 + 0.35 * cloud(2.5) + 0.4 * cloud(15), 0.15, 2.5)
    if ihc:
        stained = np.clip(cloud(20), 0, 1) * np.clip(1 + 0.5 * cloud(2), 0, 2)
        density = 0.5 * fibres[..., None] * HAEMATOXYLIN * 0.4 + nuclei[..., None] * HAEMATOXYLIN * 0.5
        return np.asarray(density + stained[..., None] * DAB * 0.6, np.float32)
    return (0.35 * fibres[..., None] * EOSIN + 0.5 * nuclei[..., None] * HAEMATOXYLIN).astype(np.float32)


def blob(shape: tuple[int, int], centre: tuple[float, float], radius: float, seed: int) -> Mask:
    """Return a mask of a lobed shape.

    Parameters
    ----------
    shape : tuple of int
        Height and width of the mask, in pixels.
    centre : tuple of float
        x and y of the centre, as shares of width and height.
    radius : float
        Mean radius, as a share of the shorter side.
    seed : int
        Seed of the lobes.

    Returns
    -------
    numpy.ndarray
        (h, w) bool.
    """
    random = np.random.default_rng(seed)
    side = min(shape)
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    y, x = y - centre[1] * shape[0], x - centre[0] * shape[1]
    angle = np.arctan2(y, x)
    outline = np.ones(shape, np.float32)
    for lobes in range(2, 9):
        outline += random.uniform(0, 0.5 / lobes) * np.cos(lobes * angle + random.uniform(0, 6.3)).astype(np.float32)
    return np.asarray(np.hypot(x, y) < radius * side * outline, np.bool_)


@dataclass
class Canvas:
    """A synthetic thumbnail, to which objects are added one by one.

    Attributes
    ----------
    pixels : numpy.ndarray
        (h, w, 3) float32 RGB, 0 to 255.
    truth : dict of str to numpy.ndarray
        (h, w) bool mask of each kind of object, by its name.
    """

    pixels: Floats
    truth: dict[str, Mask] = field(default_factory=dict)

    @classmethod
    def glass(
        cls, shape: tuple[int, int], level: Colour = (240, 240, 241), tilt: float = 0.0, vignette: float = 0.0
    ) -> Canvas:
        """Start with empty glass.

        Parameters
        ----------
        shape : tuple of int
            Height and width, in pixels.
        level : tuple of int
            RGB of the glass.
        tilt : float
            Share by which the brightness falls from left to right.
        vignette : float
            Share by which the brightness falls from the centre to the corners.
        """
        y, x = np.mgrid[0 : 1 : shape[0] * 1j, 0 : 1 : shape[1] * 1j].astype(np.float32)
        light = (1 - tilt * x) * (1 - vignette * ((x - 0.5) ** 2 + (y - 0.5) ** 2) * 2)
        return cls((light[..., None] * np.array(level, np.float32)).astype(np.float32))

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width, in pixels."""
        return self.pixels.shape[0], self.pixels.shape[1]

    def _record(self, kind: str, where: Mask) -> None:
        """Add a mask to the truth of a kind of object."""
        self.truth[kind] = self.truth.get(kind, np.zeros(self.shape, np.bool_)) | where

    def tissue(self, density: Floats, where: Mask, kind: str = "tissue") -> Canvas:
        """Add tissue; its border is blurred over two pixels.

        Parameters
        ----------
        density : numpy.ndarray
            (h, w, 3) float32 optical density.
        where : numpy.ndarray
            (h, w) bool: where the tissue is.
        kind : str
            Name of the tissue in `truth`.
        """
        soft = cv2.GaussianBlur(where.astype(np.float32), (0, 0), 0.8)[..., None]
        self.pixels *= np.exp(-density * soft)
        self._record(kind, where)
        return self

    def pen(self, colour: Colour, points: list[tuple[float, float]], width: float, blur: float = 1.5) -> Canvas:
        """Add a pen mark with streaks and a blurred edge.

        Parameters
        ----------
        colour : tuple of int
            RGB of the ink on white.
        points : list of tuple of float
            x and y of the points of the stroke, as shares of width and height.
        width : float
            Width of the stroke, in pixels.
        blur : float
            Standard deviation of the blur, in pixels.
        """
        ends = np.array([(x * self.shape[1] * 16, y * self.shape[0] * 16) for x, y in points], np.int32)
        stroke = np.zeros(self.shape, np.uint8)
        cv2.polylines(stroke, [ends], False, 255, max(1, round(width)), cv2.LINE_AA, shift=4)
        cover = cv2.GaussianBlur(stroke.astype(np.float32) / 255, (0, 0), blur)
        streaks = np.random.default_rng(len(points)).standard_normal(self.shape).astype(np.float32)
        streaks = np.asarray(cv2.GaussianBlur(streaks, (0, 0), 4.0), np.float32)
        cover *= np.clip(0.93 + 0.05 * streaks / max(float(streaks.std()), 1e-6), 0, 1)
        light = self.pixels.max()
        through = np.array(colour, np.float32) / light
        self.pixels *= 1 - cover[..., None] * (1 - through)
        self._record("pen", cover > 0.02)
        return self

    def dust(self, count: int, radius: tuple[float, float], seed: int, blur: float = 1.0) -> Canvas:
        """Add grey specks.

        Parameters
        ----------
        count : int
            Number of specks.
        radius : tuple of float
            Smallest and largest radius, in pixels.
        seed : int
            Seed of positions, sizes and brightness.
        blur : float
            Standard deviation of the blur, in pixels.
        """
        random = np.random.default_rng(seed)
        specks = np.zeros(self.shape, np.float32)
        for _ in range(count):
            one = np.zeros(self.shape, np.uint8)
            at = int(random.integers(self.shape[1])), int(random.integers(self.shape[0]))
            cv2.circle(one, at, max(1, round(random.uniform(*radius))), 255, -1, cv2.LINE_AA)
            specks = np.maximum(specks, one.astype(np.float32) / 255 * random.uniform(0.15, 0.85))
        specks = np.asarray(cv2.GaussianBlur(specks, (0, 0), blur), np.float32)
        self.pixels *= 1 - specks[..., None]
        self._record("dust", specks > 0.02)
        return self

    def line(self, start: tuple[float, float], end: tuple[float, float], width: int = 2, depth: float = 0.4) -> Canvas:
        """Add the edge of a coverslip: a grey line.

        Parameters
        ----------
        start : tuple of float
            x and y of one end, as shares of width and height.
        end : tuple of float
            x and y of the other end.
        width : int
            Width, in pixels.
        depth : float
            Share of the light that the line absorbs.
        """
        stroke = np.zeros(self.shape, np.uint8)
        ends = [tuple(int(part * side) for part, side in zip(at, self.shape[::-1], strict=True)) for at in (start, end)]
        cv2.line(stroke, ends[0], ends[1], 255, width, cv2.LINE_AA)
        cover = cv2.GaussianBlur(stroke.astype(np.float32) / 255, (0, 0), 0.7)
        self.pixels *= 1 - depth * cover[..., None]
        self._record("line", cover > 0.05)
        return self

    def fill(self, rows: slice, columns: slice, value: int = 255) -> Canvas:
        """Replace a rectangle by an unscanned area.

        Parameters
        ----------
        rows : slice
            Its pixel rows.
        columns : slice
            Its pixel columns.
        value : int
            Its brightness, 0 to 255.
        """
        where = np.zeros(self.shape, np.bool_)
        where[rows, columns] = True
        self.pixels[where] = value
        for kind in self.truth:
            self.truth[kind] &= ~where
        self._record("fill", where)
        return self

    def image(self, noise: float = 1.0, quality: int | None = 80, seed: int = 0) -> Image:
        """Return the thumbnail with sensor noise and JPEG artefacts.

        Parameters
        ----------
        noise : float
            Standard deviation of the noise, in grey levels.
        quality : int or None
            JPEG quality; None for no compression.
        seed : int
            Seed of the noise.

        Returns
        -------
        numpy.ndarray
            (h, w, 3) uint8 RGB.
        """
        random = np.random.default_rng(seed)
        fill = self.truth.get("fill", np.zeros(self.shape, np.bool_))
        noisy = self.pixels + noise * random.standard_normal(self.pixels.shape).astype(np.float32)
        pixels = np.where(fill[..., None], self.pixels, noisy).clip(0, 255).round().astype(np.uint8)
        if quality is None:
            return pixels
        packed = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        decoded = np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), np.uint8)[..., ::-1]
        # Unscanned areas are added by the reader; they are not in the JPEG.
        return np.where(fill[..., None], pixels, decoded).astype(np.uint8)

    def empty_glass(self, gap: int = 8) -> Mask:
        """Return the mask of the glass that is farther than `gap` pixels from any object."""
        busy = np.zeros(self.shape, np.uint8)
        for where in self.truth.values():
            busy |= where.astype(np.uint8)
        return np.asarray(cv2.dilate(busy, np.ones((2 * gap + 1, 2 * gap + 1), np.uint8)) == 0, np.bool_)
