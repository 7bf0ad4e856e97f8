"""Initial weights from an exported model, to continue its training with the same data or with other data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError  # type: ignore[import-untyped] # no types
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from training.errors import WeightsError
from training.network import Convolution, UNet, normalise


def load_exported_weights(network: UNet, model: Path, images: NDArray[np.uint8]) -> None:
    """Load the weights of an exported model into a network.

    The export folded the batch normalisations into the convolutions. Here each gets new statistics from the images, and
    a scale and a shift that undo the normalisation by them. The network then has the outputs of the model, and can be
    trained further.

    Parameters
    ----------
    network : UNet
        A network with the same widths as the model; it is changed in place.
    model : pathlib.Path
        ONNX file from `training.export.export`, not its int8 sibling.
    images : numpy.ndarray
        (n, h, w, 3) uint8 RGB; more images give better statistics.

    Raises
    ------
    WeightsError
        The file cannot be read, or is another network.
    """
    try:
        graph = onnx.load(model).graph
    except (OSError, DecodeError) as error:
        raise WeightsError(f"{model} cannot be read as an ONNX model: {error}") from None
    weights = {one.name.removeprefix("network."): numpy_helper.to_array(one) for one in graph.initializer}

    def copy(into: Tensor, name: str) -> None:
        if name not in weights or weights[name].shape != tuple(into.shape):
            raise WeightsError(f"{model} is another network: it has no {name} of shape {list(into.shape)}")
        into.copy_(torch.from_numpy(weights[name].copy()))

    with torch.no_grad():
        for name, module in network.named_modules():
            if isinstance(module, nn.Conv2d):
                copy(module.weight, f"{name}.weight")
                if module.bias is not None:
                    copy(module.bias, f"{name}.bias")
            elif isinstance(module, Convolution):
                copy(module[1].bias, f"{name}.0.bias")
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
    """Set a normalisation so that it only adds its bias, that of the folded convolution, to these inputs."""
    variance, mean = torch.var_mean(inputs[0], dim=(0, 2, 3), correction=0)
    norm.weight.copy_(torch.sqrt(variance + norm.eps))
    norm.bias.add_(mean)
    norm.running_mean, norm.running_var = mean.clone(), variance.clone()
