"""Batches as a function of the seed and the step.

Batch ``i`` depends on the seed and ``i`` alone, never on the batches before it: a run that was killed and resumed
sees exactly what an unbroken one would have seen.
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
from training.synth import negative, restain, stain_field

# How often each kind of sample is drawn, relative to the others.  Stained and drawn H&E are more than half of it.
MIX = {
    "fluorescence_gray": 0.28,
    "inverted": 0.02,
    "brightfield_gray": 0.03,
    "stained_he": 0.10,
    "stained_pink_purple": 0.05,
    "stained_purple_on_white": 0.07,
    "stained_purple_on_purple": 0.08,
    "restained": 0.07,
    "drawn": 0.11,
    "slide": 0.18,
    "negative": 0.04,
    "nucleus_free": 0.03,
}
# The modalities that a kind of sample is made of, where it is none itself.
SOURCES = {
    "inverted": ("fluorescence_gray",),
    "drawn": ("fluorescence_gray",),
    "restained": ("stained_purple_on_white", "stained_purple_on_purple"),
}

# How often a sample is shown as it is.  Where an outline was drawn depends on sharpness and brightness; that can only
# be learned where these are not changed.
AS_IT_IS = {"fluorescence_gray": 0.55, "brightfield_gray": 0.4} | dict.fromkeys(
    ("stained_purple_on_white", "stained_purple_on_purple"), 0.4
)

# How much more the nuclei of H&E count than what surrounds them.  On stains that it has not seen the network is less
# sure of them than it should be; so it is taught to be surer.
SURER = dict.fromkeys(("stained_he", "stained_pink_purple", "restained", "drawn", "slide"), 2.0)

# Median diameters drawn, in pixels.  With nuclei of 7.5 um this is 0.19 to 1.07 um a pixel.
DIAMETERS = (7.0, 40.0)
# How much smaller or larger than it is a field is shown otherwise, and the bounds of that.
ZOOM = (0.65, 1.5)
NATIVE = (6.0, 90.0)
TYPICAL_NUCLEUS_UM = 7.5


@dataclass(frozen=True)
class Sampler:
    """Draws training batches.

    Attributes
    ----------
    fields : dict of str to list of Field
        The training images by modality.
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
        rng : Generator
            Source of every choice.

        Returns
        -------
        image, target : ndarray
            uint8 ``[S, S, 3]`` and uint8 ``[3, S, S]``; see :func:`training.data.targets`.
        """
        kinds = [kind for kind in MIX if self._available(kind)]
        weights = np.array([MIX[kind] for kind in kinds])
        kind = kinds[int(rng.choice(len(kinds), p=weights / weights.sum()))]
        if rng.random() < AS_IT_IS.get(kind, 0.0):
            field = self._pick(kind, rng)
            patch = crop(field, self.size, field.diameter, rng, turn_any=False)
            return patch.image, targets(patch)
        if kind == "negative":
            blank = np.zeros((self.size, self.size), np.uint16)
            maps = np.zeros((self.size, self.size, 3), np.uint8)
            maps[:, :, 2] = 255
            patch = Patch(negative(self.size, _diameter(rng), rng), blank, maps)
        elif kind == "drawn":
            patch = self._draw(_diameter(rng), rng)
        else:
            patch = self._photograph(kind, rng)
        image = patch.image
        if kind == "fluorescence_gray":
            image = jitter_light(image, rng)
            image = degrade(image, rng, strength=0.05 + 0.5 * float(np.quantile(image, 0.98)) / 255.0)
        else:
            image = degrade(jitter_tone(image, rng), rng)
        if rng.random() < 0.04:
            grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
            image = np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), np.uint8)
        return image, targets(patch, SURER.get(kind, 1.0))

    def _available(self, kind: str) -> bool:
        return kind == "negative" or any(self.fields.get(source) for source in SOURCES.get(kind, (kind,)))

    def _pick(self, kind: str, rng: np.random.Generator) -> Field:
        fields = [field for source in SOURCES.get(kind, (kind,)) for field in self.fields.get(source, ())]
        sizes = np.sqrt([field.labels.size for field in fields])
        return fields[int(rng.choice(len(fields), p=sizes / sizes.sum()))]

    def _photograph(self, kind: str, rng: np.random.Generator) -> Patch:
        field = self._pick(kind, rng)
        diameter = _diameter(rng)
        if rng.random() < (0.9 if kind == "fluorescence_gray" else 0.5):
            diameter = float(np.clip(field.diameter * np.exp(rng.uniform(*np.log(ZOOM))), *NATIVE))
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

    def _draw(self, diameter: float, rng: np.random.Generator) -> Patch:
        stretch = float(rng.uniform(1.2, 4.5)) if rng.random() < 0.45 else 1.0
        image, labels, maps = crop(self._pick("drawn", rng), self.size, diameter, rng, stretch)
        if rng.random() < 0.4:  # a second field, for crowding: those of its nuclei that have room
            more, marks, others = crop(self._pick("drawn", rng), self.size, diameter, rng)
            there = labels > 0
            hidden = np.bincount(marks[there], minlength=int(marks.max()) + 1) > 0
            new = (marks > 0) & ~hidden[marks] & ~there
            image = np.where(new[:, :, None], more, image)
            maps = np.where(new[:, :, None], others, maps)
            labels = np.where(new, marks + labels.max(), labels).astype(np.uint16)
        return Patch(stain_field(image, labels, diameter, rng)[0], labels, maps)

    def batch_at(self, step: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Draw the batch of a step.

        Parameters
        ----------
        step : int
            Number of the step, from 0.

        Returns
        -------
        images, targets : ndarray
            uint8 ``[N, S, S, 3]`` and uint8 ``[N, 3, S, S]``.
        """
        rng = np.random.default_rng([self.seed, step])
        pairs = [self.sample(rng) for _ in range(self.batch)]
        return np.stack([image for image, _ in pairs]), np.stack([target for _, target in pairs])


def _diameter(rng: np.random.Generator) -> float:
    """Draw a diameter, in pixels; small ones as often as large ones."""
    return float(np.exp(rng.uniform(*np.log(DIAMETERS))))


def batches(
    sampler: Sampler, start: int, stop: int, ahead: int = 4
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """Draw the batches of many steps, a few ahead, on one background thread.

    Parameters
    ----------
    sampler : Sampler
        What draws them.
    start, stop : int
        First step, and the one after the last.
    ahead : int
        Batches kept ready.

    Yields
    ------
    images, targets : ndarray
        As :meth:`Sampler.batch_at`.
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
