"""The U-Net: four levels, widths 16 to 256, two output channels, nothing that looks beyond its receptive field.

Only 'same' convolutions with zero padding, 2x2 max-pooling and nearest-neighbour resizing by two are used.  Away
from the border of its input the network is therefore equivariant to shifts by multiples of :data:`GRID` pixels, and
an output pixel depends on no input pixel farther away than :func:`receptive_radius`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

DEPTH = 4
GRID = 2**DEPTH
CHANNELS = ("nucleus", "boundary")


def receptive_radius(depth: int = DEPTH) -> int:
    """Bound, in input pixels, on how far an output pixel looks to each side.

    A tile whose borders lie at multiples of the grid needs a little less: the far end of the reach is that of pixels
    that lie far from the border's side of their grid cell.

    Parameters
    ----------
    depth : int
        Number of poolings.

    Returns
    -------
    int
        A safe upper bound: the reach of the deepest path through the network.
    """
    # Two 3x3 convolutions reach 2 cells; on the way down and, except at the bottom, once more on the way up.
    # A 2x2 pooling or its undoing reaches at most one cell of the finer level.
    reach = 0
    for level in range(depth + 1):
        cell = 2**level
        reach += 2 * cell if level == depth else 4 * cell
        reach += 0 if level == depth else 2 * cell - cell
    return reach


class ConvBlock(nn.Sequential):
    """Twice a 3x3 convolution, batch normalisation and ReLU.

    Parameters
    ----------
    inputs, outputs : int
        Channels in and out.
    momentum : float
        Momentum of the running statistics.
    """

    def __init__(self, inputs: int, outputs: int, momentum: float = 0.03) -> None:
        layers: list[nn.Module] = []
        for first in (inputs, outputs):
            layers += [
                nn.Conv2d(first, outputs, 3, padding=1, bias=False),
                nn.BatchNorm2d(outputs, momentum=momentum),
                nn.ReLU(inplace=True),
            ]
        super().__init__(*layers)


class UNet(nn.Module):
    """U-Net on normalised images.

    Parameters
    ----------
    base : int
        Width of the first level; it doubles at each level.
    depth : int
        Number of poolings.
    outputs : int
        Output channels.
    """

    def __init__(self, base: int = 16, depth: int = DEPTH, outputs: int = len(CHANNELS)) -> None:
        super().__init__()
        widths = [base * 2**level for level in range(depth + 1)]
        self.down = nn.ModuleList(
            ConvBlock(inputs, width) for inputs, width in zip([3, *widths[:-1]], widths, strict=True)
        )
        self.lift = nn.ModuleList(nn.Conv2d(widths[level + 1], widths[level], 1) for level in reversed(range(depth)))
        self.up = nn.ModuleList(ConvBlock(2 * widths[level], widths[level]) for level in reversed(range(depth)))
        self.head = nn.Conv2d(base, outputs, 1)
        if self.head.bias is not None:
            self.head.bias.data -= 2.0  # most pixels are neither nucleus nor boundary

    def forward(self, x: Tensor) -> Tensor:
        """Compute the logits.

        Parameters
        ----------
        x : Tensor
            float32 ``[N, 3, H, W]``, normalised; H and W are multiples of :data:`GRID`.

        Returns
        -------
        Tensor
            float32 ``[N, 2, H, W]``, logits in the order of :data:`CHANNELS`.
        """
        skips: list[Tensor] = []
        for block in list(self.down)[:-1]:
            x = block(x)
            skips.append(x)
            x = functional.max_pool2d(x, 2)
        x = self.down[-1](x)
        for lift, block in zip(self.lift, self.up, strict=True):
            # A 1x1 convolution and nearest resizing commute; the convolution is four times cheaper first.
            x = functional.interpolate(lift(x), scale_factor=2.0, mode="nearest")
            x = block(torch.cat([skips.pop(), x], dim=1))
        logits: Tensor = self.head(x)
        return logits


def normalise(tiles: Tensor) -> Tensor:
    """Turn RGB bytes into what the network is trained on.

    Parameters
    ----------
    tiles : Tensor
        uint8 ``[N, H, W, 3]``, RGB.

    Returns
    -------
    Tensor
        float32 ``[N, 3, H, W]``, -1 to 1.
    """
    return tiles.permute(0, 3, 1, 2).float() * (2.0 / 255.0) - 1.0


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
    base, depth = network.head.in_channels, len(network.up)
    copy = UNet(base=base, depth=depth, outputs=network.head.out_channels)
    copy.load_state_dict(network.state_dict())
    copy.eval()
    for block in [*copy.down, *copy.up]:
        for index in range(0, len(block), 3):
            block[index] = fuse_conv_bn_eval(block[index], block[index + 1])
            block[index + 1] = nn.Identity()
    return copy
