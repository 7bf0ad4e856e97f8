"""The columns of the table of nuclei, the same in every format: names, order and meaning."""

from __future__ import annotations

from collections.abc import Sequence

from nuclei_segmentation.operators.stitch.objects.nuclei import NucleiHeader


def columns(header: NucleiHeader, measurements: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the columns.

    Parameters
    ----------
    header : NucleiHeader
        What all nuclei have in common. Positions in micrometres are there only if the pixel size is known.
    measurements : Sequence of str
        Names of the measurements, in their order.
    """
    um = () if header.mpp is None else ("x_um", "y_um")
    return (
        *("label", "id", "x_px", "y_px", *um),
        *("tile_row", "tile_column", "at_border", "probability", "class"),
        *measurements,
    )
