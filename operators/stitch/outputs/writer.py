"""What the writers of all files of nuclei have in common, so that one loop serves them all.

The nuclei come in chunks. A writer turns a chunk into the bytes of its format in a worker thread (`Writer.encode`), and
one thread puts these together in the order of the labels (`Writer.append`)::

    with GeojsonWriter(path, header) as writer:
        for encoded in pool.map("geojson", writer.encode, chunks(nuclei), ahead):
            writer.append(encoded)
        writer.finish()
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Generic, TypeVar

from nuclei_segmentation.operators.stitch.objects.nuclei import Nuclei
from nuclei_segmentation.shared.runtime.closing import Closing

Encoded = TypeVar("Encoded")
"""A chunk in the form that a writer appends."""


class Writer(Closing, Generic[Encoded]):
    """Writes a file of nuclei.

    What a caller does, and what it can rely on:

    - The constructor makes the file, so it fails at once where that cannot be done. The file lies in a work folder; the
      caller renames it when it is finished, and removes it otherwise.
    - The chunks are those of `chunks`: cut at the same labels whatever made them, so the bytes of a file depend only on
      the nuclei and on what the constructor got, not on workers, host, or date. The memory that a writer holds does not
      grow with the number of chunks, but for indexes of some bytes a chunk.
    - `encode` changes nothing, may run in several threads at once, for chunks in any order, and more than once.
    - `append` gets each result once, in the order of the labels, from one thread.
    - `finish` comes once, after the last chunk; no chunk at all is right too. It forces the file to the disk.
    - `close` may come at any time, and several times. A file that was not finished is not valid then.

    All of them but `close` raise `NoSpace` or `OutputError` where the file cannot be written; then only `close` may
    follow.
    """

    @abstractmethod
    def encode(self, nuclei: Nuclei) -> Encoded:
        """Return a chunk in the form that `append` takes."""

    @abstractmethod
    def append(self, encoded: Encoded) -> None:
        """Write the next chunk."""

    @abstractmethod
    def finish(self) -> None:
        """Write what comes after the last chunk, and force the file to the disk."""
