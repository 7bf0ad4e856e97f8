"""A U-Net that works at half resolution and coarser, with two output channels and a bounded receptive field.

A plain U-Net spends most of its time on convolutions with few channels at full resolution. Here the first convolution
halves the image, and the last one computes four fine pixels for each coarse one (pixel shuffle). Skip connections are
added, not concatenated. That is half the work of a plain U-Net of base 16, with the same capacity at the coarse levels.

The network uses only convolutions with zero padding, nearest-neighbour resizing by two, and pixel shuffle. Away from
the border of its input it is therefore equivariant to shifts by multiples of `GRID` pixels, and an output pixel depends
on no input pixel that is farther away than `receptive_radius`.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

LEVELS = 4
GRID = 2**LEVELS
CHANNELS = ("nucleus", "distance")

WIDTHS = (2, 3, 6, 12)
"""Channels of the levels, in units of the base."""
DOWN = (1, 1, 2, 2)
"""3 × 3 convolutions of each level in the encoder."""
UP = (1, 2, 2)
"""3 × 3 convolutions of each level in the decoder."""


def receptive_radius() -> int:
    """Return the radius of the receptive field, in input pixels.

    Returns
    -------
    int
        The greatest distance between an output pixel and an input pixel that it depends on, along one axis. Output
        pixels at all positions in a grid cell are considered.
    """
    farthest = 0
    for position in range(GRID):
        low = high = position
        for level in range(LEVELS):  # the decoder, from the output; the head is one more convolution
            convolutions = (*UP, 0)[level] + (1 if level == 0 else 0)
            low, high = low // 2 - convolutions, high // 2 + convolutions
        for level in reversed(range(LEVELS)):  # the encoder, up to the image
            low, high = low - DOWN[level], high + DOWN[level]
            low, high = (2 * low - 1, 2 * high + 1) if level else (2 * low - 2, 2 * high + 3)
        farthest = max(farthest, position - low, high - position)
    return farthest


class Convolution(nn.Sequential):
    """A convolution, batch normalisation and ReLU.

    Parameters
    ----------
    inputs : int
        Input channels.
    outputs : int
        Output channels.
    kernel : int
        Side of the kernel, in pixels.
    stride : int
        Stride; the padding is such that the output has the size of the input divided by the stride.
    momentum : float
        Momentum of the running statistics of the batch normalisation.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, momentum: float = 0.03) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, bias=False),
            nn.BatchNorm2d(outputs, momentum=momentum),
            nn.ReLU(inplace=True),
        )


class UNet(nn.Module):
    """The network; its input is a normalised image.

    Parameters
    ----------
    base : int
        Unit of the channels of each level (see `WIDTHS`).
    """

    def __init__(self, base: int = 16) -> None:
        super().__init__()
        widths = [base * width for width in WIDTHS]
        before = [6, *widths[:-1]]

        def block(width: int, count: int) -> nn.Sequential:
            return nn.Sequential(*(Convolution(width, width) for _ in range(count)))

        self.halve = nn.ModuleList(
            Convolution(inputs, width, 3 if level else 6, 2)
            for level, (inputs, width) in enumerate(zip(before, widths, strict=True))
        )
        self.down = nn.ModuleList(block(width, count) for width, count in zip(widths, DOWN, strict=True))
        levels = range(LEVELS - 2, -1, -1)
        self.lift = nn.ModuleList(nn.Conv2d(widths[level + 1], widths[level], 1) for level in levels)
        self.up = nn.ModuleList(block(widths[level], UP[level]) for level in levels)
        self.head = nn.Conv2d(widths[0], 4 * len(CHANNELS), 3, padding=1)
        if self.head.bias is not None:
            self.head.bias.data -= 2.0  # most pixels are background

    def forward(self, x: Tensor) -> Tensor:
        """Compute the logits.

        Parameters
        ----------
        x : torch.Tensor
            (n, 6, h, w) float32 from `normalise`; h and w are multiples of `GRID`.

        Returns
        -------
        torch.Tensor
            (n, 2, h, w) float32 logits, in the order of `CHANNELS`.
        """
        skips: list[Tensor] = []
        for halve, block in zip(self.halve, self.down, strict=True):
            x = block(halve(x))
            skips.append(x)
        skips.pop()
        for lift, block in zip(self.lift, self.up, strict=True):
            # A 1 × 1 convolution and nearest-neighbour resizing commute; the convolution is four times cheaper first.
            x = functional.interpolate(lift(x), scale_factor=2.0, mode="nearest")
            x = block(functional.relu(x + skips.pop()))
        return functional.pixel_shuffle(self.head(x), 2)


def normalise(tiles: Tensor) -> Tensor:
    """Normalise RGB bytes for the network.

    Parameters
    ----------
    tiles : torch.Tensor
        (n, h, w, 3) uint8 RGB.

    Returns
    -------
    torch.Tensor
        (n, 6, h, w) float32, -1 to 1: the colours and their square roots, which spread dim values.
    """
    light = tiles.permute(0, 3, 1, 2).float() * (1.0 / 255.0)
    return torch.cat([light, torch.sqrt(light)], dim=1) * 2.0 - 1.0


class ByteModel(nn.Module):
    """The network as it is exported: bytes in, bytes out.

    Parameters
    ----------
    network : UNet
        A network in evaluation mode, usually from `fold_batch_norm`.
    """

    def __init__(self, network: UNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, tiles: Tensor) -> Tensor:
        """Compute the maps of tiles.

        Parameters
        ----------
        tiles : torch.Tensor
            (n, h, w, 3) uint8 RGB.

        Returns
        -------
        torch.Tensor
            (n, h, w, 2) uint8: ``round(255 * value)`` of each map.
        """
        probability = torch.sigmoid(self.network(normalise(tiles)))
        return torch.round(probability * 255.0).to(torch.uint8).permute(0, 2, 3, 1)


def fold_batch_norm(network: UNet) -> UNet:
    """Return a copy of a network with each batch normalisation folded into its convolution.

    Parameters
    ----------
    network : UNet
        A trained network; it is not changed.

    Returns
    -------
    UNet
        The copy, in evaluation mode.
    """
    folded: UNet = copy.deepcopy(network).eval()
    for module in folded.modules():
        if isinstance(module, Convolution):
            module[0] = fuse_conv_bn_eval(module[0], module[1])
            module[1] = nn.Identity()
    return folded
