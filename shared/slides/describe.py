"""A slide in words."""

from __future__ import annotations

import logging

from nuclei_segmentation.shared.slides.slide import SlideInfo

log = logging.getLogger(__name__)


def describe(info: SlideInfo) -> None:
    """Log what was opened, and how."""
    log.info("%s: %s, %d x %d pixels", info.path, info.format, info.width, info.height)
    log.debug("reader: %s; levels: %s", info.reader, ", ".join(f"{w} x {h}" for w, h in info.levels))
    if info.mpp_note:
        log.warning("pixel size: %s", info.mpp_note)


def scale(mpp: tuple[float, float] | None, objective: float | None) -> str:
    """Return a slide's pixel size and objective power in words."""
    if mpp is None:
        return "pixel size unknown"
    power = f", {objective:g}x" if objective else ""
    return f"{mpp[0]:.3g} µm per pixel{power}"
