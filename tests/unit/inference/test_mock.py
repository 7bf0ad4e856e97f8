import time

import numpy as np
import pytest

from nuclei_segmentation.operators.filter.inference import Engine
from nuclei_segmentation.operators.filter.inference.mock import MockEngine, darkness
from nuclei_segmentation.shared.errors import InferenceUnavailable


def test_faults_happen_only_at_their_calls():
    tiles = np.zeros((2, 16, 16, 3), np.uint8)
    faults = {1: InferenceUnavailable("gone"), 2: 0.05, 3: lambda pixels: np.full((*pixels.shape[:3], 2), 7, np.uint8)}
    with MockEngine(darkness, faults) as engine:
        assert isinstance(engine, Engine)
        with pytest.raises(InferenceUnavailable, match="gone"):
            engine.infer(tiles)
        start = time.monotonic()
        assert engine.infer(tiles)[..., 0].min() == 255
        assert time.monotonic() - start >= 0.05
        assert (engine.infer(tiles) == 7).all()
        assert engine.infer(tiles + np.uint8(200)).max() == 0
        assert (engine.calls, engine.tiles) == (4, 8)
    assert engine.closed
    assert MockEngine().infer(tiles).shape == (2, 16, 16, 2)
