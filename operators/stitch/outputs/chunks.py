"""Cuts nuclei into chunks at places that depend on the nuclei alone, not on how they were found."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from nuclei_segmentation.operators.stitch.objects.nuclei import Nuclei

CHUNK = 5_000
"""Nuclei a chunk: a chunk ends at each label that is a multiple of this. Writers may count on it."""
VERTICES = 1_000_000
"""A chunk ends earlier where its outlines would have more vertices than this together; typical are 45 a nucleus."""


def chunks(nuclei: Iterable[Nuclei], size: int = CHUNK, vertices: int = VERTICES) -> Iterator[Nuclei]:
    """Yield the same nuclei in other pieces, which bound the memory that a writer needs for one.

    Parameters
    ----------
    nuclei : Iterable of Nuclei
        All nuclei, from label 1, in pieces of any size.
    size : int, optional
        A chunk ends at each multiple of this label.
    vertices : int, optional
        A chunk ends before the nucleus with which its outlines would have more vertices than this together. A single
        nucleus may have more.

    Yields
    ------
    Nuclei
        Chunks, none of them empty. The horizon of one that ends within a given piece is that of the piece before.
    """
    held: list[Nuclei] = []
    horizon = 0
    for piece in nuclei:
        if not len(piece):
            horizon = piece.horizon
            continue
        ends = _ends(held, piece, size, vertices)
        at = 0
        for end in ends:
            held.append(cut(piece, at, end, piece.horizon if end == len(piece) else horizon))
            yield join(held)
            held, at = [], end
        if at < len(piece):
            held.append(cut(piece, at, len(piece), piece.horizon))
        horizon = piece.horizon
    if held:
        yield join(held)


def _ends(held: Sequence[Nuclei], piece: Nuclei, size: int, vertices: int) -> list[int]:
    """Return where in `piece` chunks end, given the nuclei of the chunk that is begun."""
    ends = []
    begun = sum(int(one.starts[-1]) for one in held)
    first, count = 0, len(piece)
    if begun and begun + int(piece.starts[1]) > vertices:
        ends.append(0)
        begun = 0
    while first < count:
        last = min(count, first + size - (int(piece.labels[first]) - 1) % size)
        fitting = int(np.searchsorted(piece.starts, piece.starts[first] + vertices - begun, side="right")) - 1
        end = min(last, max(fitting, first + 1))
        if end == count and int(piece.labels[-1]) % size:
            break  # the next piece may go on with this chunk
        ends.append(end)
        first, begun = end, 0
    return ends


def cut(nuclei: Nuclei, first: int, end: int, horizon: int) -> Nuclei:
    """Return some of the nuclei; the arrays are views.

    Parameters
    ----------
    nuclei : Nuclei
        The nuclei.
    first, end : int
        Of which the first is taken, and before which they end.
    horizon : int
        The horizon of the result.
    """
    some = slice(first, end)
    return Nuclei(
        labels=nuclei.labels[some],
        vertices=nuclei.vertices[nuclei.starts[first] : nuclei.starts[end]],
        starts=nuclei.starts[first : end + 1] - nuclei.starts[first],
        centroids=nuclei.centroids[some],
        tiles=nuclei.tiles[some],
        at_border=nuclei.at_border[some],
        probability=nuclei.probability[some],
        classes=nuclei.classes[some],
        measurements={name: values[some] for name, values in nuclei.measurements.items()},
        horizon=horizon,
    )


def join(pieces: Sequence[Nuclei]) -> Nuclei:
    """Return nuclei with consecutive labels as one; at least one piece.

    Parameters
    ----------
    pieces : Sequence of Nuclei
        In the order of their labels, all with the same measurements.
    """
    if len(pieces) == 1:
        return pieces[0]
    before = np.cumsum([0, *(one.starts[-1] for one in pieces)])
    starts = [one.starts[:-1] + offset for one, offset in zip(pieces, before, strict=False)]
    return Nuclei(
        labels=np.concatenate([one.labels for one in pieces]),
        vertices=np.concatenate([one.vertices for one in pieces]),
        starts=np.concatenate([*starts, before[-1:]]),
        centroids=np.concatenate([one.centroids for one in pieces]),
        tiles=np.concatenate([one.tiles for one in pieces]),
        at_border=np.concatenate([one.at_border for one in pieces]),
        probability=np.concatenate([one.probability for one in pieces]),
        classes=np.concatenate([one.classes for one in pieces]),
        measurements={
            name: np.concatenate([one.measurements[name] for one in pieces]) for name in pieces[0].measurements
        },
        horizon=pieces[-1].horizon,
    )
