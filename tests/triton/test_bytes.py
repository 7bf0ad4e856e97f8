import numpy as np
import pytest

from operators.filter.inference import open_engine


def random_tiles(count, tile=256, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, tile, tile, 3), dtype=np.uint8)


@pytest.mark.parametrize("batch", [0, 1, 3])
def test_same_bytes_as_the_embedded_engine(server, settings_for, batch):
    tiles = random_tiles(5)
    with open_engine(settings_for()) as engine:
        expected = engine.infer(tiles)
    with open_engine(settings_for(server.address, batch=batch)) as engine:
        assert engine.info.engine == "triton"
        assert engine.info.batch == (batch or 8)
        assert engine.info.channels[0] == "nucleus"
        np.testing.assert_array_equal(engine.infer(tiles), expected)
