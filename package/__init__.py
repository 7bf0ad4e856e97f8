"""Finds the cell nuclei in whole-slide images. For research use only.

``segment`` does what the command line does; ``Segmenter`` takes images in memory; ``open_slide`` reads slides. What is
listed in ``__all__`` is the public interface; docs/python.md shows it. Everything is imported when it is first used, so
that ``import nuclei_segmentation`` costs nothing.
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nuclei_segmentation.api import segment
    from nuclei_segmentation.operators.stitch.objects.nuclei import Nuclei
    from nuclei_segmentation.operators.stitch.outputs.read import read_nuclei
    from nuclei_segmentation.segmenter import Segmentation, Segmenter
    from nuclei_segmentation.shared.errors import (
        ConfigError,
        InferenceUnavailable,
        InputError,
        ModelError,
        NoSpace,
        NucleiError,
        OutputError,
        StoreError,
        TooMuchDamage,
        UnreadableSlide,
        UsageError,
        WaitedTooLong,
    )
    from nuclei_segmentation.shared.geometry import Region
    from nuclei_segmentation.shared.result import SegmentationResult
    from nuclei_segmentation.shared.settings import (
        DamagedSettings,
        InferenceSettings,
        JpegSettings,
        MaskSettings,
        ModelsSettings,
        NucleiSettings,
        OverlaySettings,
        Settings,
        StoreSettings,
        WaitSettings,
    )
    from nuclei_segmentation.shared.slides import RegionPixels, Slide, SlideInfo, open_slide

__all__ = [
    "ConfigError",
    "DamagedSettings",
    "InferenceSettings",
    "InferenceUnavailable",
    "InputError",
    "JpegSettings",
    "MaskSettings",
    "ModelError",
    "ModelsSettings",
    "NoSpace",
    "Nuclei",
    "NucleiError",
    "NucleiSettings",
    "OutputError",
    "OverlaySettings",
    "Region",
    "RegionPixels",
    "Segmentation",
    "SegmentationResult",
    "Segmenter",
    "Settings",
    "Slide",
    "SlideInfo",
    "StoreError",
    "StoreSettings",
    "TooMuchDamage",
    "UnreadableSlide",
    "UsageError",
    "WaitSettings",
    "WaitedTooLong",
    "__version__",
    "open_slide",
    "read_nuclei",
    "segment",
]

logging.getLogger(__name__).addHandler(logging.NullHandler())  # silent unless the caller configures logging

_HOMES = {
    "api": ("segment",),
    "operators.stitch.objects.nuclei": ("Nuclei",),
    "operators.stitch.outputs.read": ("read_nuclei",),
    "segmenter": ("Segmentation", "Segmenter"),
    "shared.geometry": ("Region",),
    "shared.result": ("SegmentationResult",),
    "shared.slides": ("RegionPixels", "Slide", "SlideInfo", "open_slide"),
}
"""Where names come from that are neither settings nor errors."""


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("nuclei-segmentation-operators")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    default = "shared.settings" if name.endswith("Settings") else "shared.errors"
    home = next((module for module, names in _HOMES.items() if name in names), default)
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
