"""The optimisation: losses, schedule, checkpoints."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.network import UNet, normalise
from training.sampler import Sampler, batches

log = logging.getLogger("training")


class CheckpointError(Exception):
    """A checkpoint belongs to a run with other settings."""


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
    seed : int
        Seed of the weights and of the batches.
    base : int
        Width of the network's first level.
    threads : int
        Threads of PyTorch: they set the order of its sums.
    """

    steps: int = 2600
    batch: int = 6
    size: int = 128
    rate: float = 2e-3
    warmup: int = 60
    decay: float = 0.4
    weight_decay: float = 1e-4
    seed: int = 20180116
    base: int = 16
    threads: int = 2


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
        float32 ``[N, 2, H, W]``, 0 or 1.

    Returns
    -------
    cross_entropy, dice : Tensor
        Both float32 ``[2]``, one value a channel; Dice over all pixels of the batch together.
    """
    entropy = functional.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(dim=(0, 2, 3))
    probability = torch.sigmoid(logits)
    shared = (probability * target).sum(dim=(0, 2, 3))
    both = probability.sum(dim=(0, 2, 3)) + target.sum(dim=(0, 2, 3))
    return entropy, 1.0 - (2.0 * shared + 1.0) / (both + 1.0)


def _save(path: Path, network: nn.Module, optimiser: torch.optim.Optimizer, step: int, settings: Settings) -> None:
    state = {
        "network": network.state_dict(),
        "optimiser": optimiser.state_dict(),
        "step": step,
        "settings": asdict(settings),
    }
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint.

    Parameters
    ----------
    path : Path
        As written by :func:`train`.

    Returns
    -------
    dict
        ``network`` and ``optimiser`` states, ``step`` and ``settings``.
    """
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def network_of(state: dict[str, Any]) -> UNet:
    """Build the network of a checkpoint.

    Parameters
    ----------
    state : dict
        From :func:`load_checkpoint`.

    Returns
    -------
    UNet
        With the checkpoint's weights, in evaluation mode.
    """
    network = UNet(base=int(state["settings"]["base"]))
    network.load_state_dict(state["network"])
    network.eval()
    return network


def _continue(path: Path, settings: Settings) -> dict[str, Any] | None:
    """Read the checkpoint to continue from, or None; refuse one that this run would not have written."""
    if not path.exists():
        return None
    state = load_checkpoint(path)
    old, new, step = Settings(**state["settings"]), settings, int(state["step"])
    differing = [key for key, value in asdict(old).items() if key != "steps" and value != asdict(new)[key]]
    moved = any(rate_at(past, old) != rate_at(past, new) for past in range(step))
    if differing or moved or step > new.steps:
        what = ", ".join(differing) or "steps"
        raise CheckpointError(f"{path} is of a run with other settings ({what}): delete it or restore them")
    return state


def train(sampler: Sampler, settings: Settings, checkpoint: Path, every: int = 100) -> UNet:
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

    Returns
    -------
    UNet
        The trained network, in evaluation mode.

    Raises
    ------
    CheckpointError
        If the checkpoint is of a run with other settings.
    """
    torch.set_num_threads(settings.threads)
    torch.use_deterministic_algorithms(mode=True)
    torch.manual_seed(settings.seed)
    network = UNet(base=settings.base)
    optimiser = torch.optim.AdamW(network.parameters(), lr=settings.rate, weight_decay=settings.weight_decay)
    start = 0
    state = _continue(checkpoint, settings)
    if state is not None:
        network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
        start = int(state["step"])
        log.info("continuing at step %d", start)
    network.train()
    mean: list[float] = []
    began = time.monotonic()
    for step, (images, marks) in enumerate(batches(sampler, start, settings.steps), start):
        for group in optimiser.param_groups:
            group["lr"] = rate_at(step, settings)
        entropy, dice = losses(network(normalise(torch.from_numpy(images))), torch.from_numpy(marks).float())
        loss = entropy.sum() + 0.5 * dice.sum()
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        values = torch.cat([entropy, dice]).tolist()
        mean = values if not mean else [0.95 * old + 0.05 * new for old, new in zip(mean, values, strict=True)]
        if (step + 1) % 20 == 0 or step + 1 == settings.steps:
            pace = (time.monotonic() - began) / (step + 1 - start)
            log.info(
                "step %d/%d rate %.2e bce %.4f %.4f dice-loss %.4f %.4f (%.2f s a step)",
                *(step + 1, settings.steps, rate_at(step, settings), *mean, pace),
            )
        if (step + 1) % every == 0 or step + 1 == settings.steps:
            _save(checkpoint, network, optimiser, step + 1, settings)
    network.eval()
    return network
