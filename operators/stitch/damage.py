"""Places of the slide that could not be read: how many are too many, and which they are."""

from __future__ import annotations

import logging

from nuclei_segmentation.operators.stitch.stage import StitchResult
from nuclei_segmentation.shared.errors import TooMuchDamage
from nuclei_segmentation.shared.geometry import Region

log = logging.getLogger("nuclei")

LISTED = 20
"""Damaged places that are named in the log; the rest are counted."""


def check_damage(result: StitchResult, limit: float, tiles: int) -> None:
    """Name the damaged places, or refuse the result.

    Parameters
    ----------
    result : StitchResult
        What was written.
    limit : float
        Share of all tiles that may be damaged.
    tiles : int
        Number of all tiles.

    Raises
    ------
    TooMuchDamage
        More are.
    """
    if not result.damaged:
        return
    if len(result.damaged) > limit * tiles:
        raise TooMuchDamage(
            f"{len(result.damaged)} of {tiles} places could not be read, {limit * tiles:.0f} may be (`damaged.limit`); "
            "copy the slide again, or raise the limit in config.yaml to get what can be read"
        )
    for region in result.damaged[:LISTED]:
        log.warning("could not be read, hatched: %s", _place(region))
    if len(result.damaged) > LISTED:
        log.warning("... and %d more places", len(result.damaged) - LISTED)


def _place(region: Region) -> str:
    return f"x {region.x} to {region.right - 1}, y {region.y} to {region.bottom - 1}"
