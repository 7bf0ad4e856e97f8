"""Nuclei as arrays: what is known of each, in the form that every output is made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

Vertices = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Nuclei:
    """Some nuclei with consecutive labels.

    Attributes
    ----------
    labels : numpy.ndarray
        (n,) uint32, from 1, ascending without gaps.
    vertices : numpy.ndarray
        (v, 2) int32, x and y of the outlines, one after the other, in quarters of a level-0 pixel from the slide's
        upper left corner: the first pixel covers 0 to 4, its centre is 2. The pixels of a nucleus are those whose
        centres lie inside; holes are filled. No vertex lies on the line between its neighbours, none in the middle of a
        row or column of pixels, and the first is not repeated.
    starts : numpy.ndarray
        (n + 1,) int64, where each outline begins in `vertices`; the last is their number.
    centroids : numpy.ndarray
        (n, 2) float64, x and y in level-0 pixels from the slide's upper left corner.
    tiles : numpy.ndarray
        (n, 2) int32, row and column of the tile that holds the centroid.
    at_border : numpy.ndarray
        (n,) bool, whether it touches the border of the slide, or of a place that could not be read.
    probability : numpy.ndarray
        (n,) float64, mean probability of its pixels, 0 to 1.
    classes : numpy.ndarray
        (n,) uint8, number of its class among the model's; all 0 for a model without classes.
    measurements : Mapping of str to numpy.ndarray
        (n,) float64 by name and unit, in the order of the outputs; NaN where one is missing.
    horizon : int
        No nucleus of a later `Nuclei` has a pixel above this row of level-0 pixels.
    """

    labels: npt.NDArray[np.uint32]
    vertices: Vertices
    starts: npt.NDArray[np.int64]
    centroids: npt.NDArray[np.float64]
    tiles: npt.NDArray[np.int32]
    at_border: npt.NDArray[np.bool_]
    probability: npt.NDArray[np.float64]
    classes: npt.NDArray[np.uint8]
    measurements: Mapping[str, npt.NDArray[np.float64]]
    horizon: int

    def __len__(self) -> int:
        return len(self.labels)

    def outlines(self) -> list[npt.NDArray[np.float64]]:
        """Return each outline as (k, 2) float64, x and y in level-0 pixels; the first vertex is not repeated."""
        return [part / 4 for part in np.split(self.vertices, self.starts[1:-1])] if len(self) else []

    def to_geodataframe(self) -> GeoDataFrame:
        """Return a table with a row for each nucleus, its label as index, and its outline as geometry, in pixels.

        Raises
        ------
        ModuleNotFoundError
            geopandas is not installed.
        """
        import geopandas
        import shapely

        columns = {
            "x_px": self.centroids[:, 0],
            "y_px": self.centroids[:, 1],
            "at_border": self.at_border,
            "probability": self.probability,
            "class": self.classes,
            **self.measurements,
        }
        polygons = [shapely.Polygon(outline) for outline in self.outlines()]
        return geopandas.GeoDataFrame(columns, index=self.labels, geometry=polygons).rename_axis("label")


@dataclass(frozen=True, slots=True)
class NucleusClass:
    """A class of nuclei.

    Attributes
    ----------
    name : str
        Its name; "Nucleus" for a model without classes.
    color : tuple of int
        Red, green and blue, 0 to 255.
    """

    name: str
    color: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class NucleiHeader:
    """What all nuclei of a result have in common.

    Attributes
    ----------
    fingerprint : str
        Of the slide's content; 64 hexadecimal digits.
    width, height : int
        Of the slide in level-0 pixels.
    mpp : tuple of float or None
        Micrometres per pixel in x and y; None if they are not known.
    count : int
        Number of nuclei.
    classes : tuple of NucleusClass
        By number.
    """

    fingerprint: str
    width: int
    height: int
    mpp: tuple[float, float] | None
    count: int
    classes: tuple[NucleusClass, ...]
