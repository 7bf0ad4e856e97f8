"""The result of a run that never was."""

from __future__ import annotations

from pathlib import Path

from nuclei_segmentation.shared.provenance import ModelProvenance, Provenance, SlideProvenance
from nuclei_segmentation.shared.result import SegmentationResult
from nuclei_segmentation.shared.runtime.stage_timer import StageTime
from nuclei_segmentation.shared.runtime.version import Program


def result(**changes: object) -> SegmentationResult:
    slide = SlideProvenance("a slide.svs", "f" * 64, "Aperio SVS", 4000, 2000, (0.25, 0.25), 40.0)
    model = ModelProvenance("unet", "embedded", "sha256:0123:int8")
    program = Program("nuclei", "1.2.3", "", "3.11.9", {"numpy": "2.0"})
    values = {
        "output": Path("/out"), "key": "0123456789abcdef", "tiles": 128, "foreground": 100, "resumed": 0, "shards": 1,
        "provenance": Provenance(slide, model, {"overlay.threshold": 0.5, "tile_size": 512}, program),
        "tissue_pixels": 6_400_000, "guessed_pixels": None, "nuclei": 1234, "nuclear_pixels": 800_000, "damaged": (),
        "guessed": (), "warnings": (), "seconds": 61.0, "waited": 0.0, "num_workers": 2, "peak_memory": 3 << 30,
        "stages": {"filter": StageTime(100.0, 98.7, 50.0)}, "image_bytes": 5 << 20, "image_checksum": "0" * 16,
    }  # fmt: skip
    return SegmentationResult(**(values | changes))  # type: ignore[arg-type] # the values above
