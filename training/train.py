"""The training loop: losses, learning rate, checkpoints."""

from __future__ import annotations

import copy
import itertools
import logging
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from training.checkpoint import load, save
from training.data import ONE
from training.errors import CheckpointError
from training.exported_weights import load_exported_weights
from training.network import UNet, normalise
from training.sampler import Sampler, batches
from training.settings import TrainingSettings

if TYPE_CHECKING:
    from training.slides import Teacher

log = logging.getLogger("training")

_SCALES = torch.tensor([1.0 / 255.0, 1.0 / 255.0, 1.0 / ONE]).reshape(1, 3, 1, 1)
"""Factors from the bytes of a target to its values."""
_NORMALISATION_BATCHES = 12
"""Batches from which the batch normalisation of an exported model is restored."""


def rate_at(step: int, settings: TrainingSettings) -> float:
    """Return the learning rate of a step: a rise, a plateau, and half a cosine down to nearly zero.

    Until the decay begins, the rate does not depend on the number of steps. A run that was stopped on the plateau can
    therefore be resumed with another number of steps, and ends with the weights of an uninterrupted run of that length.

    Parameters
    ----------
    step : int
        The step, from 0.
    settings : TrainingSettings
        Settings of the run.

    Returns
    -------
    float
        The learning rate.
    """
    if step < settings.warmup:
        return settings.rate * (step + 1) / settings.warmup
    fall = round(settings.steps * settings.decay)
    done = max(0, step - (settings.steps - fall)) / max(1, fall)
    return settings.rate * 0.5 * (1.0 + math.cos(math.pi * done))


def losses(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cross-entropy and the Dice loss of a batch.

    Parameters
    ----------
    logits : torch.Tensor
        (n, 2, h, w) float32, from the network.
    target : torch.Tensor
        (n, 3, h, w) float32: both maps, 0 to 1, and the weight of each pixel.

    Returns
    -------
    cross_entropy : torch.Tensor
        (2,) float32, one value for each channel, minus the cross-entropy of the target with itself.
    dice : torch.Tensor
        (2,) float32, one value for each channel, over all pixels of the batch together.
    """
    truth, weight = target[:, :2], target[:, 2:]
    entropy = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    least = functional.binary_cross_entropy(truth, truth, reduction="none")
    entropy = ((entropy - least) * weight).sum(dim=(0, 2, 3)) / weight.sum().clamp(min=1.0)
    known = (weight > 0).float()
    probability = torch.sigmoid(logits) * known
    truth = truth * known
    shared = (probability * truth).sum(dim=(0, 2, 3))
    both = probability.square().sum(dim=(0, 2, 3)) + truth.square().sum(dim=(0, 2, 3))
    return entropy, 1.0 - (2.0 * shared + 1.0) / (both + 1.0)


def _update(average: nn.Module, network: nn.Module, share: float) -> None:
    """Move the averaged weights and statistics towards those of the network."""
    with torch.no_grad():
        for old, new in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
            if old.is_floating_point():
                old.lerp_(new, 1.0 - share)
            else:
                old.copy_(new)


def _steps(
    sampler: Sampler, settings: TrainingSettings, start: int, average: UNet, teacher: Teacher | None
) -> Iterator[tuple[int, tuple[NDArray[np.uint8], NDArray[np.uint8]]]]:
    """Yield all steps and their batches; at each step in `lessons` the slides get new pseudo-labels first."""
    lessons = [step for step in settings.lessons if teacher and step < settings.steps]
    bounds = [0, *lessons, settings.steps]
    for first, last in itertools.pairwise(bounds):
        if last <= start:
            continue
        if teacher is not None:
            network = copy.deepcopy(average).eval().cpu() if first >= start else None
            slides = teacher.fields_at(first, network) if first or settings.start else teacher.background_fields()
            sampler = replace(sampler, fields={**sampler.fields, "slide": slides})
        begin = max(first, start)
        yield from enumerate(batches(sampler, begin, last), begin)


def _resume(path: Path, settings: TrainingSettings) -> dict[str, Any] | None:
    """Return the checkpoint to resume from, or None without one; refuse one that this run would not have written."""
    if not path.exists():
        return None
    state = load(path)
    old, new, step = TrainingSettings(**state["settings"]), settings, int(state["step"])
    given = asdict(new)
    differing = [key for key, value in asdict(old).items() if key not in ("steps", "lessons") and value != given[key]]
    moved = any(rate_at(past, old) != rate_at(past, new) for past in range(step))
    if [lesson for lesson in old.lessons if lesson < step] != [lesson for lesson in new.lessons if lesson < step]:
        differing.append("lessons")
    if differing or moved or step > new.steps:
        what = ", ".join(differing) or "steps"
        raise CheckpointError(
            f"{path} is from a run with other settings ({what}): restore them, or delete the checkpoint"
        )
    return state


def train(
    sampler: Sampler,
    settings: TrainingSettings,
    checkpoint: Path,
    every: int = 200,
    teacher: Teacher | None = None,
    model: Path | None = None,
) -> UNet:
    """Train until the last step, from the beginning or from a checkpoint.

    Parameters
    ----------
    sampler : Sampler
        Draws the batches.
    settings : TrainingSettings
        Settings of the run.
    checkpoint : pathlib.Path
        Written atomically, every `every` steps and at the end. The run resumes from it if it exists.
    every : int
        Steps between checkpoints.
    teacher : Teacher, optional
        Labels the slides without annotation.
    model : pathlib.Path, optional
        Exported model with the initial weights, used if there is no checkpoint; `settings.start` is its SHA-256.

    Returns
    -------
    UNet
        The network with the averaged weights, on the CPU, in evaluation mode.

    Raises
    ------
    CheckpointError
        The checkpoint is from a run with other settings.
    WeightsError
        The model cannot be read, or is another network.
    """
    torch.set_num_threads(settings.threads)
    torch.use_deterministic_algorithms(mode=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # nothing reads such memory; saves a tenth of the time
    torch.manual_seed(settings.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = UNet(base=settings.base)
    if model is not None and not checkpoint.exists():
        load_exported_weights(
            network, model, np.concatenate([sampler.batch_at(step)[0] for step in range(_NORMALISATION_BATCHES)])
        )
    network.to(device, memory_format=torch.channels_last)
    average: UNet = copy.deepcopy(network)
    average.requires_grad_(requires_grad=False)
    optimiser = torch.optim.AdamW(network.parameters(), lr=settings.rate, weight_decay=settings.weight_decay)
    start = 0
    state = _resume(checkpoint, settings)
    if state is not None:
        network.load_state_dict(state["network"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        start = int(state["step"])
        log.info("resuming at step %d", start)
    network.train()
    mean: list[float] = []
    began = time.monotonic()
    for step, (images, targets) in _steps(sampler, settings, start, average, teacher):
        for group in optimiser.param_groups:
            group["lr"] = rate_at(step, settings)
        tiles = torch.from_numpy(images).to(device)
        target = torch.from_numpy(targets).to(device).float() * _SCALES.to(device)
        logits = network(normalise(tiles).contiguous(memory_format=torch.channels_last))
        entropy, dice = losses(logits, target)
        loss = entropy.sum() + 0.5 * dice.sum()
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        _update(average, network, min(settings.average, (step + 1) / (step + 10)))
        values = torch.cat([entropy, dice]).tolist()
        mean = values if not mean else [0.98 * old + 0.02 * new for old, new in zip(mean, values, strict=True)]
        if (step + 1) % 20 == 0 or step + 1 == settings.steps:
            pace = (time.monotonic() - began) / (step + 1 - start)
            log.info(
                "step %d/%d rate %.2e cross-entropy %.4f %.4f Dice loss %.4f %.4f (%.2f s a step)",
                *(step + 1, settings.steps, rate_at(step, settings), *mean, pace),
            )
        if (step + 1) % every == 0 or step + 1 == settings.steps:
            save(
                checkpoint,
                {
                    "network": network.state_dict(),
                    "average": average.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "step": step + 1,
                    "settings": asdict(settings),
                },
            )
    average.eval().cpu()
    return average
