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

from nuclei_segmentation.operators.filter.nuclei import NUCLEUS_LIMIT, instances, label_seeds
from nuclei_segmentation.shared.errors import NucleiError
from nuclei_segmentation.shared.geometry import Region
from nuclei_segmentation.shared.settings import ModelsSettings, Settings
from nuclei_segmentation.shared.slides import open_slide
from training.augment import Floats, density, haematoxylin
from training.data import DataError, Field, Image, Labels, median_diameter
from training.export import NAME, export
from training.network import CHANNELS, UNet
from training.segmenter import Segmenter

log = logging.getLogger("training")

#: Slides with larger pixels show no nuclei; those of unknown size are taken.
COARSEST = 1.1

#: Mean optical density below which there is no tissue.
GLASS = 0.08

#: Side of the square around a pixel, in pixels, that it is compared with.
AROUND = 61

#: Scales at which a network is asked, and the axis that the image is mirrored along: its answers are averaged.
LOOKS = ((1.0, None), (0.75, 1), (1.4, 0))

#: Averaged probability, in bytes, from which a piece may be a nucleus; it must exceed SURE somewhere.  Both are below
#: one half: a network that learned from what it was sure of would grow ever surer of that, and find no more.
MAYBE, SURE = 70, 100

#: Share of its own convex hull, and range of areas in units of the median, that a nucleus must have.
SOLID, SIZES = 0.82, (0.2, 5.0)


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
                    image = slide.read(Region(0, 0, slide.info.width, slide.info.height)).pixels
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
    blue, around, tissue, limit = _stain(image)
    dark = tissue & (blue > np.maximum(limit, 1.1 * around))
    near = cv2.dilate(dark.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    return np.where(((blue < 0.6 * limit) | ~tissue) & ~near, np.uint8(255), np.uint8(0))


def look(segmenter: Segmenter, image: Image) -> Image:
    """Ask a network several times, at several scales, and average its answers.

    Parameters
    ----------
    segmenter : Segmenter
        The network.
    image : ndarray
        uint8 ``[H, W, 3]``.

    Returns
    -------
    ndarray
        uint8 ``[H, W, 2]``: nucleus and distance.
    """
    height, width = image.shape[:2]
    total = np.zeros((height, width, 2), np.float32)
    for scale, axis in LOOKS:
        smooth = cv2.INTER_AREA if scale < 1.0 else cv2.INTER_CUBIC
        shown = cv2.resize(image, None, fx=scale, fy=scale, interpolation=smooth)
        if axis is not None:
            shown = np.flip(shown, axis)
        maps = segmenter(np.ascontiguousarray(shown, np.uint8)).maps
        if axis is not None:
            maps = np.flip(maps, axis)
        total += cv2.resize(np.ascontiguousarray(maps), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(np.rint(total / len(LOOKS)), np.uint8)


def agreed(image: Image, maps: Image) -> tuple[Labels, Image]:
    """Keep of what a network and the stain say that on which both agree.

    A piece that the network finds, even if unsure, is a nucleus where it is bluer than what surrounds it. What is dark
    blue and of a nucleus' form is one, too, unless the network is sure that it is none: long, thin nuclei.

    Parameters
    ----------
    image : ndarray
        uint8 ``[H, W, 3]``, H&E.
    maps : ndarray
        uint8 ``[H, W, 2]``, from :func:`look`.

    Returns
    -------
    labels, known : ndarray
        uint16 ``[H, W]`` and uint8 ``[H, W]``: 255 on these nuclei and where there is surely none.
    """
    blue, around, tissue, limit = _stain(image)
    probability = maps[..., 0]
    lifted = cv2.add(probability, np.full_like(probability, NUCLEUS_LIMIT - MAYBE))
    found = _trimmed(instances(np.dstack([lifted, maps[..., 1]]), CHANNELS), probability)
    kept = _kept(_contrasting(found, blue, 1.25, 0.55 * limit))
    dark = (tissue & (blue > np.maximum(1.15 * limit, 1.5 * around)) & (found == 0)).astype(np.uint8)
    pieces = label_seeds(cv2.morphologyEx(dark, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)) > 0)
    pieces[_mean(pieces, probability, int(pieces.max()) + 1)[pieces] < 40] = 0
    more = _kept(_contrasting(pieces, blue, 1.5, limit), median_diameter(kept))
    labels = np.where(more > 0, more + kept.max(), kept).astype(np.uint16)
    near = cv2.dilate((labels > 0).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    none = (probability < 40) & (blue <= 1.1 * around)
    none |= (probability < 14) & (blue < 1.3 * around)
    none |= (probability < 90) & (blue < 0.9 * limit) & near  # a sharp outline
    return labels, np.where(none | ~tissue | (labels > 0), np.uint8(255), np.uint8(0))


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
            models = ModelsSettings(self._work / f"teacher-{step}")
            with Segmenter(Settings(model_name=NAME, models=models)) as segmenter:
                lesson = [agreed(image, look(segmenter, image)) for image in self._images]
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


def _stain(image: Image) -> tuple[Floats, Floats, NDArray[np.bool_], float]:
    """Haematoxylin of each pixel and of the tissue around it, where tissue is, and from what amount on it is much."""
    od = density(np.asarray(cv2.GaussianBlur(image, (0, 0), 0.8), np.uint8))
    blue = haematoxylin(od)
    tissue = od.mean(axis=2) > GLASS
    limit = float(threshold_otsu(blue[tissue])) if tissue.any() else 1.0  # type: ignore[no-untyped-call] # no types
    return blue, _local_mean(blue, tissue), tissue, limit


def _local_mean(values: Floats, where: NDArray[np.bool_]) -> Floats:
    """Mean of the values around each pixel, of those in `where`."""
    there = where.astype(np.float32)
    side = (AROUND, AROUND)
    return np.asarray(cv2.blur(values * there, side) / np.maximum(cv2.blur(there, side), 1e-3), np.float32)


def _mean(labels: NDArray[np.int32], values: Floats | Image, count: int) -> NDArray[np.float64]:
    """Mean of the values on each of `count` pieces, by its number; 0 for one that has no pixel."""
    pixels = np.maximum(np.bincount(labels.ravel(), minlength=count), 1)
    return np.asarray(np.bincount(labels.ravel(), weights=values.ravel(), minlength=count) / pixels, np.float64)


def _trimmed(labels: NDArray[np.int32], probability: Image) -> NDArray[np.int32]:
    """Cut each piece to where it is likely, measured by its own peak; drop what is nowhere likely."""
    limits = np.full(int(labels.max()) + 1, 256.0)
    for piece in regionprops(labels):  # type: ignore[no-untyped-call] # no types
        peak = float(np.percentile(probability[piece.slice][piece.image], 85))
        if peak > SURE:
            limits[piece.label] = min(NUCLEUS_LIMIT + 1, 0.6 * peak)
    return np.where(probability >= limits[labels], labels, 0).astype(np.int32)


def _contrasting(labels: NDArray[np.int32], blue: Floats, times: float, least: float) -> NDArray[np.int32]:
    """Keep the pieces that are `times` bluer than the pixels around them, and bluer than `least`."""
    ring = cv2.dilate(labels.astype(np.float32), np.ones((9, 9), np.uint8)).astype(np.int32)
    ring[labels > 0] = 0
    count = int(labels.max()) + 1
    own, outside = _mean(labels, blue, count), _mean(ring, blue, count)
    good = (own > times * outside) & (own > least)
    good[0] = False
    return np.where(good[labels], labels, 0).astype(np.int32)


def _kept(labels: NDArray[np.int32], diameter: float | None = None) -> Labels:
    """Keep what has the size and form of a nucleus, and number it anew; `diameter` is the usual one, if known."""
    pieces = regionprops(labels)  # type: ignore[no-untyped-call] # no types
    areas = np.array([piece.area for piece in pieces if piece.area > 12])
    new = np.zeros(int(labels.max()) + 1, np.uint16)
    if areas.size:
        usual = float(np.median(areas)) if diameter is None else np.pi / 4.0 * diameter**2
        low, high = usual * np.array(SIZES)
        good = [piece.label for piece in pieces if max(low, 12) <= piece.area <= high and piece.solidity >= SOLID]
        new[good] = np.arange(1, len(good) + 1)
    return np.asarray(new[labels], np.uint16)
