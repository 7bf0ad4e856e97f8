"""The output ``density``: how many nuclei lie in each square of a grid, as an image of one pixel a square."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tifffile

from nuclei_segmentation.operators.stitch.objects.nuclei import Nuclei, NucleiHeader
from nuclei_segmentation.operators.stitch.outputs.new_file import NewFile
from nuclei_segmentation.operators.stitch.outputs.writer import Writer
from nuclei_segmentation.shared.scale import can_count

MICROMETRES = 100.0
"""Side of a square."""
PIXELS = 400.0
"""Side of a square where the pixel size is not known: 100 µm at 0.25 µm per pixel."""

_ROUNDING = 1e-6  # a column this much of a square wide is none

Squares = npt.NDArray[np.int64]
"""(n,) int64, for each nucleus the number of its square, row by row."""


class DensityGrid:
    """Counts nuclei by the square of a grid that holds their centroid.

    Where the pixel size is not known, or nuclei cannot be told apart at it, lengths are in pixels.

    Parameters
    ----------
    header : NucleiHeader
        Of the slide.

    Attributes
    ----------
    counts : numpy.ndarray
        (rows, columns) int64, nuclei by square.
    mpp : tuple of float or None
        Micrometres per level-0 pixel; None where lengths are in pixels.
    """

    def __init__(self, header: NucleiHeader) -> None:
        self.mpp = header.mpp if can_count(header.mpp) else None
        self._sides = (PIXELS, PIXELS) if self.mpp is None else (MICROMETRES / self.mpp[0], MICROMETRES / self.mpp[1])
        sizes = (header.width, header.height)
        columns, rows = (
            max(1, math.ceil(size / side - _ROUNDING)) for size, side in zip(sizes, self._sides, strict=True)
        )
        self.counts = np.zeros((rows, columns), np.int64)
        # The last column and row may be narrower than the others.
        widths, heights = (
            np.minimum(side, size - side * np.arange(number)) / side
            for size, side, number in zip(sizes, self._sides, (columns, rows), strict=True)
        )
        self._shares: npt.NDArray[np.float64] = heights[:, None] * widths[None, :]

    def squares(self, nuclei: Nuclei) -> Squares:
        """Return in which squares nuclei lie."""
        rows, columns = self.counts.shape
        column = np.clip((nuclei.centroids[:, 0] / self._sides[0]).astype(np.int64), 0, columns - 1)
        row = np.clip((nuclei.centroids[:, 1] / self._sides[1]).astype(np.int64), 0, rows - 1)
        return row * columns + column

    def add(self, squares: Squares) -> None:
        """Count nuclei."""
        np.add.at(self.counts.reshape(-1), squares, 1)

    @property
    def unit(self) -> str:
        """What the values of `density` are."""
        return "nuclei per 1,000,000 pixels" if self.mpp is None else "nuclei per mm²"

    @property
    def density(self) -> npt.NDArray[np.float32]:
        """(rows, columns) float32: nuclei per mm², or per 1,000,000 pixels, of the part of each square in the slide."""
        square = PIXELS**2 / 1e6 if self.mpp is None else MICROMETRES**2 / 1e6
        return (self.counts / (square * self._shares)).astype(np.float32)


class DensityWriter(Writer[Squares]):
    """Writes ``density.tif``: one page of float32.

    Parameters
    ----------
    path : pathlib.Path
        The file, in a work folder. What is there is lost.
    header : NucleiHeader
        Of the slide.
    """

    def __init__(self, path: Path, header: NucleiHeader) -> None:
        self._grid = DensityGrid(header)
        self._file = NewFile(path)

    def encode(self, nuclei: Nuclei) -> Squares:
        """Return in which squares nuclei lie."""
        return self._grid.squares(nuclei)

    def append(self, encoded: Squares) -> None:
        """Count a chunk."""
        self._grid.add(encoded)

    def finish(self) -> None:
        """Write the image."""
        physical = self._grid.mpp is not None
        size = (
            f"{MICROMETRES:.0f} um" if physical else f"{PIXELS:.0f} pixels of the slide, whose pixel size is not known"
        )
        unit = self._grid.unit.replace("²", "^2").capitalize()  # a TIFF description is ASCII
        content = io.BytesIO()
        with tifffile.TiffWriter(content, byteorder="<", ome=False, shaped=False) as tiff:
            tiff.write(
                self._grid.density,
                photometric="minisblack",
                compression="zlib",
                description=f"{unit}; one pixel is {size}. For research use only; not for diagnosis.",
                metadata=None,
                software=False,
                datetime=False,
                resolution=(round(10_000 / MICROMETRES),) * 2 if physical else (1, 1),
                resolutionunit="CENTIMETER" if physical else "NONE",
            )
        self._file.write(content.getvalue())
        self._file.finish()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
