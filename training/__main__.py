"""Trains, exports and evaluates: ``python -m training --data DIR [--data DIR2] --output models``."""

from __future__ import annotations

import argparse
import hashlib
import logging
import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import cv2

from nuclei_segmentation.segmenter import Segmenter
from nuclei_segmentation.shared.errors import NucleiError
from nuclei_segmentation.shared.settings import ModelsSettings
from nuclei_segmentation.shared.settings import Settings as RunSettings
from training.checkpoint import CheckpointError
from training.data import DataError, Field, load_fields
from training.evaluate import HEADS, evaluate
from training.export import NAME, ExportError, export, verify
from training.free import lessons
from training.metrics import table
from training.quantise import export_int8
from training.sampler import Sampler
from training.slides import Teacher, load_slides
from training.start import StartError
from training.train import Settings, train

log = logging.getLogger("training")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line.

    Parameters
    ----------
    arguments : list of str, optional
        Default: the process's.

    Returns
    -------
    Namespace
        The options.
    """
    default = Settings()
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument("--data", type=Path, action="append", required=True, help="data directory; repeatable")
    parser.add_argument("--slides", type=Path, help="folder of H&E slides without annotation, to learn from as well")
    parser.add_argument("--output", type=Path, required=True, help="model repository to write into")
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("training/runs/default"),
        help="directory of the checkpoint and the log (%(default)s); a killed run continues from it",
    )
    parser.add_argument("--steps", type=int, default=default.steps, help="optimiser steps (%(default)s)")
    parser.add_argument("--rate", type=float, default=default.rate, help="highest learning rate (%(default)s)")
    parser.add_argument(
        "--start",
        type=Path,
        metavar="ONNX",
        help="model.onnx to go on from, usually at a lower --rate",
    )
    parser.add_argument("--seed", type=int, default=default.seed, help="seed (%(default)s)")
    parser.add_argument("--threads", type=int, default=default.threads, help="threads of PyTorch (%(default)s)")
    return parser.parse_args(arguments)


def main() -> int:
    """Run the whole thing.

    Returns
    -------
    int
        Exit status.
    """
    options = parse()
    options.work.mkdir(parents=True, exist_ok=True)
    console, file = logging.StreamHandler(sys.stdout), logging.FileHandler(options.work / "train.log")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", handlers=[console, file])
    cv2.setNumThreads(1)
    try:
        start = hashlib.sha256(options.start.read_bytes()).hexdigest() if options.start else ""
        settings = Settings(
            steps=options.steps, rate=options.rate, seed=options.seed, threads=options.threads, start=start
        )
        fields: dict[str, list[Field]] = defaultdict(list)
        for field in load_fields(options.data, "train"):
            fields[field.modality].append(field)
        if options.slides:
            fields["nucleus_free"] = lessons(options.slides)
        log.info("training images: %s", {name: len(group) for name, group in fields.items()})
        log.info("%s", settings)
        sampler = Sampler(dict(fields), settings.size, settings.batch, settings.seed)
        teacher = Teacher(load_slides(options.slides), options.work) if options.slides else None
        network = train(sampler, settings, options.work / "checkpoint.pt", teacher=teacher, model=options.start)
        path = export(network, options.output)
        verify(network, path)
        export_int8(options.output, [field for group in fields.values() for field in group])
        run = RunSettings(model_name=NAME, models=ModelsSettings(options.output))
        plain = replace(run, inference=replace(run.inference, precision="fp32"))
        with Segmenter(settings=run) as int8, Segmenter(settings=plain) as fp32:
            scores = evaluate(load_fields(options.data, "val"), {"int8": int8, "fp32": fp32}, workers=settings.threads)
        log.info("\n%s", table(scores.items(), HEADS))
    except (DataError, CheckpointError, ExportError, StartError, NucleiError, OSError) as error:
        log.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
