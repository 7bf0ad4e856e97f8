"""A U-Net that works at half resolution and coarser, with two output channels and a bounded view.

Most of the time of a plain U-Net goes into convolutions with few channels at full resolution.  Here the first
convolution halves the image, the last one gives each coarse pixel its four fine ones (pixel shuffle), and upward the
skips are added, not concatenated: half the work of a plain U-Net of base 16, with as much room in the depths.

Only convolutions with zero padding, nearest-neighbour resizing by two and pixel shuffle are used.  Away from the border
of its input the network is therefore equivariant to shifts by multiples of :data:`GRID` pixels, and an output pixel
depends on no input pixel farther away than :func:`receptive_radius`.
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

# Widths of the levels in units of the base, and 3x3 convolutions on the way down and on the way up.
WIDTHS = (2, 3, 6, 12)
DOWN = (1, 1, 2, 2)
UP = (1, 2, 2)


def receptive_radius() -> int:
    """Tell how far, in input pixels, an output pixel looks to each side at most.

    Returns
    -------
    int
        The greatest distance, over all places of the output pixel in its grid cell.
    """
    farthest = 0
    for place in range(GRID):
        low = high = place
        for level in range(LEVELS):  # upward, from the answer to the depths; the head is one more convolution
            convolutions = (*UP, 0)[level] + (1 if level == 0 else 0)
            low, high = low // 2 - convolutions, high // 2 + convolutions
        for level in reversed(range(LEVELS)):  # downward, from the depths to the image
            low, high = low - DOWN[level], high + DOWN[level]
            low, high = (2 * low - 1, 2 * high + 1) if level else (2 * low - 2, 2 * high + 3)
        farthest = max(farthest, place - low, high - place)
    return farthest


class Convolution(nn.Sequential):
    """A convolution, batch normalisation and ReLU.

    Parameters
    ----------
    inputs, outputs : int
        Channels in and out.
    kernel, stride : int
        Side of the kernel, and step; the padding gives an answer of the input's size divided by the stride.
    momentum : float
        Momentum of the running statistics.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, momentum: float = 0.03) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, bias=False),
            nn.BatchNorm2d(outputs, momentum=momentum),
            nn.ReLU(inplace=True),
        )


class UNet(nn.Module):
    """The network, on normalised images.

    Parameters
    ----------
    base : int
        Unit of the widths.
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
            self.head.bias.data -= 2.0  # most pixels are no nucleus

    def forward(self, x: Tensor) -> Tensor:
        """Compute the logits.

        Parameters
        ----------
        x : Tensor
            float32 ``[N, 6, H, W]``, from :func:`normalise`; H and W are multiples of :data:`GRID`.

        Returns
        -------
        Tensor
            float32 ``[N, 2, H, W]``, logits in the order of :data:`CHANNELS`.
        """
        skips: list[Tensor] = []
        for halve, block in zip(self.halve, self.down, strict=True):
            x = block(halve(x))
            skips.append(x)
        skips.pop()
        for lift, block in zip(self.lift, self.up, strict=True):
            # A 1x1 convolution and nearest resizing commute; the convolution is four times cheaper first.
            x = functional.interpolate(lift(x), scale_factor=2.0, mode="nearest")
            x = block(functional.relu(x + skips.pop()))
        return functional.pixel_shuffle(self.head(x), 2)


def normalise(tiles: Tensor) -> Tensor:
    """Turn RGB bytes into what the network is trained on.

    Parameters
    ----------
    tiles : Tensor
        uint8 ``[N, H, W, 3]``, RGB.

    Returns
    -------
    Tensor
        float32 ``[N, 6, H, W]``, -1 to 1: the colours, and their square roots, which spread out what is dim.
    """
    light = tiles.permute(0, 3, 1, 2).float() * (1.0 / 255.0)
    return torch.cat([light, torch.sqrt(light)], dim=1) * 2.0 - 1.0


class ByteModel(nn.Module):
    """The network between bytes and bytes, as it is exported.

    Parameters
    ----------
    network : UNet
        A network in evaluation mode, usually from :func:`fold_batch_norm`.
    """

    def __init__(self, network: UNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, tiles: Tensor) -> Tensor:
        """Segment tiles.

        Parameters
        ----------
        tiles : Tensor
            uint8 ``[N, H, W, 3]``, RGB.

        Returns
        -------
        Tensor
            uint8 ``[N, H, W, 2]``, ``round(255 * probability)``.
        """
        probability = torch.sigmoid(self.network(normalise(tiles)))
        return torch.round(probability * 255.0).to(torch.uint8).permute(0, 2, 3, 1)


def fold_batch_norm(network: UNet) -> UNet:
    """Copy a network with every batch normalisation folded into its convolution.

    Parameters
    ----------
    network : UNet
        A trained network; left unchanged.

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
