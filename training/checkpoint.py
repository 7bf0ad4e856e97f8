"""Checkpoints of a training: written at once or not at all, and read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from training.network import UNet


class CheckpointError(Exception):
    """A checkpoint belongs to a run with other settings."""


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint, in place of the last.

    Parameters
    ----------
    path : Path
        The file.
    state : dict
        States of ``network``, ``average`` and ``optimiser``, ``step`` and ``settings``.
    """
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint.

    Parameters
    ----------
    path : Path
        As written by :func:`save`.

    Returns
    -------
    dict
        States of ``network``, ``average`` and ``optimiser``, ``step`` and ``settings``.
    """
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def network_of(state: dict[str, Any]) -> UNet:
    """Build the network of a checkpoint.

    Parameters
    ----------
    state : dict
        From :func:`load`.

    Returns
    -------
    UNet
        With the checkpoint's averaged weights, in evaluation mode.
    """
    network = UNet(base=int(state["settings"]["base"]))
    network.load_state_dict(state["average"])
    network.eval()
    return network
