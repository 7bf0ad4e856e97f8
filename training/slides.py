"""Nuclei of slides that nobody has annotated: found by the colour of their stain, and told apart from what is unsure.

At first only places that are surely no nucleus are learned, by the colour of the stain. Later the network as it is by
then is the teacher: what it finds counts where the stain confirms it. What neither is sure of is not learned.
"""

from __future__ import annotations

import logging
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.filters import threshold_otsu
from skimage.measure import regionprops

from shared.errors import NucleiError
from shared.geometry import Window
from shared.settings import ModelSettings, Settings
from shared.slides import open_slide
from training.augment import Floats, density, haematoxylin
from training.data import DataError, Field, Image, Labels, median_diameter
from training.export import NAME, export
from training.network import UNet
from training.segmenter import Segmenter

log = logging.getLogger("training")

#: Slides with larger pixels show no nuclei; those of unknown size are taken.
COARSEST = 1.1

#: Mean optical density below which there is no tissue.
GLASS = 0.08

#: Side of the square around a pixel, in pixels, that it is compared with.
AROUND = 61

#: Share of its own convex hull, and range of areas in units of the median, that a nucleus must have.
SOLID, SIZES = 0.86, (0.3, 3.5)


def load_slides(folder: Path) -> list[Image]:
    """Read the finest level of all slides in a folder that can show nuclei.

    Parameters
    ----------
    folder : Path
        Its files are tried in the order of their names; what is no slide is passed over.

    Returns
    -------
    list of ndarray
        Each uint8 ``[H, W, 3]``.
    """
    images: list[Image] = []
    for path in sorted(folder.iterdir()):
        try:
            with open_slide(path) as slide:
                mpp = slide.info.mpp
                if mpp is None or max(mpp) <= COARSEST:
                    image = slide.read(Window(0, 0, slide.info.width, slide.info.height)).pixels
                    if not any(np.array_equal(image, other) for other in images):  # a file may be there in two formats
                        images.append(image)
        except NucleiError:
            continue
    return images


def background(image: Image) -> Image:
    """Tell where there is surely no nucleus, by the colour of the stain alone.

    Parameters
    ----------
    image : ndarray
        uint8 ``[H, W, 3]``, H&E.

    Returns
    -------
    ndarray
        uint8 ``[H, W]``: 255 there, 0 elsewhere.
    """
    od = density(np.asarray(cv2.GaussianBlur(image, (0, 0), 0.8), np.uint8))
    blue = haematoxylin(od)
    tissue = od.mean(axis=2) > GLASS
    limit = float(threshold_otsu(blue[tissue])) if tissue.any() else 1.0  # type: ignore[no-untyped-call] # no types
    dark = tissue & (blue > np.maximum(limit, 1.1 * _local_mean(blue, tissue)))
    near = cv2.dilate(dark.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    return np.where(((blue < 0.6 * limit) | ~tissue) & ~near, np.uint8(255), np.uint8(0))


def agreed(image: Image, labels: NDArray[np.int32], probability: Image) -> tuple[Labels, Image]:
    """Keep of a network's nuclei those that are stained like nuclei.

    Parameters
    ----------
    image : ndarray
        uint8 ``[H, W, 3]``, H&E.
    labels : ndarray
        int32 ``[H, W]``, the network's nuclei.
    probability : ndarray
        uint8 ``[H, W]``, its map.

    Returns
    -------
    labels, known : ndarray
        uint16 ``[H, W]`` and uint8 ``[H, W]``: 255 on these nuclei and where there is surely none.
    """
    od = density(np.asarray(cv2.GaussianBlur(image, (0, 0), 0.8), np.uint8))
    blue = haematoxylin(od)
    around = _local_mean(blue, od.mean(axis=2) > GLASS)
    count = int(labels.max()) + 1
    pixels = np.maximum(np.bincount(labels.ravel(), minlength=count), 1)
    darker = np.bincount(labels.ravel(), weights=(blue > 1.05 * around).ravel(), minlength=count) / pixels
    sure = np.bincount(labels.ravel(), weights=(probability > 200).ravel(), minlength=count) / pixels
    good = (darker > 0.6) & (sure > 0.6)
    good[0] = False
    kept = _kept(np.where(good[labels], labels, 0).astype(np.int32))
    none = (probability < 40) & (blue < 1.3 * around)
    return kept, np.where(none | (kept > 0), np.uint8(255), np.uint8(0))


class Teacher:
    """Makes training fields of slides.

    Parameters
    ----------
    images : list of ndarray
        The slides, from :func:`load_slides`.
    work : Path
        What was found in them is kept here, so that a run that goes on learns the same.
    """

    def __init__(self, images: list[Image], work: Path) -> None:
        self._images, self._work = images, work

    def first(self) -> list[Field]:
        """Return the slides with nothing known but where there is no nucleus."""
        none = [(np.zeros(image.shape[:2], np.uint16), background(image)) for image in self._images]
        return self._fields(none)

    def at(self, step: int, network: UNet | None) -> list[Field]:
        """Return the slides with the nuclei that a network finds and the stain confirms.

        Parameters
        ----------
        step : int
            Names the lesson.
        network : UNet, optional
            Asked only where the lesson is not kept from an earlier run.

        Raises
        ------
        DataError
            It is not kept, and there is no network of that step to ask.
        """
        kept = self._work / f"slides-{step}.npz"
        if not kept.exists():
            if network is None:
                raise DataError(f"{kept} is missing: put it back, or begin anew without the checkpoint")
            export(network, self._work / f"teacher-{step}")
            model = ModelSettings(NAME, self._work / f"teacher-{step}")
            with Segmenter(Settings(model=model)) as segmenter:
                answers = [segmenter(image) for image in self._images]
            lesson = [
                agreed(image, answer.labels, answer.maps[..., 0])
                for image, answer in zip(self._images, answers, strict=True)
            ]
            partial = kept.with_suffix(".partial.npz")
            np.savez_compressed(partial, *(array for pair in lesson for array in pair))
            partial.replace(kept)
        with np.load(kept) as arrays:
            found = [arrays[f"arr_{number}"] for number in range(2 * len(self._images))]
        return self._fields(list(zip(found[::2], found[1::2], strict=True)))

    def _fields(self, found: list[tuple[Labels, Image]]) -> list[Field]:
        made = []
        for number, (image, (labels, known)) in enumerate(zip(self._images, found, strict=True)):
            made.append(Field(f"slide-{number}", "slide", image, labels, median_diameter(labels), known))
            log.info(
                "slide %d: %d nuclei of %.1f pixels, %.0f %% known",
                *(number, int(labels.max()), made[-1].diameter, known.mean() / 2.55),
            )
        return made


def _local_mean(values: Floats, where: NDArray[np.bool_]) -> Floats:
    """Mean of the values around each pixel, of those in `where`."""
    there = where.astype(np.float32)
    side = (AROUND, AROUND)
    return np.asarray(cv2.blur(values * there, side) / np.maximum(cv2.blur(there, side), 1e-3), np.float32)


def _kept(labels: NDArray[np.int32]) -> Labels:
    """Keep what has the size and form of a nucleus, and number it anew."""
    pieces = regionprops(labels)  # type: ignore[no-untyped-call] # no types
    areas = np.array([piece.area for piece in pieces if piece.area > 12])
    new = np.zeros(int(labels.max()) + 1, np.uint16)
    if areas.size:
        low, high = np.median(areas) * np.array(SIZES)
        good = [piece.label for piece in pieces if max(low, 12) <= piece.area <= high and piece.solidity >= SOLID]
        new[good] = np.arange(1, len(good) + 1)
    return np.asarray(new[labels], np.uint16)
