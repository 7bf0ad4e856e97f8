"""The bundled model in fp32 and in int8, compared with a plain U-Net: the same runtime, threads and tiles."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.baseline import open_session
from benchmarks.models import BUNDLED, NAME, plain_unet
from benchmarks.slides import pattern
from benchmarks.table import Row
from benchmarks.timing import Usage, alternate, used
from nuclei_segmentation.operators.filter.inference.embedded.model_files import INT8
from nuclei_segmentation.shared.batches import Pixels
from nuclei_segmentation.shared.runtime.resources import usable_cpus

TILE = 256
MODELS = {"fp32": NAME, "int8": f"{NAME}{INT8}"}


def rows(*, quick: bool) -> list[Row]:
    """Infer tiles one at a time on as many threads as there are processors.

    Parameters
    ----------
    quick : bool
        Whether to infer fewer tiles.
    """
    count = (4 if quick else 16) * usable_cpus()
    image = pattern()[0]
    corners = np.random.default_rng(0).integers(0, np.array(image.shape[:2]) - TILE, (count, 2))
    tiles = [np.ascontiguousarray(image[y : y + TILE, x : x + TILE][None]) for y, x in corners.tolist()]
    files = {"plain": plain_unet()} | {
        precision: BUNDLED / name / "1" / "model.onnx" for precision, name in MODELS.items()
    }
    best = alternate({name: _timed(file, tiles) for name, file in files.items()}, rounds=2 if quick else 4)
    plain = best["plain"].wall
    return [
        Row(
            f"inference, bundled model, {precision} ({files[precision].stat().st_size / 1e6:.1f} MB)",
            f"{count / best[precision].wall:.1f} tiles/s",
            f"plain U-Net of base 16, fp32: {count / plain:.1f} tiles/s",
            plain / best[precision].wall,
            2.0,
        )
        for precision in MODELS
    ]


def _timed(model: Path, tiles: list[Pixels]) -> partial[Usage]:
    session = open_session(model)

    def infer(tile: Pixels) -> None:
        session.run(None, {"tiles": tile})

    def work() -> None:
        with ThreadPoolExecutor(usable_cpus()) as pool:
            list(pool.map(infer, tiles))

    infer(tiles[0])
    return partial(used, work)
