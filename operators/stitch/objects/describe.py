"""From the pixels of nuclei to what the outputs say of them. Runs in worker threads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from nuclei_segmentation.operators.stitch.objects.measure import measure_outlines
from nuclei_segmentation.operators.stitch.objects.nuclei import Nuclei, Vertices
from nuclei_segmentation.operators.stitch.objects.outline import outlines
from nuclei_segmentation.shared.geometry import TileGrid

HEMATOXYLIN_MEAN, HEMATOXYLIN_DEVIATION = "Nucleus: Hematoxylin OD mean", "Nucleus: Hematoxylin OD std dev"

Sums = npt.NDArray[np.float64]
"""(n, `Sum.CLASSES` + number of classes): sums over the pixels of each nucleus, which those of its pieces add up to."""


class Sum(IntEnum):
    """The columns of `Sums`. From `CLASSES` on there is one for each class: its map."""

    PIXELS = 0
    PROBABILITY = 1
    """The map, 0 to 255."""
    DENSITY = 2
    """Optical density of haematoxylin."""
    SQUARES = 3
    """Its square."""
    SEEDS = 4
    """How many pixels are seed."""
    DAMAGE = 5
    """How many touch a place that could not be read."""
    CLASSES = 6


@dataclass(frozen=True, slots=True)
class Describer:
    """Describes nuclei of one slide.

    Attributes
    ----------
    grid : TileGrid
        The grid of tiles.
    mpp : tuple of float or None
        Micrometres per pixel in x and y.
    smallest : float
        Nuclei of fewer pixels are left out.
    stained : bool
        Whether the optical density of haematoxylin is known.
    """

    grid: TileGrid
    mpp: tuple[float, float] | None
    smallest: float
    stained: bool

    def __call__(self, borders: Sequence[Vertices], sums: Sums) -> tuple[Nuclei, int]:
        """Describe nuclei.

        Parameters
        ----------
        borders : Sequence of numpy.ndarray
            The border pixels of each, from `border_pixels`.
        sums : numpy.ndarray
            Their sums.

        Returns
        -------
        nuclei : Nuclei
            Those that are large enough, labelled from 1; `horizon` is their uppermost pixel.
        left_out : int
            How many were not.
        """
        found = outlines(borders)
        large = found.pixels >= self.smallest
        if not large.all():
            kept = np.flatnonzero(large)
            nuclei, _ = replace(self, smallest=0)([borders[number] for number in kept.tolist()], sums[kept])
            return nuclei, len(borders) - len(kept)
        centroids, measurements = measure_outlines(found, self.mpp)
        pixels = sums[:, Sum.PIXELS]
        if self.stained:
            mean = sums[:, Sum.DENSITY] / pixels
            measurements[HEMATOXYLIN_MEAN] = mean
            measurements[HEMATOXYLIN_DEVIATION] = np.sqrt(np.maximum(sums[:, Sum.SQUARES] / pixels - mean * mean, 0))
        classes = np.zeros(len(borders), np.uint8)
        if sums.shape[1] > Sum.CLASSES:
            classes = sums[:, Sum.CLASSES :].argmax(axis=1).astype(np.uint8)
        at_border, top = self._extent(found.vertices, found.starts)
        nuclei = Nuclei(
            labels=np.arange(1, len(borders) + 1, dtype=np.uint32),
            vertices=found.vertices,
            starts=found.starts,
            centroids=centroids,
            tiles=self._tiles(centroids),
            at_border=at_border | (sums[:, Sum.DAMAGE] > 0),
            probability=sums[:, Sum.PROBABILITY] / (255 * pixels),
            classes=classes,
            measurements=measurements,
            horizon=top,
        )
        return nuclei, 0

    def _extent(self, vertices: Vertices, starts: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.bool_], int]:
        """Return which outlines reach the border of the slide, and the uppermost row of pixels."""
        if not len(vertices):
            return np.zeros(0, bool), self.grid.height
        left, top = np.minimum.reduceat(vertices, starts[:-1]).T // 4
        right, bottom = -(-np.maximum.reduceat(vertices, starts[:-1]).T // 4)
        at_border = (left == 0) | (top == 0) | (right == self.grid.width) | (bottom == self.grid.height)
        return at_border, int(top.min())

    def _tiles(self, centroids: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
        """Return (n, 2) int32, row and column of the tiles whose cores hold points."""
        grid = self.grid
        last = np.array([grid.rows, grid.columns]) - 1
        tiles = (centroids[:, ::-1].astype(np.int64) - grid.overlap // 2) // grid.stride
        return np.clip(tiles, 0, last).astype(np.int32)
