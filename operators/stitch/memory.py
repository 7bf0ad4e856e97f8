"""How far stitch works ahead, and the memory that it needs, which is known before it starts."""

from __future__ import annotations

from nuclei_segmentation.operators.stitch.pyramid.levels import SIDE, SPAN_TILES

_BATCHES = 2
_BATCH_TILES = 64
"""Most tiles in a batch of maps, if the caller does not know."""
_LABEL_BYTES = 12
"""For each pixel of a tile whose nuclei are counted: its pieces, numbered; measured."""


def spans_ahead(workers: int) -> int:
    """Return how many spans are under way at once: enough that no worker waits for the thread that writes."""
    return 2 * workers + 2


def batches_ahead(workers: int) -> int:
    """Return how many batches of maps are examined at once."""
    return workers


def memory_needed(
    width: int, tile: int, workers: int, *, channels: int = 1, batch: int = _BATCH_TILES, side: int = SIDE
) -> int:
    """Return the most bytes of anonymous memory that `stitch` takes, whatever the slide's height.

    Parameters
    ----------
    width : int
        Width of the slide in level-0 pixels. The tables of offsets, a few bytes a tile, are counted as if the slide
        were square.
    tile : int
        Side in pixels of the tiles that maps arrive for.
    workers : int
        Threads of the pool.
    channels : int, optional
        Channels of the maps.
    batch : int, optional
        Most tiles in a batch of maps.
    side : int, optional
        Side of the TIFF tiles in pixels.
    """
    span = SPAN_TILES * side * side * 3
    # Halves wait for the row below theirs: half a row of tiles at half the width, and so on for each coarser level.
    halves = width * side * 3 // 2
    # A row of tiles waits for the row below it, since an outline depends on the nuclei there.
    pixels = (width + 2 * SPAN_TILES * side) * tile * 3 if tile == side else 0
    nuclei = 3 * width * (tile + 8) // 8
    batches = (_BATCHES + batches_ahead(workers)) * min(batch * tile * tile * (3 + channels), 16 << 20)
    pieces = workers * _LABEL_BYTES * tile * tile
    # Spans under way: waiting pixels, waiting halves and segments. Running tasks: pixels as read, joined and drawn.
    tasks = 2 * spans_ahead(workers) * span + workers * 3 * span
    tables = (width // side + 1) ** 2 * 96
    return halves + pixels + nuclei + batches + pieces + tasks + tables
