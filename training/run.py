"""A training run from data to table: train, export, quantise, evaluate."""

from __future__ import annotations

import argparse
import hashlib
import logging
from collections import defaultdict
from dataclasses import replace

import cv2

from nuclei_segmentation.segmenter import Segmenter
from nuclei_segmentation.shared.settings import ModelsSettings, Settings
from training.data import Field, load_fields
from training.evaluate import HEADS, evaluate
from training.export import NAME, export, verify
from training.metrics import table
from training.nucleus_free import training_fields
from training.quantise import export_int8
from training.sampler import Sampler
from training.settings import TrainingSettings
from training.slides import Teacher, load_slides
from training.train import train

log = logging.getLogger("training")


def run(options: argparse.Namespace) -> None:
    """Train, export and evaluate.

    Parameters
    ----------
    options : argparse.Namespace
        The options of ``python -m training``; the folder `options.work` exists.

    Raises
    ------
    TrainingError
        The data, the checkpoint or the initial weights are unfit, or the exported model fails its checks.
    NucleiError
        The exported model cannot be evaluated.
    """
    cv2.setNumThreads(1)
    start = hashlib.sha256(options.start.read_bytes()).hexdigest() if options.start else ""
    settings = TrainingSettings(
        steps=options.steps, rate=options.rate, seed=options.seed, threads=options.threads, start=start
    )
    fields: dict[str, list[Field]] = defaultdict(list)
    for field in load_fields(options.data, "train"):
        fields[field.modality].append(field)
    validation = load_fields(options.data, "val")
    if options.slides:
        fields["nucleus_free"] = training_fields(options.slides)
    log.info("training images: %s", {name: len(group) for name, group in fields.items()})
    log.info("%s", settings)
    sampler = Sampler(dict(fields), settings.size, settings.batch, settings.seed)
    teacher = Teacher(load_slides(options.slides), options.work) if options.slides else None
    network = train(sampler, settings, options.work / "checkpoint.pt", teacher=teacher, model=options.start)
    path = export(network, options.output)
    verify(network, path)
    export_int8(options.output, [field for group in fields.values() for field in group])
    with_int8 = Settings(model_name=NAME, models=ModelsSettings(options.output))
    with_fp32 = replace(with_int8, inference=replace(with_int8.inference, precision="fp32"))
    with Segmenter(settings=with_int8) as int8, Segmenter(settings=with_fp32) as fp32:
        scores = evaluate(validation, {"int8": int8, "fp32": fp32}, workers=settings.threads)
    log.info("\n%s", table(scores.items(), HEADS))
