"""Joins the pieces of nuclei that lie in several blocks.

Two blocks look at the same pixels on both sides of their border. Where both see a seed there, it is one seed, so the
pieces that belong to it are one nucleus.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nuclei_segmentation.operators.stitch.objects.describe import Sum
from nuclei_segmentation.operators.stitch.objects.find import BlockNuclei, Numbers, Piece
from nuclei_segmentation.shared.geometry import Region
from nuclei_segmentation.shared.nuclei import SMALLEST_SEED

LARGEST = 2048
"""Pixels. Wider or higher is no nucleus: a map of ones, or a model that fits the slide badly."""


@dataclass(frozen=True, slots=True)
class JoinedNucleus:
    """A nucleus that was put together.

    Attributes
    ----------
    box : Region
        The pixels around it.
    mask : numpy.ndarray
        (height, width) bool, its pixels.
    sums : numpy.ndarray
        One row of `Sums`.
    """

    box: Region
    mask: npt.NDArray[np.bool_]
    sums: npt.NDArray[np.float64]


@dataclass(slots=True)
class _Group:
    """The pieces of one nucleus so far."""

    box: Region
    pieces: list[Piece]
    row: int
    """Row of the last block."""
    goes_on: bool
    """Whether a piece in that row touches the block below."""


class Joiner:
    """Joins pieces as blocks come, row by row.

    Attributes
    ----------
    too_large : int
        How many nuclei were larger than `LARGEST`.
    """

    def __init__(self) -> None:
        self.too_large = 0
        self._parents: dict[int, int] = {}
        self._groups: dict[int, _Group] = {}
        self._next = 0
        self._views: dict[tuple[int, int, int, int], tuple[npt.NDArray[np.int64], Numbers]] = {}
        """What blocks have shown those that follow them: by the row and column of these, and the steps back."""

    def add(self, block: BlockNuclei) -> None:
        """Add a block. Blocks come row by row, from left to right; those without nuclei may be missing.

        Parameters
        ----------
        block : BlockNuclei
            The block.
        """
        first = self._next
        for number, piece in enumerate(block.pieces, start=first):
            self._parents[number] = number
            self._groups[number] = _Group(piece.box, [piece], block.row, piece.goes_on)
        self._next += len(block.pieces)
        for (down, right), ours in block.before.items():
            theirs = self._views.pop((block.row, block.column, down, right), None)
            if theirs is not None:
                self._join(ours, *theirs, first)
        for (down, right), (at, numbers) in block.after.items():
            if len(at):
                self._views[block.row + down, block.column + right, -down, -right] = at, numbers + (first - 1)

    def complete(self, row: int) -> list[JoinedNucleus]:
        """Return the nuclei that no later block can add to, by their boxes, from top to bottom.

        Parameters
        ----------
        row : int
            The row of blocks that was added last.
        """
        done: list[_Group] = []
        for number, group in list(self._groups.items()):
            if not (group.row == row and group.goes_on):
                done.append(self._groups.pop(number))
            elif _is_too_large(group.box):
                # Its pixels are not needed: all that is known of it goes into one piece.
                sums = np.sum([piece.sums for piece in group.pieces], axis=0)
                group.pieces = [Piece(group.box, None, sums, group.goes_on)]
        self._views = {key: view for key, view in self._views.items() if key[0] > row}
        # Only the numbers that the next row may meet are looked up again.
        met = {int(number) for _, numbers in self._views.values() for number in np.unique(numbers)}
        roots = {number: self._root(number) for number in met if number in self._parents}
        self._parents = {number: root for number, root in roots.items() if root in self._groups}
        self._parents |= {root: root for root in self._groups}
        return list(self._put_together(sorted(done, key=lambda group: (group.box.y, group.box.x))))

    def _put_together(self, groups: Sequence[_Group]) -> Iterator[JoinedNucleus]:
        for group in groups:
            sums = np.sum([piece.sums for piece in group.pieces], axis=0)
            if sums[Sum.SEEDS] < SMALLEST_SEED:
                continue  # a rim whose seed another block gave to nobody
            if _is_too_large(group.box):
                self.too_large += 1
                continue
            mask = np.zeros((group.box.height, group.box.width), bool)
            for piece in group.pieces:
                assert piece.bits is not None
                x, y = piece.box.x - group.box.x, piece.box.y - group.box.y
                part = np.unpackbits(piece.bits, axis=1, count=piece.box.width).view(bool)
                mask[y : y + piece.box.height, x : x + piece.box.width] |= part
            yield JoinedNucleus(group.box, mask, sums)

    def _join(self, ours: Numbers, at: npt.NDArray[np.int64], theirs: Numbers, first: int) -> None:
        found = ours.ravel()[at]
        both = found > 0
        pairs = np.stack((found[both] + (first - 1), theirs[both]))
        # Neighbouring pixels mostly belong to the same pair.
        new = np.ones(pairs.shape[1], bool)
        new[1:] = (pairs[:, 1:] != pairs[:, :-1]).any(axis=0)
        for piece, other in sorted(set(zip(*pairs[:, new].tolist(), strict=True))):
            # A piece above may be of a nucleus that was complete: its own block saw it end there.
            if other in self._parents:
                self._unite(piece, other)

    def _unite(self, piece: int, other: int) -> None:
        low, high = sorted((self._root(piece), self._root(other)))
        if low == high:
            return
        self._parents[high] = low
        kept, gone = self._groups[low], self._groups.pop(high)
        kept.pieces += gone.pieces
        kept.box = _around(kept.box, gone.box)
        if gone.row > kept.row:
            kept.row, kept.goes_on = gone.row, gone.goes_on
        elif gone.row == kept.row:
            kept.goes_on |= gone.goes_on

    def _root(self, piece: int) -> int:
        parents = self._parents
        while parents[piece] != piece:
            parents[piece] = parents[parents[piece]]
            piece = parents[piece]
        return piece


def _around(one: Region, other: Region) -> Region:
    x, y = min(one.x, other.x), min(one.y, other.y)
    return Region(x, y, max(one.right, other.right) - x, max(one.bottom, other.bottom) - y)


def _is_too_large(box: Region) -> bool:
    return max(box.width, box.height) > LARGEST
