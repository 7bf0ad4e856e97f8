"""The run key: a hash over everything that decides the bytes of the result, and over nothing else."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from importlib.metadata import version

from operators.filter.inference import ModelInfo
from shared.settings import Settings

LIBRARIES = (
    "numpy",
    "imagecodecs",
    "onnxruntime",
    "opencv-python-headless",
    "openslide-bin",
    "scikit-image",
    "simplejpeg",
    "tifffile",
)
"""Whose arithmetic or encoding ends up in the image."""


def run_key(fingerprint: str, settings: Settings, model: ModelInfo) -> str:
    """Return the key of a run.

    Parameters
    ----------
    fingerprint
        Of the slide's content (`shared.slides.fingerprint`).
    settings
        Of these count: tile, overlap, overlay, JPEG, mask, precision, and how the model is fed.
    model
        Counts with its exact identity and engine.

    Returns
    -------
    64 hexadecimal digits.
    """
    facts = {
        "slide": fingerprint,
        "tile": settings.tile,
        "overlap": settings.overlap,
        "overlay": asdict(settings.overlay),
        "jpeg": asdict(settings.jpeg),
        "mask": asdict(settings.mask) if settings.mask.method != "none" else "none",
        "model": [model.name, model.engine, model.identity, settings.model.input_scale, settings.model.output],
        "program": version("nuclei-segmentation-operators"),
        "libraries": {name: version(name) for name in LIBRARIES},
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
