"""Measures a model on annotated images, with the program's own load and filter, beside Otsu's threshold.

``python -m training.evaluate --data DIR [--data DIR2] [--model NAME]``, or ``make evaluate DATA="DIR DIR2"``

A data directory is as in :mod:`training.data`; the measures are those of :mod:`training.metrics`. PyTorch is not
needed.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from nuclei_segmentation.segmenter import Segmentation, Segmenter
from nuclei_segmentation.shared.batches import Pixels
from nuclei_segmentation.shared.errors import NucleiError
from nuclei_segmentation.shared.runtime.resources import usable_cpus
from nuclei_segmentation.shared.settings import InferenceSettings, ModelsSettings, Settings
from training.baseline import otsu
from training.data import DataError, Field, load_fields
from training.free import marks
from training.free import table as table_of_marks
from training.metrics import Score, table

HEADS = ("modality", "scale", "method")

#: Rows for several modalities together.
TOGETHER = {"stained_purple": ("stained_purple_on_purple", "stained_purple_on_white")}

Key = tuple[str, str, str]
Method = Callable[[Pixels], Segmentation]


def evaluate(
    fields: Sequence[Field], methods: dict[str, Method], scales: Iterable[float] = (1.0,), workers: int = 1
) -> dict[Key, Score]:
    """Score methods on annotated images.

    Parameters
    ----------
    fields : sequence of Field
        The images.
    methods : dict
        By name, what finds the nuclei of an image.
    scales : iterable of float
        How often larger than it is each image is shown; 0.5 for one of 0.25 um a pixel is how 0.5 um would look.
    workers : int
        Images at a time.

    Returns
    -------
    dict
        Scores by modality, scale and method, in alphabetical order of the modalities.
    """
    scores: dict[Key, Score] = {}
    for scale in scales:
        for name, method in methods.items():
            with ThreadPoolExecutor(workers) as pool:
                found = list(pool.map(partial(_one, method=method, scale=scale), fields))
            for field, (labels, segmented) in zip(fields, found, strict=True):
                groups = [group for group, parts in TOGETHER.items() if field.modality in parts]
                for modality in (field.modality, *groups):
                    score = scores.setdefault((modality, f"{scale:g}", name), Score())
                    score.add(labels, segmented.labels, segmented.mask, segmented.count)
    return dict(sorted(scores.items(), key=lambda item: item[0][0]))  # stable: scales and methods as they came


def _one(field: Field, method: Method, scale: float) -> tuple[np.ndarray, Segmentation]:
    image, labels = field.image, field.labels
    if scale != 1.0:
        smooth = cv2.INTER_AREA if scale < 1.0 else cv2.INTER_CUBIC
        image = np.asarray(cv2.resize(image, None, fx=scale, fy=scale, interpolation=smooth), np.uint8)
        size = (image.shape[1], image.shape[0])
        labels = np.asarray(cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST), np.uint16)
    return labels, method(image)


def _without_specks(field: Field, least: int) -> Field:
    """Leave out the labels of fewer pixels than `least`: what is found there is then wrong."""
    large = np.bincount(field.labels.ravel()) >= least
    large[0] = False
    return replace(field, labels=np.where(large[field.labels], field.labels, np.uint16(0)).astype(np.uint16))


def baseline(image: Pixels) -> Segmentation:
    """Segment an image by Otsu's threshold, as if by a model."""
    labels = otsu(image)
    return Segmentation(
        np.where(labels > 0, np.uint8(255), np.uint8(0))[..., None], ("nucleus",), labels, int(labels.max())
    )


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; by default the process's."""
    default = Settings()
    parser = argparse.ArgumentParser(prog="python -m training.evaluate", description=__doc__)
    parser.add_argument("--data", type=Path, action="append", required=True, help="data directory; repeatable")
    parser.add_argument("--split", default="val", help="split of the data (%(default)s)")
    parser.add_argument("--model", default=default.model_name, help="name of the model (%(default)s)")
    parser.add_argument(
        "--precision",
        choices=("int8", "fp32"),
        default=default.inference.precision,
        help="as in config.yaml (%(default)s)",
    )
    parser.add_argument("--repository", type=Path, help="model repository (default: the one that comes along)")
    parser.add_argument("--scale", type=float, action="append", help="how often larger to show it (1); repeatable")
    parser.add_argument("--least-area", type=int, default=0, help="pixels; smaller labels are left out (%(default)s)")
    parser.add_argument("--tile-size", type=int, help="of the grid (default: one tile, or exact ones of 1024)")
    parser.add_argument("--overlap", type=int, default=0, help="of the grid, where --tile-size is given (%(default)s)")
    parser.add_argument("--workers", type=int, default=usable_cpus(), help="images at a time (%(default)s)")
    parser.add_argument("--slides", type=Path, help="folder of the slides of nucleus_free.csv, to be measured as well")
    parser.add_argument("--json", type=Path, help="file to write the measures to")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate from the command line; return the exit status."""
    options = parse(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    cv2.setNumThreads(1)
    settings = Settings(
        model_name=options.model,
        models=ModelsSettings(options.repository),
        inference=InferenceSettings(precision=options.precision),
        num_workers=1,  # of each image; several are segmented at once
    )
    try:
        fields = [
            _without_specks(field, options.least_area)
            for field in load_fields(options.data, options.split, any_modality=True)
        ]
        with Segmenter(settings=settings, tile_size=options.tile_size, overlap=options.overlap) as segmenter:
            methods: dict[str, Method] = {options.model: segmenter, "Otsu and watershed": baseline}
            scores = evaluate(fields, methods, options.scale or (1.0,), options.workers)
            free = {name: marks(options.slides, method) for name, method in methods.items()} if options.slides else {}
    except (DataError, OSError) as error:
        print(f"{error}", file=sys.stderr)
        return 1
    except NucleiError as error:
        print(f"{error}", file=sys.stderr)
        return error.exit_code
    print(table(scores.items(), HEADS))
    if free:
        print(f"\n{table_of_marks(free)}")
    if options.json:
        rows = [
            {**dict(zip(HEADS, key, strict=True)), "images": score.images, "nuclei": score.true, **score.measures()}
            for key, score in scores.items()
        ]
        options.json.write_text(json.dumps(rows, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
