"""Draws a model's outlines on a region of a slide, to be judged by eye.

``python -m training.overlay --slide SLIDE --output PNG [--model NAME] [--region X Y W H] [--zoom 2]``
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import openslide

from nuclei_segmentation.operators.filter.nuclei import Labels
from nuclei_segmentation.segmenter import Segmenter
from nuclei_segmentation.shared.settings import ModelsSettings, Settings
from training.data import Image


def read_region(path: Path, region: tuple[int, int, int, int] | None) -> Image:
    """Read a region of a slide's finest level, on white.

    Parameters
    ----------
    path : Path
        The slide.
    region : tuple of int, optional
        Left, top, width and height; default: everything.

    Returns
    -------
    ndarray
        uint8 ``[height, width, 3]``, RGB.
    """
    with openslide.OpenSlide(str(path)) as slide:
        left, top, width, height = region or (0, 0, *slide.dimensions)
        pixels = np.asarray(slide.read_region((left, top), 0, (width, height)))
    opacity = pixels[:, :, 3:].astype(np.float32) / 255.0
    return np.asarray(pixels[:, :, :3] * opacity + 255.0 * (1.0 - opacity), np.uint8)


def outline(image: Image, labels: Labels, zoom: int) -> Image:
    """Outline the nuclei.

    Parameters
    ----------
    image : ndarray
        uint8 ``[H, W, 3]``, RGB.
    labels : ndarray
        int32 ``[H, W]``, the nuclei.
    zoom : int
        Times to enlarge.

    Returns
    -------
    ndarray
        uint8 ``[H * zoom, W * zoom, 3]``, RGB, with green outlines.
    """
    labels = labels.repeat(zoom, axis=0).repeat(zoom, axis=1)
    large = cv2.resize(image, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_CUBIC)
    edge = cv2.erode(labels.astype(np.uint16), np.ones((3, 3), np.uint8)) != labels
    return np.asarray(np.where(edge[:, :, None], np.array([0, 230, 0], np.uint8), large), np.uint8)


def main() -> None:
    """Draw an overlay from the command line."""
    parser = argparse.ArgumentParser(prog="python -m training.overlay", description=__doc__)
    parser.add_argument("--model", default=Settings().model_name, help="name of the model (%(default)s)")
    parser.add_argument("--repository", type=Path, help="model repository (default: the one that comes along)")
    parser.add_argument("--slide", type=Path, required=True, help="slide that OpenSlide reads")
    parser.add_argument("--output", type=Path, required=True, help="PNG file to write")
    parser.add_argument(
        "--region", type=int, nargs=4, metavar=("X", "Y", "W", "H"), help="part of the finest level (default: all)"
    )
    parser.add_argument("--zoom", type=int, default=1, help="times to enlarge (%(default)s)")
    parser.add_argument("--probability", action="store_true", help="write the nucleus channel instead of outlines")
    options = parser.parse_args()
    region = tuple(options.region) if options.region else None
    image = read_region(options.slide, region)
    with Segmenter(settings=Settings(model_name=options.model, models=ModelsSettings(options.repository))) as segmenter:
        found = segmenter(image)
    if options.probability:
        drawn = np.ascontiguousarray(found.maps[:, :, 0])
    else:
        drawn = outline(image, found.labels, options.zoom)[:, :, ::-1]
    cv2.imwrite(str(options.output), drawn)


if __name__ == "__main__":
    main()
