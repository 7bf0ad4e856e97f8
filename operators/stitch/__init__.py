"""stitch: slide and maps → image.tif, config.meta, config_render.json."""

from operators.stitch.memory import memory_needed
from operators.stitch.segments import encode
from operators.stitch.stage import StitchResult, stitch

__all__ = ["StitchResult", "encode", "memory_needed", "stitch"]
