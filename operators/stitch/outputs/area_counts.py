"""How large the nuclei are: counted chunk by chunk, in memory that does not grow."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from nuclei_segmentation.operators.stitch.objects.nuclei import Nuclei, NucleiHeader

LARGEST: Final = 1 << 17
"""Areas are counted up to this many pixels; a larger nucleus counts as one of this size."""

Areas = npt.NDArray[np.int64]
"""(n,) int64, pixels of each nucleus."""


class AreaCounts:
    """How many nuclei have which area. An area is a whole number of pixels, so nothing is rounded.

    Parameters
    ----------
    header : NucleiHeader
        Of the slide.

    Attributes
    ----------
    counts : numpy.ndarray
        (LARGEST + 1,) int64, nuclei by area in pixels.
    unit : str
        ``µm²``, or ``px`` where the pixel size is not known.
    pixel : float
        Area of a pixel in this unit.
    """

    def __init__(self, header: NucleiHeader) -> None:
        self.counts = np.zeros(LARGEST + 1, np.int64)
        self.unit = "px" if header.mpp is None else "µm²"
        self.pixel = 1.0 if header.mpp is None else header.mpp[0] * header.mpp[1]
        self._name = "Area px^2" if header.mpp is None else "Area µm^2"

    def areas(self, nuclei: Nuclei) -> Areas:
        """Return the areas of nuclei in pixels."""
        return np.rint(nuclei.measurements[self._name] / self.pixel).astype(np.int64)

    def add(self, areas: Areas) -> None:
        """Count nuclei."""
        np.add.at(self.counts, np.minimum(areas, LARGEST), 1)

    @property
    def total(self) -> int:
        """Number of nuclei."""
        return int(self.counts.sum())

    def quantile(self, share: float) -> float:
        """Return the area in pixels below which a share of the nuclei lies, interpolated as NumPy does; at least one.

        Parameters
        ----------
        share : float
            From 0 to 1.
        """
        until = np.cumsum(self.counts)
        place = share * (int(until[-1]) - 1)
        below, above = (
            int(np.searchsorted(until, number, side="right")) for number in (int(place), int(np.ceil(place)))
        )
        return below + (place - int(place)) * (above - below)
