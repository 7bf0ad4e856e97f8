"""The baseline of a whole run: three plain loops over the same tiles that decode, infer and encode.

Each loop divides the tiles evenly among as many threads as the run has workers. The threads run at the same time, since
cores share caches and memory: a single thread is faster than each of several threads can be.
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
class Baseline:
    """The time that each loop took.

    Attributes
    ----------
    read : Usage
        Reading every tile of the slide with this program's reader.
    infer : Usage
        Inferring every foreground tile from pixels in memory, one tile a call.
    write : Usage
        Encoding the image with its overlay from memory: every tile of every level as JPEG, with each level halved from
        the one before, written to one file.
    """

    read: Usage
    infer: Usage
    write: Usage

    @property
    def cpu(self) -> float:
        """CPU seconds of all three loops."""
        return self.read.cpu + self.infer.cpu + self.write.cpu


class BaselineLoops:
    """The three loops for one run, ready to be measured.

    Parameters
    ----------
    settings : Settings
        Settings of the run, with tiles of 256 pixels and no overlap.
    model : pathlib.Path
        ONNX file of the model.
    """

    def __init__(self, settings: Settings, model: Path) -> None:
        self._settings = settings
        with open_slide(settings.input_path) as slide:
            self._grid = TileGrid(slide.info.width, slide.info.height, settings.tile_size)
            mask = (
                None
                if settings.mask.method == "none"
                else tissue_mask(slide.thumbnail(settings.mask_pixel_count_limit).pixels)
            )
            self._foreground: list[tuple[int, int]] = list(map(tuple, foreground_tiles(self._grid, mask).tolist()))
            self._image = np.empty((self._grid.rows * SIDE, self._grid.columns * SIDE, 3), np.uint8)
            self._read(slide)
        self._session = open_session(model)
        self._tiles = {position: self._image[_slices(position)].copy() for position in self._foreground}
        self._painter = OverlayPainter(settings.overlay)
        self._in_threads(self._foreground, self._paint)

    @property
    def foreground(self) -> int:
        """Number of foreground tiles."""
        return len(self._foreground)

    def measure(self, folder: Path) -> Baseline:
        """Run each loop once.

        Parameters
        ----------
        folder : pathlib.Path
            Folder for the file that is written.
        """
        with open_slide(self._settings.input_path) as slide:
            read = used(lambda: self._read(slide, keep=False))
        infer = used(lambda: self._in_threads(self._foreground, lambda position: self._infer(self._tiles[position])))
        return Baseline(read, infer, used(lambda: self._write(folder / "baseline")))

    def _in_threads(self, positions: Sequence[tuple[int, int]], work: Callable[[tuple[int, int]], object]) -> None:
        """Do the work for all tile positions, divided among the threads."""
        count = self._settings.num_workers

        def some(number: int) -> None:
            for position in positions[len(positions) * number // count : len(positions) * (number + 1) // count]:
                work(position)

        threads = [threading.Thread(target=some, args=(number,)) for number in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _read(self, slide: Slide, *, keep: bool = True) -> None:
        def read(position: tuple[int, int]) -> None:
            out = self._image[_slices(position)] if keep else np.empty((SIDE, SIDE, 3), np.uint8)
            read_tile(slide, self._grid, *position, out)

        self._in_threads(list(self._grid), read)

    def _paint(self, position: tuple[int, int]) -> None:
        """Draw the overlay of a tile, so that the encoder gets the same image as in a run."""
        painted = self._tiles[position].copy()
        nuclei = self._painter.nuclei(self._infer(painted)[..., 0]).astype(np.uint8)
        self._painter.paint(painted, np.pad(nuclei, self._painter.margin, mode="edge"))
        self._image[_slices(position)] = painted

    def _infer(self, tile: Pixels) -> npt.NDArray[np.uint8]:
        maps: Pixels = self._session.run(None, {self._session.get_inputs()[0].name: tile[None]})[0][0]
        return maps

    def _write(self, target: Path) -> None:
        """Encode and halve the image, level by level; the file holds the JPEG segments without TIFF tables."""
        image = self._image[: self._grid.height, : self._grid.width]
        jpeg = self._settings.jpeg
        with target.open("wb") as file:
            while True:
                rows, columns = -(-image.shape[0] // SIDE), -(-image.shape[1] // SIDE)
                half = np.empty((-(-image.shape[0] // 2), -(-image.shape[1] // 2), 3), np.uint8)
                encoded: dict[tuple[int, int], bytes] = {}

                def finish(
                    position: tuple[int, int],
                    image: Pixels = image,
                    half: Pixels = half,
                    encoded: dict[tuple[int, int], bytes] = encoded,
                ) -> None:
                    tile = image[_slices(position)]
                    encoded[position] = bytes(
                        imagecodecs.jpeg8_encode(
                            tile if tile.shape[:2] == (SIDE, SIDE) else _padded(tile),
                            level=jpeg.quality,
                            colorspace="RGB",
                            outcolorspace="YCBCR",
                            subsampling=jpeg.subsampling,
                        )
                    )
                    row, column = position[0] * SIDE // 2, position[1] * SIDE // 2
                    part = half[row : row + SIDE // 2, column : column + SIDE // 2]
                    cv2.resize(tile, (part.shape[1], part.shape[0]), dst=part, interpolation=cv2.INTER_AREA)

                self._in_threads([(row, column) for row in range(rows) for column in range(columns)], finish)
                for position in sorted(encoded):
                    file.write(encoded[position])
                if rows == columns == 1:
                    return
                image = half


def _slices(position: tuple[int, int]) -> tuple[slice, slice]:
    """Return the pixel rows and columns of a tile position."""
    row, column = position
    return slice(row * SIDE, (row + 1) * SIDE), slice(column * SIDE, (column + 1) * SIDE)


def _padded(tile: Pixels) -> Pixels:
    padded = cv2.copyMakeBorder(tile, 0, SIDE - tile.shape[0], 0, SIDE - tile.shape[1], cv2.BORDER_REPLICATE)
    return np.asarray(padded, np.uint8)


def open_session(model: Path) -> ort.InferenceSession:
    """Open a model with the settings of the embedded engine: one thread a call, no spinning."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4
    return ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
