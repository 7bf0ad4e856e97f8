"""Describes a slide in the log."""

from __future__ import annotations

import logging

from nuclei_segmentation.shared.scale import can_count
from nuclei_segmentation.shared.slides.slide import SlideInfo

log = logging.getLogger(__name__)

STATE_IT = "`mpp` in config.yaml states the right one"


def log_slide(info: SlideInfo) -> None:
    """Log the format, size and reader of a slide, and a warning if its pixel size is unknown or doubtful."""
    log.info("%s: %s, %d x %d pixels", info.path, info.format, info.width, info.height)
    log.debug("reader: %s; levels: %s", info.reader, ", ".join(f"{w} x {h}" for w, h in info.levels))
    if info.mpp_note:
        log.warning("pixel size: %s; %s", info.mpp_note, STATE_IT)
    if info.mpp is not None and not can_count(info.mpp):
        log.warning(
            "pixel size: at %.3g µm per pixel nuclei cannot be told apart; if it is wrong, %s", info.mpp[0], STATE_IT
        )
