"""A real server gives the bytes of the embedded engine, whatever the model's layout."""

import json

import numpy as np
import pytest
import tritonclient.http

from nuclei_segmentation.operators.filter.inference import open_engine
from nuclei_segmentation.operators.filter.inference.triton import kserve
from nuclei_segmentation.operators.filter.inference.triton.connection import Connection
from nuclei_segmentation.shared.errors import ModelError
from tests.helpers.nets import random_tiles
from tests.helpers.triton_server import SHIPPED


@pytest.mark.parametrize("batch", [0, 1, 3])
def test_same_bytes_as_the_embedded_engine(server, settings_for, batch):
    tiles = random_tiles(5)
    with open_engine(settings_for()) as engine:
        expected = engine.infer(tiles)
        embedded = engine.info
    with open_engine(settings_for(server.address, batch=batch)) as engine:
        assert (engine.info.engine, engine.info.batch) == ("triton", batch or 8)
        assert engine.info.channels == embedded.channels
        np.testing.assert_array_equal(engine.infer(tiles), expected)


def test_the_shipped_model_and_configuration(server, settings_for):
    tiles = random_tiles(3)
    with open_engine(settings_for(repository=SHIPPED.parents[1])) as engine:
        expected = engine.infer(tiles)
        embedded = engine.info
    with open_engine(settings_for(server.address, name="shipped")) as engine:
        np.testing.assert_array_equal(engine.infer(tiles), expected)
        assert (engine.info.channels, engine.info.mpp) == (embedded.channels, embedded.mpp)


@pytest.mark.parametrize(("name", "output"), [("planar", "sigmoid"), ("logit", "logit")])
def test_channels_first_floats_without_batches(server, settings_for, nets_folder, name, output):
    tiles = random_tiles(3)
    with open_engine(settings_for(name=name, output=output, repository=nets_folder)) as engine:
        expected = engine.infer(tiles)
    with open_engine(settings_for(server.address, name=name, output=output)) as engine:
        assert engine.info.batch == 1
        np.testing.assert_array_equal(engine.infer(tiles), expected)


def test_same_bytes_as_the_official_client(server):
    """The connection sends what NVIDIA's client sends, and reads what it reads."""
    tiles = random_tiles(2)
    client = tritonclient.http.InferenceServerClient(server.address)
    tensor = tritonclient.http.InferInput("tiles", list(tiles.shape), "UINT8")
    tensor.set_data_from_numpy(tiles)
    expected = client.infer("segmentation_unet_nuclei", [tensor]).as_numpy("masks")
    metadata = client.get_model_metadata("segmentation_unet_nuclei")
    client.close()
    connection = Connection("127.0.0.1", server.port)
    (masks,) = kserve.infer(connection, "segmentation_unet_nuclei", "7", ("tiles", "UINT8"), tiles, ["masks"], 10.0)
    assert kserve.query(connection, kserve.model_path("segmentation_unet_nuclei"), 10.0) == json.loads(
        json.dumps(metadata)
    )
    connection.disconnect()
    np.testing.assert_array_equal(masks, expected)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nan", "ranges from nan to nan"),
        ("logit", "set models.output to logit"),
        ("cropped", "was returned with shape|has a map of"),
        ("small", "use -t 64"),
        ("absent", "the server has no model absent .* available models: .*segmentation_unet_nuclei"),
        ("broken", "the server could not load model broken"),
    ],
)
def test_models_that_do_not_fit_are_refused(server, settings_for, name, message):
    with pytest.raises(ModelError, match=message) as caught:
        open_engine(settings_for(server.address, name=name))
    assert caught.value.exit_code == 15
    assert "\n" not in str(caught.value)
