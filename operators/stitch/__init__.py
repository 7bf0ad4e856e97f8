"""stitch: slide and maps → image.tif, config.meta, config_render.json."""

from nuclei_segmentation.operators.stitch.memory import memory_needed
from nuclei_segmentation.operators.stitch.pyramid.segments import encode
from nuclei_segmentation.operators.stitch.stage import StitchResult, stitch

__all__ = ["StitchResult", "encode", "memory_needed", "stitch"]
