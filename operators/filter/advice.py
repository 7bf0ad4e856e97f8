"""What a user is told of a model beside a slide: whether the scale fits, and what tile borders cost."""

from __future__ import annotations

import logging

from nuclei_segmentation.operators.filter.inference import ModelInfo
from nuclei_segmentation.shared.geometry import TileGrid

log = logging.getLogger("nuclei")


def check_scale(mpp: tuple[float, float] | None, model: ModelInfo) -> None:
    """Warn where a slide's pixels have a size that the model was not made for.

    Parameters
    ----------
    mpp : tuple of float or None
        µm per level-0 pixel in x and y, or None.
    model : ModelInfo
        The model.
    """
    log.debug(
        "model %s in the %s engine, channels %s, %d tiles a request, identity %s",
        model.name,
        model.engine,
        ", ".join(model.channels),
        model.batch,
        model.identity,
    )
    if mpp is None or model.mpp is None:
        return
    low, high = model.mpp
    if not low <= sum(mpp) / 2 <= high:
        log.warning(
            "the slide has %.3g µm per pixel, the model was made for %.3g to %.3g: expect missed or merged nuclei",
            sum(mpp) / 2,
            low,
            high,
        )


def explain_overlap(grid: TileGrid, model: ModelInfo) -> None:
    """Say what the overlap costs, whether tile borders are exact, and what would make them so."""
    cost = (grid.tile / grid.stride) ** 2
    steps = model.grid or 1  # a tile must start where the model's own grid of pooled pixels has a line
    if model.halo is None:
        exact = (
            "whether that makes tile borders exact is unknown, since the model's graph does not bound how far it looks"
        )
    elif len(grid) == 1 or (grid.overlap >= 2 * model.halo and grid.stride % steps == grid.tile % steps == 0):
        exact = "tile borders are exact"
    else:
        enough = -(-2 * model.halo // steps) * steps
        # tiles four times the overlap cost 1.8 times the pixels
        tile = f"-t {-(-4 * enough // steps) * steps} " if 2 * enough > grid.tile or grid.tile % steps else ""
        exact = f"tile borders are not exact; the model looks {model.halo} pixels far, so {tile}-o {enough} would be"
    level = logging.INFO if grid.overlap else logging.DEBUG
    log.log(level, "overlap %d: %.2f times the pixels are inferred; %s", grid.overlap, cost, exact)
