# ruff: noqa: E402 - what needs PyTorch is imported once it is known to be there
from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (requirements/training.txt)")

from training.network import GRID, ByteModel, UNet, fold_batch_norm, receptive_radius


@pytest.fixture(scope="module")
def network() -> UNet:
    torch.manual_seed(0)
    network = UNet(base=4)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.2, 0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    return network.eval()


def test_no_pixel_matters_beyond_the_receptive_radius() -> None:
    torch.manual_seed(0)
    network = UNet(base=2).double().eval()
    for parameter in network.parameters():
        torch.nn.init.constant_(parameter, 0.1)  # positive everywhere, so that nothing cancels or is cut off
    radius, middle = receptive_radius(), 20 * GRID
    far = 0
    with torch.no_grad():
        for offset in range(GRID):
            at = middle + offset
            flat = torch.ones((1, 6, 2 * GRID, 40 * GRID), dtype=torch.float64)
            spot = flat.clone()
            spot[:, :, :, at] += 1.0
            columns = torch.nonzero((network(spot) - network(flat)).abs().amax(dim=(0, 1, 2)))
            far = max(far, int((columns - at).abs().max()))
    assert far == radius


def test_is_equivariant_to_shifts_by_the_grid(network: UNet) -> None:
    radius = -(-receptive_radius() // GRID) * GRID
    image = torch.randn((1, 6, 2 * radius + 4 * GRID, 2 * radius + 4 * GRID))
    with torch.no_grad():
        whole = network(image)[:, :, radius + GRID : radius + 3 * GRID, radius + GRID : radius + 3 * GRID]
        part = network(image[:, :, GRID:, GRID:])[:, :, radius : radius + 2 * GRID, radius : radius + 2 * GRID]
    assert torch.allclose(whole, part, atol=1e-5)


def test_folding_batch_normalisation_changes_nothing(network: UNet) -> None:
    image = torch.randn((2, 6, 64, 48))
    folded = fold_batch_norm(network)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    with torch.no_grad():
        assert torch.allclose(network(image), folded(image), atol=1e-4)


def test_takes_and_gives_bytes(network: UNet) -> None:
    tiles = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 32, 48, 3)).astype(np.uint8))
    with torch.no_grad():
        masks = ByteModel(network)(tiles)
    assert masks.dtype == torch.uint8
    assert tuple(masks.shape) == (2, 32, 48, 2)
