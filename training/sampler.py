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

from training.augment import degrade, invert, jitter_stain, jitter_tone, tint
from training.data import Field, Image, Labels, crop, targets
from training.synth import negative, stain_field

# How often each kind of sample is drawn.  Stained and drawn H&E are 72 % of it.
MIX = {
    "stained_he": 0.15,
    "stained_pink_purple": 0.07,
    "stained_purple_on_white": 0.10,
    "stained_purple_on_purple": 0.11,
    "drawn": 0.29,
    "fluorescence_gray": 0.16,
    "inverted": 0.05,
    "brightfield_gray": 0.02,
    "negative": 0.05,
}

# Median diameters drawn, in pixels.  With nuclei of 7.5 um this is 0.2 to 0.65 um a pixel.
DIAMETERS = (11.5, 38.0)
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
            uint8 ``[S, S, 3]`` and uint8 ``[2, S, S]``.
        """
        kinds = [kind for kind in MIX if self._available(kind)]
        weights = np.array([MIX[kind] for kind in kinds])
        kind = kinds[int(rng.choice(len(kinds), p=weights / weights.sum()))]
        diameter = float(np.exp(rng.uniform(*np.log(DIAMETERS))))
        if kind == "negative":
            image = negative(self.size, diameter, rng)
            labels: Labels = np.zeros((self.size, self.size), np.uint16)
        elif kind == "drawn":
            image, labels = self._draw(diameter, rng)
        else:
            image, labels = self._photograph(kind, diameter, rng)
        image = degrade(jitter_tone(image, rng), rng)
        if rng.random() < 0.04:
            grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
            image = np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), np.uint8)
        return image, targets(labels)

    def _available(self, kind: str) -> bool:
        if kind == "negative":
            return True
        return bool(self.fields.get("fluorescence_gray" if kind in ("drawn", "inverted") else kind))

    def _pick(self, modality: str, rng: np.random.Generator) -> Field:
        fields = self.fields[modality]
        return fields[int(rng.integers(len(fields)))]

    def _photograph(self, kind: str, diameter: float, rng: np.random.Generator) -> tuple[Image, Labels]:
        field = self._pick("fluorescence_gray" if kind == "inverted" else kind, rng)
        image, labels = crop(field, self.size, diameter, rng)
        if kind == "inverted":
            image = invert(image)
        if kind in ("inverted", "fluorescence_gray") and rng.random() < 0.2:
            image = tint(image, rng)
        if kind.startswith("stained") and rng.random() < 0.85:
            image = jitter_stain(image, rng)
        return image, labels

    def _draw(self, diameter: float, rng: np.random.Generator) -> tuple[Image, Labels]:
        stretch = float(rng.uniform(1.2, 3.2)) if rng.random() < 0.45 else 1.0
        image, labels = crop(self._pick("fluorescence_gray", rng), self.size, diameter, rng, stretch)
        if rng.random() < 0.4:  # a second field, for crowding and overlap
            more, marks = crop(self._pick("fluorescence_gray", rng), self.size, diameter, rng)
            new = (marks > 0) & (labels == 0)
            image = np.where(new[:, :, None], more, image)
            labels = np.where(new, marks + labels.max(), labels).astype(np.uint16)
        return stain_field(image, labels, diameter, rng)

    def batch_at(self, step: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Draw the batch of a step.

        Parameters
        ----------
        step : int
            Number of the step, from 0.

        Returns
        -------
        images, targets : ndarray
            uint8 ``[N, S, S, 3]`` and uint8 ``[N, 2, S, S]``.
        """
        rng = np.random.default_rng([self.seed, step])
        pairs = [self.sample(rng) for _ in range(self.batch)]
        return np.stack([image for image, _ in pairs]), np.stack([target for _, target in pairs])


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
