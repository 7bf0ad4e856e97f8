"""What a run logs about model and slide together: whether the scale fits, and what tile borders cost."""

from __future__ import annotations

import logging

from nuclei_segmentation.operators.filter.inference import ModelInfo
from nuclei_segmentation.shared.geometry import TileGrid

log = logging.getLogger(__name__)


def check_scale(mpp: tuple[float, float] | None, model: ModelInfo) -> None:
    """Warn if the slide's pixels have a size that the model was not trained for.

    Parameters
    ----------
    mpp : tuple of float or None
        µm per level-0 pixel in x and y; None if unknown.
    model : ModelInfo
        The model.
    """
    log.debug(
        "model %s in the %s engine, channels %s, %d tile%s a request, identity %s",
        model.name,
        model.engine,
        ", ".join(model.channels),
        model.batch,
        "" if model.batch == 1 else "s",
        model.identity,
    )
    if mpp is None or model.mpp is None:
        return
    low, high = model.mpp
    if not low <= sum(mpp) / 2 <= high:
        log.warning(
            "the slide has %.3g µm per pixel, but the model was trained for %.3g to %.3g: "
            "nuclei may be missed or merged",
            sum(mpp) / 2,
            low,
            high,
        )


def explain_overlap(grid: TileGrid, model: ModelInfo) -> None:
    """Log what the overlap costs, whether tile borders are exact, and if not, which options make them exact.

    Parameters
    ----------
    grid : TileGrid
        The slide's tiles.
    model : ModelInfo
        The model, with its halo and grid.
    """
    cost = (grid.tile / grid.stride) ** 2
    steps = model.grid or 1  # tiles must start at multiples of this, where the model's pooling has a line of its grid
    if model.halo is None:
        borders = "whether tile borders are exact is unknown, because the model's receptive field is unknown"
    elif len(grid) == 1 or (grid.overlap >= 2 * model.halo and grid.stride % steps == grid.tile % steps == 0):
        borders = "tile borders are exact"
    else:
        enough = -(-2 * model.halo // steps) * steps
        # With tiles four times as wide as the overlap, 1.8 times as many pixels are inferred.
        tile = f"-t {-(-4 * enough // steps) * steps} " if 2 * enough > grid.tile or grid.tile % steps else ""
        borders = (
            f"tile borders are not exact, because the model needs a halo of {model.halo} pixels; "
            f"{tile}-o {enough} makes them exact"
        )
    level = logging.INFO if grid.overlap else logging.DEBUG
    log.log(level, "overlap %d: %.2f times as many pixels are inferred as without; %s", grid.overlap, cost, borders)
