"""Every model in models/: its configuration for Triton fits the graph, and the graph does what the metadata say."""

import hashlib
import re
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import onnxruntime as ort
import pytest

from nuclei_segmentation.operators.filter.inference import open_engine
from nuclei_segmentation.operators.filter.inference.embedded.receptive_field import receptive_field
from nuclei_segmentation.shared.settings import InferenceSettings, ModelsSettings, Settings

MODELS = Path(__file__).parents[3] / "models"
INT8 = "_int8"


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


@pytest.fixture(scope="module", params=sorted(path.parent.name for path in MODELS.glob("*/config.pbtxt")))
def name(request):
    return request.param


@pytest.fixture(scope="module")
def config(name):
    return parse((MODELS / name / "config.pbtxt").read_text())


@pytest.fixture(scope="module")
def model(name):
    return onnx.load(MODELS / name / "1" / "model.onnx")


def test_configuration_fits_the_graph(config, model):
    types = {onnx.TensorProto.UINT8: "TYPE_UINT8"}
    for configured, real in ((config["input"], model.graph.input), (config["output"], model.graph.output)):
        assert [entry["name"] for entry in configured] == [entry.name for entry in real]
        for entry, tensor in zip(configured, real, strict=True):
            kind = tensor.type.tensor_type
            dims = [dim.dim_value or -1 for dim in kind.shape.dim]
            assert entry["data_type"] == types[kind.elem_type]
            assert dims[0] == -1, "the batch axis must be free"
            assert entry["dims"] == dims[1:]
    assert config["max_batch_size"] >= 8


def test_the_profile_for_gpus_differs_in_instances_and_queue_delay_only(name, config):
    path = MODELS / name / "configs" / "gpu.pbtxt"
    if name.endswith(INT8):
        assert not path.exists(), "int8 is for CPUs"
        assert config["instance_group"][0]["kind"] == "KIND_CPU"
        return
    profile = parse(path.read_text())
    assert profile.pop("instance_group") == [{"count": 2, "kind": "KIND_GPU"}]
    assert profile.pop("dynamic_batching") == {"max_queue_delay_microseconds": 500}
    assert profile == {key: value for key, value in config.items() if key not in ("instance_group", "dynamic_batching")}


def test_configuration_is_of_this_model(name, config):
    assert (MODELS / name / "config.pbtxt").read_text().splitlines()[0] == f'name: "{name}"'
    assert config["backend"] == "onnxruntime"


def test_a_shipped_model_is_small(name):
    assert (MODELS / name / "1" / "model.onnx").stat().st_size <= (2_500_000 if name.endswith(INT8) else 8_000_000)


def test_a_sibling_was_made_from_its_model_and_all_processors_agree_on_it(name, model):
    """With weights of 7 bits, two products fit in the 16 bits in which processors without VNNI add them."""
    made_from = {entry.key: entry.value for entry in model.metadata_props}.get("quantised_from")
    assert (made_from is not None) == name.endswith(INT8)
    if made_from is not None:
        original = MODELS / name.removesuffix(INT8) / "1" / "model.onnx"
        assert made_from == hashlib.sha256(original.read_bytes()).hexdigest()
        weights = [
            onnx.numpy_helper.to_array(tensor)
            for tensor in model.graph.initializer
            if tensor.data_type == onnx.TensorProto.INT8
        ]
        assert len(weights) > 10
        assert max(np.abs(array.astype(int)).max() for array in weights) <= 64


def test_configuration_says_what_the_metadata_say(config, model):
    configured = {entry["key"]: entry["value"]["string_value"] for entry in config["parameters"]}
    real = {entry.key: entry.value for entry in model.metadata_props}
    assert configured["channels"] == real["channels"]
    assert configured["channels"].split(",")[0] == "nucleus"
    for key in ("mpp_min", "mpp_max"):
        assert float(configured[key]) == float(real[key])
    field = receptive_field(model)
    assert int(configured["halo"]) >= field.halo
    assert int(configured["halo"]) % field.grid == 0
    assert int(configured.get("grid", field.grid)) == field.grid


def test_halo_makes_tiles_equal_to_the_whole_image(name, model):
    halo = receptive_field(model).halo
    session = ort.InferenceSession(str(MODELS / name / "1" / "model.onnx"))
    side = 2 * halo + 64
    whole = np.random.default_rng(0).integers(0, 256, (side + 64, side + 64, 3), dtype=np.uint8)
    whole[50:150, 60:160] //= 3
    full = session.run(None, {"tiles": whole[np.newaxis]})[0][0].astype(int)
    inner = slice(halo, halo + 64)
    for top, left in ((16, 48), (64, 0)):
        tile = session.run(None, {"tiles": whole[np.newaxis, top : top + side, left : left + side]})[0][0]
        expected = full[top + halo : top + halo + 64, left + halo : left + halo + 64]
        assert np.abs(tile[inner, inner] - expected).max() <= 1


def test_same_bytes_for_every_batch(name):
    tiles = np.random.default_rng(0).integers(0, 256, (4, 128, 128, 3), dtype=np.uint8)
    results = []
    for batch in (1, 4):
        models = ModelsSettings(MODELS)
        with open_engine(
            Settings(tile_size=128, model_name=name, models=models, inference=InferenceSettings(batch=batch))
        ) as engine:
            results.append(engine.infer(tiles))
    np.testing.assert_array_equal(*results)
