"""Pseudo-labels for H&E slides without annotation.

At first only the background is labelled, by the colour of the stain. Later the network as trained so far is the
teacher: its nuclei become labels where the stain confirms them. Pixels on which the two disagree are not trained on.
"""

from __future__ import annotations

import logging
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.filters import threshold_otsu
from skimage.measure import regionprops

from nuclei_segmentation.segmenter import Segmenter
from nuclei_segmentation.shared.errors import NucleiError
from nuclei_segmentation.shared.geometry import Region
from nuclei_segmentation.shared.instances import instances
from nuclei_segmentation.shared.nuclei import NUCLEUS_LIMIT, label_seeds
from nuclei_segmentation.shared.settings import ModelsSettings, Settings
from nuclei_segmentation.shared.slides import open_slide
from training.augment import Floats, density, haematoxylin
from training.data import Field, Image, LabelImage, median_diameter
from training.errors import DataError
from training.export import NAME, export
from training.network import CHANNELS, UNet

log = logging.getLogger("training")

COARSEST = 1.1
"""Largest pixel size in um. Coarser slides show no nuclei; slides of unknown pixel size are used."""
GLASS = 0.08
"""Mean optical density below which a pixel is glass."""
NEIGHBOURHOOD = 61
"""Side of the square around a pixel, in pixels, over which the stain is averaged."""
AUGMENTATIONS = ((1.0, None), (0.75, 1), (1.4, 0))
"""Scale and flipped axis of each inference whose maps are averaged."""
CANDIDATE = 70
"""Averaged probability, 0 to 255, from which a pixel may belong to a nucleus.

Like `CONFIDENT` it is below one half: a network that only learned from its confident predictions would grow more
confident about these, and find no others.
"""
CONFIDENT = 100
"""Averaged probability, 0 to 255, that a nucleus must exceed at its peak."""
SOLID = 0.82
"""Least solidity of a nucleus: its area as a share of that of its convex hull."""
SIZES = (0.2, 5.0)
"""Range of the areas of nuclei, in units of the median area."""


def load_slides(folder: Path) -> list[Image]:
    """Read level 0 of all slides in a folder whose resolution is high enough to show nuclei.

    Parameters
    ----------
    folder : pathlib.Path
        Its files are read in the order of their names; files that are not slides are skipped.

    Returns
    -------
    list of numpy.ndarray
        Each (h, w, 3) uint8 RGB.

    Raises
    ------
    DataError
        The folder holds no such slide.
    """
    images: list[Image] = []
    for path in sorted(folder.iterdir()):
        try:
            with open_slide(path) as slide:
                mpp = slide.info.mpp
                if mpp is None or max(mpp) <= COARSEST:
                    image = slide.read(Region(0, 0, slide.info.width, slide.info.height)).pixels
                    # The same slide may be there in two formats.
                    if not any(np.array_equal(image, other) for other in images):
                        images.append(image)
        except NucleiError:
            continue
    if not images:
        raise DataError(f"{folder} holds no slide with pixels of at most {COARSEST} um")
    return images


def background(image: Image) -> Image:
    """Return where there certainly is no nucleus, by the colour of the stain alone.

    Parameters
    ----------
    image : numpy.ndarray
        (h, w, 3) uint8 RGB, H&E.

    Returns
    -------
    numpy.ndarray
        (h, w) uint8: 255 in the background, 0 elsewhere.
    """
    stain, local, tissue, limit = _stain(image)
    dark = tissue & (stain > np.maximum(limit, 1.1 * local))
    near = cv2.dilate(dark.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    return np.where(((stain < 0.6 * limit) | ~tissue) & ~near, np.uint8(255), np.uint8(0))


def averaged_maps(segmenter: Segmenter, image: Image) -> Image:
    """Infer an image at several scales, flipped or not, and average the maps.

    Parameters
    ----------
    segmenter : Segmenter
        Infers the maps.
    image : numpy.ndarray
        (h, w, 3) uint8 RGB.

    Returns
    -------
    numpy.ndarray
        (h, w, 2) uint8: probability of nucleus, and distance.
    """
    height, width = image.shape[:2]
    total = np.zeros((height, width, 2), np.float32)
    for scale, axis in AUGMENTATIONS:
        smooth = cv2.INTER_AREA if scale < 1.0 else cv2.INTER_CUBIC
        resized = cv2.resize(image, None, fx=scale, fy=scale, interpolation=smooth)
        if axis is not None:
            resized = np.flip(resized, axis)
        maps = segmenter(np.ascontiguousarray(resized, np.uint8)).maps
        if axis is not None:
            maps = np.flip(maps, axis)
        total += cv2.resize(np.ascontiguousarray(maps), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(np.rint(total / len(AUGMENTATIONS)), np.uint8)


def pseudo_labels(image: Image, maps: Image) -> tuple[LabelImage, Image]:
    """Return the nuclei on which the network and the stain agree.

    An object that the network finds, even with a low probability, is a nucleus if it is bluer than its surroundings. A
    dark blue object with the shape of a nucleus is one, too, unless the network is certain that it is not. This adds
    long, thin nuclei.

    Parameters
    ----------
    image : numpy.ndarray
        (h, w, 3) uint8 RGB, H&E.
    maps : numpy.ndarray
        (h, w, 2) uint8, from `averaged_maps`.

    Returns
    -------
    labels : numpy.ndarray
        (h, w) uint16 label image.
    known : numpy.ndarray
        (h, w) uint8: 255 on these nuclei and where there certainly is none, 0 elsewhere.
    """
    stain, local, tissue, limit = _stain(image)
    probability = maps[..., 0]
    lifted = cv2.add(probability, np.full_like(probability, NUCLEUS_LIMIT - CANDIDATE))
    found = _trimmed(instances(np.dstack([lifted, maps[..., 1]]), CHANNELS), probability)
    kept = _kept(_contrasting(found, stain, 1.25, 0.55 * limit))
    dark = (tissue & (stain > np.maximum(1.15 * limit, 1.5 * local)) & (found == 0)).astype(np.uint8)
    pieces = label_seeds(cv2.morphologyEx(dark, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)) > 0)
    pieces[_mean(pieces, probability, int(pieces.max()) + 1)[pieces] < 40] = 0
    more = _kept(_contrasting(pieces, stain, 1.5, limit), median_diameter(kept))
    labels = np.where(more > 0, more + kept.max(), kept).astype(np.uint16)
    near = cv2.dilate((labels > 0).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    absent = (probability < 40) & (stain <= 1.1 * local)
    absent |= (probability < 14) & (stain < 1.3 * local)
    absent |= (probability < 90) & (stain < 0.9 * limit) & near  # a sharp outline
    return labels, np.where(absent | ~tissue | (labels > 0), np.uint8(255), np.uint8(0))


class Teacher:
    """Makes training fields of slides without annotation.

    Parameters
    ----------
    images : list of numpy.ndarray
        The slides, from `load_slides`.
    work : pathlib.Path
        The pseudo-labels are kept in this folder, so that a resumed run trains on the same ones.
    """

    def __init__(self, images: list[Image], work: Path) -> None:
        self._images, self._work = images, work

    def background_fields(self) -> list[Field]:
        """Return the slides with only the background labelled."""
        found = [(np.zeros(image.shape[:2], np.uint16), background(image)) for image in self._images]
        return self._fields(found)

    def fields_at(self, step: int, network: UNet | None) -> list[Field]:
        """Return the slides with the pseudo-labels of a step.

        Parameters
        ----------
        step : int
            One of `TrainingSettings.lessons`.
        network : UNet, optional
            Computes the pseudo-labels if the work folder does not hold those of this step.

        Raises
        ------
        DataError
            The work folder does not hold the pseudo-labels of this step, and there is no network of that step.
        """
        path = self._work / f"slides-{step}.npz"
        if not path.exists():
            if network is None:
                raise DataError(f"{path} is missing: restore it, or delete the checkpoint and train from the beginning")
            export(network, self._work / f"teacher-{step}")
            models = ModelsSettings(self._work / f"teacher-{step}")
            with Segmenter(settings=Settings(model_name=NAME, models=models)) as segmenter:
                labelled = [pseudo_labels(image, averaged_maps(segmenter, image)) for image in self._images]
            partial = path.with_suffix(".partial.npz")
            np.savez_compressed(partial, *(array for pair in labelled for array in pair))
            partial.replace(path)
        with np.load(path) as arrays:
            found = [arrays[f"arr_{number}"] for number in range(2 * len(self._images))]
        return self._fields(list(zip(found[::2], found[1::2], strict=True)))

    def _fields(self, found: list[tuple[LabelImage, Image]]) -> list[Field]:
        made = []
        for number, (image, (labels, known)) in enumerate(zip(self._images, found, strict=True)):
            made.append(Field(f"slide-{number}", "slide", image, labels, median_diameter(labels), known))
            log.info(
                "slide %d: nuclei: %d, median diameter: %.1f pixels, labelled area: %.0f %%",
                *(number, int(labels.max()), made[-1].diameter, known.mean() / 2.55),
            )
        return made


def _stain(image: Image) -> tuple[Floats, Floats, NDArray[np.bool_], float]:
    """Return the amount of haematoxylin, its local mean over tissue, the tissue mask, and its threshold."""
    od = density(np.asarray(cv2.GaussianBlur(image, (0, 0), 0.8), np.uint8))
    stain = haematoxylin(od)
    tissue = od.mean(axis=2) > GLASS
    limit = float(threshold_otsu(stain[tissue])) if tissue.any() else 1.0  # type: ignore[no-untyped-call] # no types
    return stain, _local_mean(stain, tissue), tissue, limit


def _local_mean(values: Floats, where: NDArray[np.bool_]) -> Floats:
    """Return the mean of the values in the neighbourhood of each pixel, over the pixels in `where`."""
    weight = where.astype(np.float32)
    side = (NEIGHBOURHOOD, NEIGHBOURHOOD)
    return np.asarray(cv2.blur(values * weight, side) / np.maximum(cv2.blur(weight, side), 1e-3), np.float32)


def _mean(labels: NDArray[np.int32], values: Floats | Image, count: int) -> NDArray[np.float64]:
    """Return the mean of the values in each of `count` objects, by label; 0 for a label without pixels."""
    pixels = np.maximum(np.bincount(labels.ravel(), minlength=count), 1)
    return np.asarray(np.bincount(labels.ravel(), weights=values.ravel(), minlength=count) / pixels, np.float64)


def _trimmed(labels: NDArray[np.int32], probability: Image) -> NDArray[np.int32]:
    """Trim each object to the pixels with a probability near its peak; drop objects with a low peak."""
    limits = np.full(int(labels.max()) + 1, 256.0)
    for piece in regionprops(labels):  # type: ignore[no-untyped-call] # no types
        peak = float(np.percentile(probability[piece.slice][piece.image], 85))
        if peak > CONFIDENT:
            limits[piece.label] = min(NUCLEUS_LIMIT + 1, 0.6 * peak)
    return np.where(probability >= limits[labels], labels, 0).astype(np.int32)


def _contrasting(labels: NDArray[np.int32], stain: Floats, times: float, least: float) -> NDArray[np.int32]:
    """Keep the objects that have `times` more stain than the pixels around them, and more than `least`."""
    ring = cv2.dilate(labels.astype(np.float32), np.ones((9, 9), np.uint8)).astype(np.int32)
    ring[labels > 0] = 0
    count = int(labels.max()) + 1
    own, outside = _mean(labels, stain, count), _mean(ring, stain, count)
    good = (own > times * outside) & (own > least)
    good[0] = False
    return np.where(good[labels], labels, 0).astype(np.int32)


def _kept(labels: NDArray[np.int32], diameter: float | None = None) -> LabelImage:
    """Keep and renumber the objects with the size and shape of a nucleus; `diameter` is the usual one, if known."""
    pieces = regionprops(labels)  # type: ignore[no-untyped-call] # no types
    areas = np.array([piece.area for piece in pieces if piece.area > 12])
    new = np.zeros(int(labels.max()) + 1, np.uint16)
    if areas.size:
        usual = float(np.median(areas)) if diameter is None else np.pi / 4.0 * diameter**2
        low, high = usual * np.array(SIZES)
        good = [piece.label for piece in pieces if max(low, 12) <= piece.area <= high and piece.solidity >= SOLID]
        new[good] = np.arange(1, len(good) + 1)
    return np.asarray(new[labels], np.uint16)
