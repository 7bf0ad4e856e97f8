"""What making nuclei objects takes besides the image: memory and disk."""

from __future__ import annotations

from nuclei_segmentation.operators.stitch.objects.blocks import HEIGHT, MARGIN, WIDTH

_WINDOW = (WIDTH + 2 * MARGIN) * (HEIGHT + 2 * MARGIN)
_WINDOW_BYTES = 56
"""For each pixel of a window that is searched: maps, pixels, labels and what they are made with; measured."""
_PIECE_BYTES = 1200
"""For each nucleus at the border of a block, until the row of blocks is complete."""
_NUCLEUS_PIXELS = 350
"""Pixels of the slide for each nucleus in crowded tissue."""
_NUCLEUS_BYTES = 16
"""Its centroid."""
_SPOOL_BYTES, _FILE_BYTES = 300, 600
"""Of a nucleus on the disk: in the spool, and in all outputs together."""
_CHUNK_BYTES = 3500
"""For each nucleus of a chunk: as arrays, and encoded for all outputs."""
_STEPS_BYTES = 700
"""For each nucleus whose pixels wait in the label image until their row of tiles is complete, all levels."""
_WAITING_ROWS = 1536
"""Rows of pixels in which nuclei wait so."""
_ENTRY_BYTES = 3000
"""For each nucleus of an entry of a zip file, or a row group: its text, and that compressed."""
_ENTRY = 100_000
_CHUNK = 5_000


def finding_memory(width: int, height: int, tile: int, workers: int, channels: int) -> int:
    """Return the most bytes of anonymous memory that finding nuclei takes, besides the image.

    Parameters
    ----------
    width, height : int
        Of the slide in level-0 pixels.
    tile : int
        Side of the tiles that maps arrive for.
    workers : int
        Threads of the pool.
    channels : int
        Channels of the maps.
    """
    # Maps wait until the block that they lie under has all of its window.
    maps = width * (HEIGHT + 2 * MARGIN + 2 * tile) * channels
    windows = (2 * workers + 1) * _WINDOW * channels + workers * _WINDOW * _WINDOW_BYTES
    border = 2 * (width // 20 + (width // WIDTH + 1) * HEIGHT // 20) * _PIECE_BYTES
    return maps + windows + border + width * height // _NUCLEUS_PIXELS * _NUCLEUS_BYTES


def writing_memory(width: int, height: int, workers: int) -> int:
    """Return the most bytes of anonymous memory that writing all files takes, when the image is done.

    Parameters
    ----------
    width, height : int
        Of the slide in level-0 pixels.
    workers : int
        Threads of the pool.
    """
    nuclei = width * height // _NUCLEUS_PIXELS
    chunks = 2 * (2 * workers + 1) * min(_CHUNK, nuclei) * _CHUNK_BYTES
    labels = width * min(height, _WAITING_ROWS) // _NUCLEUS_PIXELS * _STEPS_BYTES
    return chunks + labels + min(_ENTRY, nuclei) * _ENTRY_BYTES + nuclei * _NUCLEUS_BYTES


def disk_needed(pixels: int) -> int:
    """Return about how many bytes nuclei take on the disk.

    Parameters
    ----------
    pixels : int
        Level-0 pixels of tissue.
    """
    return pixels // _NUCLEUS_PIXELS * (_SPOOL_BYTES + _FILE_BYTES)
