"""The bare work of a run, without what joins it: decoding, inference, encoding, each alone over the same tiles.

Each is a plain loop, the tiles divided evenly among as many plain threads as the run has workers. They run side by side
because cores share caches and memory: what one thread takes alone is less than what any program can do on all cores.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from benchmarks.timing import Usage, used
from nuclei_segmentation.operators.load.stage import read_tile
from nuclei_segmentation.operators.load.tiling import foreground_tiles
from nuclei_segmentation.operators.load.tissue import tissue_mask
from nuclei_segmentation.operators.stitch.overlay import OverlayPainter
from nuclei_segmentation.shared.batches import Pixels
from nuclei_segmentation.shared.geometry import TileGrid
from nuclei_segmentation.shared.settings import Settings
from nuclei_segmentation.shared.slides import Slide, open_slide

SIDE = 256


@dataclass(frozen=True, slots=True)
class Bare:
    """What the parts took.

    Attributes
    ----------
    read : Usage
        Every tile of the slide, by our own reader.
    infer : Usage
        Every foreground tile, one at a time, from pixels in memory.
    write : Usage
        The painted image, from memory: JPEG of every tile of every level, halving, the bytes into a file.
    """

    read: Usage
    infer: Usage
    write: Usage

    @property
    def cpu(self) -> float:
        """Processor seconds of all three."""
        return self.read.cpu + self.infer.cpu + self.write.cpu


class Parts:
    """The parts of one run, ready to be measured.

    Parameters
    ----------
    settings : Settings
        Of the run; tiles of 256 without overlap.
    model : pathlib.Path
        The model's file.
    """

    def __init__(self, settings: Settings, model: Path) -> None:
        self._settings = settings
        with open_slide(settings.input_path) as slide:
            self._grid = TileGrid(slide.info.width, slide.info.height, settings.tile_size)
            mask = (
                None
                if settings.mask.method == "none"
                else tissue_mask(slide.thumbnail(settings.mask_pixel_count_limit))
            )
            self._foreground: list[tuple[int, int]] = list(map(tuple, foreground_tiles(self._grid, mask).tolist()))
            self._image = np.empty((self._grid.rows * SIDE, self._grid.columns * SIDE, 3), np.uint8)
            self._read(slide)
        self._session = open_session(model)
        self._tiles = {place: self._image[self._at(place)].copy() for place in self._foreground}
        self._painter = OverlayPainter(settings.overlay)
        self._share(self._foreground, self._paint)

    @property
    def foreground(self) -> int:
        """Number of tiles that are inferred."""
        return len(self._foreground)

    def measure(self, folder: Path) -> Bare:
        """Measure each part once.

        Parameters
        ----------
        folder : pathlib.Path
            Takes the file that is written.
        """
        with open_slide(self._settings.input_path) as slide:
            read = used(lambda: self._read(slide, keep=False))
        infer = used(lambda: self._share(self._foreground, lambda place: self._infer(self._tiles[place])))
        return Bare(read, infer, used(lambda: self._write(folder / "bare")))

    def _at(self, place: tuple[int, int]) -> tuple[slice, slice]:
        row, column = place
        return slice(row * SIDE, (row + 1) * SIDE), slice(column * SIDE, (column + 1) * SIDE)

    def _share(self, items: Sequence[tuple[int, int]], work: Callable[[tuple[int, int]], object]) -> None:
        """Do the work for all items: the first part of them in the first thread, and so on."""
        count = self._settings.num_workers

        def some(number: int) -> None:
            for item in items[len(items) * number // count : len(items) * (number + 1) // count]:
                work(item)

        threads = [threading.Thread(target=some, args=(number,)) for number in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _read(self, slide: Slide, *, keep: bool = True) -> None:
        def read(place: tuple[int, int]) -> None:
            out = self._image[self._at(place)] if keep else np.empty((SIDE, SIDE, 3), np.uint8)
            read_tile(slide, self._grid, *place, out)

        self._share(list(self._grid), read)

    def _paint(self, place: tuple[int, int]) -> None:
        """Draw a tile's nuclei into the image, so that what is encoded is what a run encodes."""
        painted = self._tiles[place].copy()
        nuclei = self._painter.nuclei(self._infer(painted)[..., 0]).astype(np.uint8)
        self._painter.paint(painted, np.pad(nuclei, self._painter.margin, mode="edge"))
        self._image[self._at(place)] = painted

    def _infer(self, tile: Pixels) -> npt.NDArray[np.uint8]:
        answer: Pixels = self._session.run(None, {self._session.get_inputs()[0].name: tile[None]})[0][0]
        return answer

    def _write(self, target: Path) -> None:
        """Encode and halve level by level; the file holds the bare segments."""
        image = self._image[: self._grid.height, : self._grid.width]
        jpeg = self._settings.jpeg
        with target.open("wb") as file:
            while True:
                rows, columns = -(-image.shape[0] // SIDE), -(-image.shape[1] // SIDE)
                half = np.empty((-(-image.shape[0] // 2), -(-image.shape[1] // 2), 3), np.uint8)
                encoded: dict[tuple[int, int], bytes] = {}

                def finish(
                    place: tuple[int, int],
                    image: Pixels = image,
                    half: Pixels = half,
                    encoded: dict[tuple[int, int], bytes] = encoded,
                ) -> None:
                    tile = image[self._at(place)]
                    encoded[place] = bytes(
                        imagecodecs.jpeg8_encode(
                            tile if tile.shape[:2] == (SIDE, SIDE) else _whole(tile),
                            level=jpeg.quality,
                            colorspace="RGB",
                            outcolorspace="YCBCR",
                            subsampling=jpeg.subsampling,
                        )
                    )
                    row, column = place[0] * SIDE // 2, place[1] * SIDE // 2
                    part = half[row : row + SIDE // 2, column : column + SIDE // 2]
                    cv2.resize(tile, (part.shape[1], part.shape[0]), dst=part, interpolation=cv2.INTER_AREA)

                self._share([(row, column) for row in range(rows) for column in range(columns)], finish)
                for place in sorted(encoded):
                    file.write(encoded[place])
                if rows == columns == 1:
                    return
                image = half


def _whole(tile: Pixels) -> Pixels:
    grown = cv2.copyMakeBorder(tile, 0, SIDE - tile.shape[0], 0, SIDE - tile.shape[1], cv2.BORDER_REPLICATE)
    return np.asarray(grown, np.uint8)


def open_session(model: Path) -> ort.InferenceSession:
    """Open the model as the embedded engine does: one thread a call, no spinning."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4
    return ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
