"""The settings of a training run. PyTorch is not needed to read them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TrainingSettings:
    """What determines the weights, apart from the data.

    Checkpoints hold these names.

    Attributes
    ----------
    steps : int
        Number of optimiser steps.
    batch : int
        Crops in a batch.
    size : int
        Side of a crop, in pixels.
    rate : float
        Learning rate of the plateau.
    warmup : int
        Steps over which the learning rate rises.
    decay : float
        Share of the steps, at the end, over which the learning rate falls to zero along a cosine.
    weight_decay : float
        Weight decay of AdamW.
    average : float
        Decay of the moving average of the weights in each step. The average is the result.
    seed : int
        Seed of the initial weights and of the batches.
    base : int
        Unit of the network's widths.
    threads : int
        Threads of PyTorch. They decide the order of its sums, and so the last bits.
    lessons : tuple of int
        Steps at which the network, as trained so far, computes pseudo-labels for the slides without annotation.
    start : str
        SHA-256 of the exported model that provides the initial weights; empty for random weights.
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
