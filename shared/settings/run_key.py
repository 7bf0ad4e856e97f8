"""Keys: hashes of everything that decides the bytes of what a stage makes, and of nothing else.

Each stage's key is made from that of the stage before it and from what it adds. The last one, stitch's, is the run's,
whether the stages ran in one process or apart.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict
from importlib.metadata import version

from nuclei_segmentation.shared.settings import Settings

PROGRAM = "nuclei-segmentation-operators"

_READING = ("imagecodecs", "numpy", "opencv-python-headless", "openslide-bin", "simplejpeg")
_LOAD = (*_READING, "scikit-image")
_FILTER = {"embedded": ("numpy", "onnxruntime")}
_STITCH = (*_READING, "tifffile")


def load_key(fingerprint: str, settings: Settings) -> str:
    """Return the key of a slide's tiles.

    Parameters
    ----------
    fingerprint
        Of the slide's content (`shared.slides.fingerprint`).
    settings
        Of these count: tile, overlap, and how tissue is found.
    """
    mask = asdict(settings.mask) if settings.mask.method != "none" else "none"
    return _key(_LOAD, fingerprint, settings.tile, settings.overlap, mask)


def filter_key(tiles: str, name: str, engine: str, identity: str, settings: Settings) -> str:
    """Return the key of tiles' maps.

    Parameters
    ----------
    tiles
        Key of the tiles.
    name, engine, identity
        Of the model; `identity` names its exact content.
    settings
        Of these counts how the model is fed.
    """
    model = settings.model
    return _key(_FILTER.get(engine, ("numpy",)), tiles, name, engine, identity, model.input_scale, model.output)


def stitch_key(masks: str, settings: Settings) -> str:
    """Return the key of an image, which is the run's.

    Parameters
    ----------
    masks
        Key of the maps.
    settings
        Of these count overlay and JPEG.
    """
    return _key(_STITCH, masks, asdict(settings.overlay), asdict(settings.jpeg))


def _key(libraries: Iterable[str], *facts: object) -> str:
    """Hash facts, and the versions of the libraries whose arithmetic or encoding ends up in the result."""
    versions = {name: version(name) for name in (PROGRAM, *libraries)}
    return hashlib.sha256(json.dumps([versions, facts], sort_keys=True).encode()).hexdigest()
