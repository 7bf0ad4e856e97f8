"""Settings: what they are, and where they come from."""

from nuclei_segmentation.shared.settings.values import (
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

__all__ = [
    "DamagedSettings",
    "InferenceSettings",
    "JpegSettings",
    "MaskSettings",
    "ModelsSettings",
    "NucleiSettings",
    "OverlaySettings",
    "Settings",
    "StoreSettings",
    "WaitSettings",
]
