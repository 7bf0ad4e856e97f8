"""models/segmentation_unet_nuclei: Triton's configuration against the graph, and the graph against its promises."""

import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from operators.filter.inference import open_engine
from operators.filter.inference.halo import model_reach
from shared.settings import InferenceSettings, ModelSettings, Settings

FOLDER = Path(__file__).parents[3] / "models" / "segmentation_unet_nuclei"


def parse(text):
    """Read Triton's configuration: `key: value`, `key { ... }`, `key [ ... ]`; repeated keys make lists."""
    tokens = iter(re.findall(r'"[^"]*"|[\w.+-]+|[][{}:,]', re.sub(r"#.*", "", text)))

    def value(token):
        if token == "{":
            return block("}")
        if token == "[":
            items = []
            for item in tokens:
                if item == "]":
                    return items
                if item != ",":
                    items.append(value(item))
        return token.strip('"') if token.startswith('"') else int(token) if re.fullmatch(r"-?\d+", token) else token

    def block(end):
        entries = {}
        for key in tokens:
            if key == end:
                break
            if key == ",":
                continue
            token = next(tokens)
            found = value(next(tokens) if token == ":" else token)
            if key in entries:
                entries[key] = [*(entries[key] if isinstance(entries[key], list) else [entries[key]]), found]
            else:
                entries[key] = found
        return entries

    return block("")


@pytest.fixture(scope="module")
def config():
    return parse((FOLDER / "config.pbtxt").read_text())


@pytest.fixture(scope="module")
def model():
    return onnx.load(FOLDER / "1" / "model.onnx")


def test_configuration_fits_the_graph(config, model):
    types = {onnx.TensorProto.UINT8: "TYPE_UINT8"}
    for told, real in ((config["input"], model.graph.input), (config["output"], model.graph.output)):
        assert [entry["name"] for entry in told] == [entry.name for entry in real]
        for entry, tensor in zip(told, real, strict=True):
            kind = tensor.type.tensor_type
            dims = [dim.dim_value or -1 for dim in kind.shape.dim]
            assert entry["data_type"] == types[kind.elem_type]
            assert dims[0] == -1, "the batch axis must be free"
            assert entry["dims"] == dims[1:]
    assert config["max_batch_size"] >= 8


def test_configuration_is_of_this_model(config):
    assert (FOLDER / "config.pbtxt").read_text().splitlines()[0] == 'name: "segmentation_unet_nuclei"'
    assert config["backend"] == "onnxruntime"


def test_configuration_tells_what_the_metadata_tell(config, model):
    told = {entry["key"]: entry["value"]["string_value"] for entry in config["parameters"]}
    real = {entry.key: entry.value for entry in model.metadata_props}
    assert told["channels"] == real["channels"] == "nucleus,boundary"
    for key in ("mpp_min", "mpp_max"):
        assert float(told[key]) == float(real[key])
    reach = model_reach(model)
    assert int(told["halo"]) >= reach.halo
    assert int(told["halo"]) % reach.grid == 0
    assert int(told.get("grid", reach.grid)) == reach.grid


def test_halo_makes_tiles_equal_to_the_whole_image(model):
    halo = model_reach(model).halo
    session = ort.InferenceSession(str(FOLDER / "1" / "model.onnx"))
    side = 2 * halo + 64
    whole = np.random.default_rng(0).integers(0, 256, (side + 64, side + 64, 3), dtype=np.uint8)
    whole[50:150, 60:160] //= 3
    full = session.run(None, {"tiles": whole[np.newaxis]})[0][0].astype(int)
    inner = slice(halo, halo + 64)
    for top, left in ((16, 48), (64, 0)):
        tile = session.run(None, {"tiles": whole[np.newaxis, top : top + side, left : left + side]})[0][0]
        expected = full[top + halo : top + halo + 64, left + halo : left + halo + 64]
        assert np.abs(tile[inner, inner] - expected).max() <= 1


def test_same_bytes_for_every_batch():
    tiles = np.random.default_rng(0).integers(0, 256, (4, 128, 128, 3), dtype=np.uint8)
    answers = []
    for batch in (1, 4):
        model = ModelSettings(repository=FOLDER.parent)
        with open_engine(Settings(tile=128, model=model, inference=InferenceSettings(batch=batch))) as engine:
            answers.append(engine.infer(tiles))
    np.testing.assert_array_equal(*answers)
