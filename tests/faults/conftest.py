"""The fixtures of a whole run serve the faults too."""

from tests.stages.conftest import arguments, crop, dark_config, run, small_slide

__all__ = ["arguments", "crop", "dark_config", "run", "small_slide"]
