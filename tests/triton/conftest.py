"""One server with all models, started once for all tests of this folder."""

import os

import pytest

from nuclei_segmentation.shared.settings import InferenceSettings, ModelsSettings, Settings
from tests.helpers import nets
from tests.helpers.nets import SIZE
from tests.helpers.triton_server import TritonServer, add_model, add_shipped_model, is_installed


@pytest.fixture(scope="session", autouse=True)
def _real_server():
    if is_installed():
        return
    reason = "no Triton server in .venv-triton: run `make triton` (370 MiB)"
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def onnx_file(tmp_path_factory):
    """A small network with the tensors of the bundled model, in a repository for the embedded engine."""
    folder = tmp_path_factory.mktemp("embedded")
    return nets.unet(folder / "segmentation_unet_nuclei" / "1" / "model.onnx", base=4, depth=2)


@pytest.fixture(scope="session")
def nets_folder(tmp_path_factory):
    """The files of the models of other layouts, as a repository for the embedded engine."""
    return tmp_path_factory.mktemp("onnx")


@pytest.fixture(scope="session")
def repository(onnx_file, nets_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("repository")
    add_shipped_model(folder, onnx_file)
    add_shipped_model(folder, name="shipped")
    out = nets_folder
    image, free = ("image", "TYPE_FP32", [3, SIZE, SIZE]), ("tiles", "TYPE_UINT8", [-1, -1, 3])
    maps = ("masks", "TYPE_UINT8", [-1, -1, 2])

    def probability(size=SIZE):
        return [("probability", "TYPE_FP32", [1, size, size])]

    planar = nets.planar
    add_model(folder, "planar", planar(out / "planar" / "1" / "model.onnx"), image, probability())
    add_model(folder, "logit", planar(out / "logit" / "1" / "model.onnx", ending=None), image, probability())
    add_model(folder, "nan", planar(out / "nan" / "1" / "model.onnx", ending="nan"), image, probability())
    add_model(folder, "cropped", planar(out / "cropped" / "1" / "model.onnx", crop=16), image, probability(-1))
    small, path = ("image", "TYPE_FP32", [3, 64, 64]), out / "small" / "1" / "model.onnx"
    add_model(folder, "small", planar(path, size=64), small, probability(64))
    add_model(folder, "broken", onnx_file, free, [maps])
    (folder / "broken" / "1" / "model.onnx").write_bytes(b"broken")
    add_model(folder, "slow", onnx_file, free, [maps], max_batch=8, delay=3)
    return folder


@pytest.fixture(scope="session")
def server(repository, tmp_path_factory):
    with TritonServer(repository, tmp_path_factory.mktemp("log") / "server.log") as running:
        yield running


@pytest.fixture
def settings_for(onnx_file):
    def make(*addresses, name="segmentation_unet_nuclei", output="sigmoid", repository=None, **inference):
        folder = repository or onnx_file.parents[2]
        return Settings(
            tile_size=SIZE,
            triton_servers=addresses,
            triton_variable="NVIDIA_CLARA_TRTISURI" if addresses else "",
            model_name=name,
            models=ModelsSettings(repository=folder, output=output, input_scale=1 / 255),
            inference=InferenceSettings(**inference),
        )

    return make
