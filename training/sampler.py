"""Training batches, each a function of the seed and the step.

Batch ``i`` depends on the seed and on ``i`` alone, not on earlier batches. A run that was killed and resumed therefore
trains on exactly the batches of an uninterrupted one.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from training.augment import degrade, invert, jitter_light, jitter_stain, jitter_tone, tint
from training.data import Field, Image, Patch, crop, targets
from training.synth import negative, restain, synthetic_tissue

# Relative frequency of each kind of sample. More than half are stained images and synthetic H&E.
MIX = {
    "fluorescence_gray": 0.28,
    "inverted": 0.02,
    "brightfield_gray": 0.03,
    "stained_he": 0.10,
    "stained_pink_purple": 0.05,
    "stained_purple_on_white": 0.07,
    "stained_purple_on_purple": 0.08,
    "restained": 0.07,
    "synthetic": 0.11,
    "slide": 0.18,
    "negative": 0.04,
    "nucleus_free": 0.03,
}
# The modalities that a kind of sample is made from, if it is not a modality itself.
SOURCES = {
    "inverted": ("fluorescence_gray",),
    "synthetic": ("fluorescence_gray",),
    "restained": ("stained_purple_on_white", "stained_purple_on_purple"),
}

# Share of samples that are not augmented. Where annotators draw an outline depends on sharpness and brightness, which
# the network can only learn from images in which these are unchanged.
UNCHANGED = {"fluorescence_gray": 0.55, "brightfield_gray": 0.4} | dict.fromkeys(
    ("stained_purple_on_white", "stained_purple_on_purple"), 0.4
)

# Weight of H&E nuclei relative to what surrounds them. On stains that were not in the training data the network's
# probabilities are too low; the higher weight raises them.
NUCLEUS_WEIGHT = dict.fromkeys(("stained_he", "stained_pink_purple", "restained", "synthetic", "slide"), 2.0)

# Range of the median diameters of nuclei, in pixels. For nuclei of 7.5 um this is 0.19 to 1.07 um a pixel.
DIAMETERS = (7.0, 40.0)
# Range of factors by which other fields are resized, and limits of the resulting median diameter, in pixels.
ZOOM = (0.65, 1.5)
ZOOMED_DIAMETERS = (6.0, 90.0)
TYPICAL_NUCLEUS_UM = 7.5


@dataclass(frozen=True)
class Sampler:
    """Draws training batches.

    Attributes
    ----------
    fields : dict of str to list of Field
        Training images by modality.
    size : int
        Side of a crop, in pixels.
    batch : int
        Crops in a batch.
    seed : int
        Seed of the run.
    """

    fields: dict[str, list[Field]]
    size: int
    batch: int
    seed: int

    def sample(self, rng: np.random.Generator) -> tuple[Image, Image]:
        """Draw one crop.

        Parameters
        ----------
        rng : numpy.random.Generator
            Source of all random choices.

        Returns
        -------
        image, target : numpy.ndarray
            (s, s, 3) uint8 RGB and (3, s, s) uint8, as from `training.data.targets`.
        """
        kinds = [kind for kind in MIX if self._available(kind)]
        weights = np.array([MIX[kind] for kind in kinds])
        kind = kinds[int(rng.choice(len(kinds), p=weights / weights.sum()))]
        if rng.random() < UNCHANGED.get(kind, 0.0):
            field = self._pick(kind, rng)
            patch = crop(field, self.size, field.diameter, rng, any_angle=False)
            return patch.image, targets(patch)
        if kind == "negative":
            blank = np.zeros((self.size, self.size), np.uint16)
            maps = np.zeros((self.size, self.size, 3), np.uint8)
            maps[:, :, 2] = 255
            patch = Patch(negative(self.size, _diameter(rng), rng), blank, maps)
        elif kind == "synthetic":
            patch = self._synthesise(_diameter(rng), rng)
        else:
            patch = self._augmented(kind, rng)
        image = patch.image
        if kind == "fluorescence_gray":
            image = jitter_light(image, rng)
            image = degrade(image, rng, strength=0.05 + 0.5 * float(np.quantile(image, 0.98)) / 255.0)
        else:
            image = degrade(jitter_tone(image, rng), rng)
        if rng.random() < 0.04:
            grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
            image = np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), np.uint8)
        return image, targets(patch, NUCLEUS_WEIGHT.get(kind, 1.0))

    def _available(self, kind: str) -> bool:
        return kind == "negative" or any(self.fields.get(source) for source in SOURCES.get(kind, (kind,)))

    def _pick(self, kind: str, rng: np.random.Generator) -> Field:
        fields = [field for source in SOURCES.get(kind, (kind,)) for field in self.fields.get(source, ())]
        sizes = np.sqrt([field.labels.size for field in fields])
        return fields[int(rng.choice(len(fields), p=sizes / sizes.sum()))]

    def _augmented(self, kind: str, rng: np.random.Generator) -> Patch:
        field = self._pick(kind, rng)
        diameter = _diameter(rng)
        if rng.random() < (0.9 if kind == "fluorescence_gray" else 0.5):
            diameter = float(np.clip(field.diameter * np.exp(rng.uniform(*np.log(ZOOM))), *ZOOMED_DIAMETERS))
        patch = crop(field, self.size, diameter, rng)
        image = patch.image
        if kind == "inverted":
            image = invert(jitter_light(image, rng))
        if kind in ("inverted", "fluorescence_gray") and rng.random() < 0.12:
            image = tint(image, rng)
        if kind == "restained":
            image = restain(image, patch.labels, diameter, rng)
        elif kind.startswith(("stained", "slide", "nucleus_free")) and rng.random() < 0.85:
            image = jitter_stain(image, rng)
        return patch._replace(image=image)

    def _synthesise(self, diameter: float, rng: np.random.Generator) -> Patch:
        stretch = float(rng.uniform(1.2, 4.5)) if rng.random() < 0.45 else 1.0
        image, labels, maps = crop(self._pick("synthetic", rng), self.size, diameter, rng, stretch)
        if rng.random() < 0.4:  # crowding: add the nuclei of a second field that overlap no other
            more, numbered, others = crop(self._pick("synthetic", rng), self.size, diameter, rng)
            taken = labels > 0
            hidden = np.bincount(numbered[taken], minlength=int(numbered.max()) + 1) > 0
            new = (numbered > 0) & ~hidden[numbered] & ~taken
            image = np.where(new[:, :, None], more, image)
            maps = np.where(new[:, :, None], others, maps)
            labels = np.where(new, numbered + labels.max(), labels).astype(np.uint16)
        return Patch(synthetic_tissue(image, labels, diameter, rng), labels, maps)

    def batch_at(self, step: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Draw the batch of a step.

        Parameters
        ----------
        step : int
            Number of the step, from 0.

        Returns
        -------
        images, targets : numpy.ndarray
            (n, s, s, 3) uint8 RGB and (n, 3, s, s) uint8.
        """
        rng = np.random.default_rng([self.seed, step])
        pairs = [self.sample(rng) for _ in range(self.batch)]
        return np.stack([image for image, _ in pairs]), np.stack([target for _, target in pairs])


def _diameter(rng: np.random.Generator) -> float:
    """Draw a diameter in pixels, uniform in its logarithm."""
    return float(np.exp(rng.uniform(*np.log(DIAMETERS))))


def batches(
    sampler: Sampler, start: int, stop: int, ahead: int = 4
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """Yield the batches of a range of steps; a background thread draws a few of them ahead.

    Parameters
    ----------
    sampler : Sampler
        Draws the batches.
    start : int
        First step.
    stop : int
        The step after the last.
    ahead : int
        Number of batches to keep ready.

    Yields
    ------
    images, targets : numpy.ndarray
        As from `Sampler.batch_at`.
    """
    ready: queue.Queue[tuple[NDArray[np.uint8], NDArray[np.uint8]] | BaseException] = queue.Queue(ahead)

    def work() -> None:
        try:
            for step in range(start, stop):
                ready.put(sampler.batch_at(step))
        except BaseException as error:
            ready.put(error)

    threading.Thread(target=work, name="batches", daemon=True).start()
    for _ in range(start, stop):
        item = ready.get()
        if isinstance(item, BaseException):
            raise item
        yield item
