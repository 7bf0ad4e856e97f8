"""Evaluates a model on annotated images, with the program's own load and filter; Otsu's threshold is the baseline.

``python -m training.evaluate --data DIR [--data DIR2] [--model NAME]``, or ``make evaluate DATA="DIR DIR2"``

The module `training.data` describes a data directory, `training.metrics` the measures. PyTorch is not needed.

Exit code 0: done; 1: an error, in one line on standard error; 2: wrong options. Errors of the program itself keep their
exit codes, such as 15 for a missing model.
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
from training.command_line import EXPECTED, describe, integer_from, positive_number
from training.data import Field, load_fields
from training.metrics import Score, table
from training.nucleus_free import false_positives
from training.nucleus_free import table as table_of_false_positives

HEADS = ("modality", "scale", "method")

GROUPS = {"stained_purple": ("stained_purple_on_purple", "stained_purple_on_white")}
"""Modalities that have a row together, besides their own rows."""

Key = tuple[str, str, str]
Method = Callable[[Pixels], Segmentation]


def evaluate(
    fields: Sequence[Field], methods: dict[str, Method], scales: Iterable[float] = (1.0,), workers: int = 1
) -> dict[Key, Score]:
    """Evaluate methods on annotated images.

    Parameters
    ----------
    fields : Sequence of Field
        The images.
    methods : dict of str to callable
        By name; each segments an image, (h, w, 3) uint8 RGB.
    scales : Iterable of float
        Factors by which each image is resized. A factor of 0.5 turns 0.25 um a pixel into 0.5 um a pixel.
    workers : int
        Images to segment at a time.

    Returns
    -------
    dict of tuple of str to Score
        Scores by modality, scale and method, sorted by modality.
    """
    scores: dict[Key, Score] = {}
    for scale in scales:
        for name, method in methods.items():
            with ThreadPoolExecutor(workers) as pool:
                found = list(pool.map(partial(_segment, method=method, scale=scale), fields))
            for field, (labels, segmented) in zip(fields, found, strict=True):
                groups = [group for group, parts in GROUPS.items() if field.modality in parts]
                for modality in (field.modality, *groups):
                    score = scores.setdefault((modality, f"{scale:g}", name), Score())
                    score.add(labels, segmented.labels, segmented.mask, segmented.count)
    return dict(
        sorted(scores.items(), key=lambda item: item[0][0])
    )  # a stable sort: scales and methods keep their order


def _segment(field: Field, method: Method, scale: float) -> tuple[np.ndarray, Segmentation]:
    """Resize a field; return its label image and the result of the method."""
    image, labels = field.image, field.labels
    if scale != 1.0:
        smooth = cv2.INTER_AREA if scale < 1.0 else cv2.INTER_CUBIC
        image = np.asarray(cv2.resize(image, None, fx=scale, fy=scale, interpolation=smooth), np.uint8)
        size = (image.shape[1], image.shape[0])
        labels = np.asarray(cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST), np.uint16)
    return labels, method(image)


def _without_small_labels(field: Field, least: int) -> Field:
    """Remove the labels of fewer pixels than `least`; nuclei found there then count as false."""
    large = np.bincount(field.labels.ravel()) >= least
    large[0] = False
    return replace(field, labels=np.where(large[field.labels], field.labels, np.uint16(0)).astype(np.uint16))


def baseline(image: Pixels) -> Segmentation:
    """Segment an image by Otsu's threshold, with the result in the form of a model's."""
    labels = otsu(image)
    maps = np.where(labels > 0, np.uint8(255), np.uint8(0))[..., None]
    return Segmentation(maps, ("nucleus",), labels, int(labels.max()), image, Settings())


def _multiple_of_16(text: str) -> int:
    value = integer_from(0)(text)
    if value % 16:
        raise argparse.ArgumentTypeError(f"{text!r} is not a multiple of 16")
    return value


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; by default that of the process."""
    default = Settings()
    parser = argparse.ArgumentParser(
        prog="python -m training.evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, action="append", required=True, help="data directory; repeatable")
    parser.add_argument("--split", default="val", help="split of the data (%(default)s)")
    parser.add_argument("--model", default=default.model_name, help="name of the model (%(default)s)")
    parser.add_argument(
        "--precision",
        choices=("int8", "fp32"),
        default=default.inference.precision,
        help="as in config.yaml (%(default)s)",
    )
    parser.add_argument("--repository", type=Path, help="model repository (default: the bundled one)")
    parser.add_argument(
        "--scale", type=positive_number, action="append", help="factor by which images are resized (1); repeatable"
    )
    parser.add_argument(
        "--least-area", type=integer_from(0), default=0, help="pixels; smaller labels are removed (%(default)s)"
    )
    parser.add_argument(
        "--tile-size",
        type=_multiple_of_16,
        help="side of a tile (default: the whole image, or 1024 with exact borders)",
    )
    parser.add_argument(
        "--overlap", type=_multiple_of_16, default=0, help="overlap of the tiles, with --tile-size (%(default)s)"
    )
    parser.add_argument(
        "--workers", type=integer_from(1), default=usable_cpus(), help="images to segment at a time (%(default)s)"
    )
    parser.add_argument(
        "--slides", type=Path, help="folder with the slides of nucleus_free.csv, to measure false positives"
    )
    parser.add_argument("--json", type=Path, help="file for the measures")
    options = parser.parse_args(arguments)
    if options.tile_size is not None and not options.overlap < options.tile_size:
        parser.error("--overlap must be smaller than --tile-size")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate from the command line; return the exit code."""
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
            _without_small_labels(field, options.least_area)
            for field in load_fields(options.data, options.split, any_modality=True)
        ]
        with Segmenter(settings=settings, tile_size=options.tile_size, overlap=options.overlap) as segmenter:
            methods: dict[str, Method] = {options.model: segmenter, "Otsu and watershed": baseline}
            scores = evaluate(fields, methods, options.scale or (1.0,), options.workers)
            negatives = (
                {name: false_positives(options.slides, method) for name, method in methods.items()}
                if options.slides
                else {}
            )
        print(table(scores.items(), HEADS))
        if negatives:
            print(f"\n{table_of_false_positives(negatives)}")
        if options.json:
            rows = [
                {**dict(zip(HEADS, key, strict=True)), "images": score.images, "nuclei": score.true, **score.measures()}
                for key, score in scores.items()
            ]
            options.json.write_text(json.dumps(rows, indent=2) + "\n")
    except EXPECTED as error:
        print(describe(error), file=sys.stderr)
        return error.exit_code if isinstance(error, NucleiError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
