"""The optimisation: losses, schedule, checkpoints."""

from __future__ import annotations

import copy
import itertools
import logging
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from training.checkpoint import CheckpointError, load, save
from training.data import ONE
from training.network import UNet, normalise
from training.sampler import Sampler, batches
from training.start import start_from

if TYPE_CHECKING:
    from training.slides import Teacher

log = logging.getLogger("training")

#: From the bytes of a target to its values.
_SCALES = torch.tensor([1.0 / 255.0, 1.0 / 255.0, 1.0 / ONE]).reshape(1, 3, 1, 1)

#: Batches from which a model that is started from gets its normalisation back.
_SEEN = 12


@dataclass(frozen=True)
class Settings:
    """What determines the weights, apart from the data.

    Attributes
    ----------
    steps : int
        Number of optimiser steps.
    batch, size : int
        Crops in a batch and their side in pixels.
    rate : float
        Learning rate of the plateau.
    warmup : int
        Steps over which the rate rises.
    decay : float
        Share of the steps, at the end, over which the rate falls to zero along a cosine.
    weight_decay : float
        AdamW's.
    average : float
        Share of itself that the moving average of the weights, which is the result, keeps in each step.
    seed : int
        Seed of the weights and of the batches.
    base : int
        Unit of the network's widths.
    threads : int
        Threads of PyTorch: they set the order of its sums.
    lessons : tuple of int
        Steps at which the network so far labels the slides that nobody has annotated.
    start : str
        SHA-256 of the model that the weights are taken from at first; empty for weights by chance.
    """

    steps: int = 10000
    batch: int = 8
    size: int = 192
    rate: float = 2e-3
    warmup: int = 300
    decay: float = 0.5
    weight_decay: float = 0.02
    average: float = 0.999
    seed: int = 20180116
    base: int = 16
    threads: int = 2
    lessons: tuple[int, ...] = (3000, 5500, 8000)
    start: str = ""


def rate_at(step: int, settings: Settings) -> float:
    """Learning rate of a step: a rise, a plateau, and half a cosine down to nearly zero.

    Until the fall begins, the rate does not depend on the number of steps, so a checkpoint of the plateau can be
    continued to an earlier or later end and gives what a run with that number of steps gives.

    Parameters
    ----------
    step : int
        Number of the step, from 0.
    settings : Settings
        The run's.

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
    """Cross-entropy and Dice losses of a batch.

    Parameters
    ----------
    logits : Tensor
        float32 ``[N, 2, H, W]``.
    target : Tensor
        float32 ``[N, 3, H, W]``: both channels, 0 to 1, and the weight of each pixel.

    Returns
    -------
    cross_entropy, dice : Tensor
        Both float32 ``[2]``, one value a channel; Dice over all pixels of the batch together. Off the cross-entropy is
        taken what even the target itself would have.
    """
    wanted, weight = target[:, :2], target[:, 2:]
    entropy = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    least = functional.binary_cross_entropy(wanted, wanted, reduction="none")
    entropy = ((entropy - least) * weight).sum(dim=(0, 2, 3)) / weight.sum().clamp(min=1.0)
    known = (weight > 0).float()
    probability = torch.sigmoid(logits) * known
    wanted = wanted * known
    shared = (probability * wanted).sum(dim=(0, 2, 3))
    both = probability.square().sum(dim=(0, 2, 3)) + wanted.square().sum(dim=(0, 2, 3))
    return entropy, 1.0 - (2.0 * shared + 1.0) / (both + 1.0)


def _update(average: nn.Module, network: nn.Module, share: float) -> None:
    """Move the average of weights and statistics towards the network's."""
    with torch.no_grad():
        for old, new in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
            if old.is_floating_point():
                old.lerp_(new, 1.0 - share)
            else:
                old.copy_(new)


def _steps(
    sampler: Sampler, settings: Settings, start: int, average: UNet, teacher: Teacher | None
) -> Iterator[tuple[int, tuple[NDArray[np.uint8], NDArray[np.uint8]]]]:
    """Yield all steps and their batches; before a lesson's first step, the slides are labelled anew."""
    lessons = [step for step in settings.lessons if teacher and step < settings.steps]
    bounds = [0, *lessons, settings.steps]
    for first, last in itertools.pairwise(bounds):
        if last <= start:
            continue
        if teacher is not None:
            network = copy.deepcopy(average).eval().cpu() if first >= start else None
            slides = teacher.at(first, network) if first or settings.start else teacher.first()
            sampler = replace(sampler, fields={**sampler.fields, "slide": slides})
        begin = max(first, start)
        yield from enumerate(batches(sampler, begin, last), begin)


def _continue(path: Path, settings: Settings) -> dict[str, Any] | None:
    """Read the checkpoint to continue from, or None; refuse one that this run would not have written."""
    if not path.exists():
        return None
    state = load(path)
    old, new, step = Settings(**state["settings"]), settings, int(state["step"])
    given = asdict(new)
    differing = [key for key, value in asdict(old).items() if key not in ("steps", "lessons") and value != given[key]]
    moved = any(rate_at(past, old) != rate_at(past, new) for past in range(step))
    if [lesson for lesson in old.lessons if lesson < step] != [lesson for lesson in new.lessons if lesson < step]:
        differing.append("lessons")
    if differing or moved or step > new.steps:
        what = ", ".join(differing) or "steps"
        raise CheckpointError(f"{path} is of a run with other settings ({what}): delete it or restore them")
    return state


def train(
    sampler: Sampler,
    settings: Settings,
    checkpoint: Path,
    every: int = 200,
    teacher: Teacher | None = None,
    model: Path | None = None,
) -> UNet:
    """Train, or continue, until the last step.

    Parameters
    ----------
    sampler : Sampler
        Draws the batches.
    settings : Settings
        The run's.
    checkpoint : Path
        Written every ``every`` steps and at the end, atomically; read first, where it exists.
    every : int
        Steps between checkpoints.
    teacher : Teacher, optional
        Labels slides at the steps that are lessons.
    model : Path, optional
        What to start from, where there is no checkpoint; `settings.start` is its hash.

    Returns
    -------
    UNet
        The averaged network, on the CPU in evaluation mode.

    Raises
    ------
    CheckpointError
        If the checkpoint is of a run with other settings.
    StartError
        If the model is none to start from.
    """
    torch.set_num_threads(settings.threads)
    torch.use_deterministic_algorithms(mode=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # nothing here reads such memory; a tenth of the time
    torch.manual_seed(settings.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = UNet(base=settings.base)
    if model is not None and not checkpoint.exists():
        start_from(network, model, np.concatenate([sampler.batch_at(step)[0] for step in range(_SEEN)]))
    network.to(device, memory_format=torch.channels_last)
    average: UNet = copy.deepcopy(network)
    average.requires_grad_(requires_grad=False)
    optimiser = torch.optim.AdamW(network.parameters(), lr=settings.rate, weight_decay=settings.weight_decay)
    start = 0
    state = _continue(checkpoint, settings)
    if state is not None:
        network.load_state_dict(state["network"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        start = int(state["step"])
        log.info("continuing at step %d", start)
    network.train()
    mean: list[float] = []
    began = time.monotonic()
    for step, (images, marks) in _steps(sampler, settings, start, average, teacher):
        for group in optimiser.param_groups:
            group["lr"] = rate_at(step, settings)
        tiles = torch.from_numpy(images).to(device)
        target = torch.from_numpy(marks).to(device).float() * _SCALES.to(device)
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
                "step %d/%d rate %.2e bce %.4f %.4f dice-loss %.4f %.4f (%.2f s a step)",
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
