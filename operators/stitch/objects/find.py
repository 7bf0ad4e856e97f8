"""Finds the nuclei of a block. Runs in worker threads.

Nuclei inside the block are described at once. Of those at its border the pixels in the block are a piece, to be joined
with the pieces in the blocks beside it (`join`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from nuclei_segmentation.operators.stitch.objects.blocks import BlockGrid
from nuclei_segmentation.operators.stitch.objects.describe import (
    HEMATOXYLIN_DEVIATION,
    HEMATOXYLIN_MEAN,
    Describer,
    Sum,
    Sums,
)
from nuclei_segmentation.operators.stitch.objects.measure import outline_names
from nuclei_segmentation.operators.stitch.objects.nuclei import Nuclei, Vertices
from nuclei_segmentation.operators.stitch.objects.outline import border_pixels
from nuclei_segmentation.operators.stitch.objects.stains import HematoxylinTable
from nuclei_segmentation.shared.batches import Pixels
from nuclei_segmentation.shared.geometry import Region, TileGrid
from nuclei_segmentation.shared.instances import instances
from nuclei_segmentation.shared.nuclei import SMALLEST_SEED, Labels, channel, seed_pixels
from nuclei_segmentation.shared.nucleus_pixels import uint8_limit
from nuclei_segmentation.shared.settings import Settings
from nuclei_segmentation.shared.slides.slide import Slide

BEFORE = ((-1, -1), (-1, 0), (-1, 1), (0, -1))
"""Steps in rows and columns to the blocks beside one that come before it."""

Bits = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class BlockJob:
    """A block and the maps under its window.

    Attributes
    ----------
    row, column : int
        Position of the block.
    tiles : list of (Region, numpy.ndarray)
        Cores of tiles under the window, and their maps, (C, h, w) uint8.
    damaged : list of Region
        Cores of tiles under the window that could not be read.
    """

    row: int
    column: int
    tiles: list[tuple[Region, Pixels]]
    damaged: list[Region]


@dataclass(slots=True)
class Piece:
    """The part of a nucleus that lies in one block, at its border.

    Attributes
    ----------
    box : Region
        The pixels around it.
    bits : numpy.ndarray or None
        (height, ceil(width / 8)) uint8, one bit a pixel; None once it is known that the nucleus is too large.
    sums : numpy.ndarray
        One row of `Sums`.
    goes_on : bool
        Whether it touches the block below.
    """

    box: Region
    bits: Bits | None
    sums: npt.NDArray[np.float64]
    goes_on: bool


@dataclass(frozen=True, slots=True)
class BlockNuclei:
    """The nuclei of a block.

    Attributes
    ----------
    row, column : int
        Position of the block.
    inner : Nuclei
        Those inside it.
    left_out : int
        How many more were too small.
    pieces : list of Piece
        Those at its border.
    before : dict of (int, int) to numpy.ndarray
        For each of the blocks beside it that came before it, by the steps there in rows and columns: (h, w) int32 of
        what both look at. At seeds it has the numbers of the pieces, from 1 on in the order of `pieces`; 0 elsewhere.
    after : dict of (int, int) to tuple of numpy.ndarray
        The same for those that follow, as flat indices and the numbers there.
    """

    row: int
    column: int
    inner: Nuclei
    left_out: int
    pieces: list[Piece]
    before: dict[tuple[int, int], Numbers]
    after: dict[tuple[int, int], tuple[npt.NDArray[np.int64], Numbers]]


@dataclass(frozen=True, slots=True)
class NucleusFinder:
    """Finds nuclei; may be called by several threads at once.

    Attributes
    ----------
    slide : Slide
        Its pixels show how strongly nuclei are stained.
    blocks : BlockGrid
        The blocks.
    channels : Sequence of str
        Names of the maps.
    classes : Sequence of int
        Numbers of the maps that are classes.
    limit : int
        A pixel is nucleus where the probability is above this.
    describe : Describer
        Describes nuclei.
    stain : HematoxylinTable or None
        None if stains are not measured.
    """

    slide: Slide
    blocks: BlockGrid
    channels: Sequence[str]
    classes: Sequence[int]
    limit: int
    describe: Describer
    stain: HematoxylinTable | None

    @classmethod
    def of(cls, slide: Slide, grid: TileGrid, channels: Sequence[str], settings: Settings) -> NucleusFinder:
        """Return the finder of a run.

        Parameters
        ----------
        slide : Slide
            The slide.
        grid : TileGrid
            Its grid of tiles.
        channels : Sequence of str
            Names of the maps.
        settings : Settings
            Say what a nucleus is, and what is measured.
        """
        mpp, nuclei = slide.info.mpp, settings.nuclei
        smallest = 0.0 if mpp is None else nuclei.min_area / (mpp[0] * mpp[1])
        stained = settings.channel is None  # a single channel is fluorescence
        return cls(
            slide,
            BlockGrid(grid.bounds),
            channels,
            (),
            uint8_limit(settings.overlay.threshold),
            Describer(grid, mpp, smallest, stained),
            HematoxylinTable.of(nuclei.hematoxylin, nuclei.eosin) if stained else None,
        )

    @property
    def none(self) -> Nuclei:
        """No nuclei."""
        return self.describe([], np.zeros((0, Sum.CLASSES)))[0]

    @property
    def measurements(self) -> tuple[str, ...]:
        """Names of what is measured of a nucleus by itself."""
        stains = () if self.stain is None else (HEMATOXYLIN_MEAN, HEMATOXYLIN_DEVIATION)
        return (*outline_names(self.describe.mpp), *stains)

    def __call__(self, job: BlockJob) -> BlockNuclei:
        """Find the nuclei of a block."""
        block, window = self.blocks.block(job.row, job.column), self.blocks.window(job.row, job.column)
        maps = _assemble(window, job.tiles, len(self.channels))
        seeds = seed_pixels(maps, self.channels, self.limit)
        labels = instances(maps, self.channels, self.limit, seeds)
        inside = _box(block, window)
        own = np.ascontiguousarray(labels[inside])
        count = int(labels.max())
        sums = self._sums(own, maps, inside, seeds[inside], block, job.damaged, count)
        down, at_border = self._at_border(own, job.row, job.column, count)
        corner = np.array((block.x, block.y), np.int32)
        borders: list[Vertices] = []
        described: list[int] = []
        pieces: list[Piece] = []
        numbers = np.zeros(count + 1, np.int32)
        for label, parts in border_pixels(own).items():
            if at_border[label]:
                pieces.append(_piece(own, label, parts, block, sums[label].copy(), bool(down[label])))
                numbers[label] = len(pieces)
            elif sums[label, Sum.SEEDS] >= SMALLEST_SEED:  # else it is the rim of a nucleus in another block
                borders.append(parts[0] + corner)
                described.append(label)
        inner, left_out = self.describe(borders, sums[described])
        before, after = self._views(job, window, labels, seeds, numbers)
        return BlockNuclei(job.row, job.column, inner, left_out, pieces, before, after)

    def _sums(
        self,
        own: Labels,
        maps: Pixels,
        inside: tuple[slice, slice],
        seeds: npt.NDArray[np.bool_],
        block: Region,
        damaged: list[Region],
        count: int,
    ) -> Sums:
        at = np.flatnonzero(own > 0)
        labels = own.ravel()[at]
        sums = np.zeros((count + 1, Sum.CLASSES + len(self.classes)))

        def add(column: int, values: npt.NDArray[np.generic] | None = None) -> None:
            sums[:, column] = np.bincount(labels, values, minlength=count + 1)

        add(Sum.PIXELS)
        add(Sum.PROBABILITY, channel(maps, 0)[inside].ravel()[at])
        sums[:, Sum.SEEDS] = np.bincount(own[seeds], minlength=count + 1)
        if self.stain is not None and len(at):
            density = self.stain(self.slide.read(block).pixels.reshape(-1, 3)[at])
            add(Sum.DENSITY, density)
            add(Sum.SQUARES, density * density)
        if damaged:
            add(Sum.DAMAGE, _beside(block, damaged).ravel()[at])
        for number, map_number in enumerate(self.classes):
            add(Sum.CLASSES + number, channel(maps, map_number)[inside].ravel()[at])
        return sums

    def _at_border(
        self, own: Labels, row: int, column: int, count: int
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Return which labels touch the block below, and which any other block."""
        down, at_border = np.zeros(count + 1, bool), np.zeros(count + 1, bool)
        if row < self.blocks.rows - 1:
            down[own[-1]] = True
        if row:
            at_border[own[0]] = True
        if column:
            at_border[own[:, 0]] = True
        if column < self.blocks.columns - 1:
            at_border[own[:, -1]] = True
        return down, at_border | down

    def _views(
        self, job: BlockJob, window: Region, labels: Labels, seeds: npt.NDArray[np.bool_], numbers: Numbers
    ) -> tuple[
        dict[tuple[int, int], Numbers],
        dict[tuple[int, int], tuple[npt.NDArray[np.int64], Numbers]],
    ]:
        """Return what the block and those beside it all look at, by the numbers of this block's pieces."""
        before, after = {}, {}
        for down, right in (*BEFORE, *((-down, -right) for down, right in BEFORE)):
            row, column = job.row + down, job.column + right
            if 0 <= row < self.blocks.rows and 0 <= column < self.blocks.columns:
                box = _box(self.blocks.shared(job.row, job.column, row, column), window)
                view = numbers[labels[box] * seeds[box]]
                if (down, right) in BEFORE:
                    before[down, right] = view
                else:
                    at = np.flatnonzero(view > 0)
                    after[down, right] = at, view.ravel()[at]
        return before, after


def _assemble(window: Region, tiles: list[tuple[Region, Pixels]], channels: int) -> Pixels:
    """Return (h, w, C) uint8, the maps of a window; zeros where there are none."""
    maps = np.zeros((channels, window.height, window.width), np.uint8)
    for core, part in tiles:
        shared = core.intersect(window)
        maps[:, *_box(shared, window)] = part[:, *_box(shared, core)]
    return np.moveaxis(maps, 0, -1)


def _box(region: Region, within: Region) -> tuple[slice, slice]:
    x, y = region.x - within.x, region.y - within.y
    return np.s_[y : y + region.height, x : x + region.width]


def _piece(
    own: Labels, label: int, parts: Sequence[Vertices], block: Region, sums: npt.NDArray[np.float64], goes_on: bool
) -> Piece:
    """Return the pixels that a label has in a block, within the borders of its parts."""
    left, top = np.min([part.min(axis=0) for part in parts], axis=0).tolist()
    right, bottom = np.max([part.max(axis=0) for part in parts], axis=0).tolist()
    mask = own[top : bottom + 1, left : right + 1] == label
    box = Region(block.x + left, block.y + top, mask.shape[1], mask.shape[0])
    return Piece(box, np.packbits(mask, axis=1), sums, goes_on)


def _beside(block: Region, damaged: list[Region]) -> npt.NDArray[np.bool_]:
    """Return (h, w) bool, the pixels of a block that touch damaged regions."""
    around = Region(block.x - 1, block.y - 1, block.width + 2, block.height + 2)
    there = np.zeros((around.height, around.width), np.uint8)
    for region in damaged:
        there[_box(region.intersect(around), around)] = 1
    return np.asarray(cv2.dilate(there, np.ones((3, 3), np.uint8)))[1:-1, 1:-1] > 0
