"""Notices maps that are right in form but mean something else: no nuclei at all, or nearly nothing but nuclei.

A wrong scale of the input, logits taken for probabilities, the map of the background taken for that of the nuclei: each
gives an image and no error. Where the maps look like that, the other settings that the model allows are tried on some
of the tiles, and those that help are named.
"""

from __future__ import annotations

import logging
import threading

import cv2
import numpy as np

from nuclei_segmentation.operators.filter.inference import Engine
from nuclei_segmentation.operators.filter.inference.alternatives import Alternative
from nuclei_segmentation.shared.batches import Pixels
from nuclei_segmentation.shared.errors import ModelError
from nuclei_segmentation.shared.nuclei import NUCLEUS_LIMIT, SMALLEST_SEED, channel, label_seeds, seed_pixels
from nuclei_segmentation.shared.nucleus_pixels import is_nucleus

log = logging.getLogger(__name__)

FEWEST_NUCLEI, MOST_NUCLEI = 0.002, 0.75
"""The share of nucleus pixels that is believed without a question. Fat has a few thousandths, dense tissue a half."""

_MANY_MORE = 10
"""So many times as many nucleus pixels must other settings find where there are few."""

_MOST_ADVICE = 3

_QUESTION = (
    "does the model fit this slide, and do models.input_scale, models.output and models.maps in config.yaml fit the "
    "model?"
)

_ENOUGH_TILES = 16
"""After so many tiles with a share that is believed, no more are looked at."""

_SAMPLES, _SAMPLE_BYTES = 8, 64 << 20
"""How many tiles are kept for trying other settings, and how many bytes they take at most."""


class MapCheck:
    """Looks at the maps of a run. Several threads may call `add` at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tiles = self._pixels = self._nucleus_pixels = self._highest = 0
        self._samples: list[Pixels] = []
        self._step = 1
        self._settled = False

    def add(self, maps: Pixels, pixels: Pixels | None = None) -> None:
        """Look at the maps of a tile.

        Parameters
        ----------
        maps : numpy.ndarray
            (T, T, C) uint8.
        pixels : numpy.ndarray or None, optional
            (T, T, 3) uint8, the tile itself; a copy of it may be kept.
        """
        if self._settled:
            return
        nucleus_pixels = highest = 0
        if cv2.hasNonZero(maps.reshape(len(maps), -1)):  # the others, which are many, cost next to nothing
            nuclei = channel(maps, 0)
            nucleus_pixels, highest = int(np.count_nonzero(is_nucleus(nuclei, NUCLEUS_LIMIT))), int(nuclei.max())
        with self._lock:
            self._tiles += 1
            self._pixels += maps.shape[0] * maps.shape[1]
            self._nucleus_pixels += nucleus_pixels
            self._highest = max(self._highest, highest)
            believed = _believed(self._share)
            self._settled = believed and self._tiles >= _ENOUGH_TILES
            if self._settled:
                self._samples.clear()
            elif pixels is not None and not believed:
                self._keep(pixels)

    def report(self, engine: Engine) -> None:
        """Warn if the maps are not believed. To be called once, after all of them were added.

        Parameters
        ----------
        engine : Engine
            What made them; it is asked for other ways to use its model.
        """
        if not self._tiles or _believed(self._share):
            return
        advice = self._advice(engine)
        tiles = "1 tile" if self._tiles == 1 else f"{self._tiles} tiles"
        if self._share > MOST_NUCLEI:
            fact = f"{self._share:.1%} of the pixels in {tiles} are nuclei, which no tissue has"
        elif not self._nucleus_pixels:
            fact = f"no nuclei in {tiles}: the highest value of the map of the nuclei is {self._highest} of 255"
        elif advice:
            fact = f"only {self._share:.2%} of the pixels in {tiles} are nuclei"
        else:
            return  # a slide may have few nuclei
        log.warning("%s; %s", fact, advice or _QUESTION)

    def _keep(self, pixels: Pixels) -> None:
        """Keep every n-th tile, so that those that are kept come from all of the slide. The caller holds `_lock`."""
        if (self._tiles - 1) % self._step or pixels.nbytes > _SAMPLE_BYTES:
            return
        self._samples.append(pixels.copy())
        if len(self._samples) > min(_SAMPLES, _SAMPLE_BYTES // pixels.nbytes):
            del self._samples[1::2]
            self._step *= 2

    @property
    def _share(self) -> float:
        return self._nucleus_pixels / max(1, self._pixels)

    def _advice(self, engine: Engine) -> str:
        """Try other settings on the samples. Return those that find a number of nuclei that is believed."""
        found = []
        for way in engine.alternatives() if self._samples else ():
            nuclei, share = self._nuclei_by(way)
            if _believed(share) and (self._share > MOST_NUCLEI or share >= _MANY_MORE * self._share):
                found.append(f"{way.settings} ({nuclei:,} nuclei)")
        tiles = "1 of these tiles" if len(self._samples) == 1 else f"{len(self._samples)} of these tiles"
        return f"with other settings in config.yaml {tiles} have: {' or '.join(found[:_MOST_ADVICE])}" if found else ""

    def _nuclei_by(self, way: Alternative) -> tuple[int, float]:
        """Return how many nuclei the samples have by another way, and their share of the pixels."""
        nuclei = nucleus_pixels = pixels = 0
        for sample in self._samples:
            try:
                maps = way.infer(sample[np.newaxis])[0]
            except ModelError:  # the values do not have the range that these settings say
                return 0, 0.0
            nucleus_pixels += int(np.count_nonzero(is_nucleus(maps[..., 0], NUCLEUS_LIMIT)))
            pixels += maps[..., 0].size
            seeds = np.bincount(label_seeds(seed_pixels(maps, way.channels)).ravel())[1:]
            nuclei += int(np.count_nonzero(seeds >= SMALLEST_SEED))
        return nuclei, nucleus_pixels / pixels


def _believed(share: float) -> bool:
    return FEWEST_NUCLEI <= share <= MOST_NUCLEI
