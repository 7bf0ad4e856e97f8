"""Starts a training from a model that was exported: to go on with other data, or with one's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError  # type: ignore[import-untyped] # no types
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from training.network import Convolution, UNet, normalise


class StartError(Exception):
    """The model is none that this training can start from."""


def start_from(network: UNet, model: Path, images: NDArray[np.uint8]) -> None:
    """Give a network the weights of an exported model.

    The export has folded the batch normalisations into the convolutions. Here each gets back what it normalises by,
    from the images, and a scale and a shift that undo just that: the network answers as the model does, and can be
    trained.

    Parameters
    ----------
    network : UNet
        Of the same widths as the model's; changed in place.
    model : Path
        As written by :func:`training.export.export`, not its int8 sibling.
    images : ndarray
        uint8 ``[N, H, W, 3]``; the more the better.

    Raises
    ------
    StartError
        The file cannot be read, or holds another network.
    """
    try:
        graph = onnx.load(model).graph
    except (OSError, DecodeError) as error:
        raise StartError(f"{model} cannot be read as an ONNX model: {error}") from error
    given = {one.name.removeprefix("network."): numpy_helper.to_array(one) for one in graph.initializer}

    def take(into: Tensor, name: str) -> None:
        if name not in given or given[name].shape != tuple(into.shape):
            raise StartError(f"{model} is not of this network: it has no {name} of shape {list(into.shape)}")
        into.copy_(torch.from_numpy(given[name].copy()))

    with torch.no_grad():
        for name, module in network.named_modules():
            if isinstance(module, nn.Conv2d):
                take(module.weight, f"{name}.weight")
                if module.bias is not None:
                    take(module.bias, f"{name}.bias")
            elif isinstance(module, Convolution):
                take(module[1].bias, f"{name}.0.bias")
        hooks = [
            module.register_forward_pre_hook(_undo)
            for module in network.modules()
            if isinstance(module, nn.BatchNorm2d)
        ]
        network.train()
        network(normalise(torch.from_numpy(images)))
        for hook in hooks:
            hook.remove()


def _undo(norm: nn.BatchNorm2d, inputs: tuple[Tensor]) -> None:
    """Let a normalisation, whose bias is that of the folded convolution, do nothing to these inputs but add that."""
    variance, mean = torch.var_mean(inputs[0], dim=(0, 2, 3), correction=0)
    norm.weight.copy_(torch.sqrt(variance + norm.eps))
    norm.bias.add_(mean)
    norm.running_mean, norm.running_var = mean.clone(), variance.clone()
