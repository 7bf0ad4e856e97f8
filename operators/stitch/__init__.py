"""stitch: slide and maps → image.tif, config.meta, config_render.json."""

from nuclei_segmentation.operators.stitch.memory import memory_needed
from nuclei_segmentation.operators.stitch.stage import OutputSpec, StitchResult, TiledSlide, stitch

__all__ = ["OutputSpec", "StitchResult", "TiledSlide", "memory_needed", "stitch"]
