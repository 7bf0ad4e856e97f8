"""Checkpoints of a training run. They are written atomically."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from training.errors import CheckpointError
from training.network import UNet


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint; it replaces the previous one.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    state : dict of str to Any
        The states of ``network``, ``average`` and ``optimiser``, the ``step`` and the ``settings``.
    """
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint.

    Parameters
    ----------
    path : pathlib.Path
        A file written by `save`.

    Returns
    -------
    dict of str to Any
        The states of ``network``, ``average`` and ``optimiser``, the ``step`` and the ``settings``.

    Raises
    ------
    CheckpointError
        The file is not a checkpoint.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception:  # PyTorch raises errors of many types for other files
        raise CheckpointError(f"{path} is not a checkpoint, or is damaged") from None
    if not isinstance(state, dict) or not set(state) >= {"network", "average", "optimiser", "step", "settings"}:
        raise CheckpointError(f"{path} is not a checkpoint of this training")
    return state


def network_of(state: dict[str, Any]) -> UNet:
    """Return the network of a checkpoint.

    Parameters
    ----------
    state : dict of str to Any
        From `load`.

    Returns
    -------
    UNet
        With the averaged weights, in evaluation mode.
    """
    network = UNet(base=int(state["settings"]["base"]))
    network.load_state_dict(state["average"])
    network.eval()
    return network
