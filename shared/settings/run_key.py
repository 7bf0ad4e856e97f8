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
IMAGE_LAYOUT = 2
"""How image.tif holds its pixels. It is raised with every change by which the same pixels make another file.

1: a chain of TIFF directories. 2: these, linked as SubIFDs of the first too, and OME-XML.
"""

_READING = ("imagecodecs", "numpy", "opencv-python-headless", "openslide-bin", "simplejpeg")
_FILTER = {"embedded": ("numpy", "onnxruntime")}
_STITCH = (*_READING, "tifffile")
_OUTPUTS = (*_READING, "scipy")


def load_key(fingerprint: str, settings: Settings) -> str:
    """Return the key of a slide's tiles.

    Parameters
    ----------
    fingerprint : str
        Of the slide's content (`shared.slides.fingerprint`).
    settings : Settings
        Of these count: tile, overlap, how tissue is found, and what of the slide is used.
    """
    mask: object = "none"
    if settings.mask.method != "none":
        mask = {"method": settings.mask.method, "pixel_limit": settings.mask_pixel_count_limit}
    return _key(_READING, fingerprint, settings.tile_size, settings.overlap, mask, *_view(settings))


def filter_key(tiles: str, name: str, engine: str, identity: str, settings: Settings) -> str:
    """Return the key of tiles' maps.

    Parameters
    ----------
    tiles : str
        Key of the tiles.
    name, engine, identity : str
        Of the model; `identity` names its exact content.
    settings : Settings
        Of these counts how the model is fed.
    """
    models = settings.models
    fed: list[object] = [models.input_scale, models.output]
    if models.maps is not None:  # so that older keys stay
        fed.append(models.maps)
    return _key(_FILTER.get(engine, ("numpy",)), tiles, name, engine, identity, *fed)


def stitch_key(masks: str, settings: Settings) -> str:
    """Return the key of an image, which is the run's.

    Parameters
    ----------
    masks : str
        Key of the maps.
    settings : Settings
        Of these count overlay, JPEG, and what of the slide is used: stitch reads it again.
    """
    drawn = asdict(settings.overlay), asdict(settings.jpeg)
    return _key(_STITCH, masks, *drawn, *_view(settings), {"layout": IMAGE_LAYOUT})


def outputs_key(run: str, settings: Settings) -> str:
    """Return the key of the files of nuclei that a run writes, whichever they are.

    Parameters
    ----------
    run : str
        The run's key.
    settings : Settings
        Of these counts what is measured.
    """
    return _key(_OUTPUTS, run, asdict(settings.nuclei))


def _view(settings: Settings) -> list[dict[str, object]]:
    """Return what of the slide is used, as facts for a key: none where nothing is set, so that older keys stay."""
    found = {name: getattr(settings, name) for name in ("channel", "plane", "mpp")}
    named = {name: value for name, value in found.items() if value is not None}
    return [named] if named else []


def _key(libraries: Iterable[str], *facts: object) -> str:
    """Hash facts, and the versions of the libraries whose arithmetic or encoding ends up in the result."""
    versions = {name: version(name) for name in (PROGRAM, *libraries)}
    return hashlib.sha256(json.dumps([versions, facts], sort_keys=True).encode()).hexdigest()
