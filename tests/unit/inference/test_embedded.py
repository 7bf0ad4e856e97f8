"""The embedded engine: which model it uses, what it computes, and what it refuses."""

import hashlib
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from nuclei_segmentation.operators.filter.inference import open_engine
from nuclei_segmentation.operators.filter.inference.embedded import engine as embedded
from nuclei_segmentation.operators.filter.inference.embedded import model_files
from nuclei_segmentation.operators.filter.inference.trial import trial_tile
from nuclei_segmentation.shared.errors import ModelError
from nuclei_segmentation.shared.settings import InferenceSettings, ModelsSettings, Settings
from tests.helpers import nets


@pytest.fixture
def repository(tmp_path):
    nets.unet(tmp_path / "segmentation_unet_nuclei" / "1" / "model.onnx")
    return tmp_path


def settings_of(repository, name="segmentation_unet_nuclei", tile=64, batch=0, **model):
    return Settings(
        tile_size=tile,
        model_name=name,
        models=ModelsSettings(repository, **model),
        inference=InferenceSettings(batch=batch),
    )


def tiles(count, tile=64):
    return np.random.default_rng(1).integers(0, 256, (count, tile, tile, 3), dtype=np.uint8)


def test_same_bytes_for_every_batch_and_number_of_threads(repository):
    pixels = tiles(12)
    results = []
    for batch in (1, 4, 12):
        with open_engine(settings_of(repository, batch=batch)) as engine:
            assert engine.in_flight is None
            results.append(engine.infer(pixels))
            for threads in (1, 2, 4):
                with ThreadPoolExecutor(threads) as pool:
                    parts = list(pool.map(engine.infer, np.array_split(pixels, 5)))
                results.append(np.concatenate(parts))
    assert results[0].std() > 10
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


def test_the_engine_describes_its_model(repository):
    with open_engine(settings_of(repository, tile=256)) as engine:
        info = engine.info
    assert (info.engine, info.channels, info.mpp) == ("embedded", ("nucleus", "distance"), (0.2, 0.6))
    assert (info.halo, info.grid) == (24, 4)
    assert info.batch == 5, "as many tiles of this small net as fit in 32 MiB"
    assert re.fullmatch(r"[0-9a-f]{64}:fp32", info.identity)


def test_the_identity_depends_on_the_content(repository, tmp_path):
    first = open_engine(settings_of(repository)).info.identity
    nets.unet(tmp_path / "other" / "1" / "model.onnx", seed=5)
    assert open_engine(settings_of(repository, "other")).info.identity != first


def test_weights_in_another_file_are_part_of_the_identity(repository):
    path = repository / "segmentation_unet_nuclei" / "1" / "model.onnx"
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="weights", size_threshold=200)
    first = open_engine(settings_of(repository)).info
    weights = bytearray((path.parent / "weights").read_bytes())
    weights[-1] ^= 1
    (path.parent / "weights").write_bytes(weights)
    second = open_engine(settings_of(repository)).info
    assert first.identity != second.identity
    assert first.halo == second.halo == 24
    (path.parent / "weights").unlink()
    with pytest.raises(ModelError, match="weights cannot be read"):
        open_engine(settings_of(repository))


def test_highest_version_by_number(repository):
    for version in ("2", "10", "draft"):
        nets.unet(repository / "segmentation_unet_nuclei" / version / "model.onnx", seed=int(version, 36))
    assert model_files.find_model(repository, "segmentation_unet_nuclei").parent.name == "10"


def test_missing_model_lists_the_available_ones(repository, monkeypatch):
    with pytest.raises(ModelError, match=r"model nuclei .* is missing: .* available models: segmentation_unet_nuclei$"):
        open_engine(settings_of(repository, "nuclei"))
    for name in ("", "..", "a/b"):
        with pytest.raises(ModelError, match="not a model's name"):
            open_engine(settings_of(repository, name))
    with pytest.raises(ModelError, match="not a folder"):
        open_engine(settings_of(repository / "nowhere"))
    monkeypatch.setattr(model_files, "DEFAULT_REPOSITORIES", (repository / "a", repository / "b"))
    with pytest.raises(ModelError, match=r"no model repository at .*a or .*b"):
        open_engine(settings_of(None))
    monkeypatch.setattr(model_files, "DEFAULT_REPOSITORIES", (repository / "a", repository))
    open_engine(settings_of(None)).close()


@pytest.mark.parametrize("content", [b"", b"not a model", None])
def test_a_corrupt_model_file_is_refused(repository, content):
    path = repository / "segmentation_unet_nuclei" / "1" / "model.onnx"
    path.write_bytes(path.read_bytes()[:5000] if content is None else content)
    with pytest.raises(ModelError, match=r"model\.onnx") as caught:
        open_engine(settings_of(repository))
    assert "\n" not in str(caught.value)


def test_float_model_without_batches(tmp_path):
    nets.planar(tmp_path / "planar" / "1" / "model.onnx", size=64)
    with open_engine(settings_of(tmp_path, "planar", input_scale=1 / 255)) as engine:
        maps = engine.infer(tiles(3))
        assert engine.info.batch == 1
        assert engine.info.channels == ("nucleus",)
    assert maps.shape == (3, 64, 64, 1)
    assert maps.std() > 5


def test_sigmoid_outside_equals_sigmoid_inside(tmp_path):
    maps = []
    for name, ending, output in (("inside", "Sigmoid", "sigmoid"), ("outside", None, "logit")):
        nets.planar(tmp_path / name / "1" / "model.onnx", size=64, ending=ending)
        with open_engine(settings_of(tmp_path, name, input_scale=1 / 255, output=output)) as engine:
            maps.append(engine.infer(tiles(2)).astype(int))
    assert np.abs(maps[0] - maps[1]).max() <= 1


def test_fixed_batch_of_half_floats(tmp_path):
    nets.planar(tmp_path / "four" / "1" / "model.onnx", "S", batch=4, rank=4, dtype=TensorProto.FLOAT16)
    nets.planar(tmp_path / "any" / "1" / "model.onnx", "S", rank=4, dtype=TensorProto.FLOAT16)
    maps = []
    for name in ("four", "any"):
        with open_engine(settings_of(tmp_path, name, input_scale=1 / 255)) as engine:
            maps.append(engine.infer(tiles(5)))
    assert maps[0].shape == (5, 64, 64, 1)
    np.testing.assert_array_equal(maps[0], maps[1])


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ({"ending": "nan"}, "model odd: output 'probability' .* ranges from nan to nan"),
        ({"ending": None}, "expected probabilities, 0 to 1; set models.output to logit"),
        ({"crop": 16}, "has a map of 64 by 48 pixels for a tile of 64: another size than its input"),
        ({"size": 256}, "model odd: input 'image' .* use -t 256"),
    ],
)
def test_unfit_models_are_refused_before_work_begins(tmp_path, kind, message):
    nets.planar(tmp_path / "odd" / "1" / "model.onnx", **{"size": 64, **kind})
    with pytest.raises(ModelError, match=message):
        open_engine(settings_of(tmp_path, "odd"))


def test_tile_size_that_the_network_cannot_halve(tmp_path):
    nets.unet(tmp_path / "deep" / "1" / "model.onnx", depth=5, base=2)
    open_engine(settings_of(tmp_path, "deep", tile=64)).close()
    with pytest.raises(ModelError, match=r"fails on an input of shape \[1, 48, 48, 3\]"):
        open_engine(settings_of(tmp_path, "deep", tile=48))


def test_nucleus_comes_first_whatever_the_order_in_the_model(repository):
    path = repository / "segmentation_unet_nuclei" / "1" / "model.onnx"
    with open_engine(settings_of(repository)) as engine:
        as_is = engine.infer(tiles(1))
    model = onnx.load(path)
    next(entry for entry in model.metadata_props if entry.key == "channels").value = "distance, nucleus"
    onnx.save(model, path)
    with open_engine(settings_of(repository)) as engine:
        assert engine.info.channels == ("nucleus", "distance")
        np.testing.assert_array_equal(engine.infer(tiles(1)), as_is[..., ::-1])
    next(entry for entry in model.metadata_props if entry.key == "channels").value = "nucleus"
    onnx.save(model, path)
    with pytest.raises(ModelError, match="names the channels 'nucleus', but it returns 2 maps"):
        open_engine(settings_of(repository))


def test_no_tiles_no_maps(repository):
    with open_engine(settings_of(repository)) as engine:
        assert engine.infer(tiles(0)).shape == (0, 64, 64, 2)


def test_the_trial_tile_is_textured_and_always_the_same():
    tile = trial_tile(80)
    assert tile.shape == (1, 80, 80, 3)
    assert tile.min() == 0
    assert tile.max() == 255
    np.testing.assert_array_equal(tile, trial_tile(80))


def test_wrong_metadata_is_named(repository):
    path = repository / "segmentation_unet_nuclei" / "1" / "model.onnx"
    model = onnx.load(path)
    next(entry for entry in model.metadata_props if entry.key == "mpp_min").value = "small"
    onnx.save(model, path)
    with pytest.raises(ModelError, match="mpp_min"):
        open_engine(settings_of(repository))


_PEAK = """
import sys, threading, numpy as np
from pathlib import Path
from nuclei_segmentation.operators.filter.inference import open_engine
from nuclei_segmentation.shared.settings import Settings, ModelsSettings

def anonymous():
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("RssAnon"))

tile, workers = 512, 2
pixels = np.zeros((1, tile, tile, 3), np.uint8)
before = anonymous()
engine = open_engine(Settings(tile_size=tile, models=ModelsSettings(Path(sys.argv[1]))))
done, peak = threading.Event(), [0]

def watch():
    while not done.wait(0.002):
        peak[0] = max(peak[0], anonymous())

threads = [threading.Thread(target=lambda: [engine.infer(pixels) for _ in range(2)]) for _ in range(workers)]
watcher = threading.Thread(target=watch)
watcher.start()
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
done.set()
watcher.join()
print(peak[0] - before, engine.memory_needed(tile, workers))
"""


def test_memory_is_as_estimated(tmp_path):
    nets.unet(tmp_path / "segmentation_unet_nuclei" / "1" / "model.onnx", base=16, depth=1)
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", _PEAK, tmp_path], capture_output=True, text=True, check=True, cwd=root)
    peak, needed = map(int, done.stdout.split())
    # The runtime itself takes some 25 MiB when it is first used.
    assert 0.4 * needed < peak < needed + (40 << 20)


def test_triton_is_never_replaced_by_the_embedded_engine(repository):
    settings = replace(settings_of(repository), triton_servers=("127.0.0.1:99999",))
    with pytest.raises(Exception, match="99999"):
        open_engine(settings)


def quantised(repository, made_from):
    """Add another net to the repository, as the int8 sibling of the first."""
    path = repository / "segmentation_unet_nuclei_int8" / "3" / "model.onnx"
    nets.unet(path, seed=7)
    model = onnx.load(path)
    entry = model.metadata_props.add()
    entry.key, entry.value = "quantised_from", made_from
    onnx.save(model, path)
    return path


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_int8_sibling_is_used_unless_the_settings_say_fp32(repository):
    own = repository / "segmentation_unet_nuclei" / "1" / "model.onnx"
    with open_engine(settings_of(repository)) as engine:
        plain = engine.infer(tiles(1))
        assert engine.info.identity == f"{digest(own)}:fp32"
    sibling = quantised(repository, digest(own))
    settings = settings_of(repository)
    with open_engine(settings) as engine:
        assert engine.info.identity == f"{digest(sibling)}:int8"
        assert engine.info.name == "segmentation_unet_nuclei"
        assert not np.array_equal(engine.infer(tiles(1)), plain)
    with open_engine(replace(settings, inference=InferenceSettings(precision="fp32"))) as engine:
        assert engine.info.identity == f"{digest(own)}:fp32"
        np.testing.assert_array_equal(engine.infer(tiles(1)), plain)
    with open_engine(settings_of(repository, "segmentation_unet_nuclei_int8")) as engine:
        assert engine.info.identity.startswith(digest(sibling))


def test_a_sibling_of_another_model_is_not_used(repository, caplog):
    own = repository / "segmentation_unet_nuclei" / "1" / "model.onnx"
    quantised(repository, digest(own)[::-1])
    with caplog.at_level("WARNING", "nuclei_segmentation"), open_engine(settings_of(repository)) as engine:
        assert engine.info.identity == f"{digest(own)}:fp32"
    assert "was not made from" in caplog.text


def test_a_model_whose_activations_do_not_fit_into_memory_is_refused(tmp_path):
    """The weights are small. Computing it would end in the system killing the process, without a word."""
    net = nets.Net()
    wide = net.op("Conv", "image", net.constant(np.ones((4_000_000, 3, 1, 1), np.float32)), kernel_shape=[1, 1])
    last = net.op("Conv", wide, net.constant(np.ones((1, 4_000_000, 1, 1), np.float32)), kernel_shape=[1, 1])
    result = net.op("Sigmoid", last)
    net.save(
        tmp_path / "segmentation_unet_nuclei" / "1" / "model.onnx",
        ("image", TensorProto.FLOAT, ["n", 3, "h", "w"]),
        (result, TensorProto.FLOAT, ["n", 1, "h", "w"]),
    )
    with pytest.raises(
        ModelError, match=r"needs [\d.,]+ GiB of memory to infer a tile of 1024 pixels, .* another model"
    ):
        open_engine(settings_of(tmp_path, tile=1024))


def test_smaller_tiles_are_advised_where_they_help(repository, monkeypatch):
    monkeypatch.setattr(embedded, "memory_there", lambda: 100 << 20)
    with pytest.raises(ModelError, match=r"use smaller tiles \(-t \d+\)") as refused:
        open_engine(settings_of(repository, tile=4096))
    advised = int(re.findall(r"-t (\d+)", str(refused.value))[0])
    open_engine(settings_of(repository, tile=advised)).close()
