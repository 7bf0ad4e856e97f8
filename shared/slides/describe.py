"""Describes a slide in the log and in summaries."""

from __future__ import annotations

import logging

from nuclei_segmentation.shared.slides.slide import SlideInfo

log = logging.getLogger(__name__)


def log_slide(info: SlideInfo) -> None:
    """Log the format, size and reader of a slide, and a warning if its pixel size is unknown or doubtful."""
    log.info("%s: %s, %d x %d pixels", info.path, info.format, info.width, info.height)
    log.debug("reader: %s; levels: %s", info.reader, ", ".join(f"{w} x {h}" for w, h in info.levels))
    if info.mpp_note:
        log.warning("pixel size: %s", info.mpp_note)


def describe_scale(mpp: tuple[float, float] | None, objective: float | None) -> str:
    """Return pixel size and objective power for a summary, such as "0.25 µm per pixel, 40x".

    Parameters
    ----------
    mpp : tuple of float or None
        Micrometres per level-0 pixel in x and y, or None if unknown.
    objective : float or None
        Objective power, or None if unknown.
    """
    if mpp is None:
        return "pixel size unknown"
    power = f", {objective:g}x" if objective else ""
    return f"{mpp[0]:.3g} µm per pixel{power}"
