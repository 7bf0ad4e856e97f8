"""Draws the outlines of nuclei on a region of a slide, to judge a model by eye.

``python -m training.overlay --slide SLIDE --output PNG [--model NAME] [--region X Y W H] [--zoom 2]``

Exit code 0: done; 1: an error, in one line on standard error; 2: wrong options.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import openslide

from nuclei_segmentation.segmenter import Segmenter
from nuclei_segmentation.shared.nuclei import Labels
from nuclei_segmentation.shared.settings import ModelsSettings, Settings
from training.command_line import EXPECTED, describe, integer_from
from training.data import Image
from training.errors import DataError


def read_region(path: Path, region: tuple[int, int, int, int] | None) -> Image:
    """Read a region of level 0 of a slide, on a white background.

    Parameters
    ----------
    path : pathlib.Path
        The slide.
    region : tuple of int, optional
        x, y, width and height in level-0 pixels; default: the whole slide.

    Returns
    -------
    numpy.ndarray
        (height, width, 3) uint8 RGB.

    Raises
    ------
    DataError
        The file is missing, or is not a slide.
    """
    if not path.is_file():
        raise DataError(f"{path} is not a file")
    try:
        with openslide.OpenSlide(str(path)) as slide:
            left, top, width, height = region or (0, 0, *slide.dimensions)
            pixels = np.asarray(slide.read_region((left, top), 0, (width, height)))
    except openslide.OpenSlideError as error:
        raise DataError(f"{path} cannot be read by OpenSlide: {error}") from None
    opacity = pixels[:, :, 3:].astype(np.float32) / 255.0
    return np.asarray(pixels[:, :, :3] * opacity + 255.0 * (1.0 - opacity), np.uint8)


def outline(image: Image, labels: Labels, zoom: int) -> Image:
    """Return an image with the outlines of its nuclei in green.

    Parameters
    ----------
    image : numpy.ndarray
        (h, w, 3) uint8 RGB.
    labels : numpy.ndarray
        (h, w) int32 label image.
    zoom : int
        Magnification of the result.

    Returns
    -------
    numpy.ndarray
        (h * zoom, w * zoom, 3) uint8 RGB.
    """
    labels = labels.repeat(zoom, axis=0).repeat(zoom, axis=1)
    large = cv2.resize(image, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_CUBIC)
    edge = cv2.erode(labels.astype(np.uint16), np.ones((3, 3), np.uint8)) != labels
    return np.asarray(np.where(edge[:, :, None], np.array([0, 230, 0], np.uint8), large), np.uint8)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; by default that of the process."""
    parser = argparse.ArgumentParser(
        prog="python -m training.overlay", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=Settings().model_name, help="name of the model (%(default)s)")
    parser.add_argument("--repository", type=Path, help="model repository (default: the bundled one)")
    parser.add_argument("--slide", type=Path, required=True, help="slide in a format that OpenSlide reads")
    parser.add_argument("--output", type=Path, required=True, help="image to write, usually PNG")
    parser.add_argument(
        "--region", type=int, nargs=4, metavar=("X", "Y", "W", "H"), help="region in level-0 pixels (default: all)"
    )
    parser.add_argument("--zoom", type=integer_from(1), default=1, help="magnification (%(default)s)")
    parser.add_argument("--probability", action="store_true", help="write the probability map instead of outlines")
    options = parser.parse_args(arguments)
    if options.region and min(options.region[2:]) < 1:
        parser.error("--region: W and H must be at least 1")
    if not cv2.haveImageWriter(str(options.output)):
        parser.error(f"--output: the suffix {options.output.suffix!r} is not that of an image format; use .png")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw the outlines from the command line; return the exit code."""
    options = parse(arguments)
    region = tuple(options.region) if options.region else None
    try:
        image = read_region(options.slide, region)
        with Segmenter(
            settings=Settings(model_name=options.model, models=ModelsSettings(options.repository))
        ) as segmenter:
            segmented = segmenter(image)
        if options.probability:
            drawn = np.ascontiguousarray(segmented.maps[:, :, 0])
        else:
            drawn = outline(image, segmented.labels, options.zoom)[:, :, ::-1]
        _, encoded = cv2.imencode(options.output.suffix, drawn)
        options.output.write_bytes(encoded.tobytes())
    except EXPECTED as error:
        print(describe(error), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
