"""Settings: what they are, and where they come from."""

from nuclei_segmentation.shared.settings.values import (
    InferenceSettings,
    JpegSettings,
    MaskSettings,
    ModelSettings,
    OverlaySettings,
    Settings,
)

__all__ = ["InferenceSettings", "JpegSettings", "MaskSettings", "ModelSettings", "OverlaySettings", "Settings"]
