"""Models whose answer is right in form and means something else, or that do not fit: said, with advice that helps."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml
from onnx import helper

from nuclei_segmentation.operators.filter.inference import open_engine
from nuclei_segmentation.operators.filter.map_check import MapCheck
from nuclei_segmentation.shared.errors import ModelError
from nuclei_segmentation.shared.instances import instances
from nuclei_segmentation.shared.settings import Settings, config_file
from tests.helpers.command import NAME, Run
from tests.helpers.nets import written

DARK = "level = Cast <to = 1> (green) lighter = Sub (limit, level) steep = Mul (lighter, factor)"
LIMITS = "float limit = {110}, float factor = {0.2}"
FLOATS = "float[n, h, w, 3] x"
PROBABILITIES = f"{DARK} p = Sigmoid (steep)"
CLASSES = f"{DARK} light = Neg (steep) both = Concat <axis = 3> (light, steep)"

SILENT: dict[str, tuple[str, dict[str, str], dict[str, object], str]] = {
    "floats from 0 to 1": (
        PROBABILITIES,
        {"inputs": FLOATS, "outputs": "float[n, h, w, 1] p", "constants": "float limit = {0.43}, float factor = {50}"},
        {},
        "only 0.0",
    ),
    "floats from 0 to 255, with a scale": (
        PROBABILITIES,
        {"inputs": FLOATS, "outputs": "float[n, h, w, 1] p", "constants": LIMITS},
        {"input_scale": 1 / 255},
        "100.0% of the pixels",
    ),
    "a mask of 0 and 1": (
        f"{DARK} hit = Less (level, limit) y = Cast <to = 2> (hit)",
        {"outputs": "uint8[n, h, w, 1] y", "constants": LIMITS},
        {},
        "highest value of the map of the nuclei is 1 of 255",
    ),
    "an ArgMax over two classes": (
        f"{CLASSES} best = ArgMax <axis = 3, keepdims = 0> (both) y = Cast <to = 2> (best)",
        {"outputs": "uint8[n, h, w] y", "constants": LIMITS},
        {},
        "highest value of the map of the nuclei is 1 of 255",
    ),
    "the background first": (
        f"{CLASSES} p = Softmax <axis = 3> (both)",
        {"outputs": "float[n, h, w, 2] p", "constants": LIMITS},
        {},
        "of the pixels",
    ),
    "the background first, in an output of its own": (
        f"{PROBABILITIES} white = Sub (full, p)",
        {"outputs": "float[n, h, w, 1] white, float[n, h, w, 1] p", "constants": f"{LIMITS}, float full = {{1}}"},
        {},
        "of the pixels",
    ),
    "probabilities taken for logits": (
        PROBABILITIES,
        {"outputs": "float[n, h, w, 1] p", "constants": LIMITS},
        {"output": "logit"},
        "100.0% of the pixels",
    ),
    "two at once": (
        f"{CLASSES} p = Softmax <axis = 3> (both)",
        {"inputs": FLOATS, "outputs": "float[n, h, w, 2] p", "constants": "float limit = {0.43}, float factor = {50}"},
        {},
        "of the pixels in 2 tiles are nuclei",
    ),
}


def settings_of(repository: Path, values: dict[str, object]) -> Settings:
    return config_file.apply({"models": {"repository": str(repository), **values}}, Settings())


def nuclei_and_warnings(
    settings: Settings, crop: np.ndarray, caplog: pytest.LogCaptureFixture
) -> tuple[int, list[str]]:
    """Return how many nuclei two tiles have, and what was warned of."""
    tiles = [crop[:256, :256].copy(), crop[100:356, 300:556]]
    tiles[0][:5, :5] = 0  # a speck of dirt is no evidence that the scale is right
    caplog.clear()
    check, nuclei = MapCheck(), 0
    with open_engine(settings) as engine:
        for tile in tiles:
            maps = engine.infer(tile[np.newaxis])[0]
            check.add(maps, tile)
            nuclei += int(instances(maps, engine.info.channels).max())
        check.report(engine)
    return nuclei, [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def advised(text: str) -> list[dict[str, object]]:
    """Return the settings that a warning advises."""
    return [yaml.safe_load(found)["models"] for found in re.findall(r"models: \{.*?\}(?= \()", text)]


@pytest.mark.parametrize("case", SILENT)
def test_maps_that_mean_something_else_are_noticed_and_the_advice_finds_the_nuclei(
    crop: np.ndarray, tmp_path: Path, case: str, caplog: pytest.LogCaptureFixture
) -> None:
    body, tensors, values, fact = SILENT[case]
    written(tmp_path / "models" / NAME / "1" / "model.onnx", body, **tensors)
    written(
        tmp_path / "right" / NAME / "1" / "model.onnx", PROBABILITIES, outputs="float[n, h, w, 1] p", constants=LIMITS
    )
    expected, none = nuclei_and_warnings(settings_of(tmp_path / "right", {}), crop, caplog)
    assert expected > 5
    assert none == []
    _, warnings = nuclei_and_warnings(settings_of(tmp_path / "models", values), crop, caplog)
    assert fact in warnings[-1]
    found = []
    for advice in advised(warnings[-1]):
        nuclei, rest = nuclei_and_warnings(settings_of(tmp_path / "models", {**values, **advice}), crop, caplog)
        found += [] if rest else [nuclei]
    assert any(abs(nuclei - expected) <= 0.1 * expected for nuclei in found), (expected, found)


def test_without_a_setting_that_helps_the_warning_only_asks(
    crop: np.ndarray, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A map of percent: no setting makes nuclei of it, so none is advised."""
    body = f"{PROBABILITIES} percent = Mul (p, hundred) y = Cast <to = 2> (percent)"
    constants = f"{LIMITS}, float hundred = {{100}}"
    written(tmp_path / NAME / "1" / "model.onnx", body, outputs="uint8[n, h, w, 1] y", constants=constants)
    _, (warning,) = nuclei_and_warnings(settings_of(tmp_path, {}), crop, caplog)
    assert "is 100 of 255" in warning
    assert advised(warning) == []


def test_few_nuclei_are_no_reason_for_a_warning(
    crop: np.ndarray, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    body, constants = f"{DARK} p = Sigmoid (steep)", "float limit = {20}, float factor = {0.5}"
    written(tmp_path / NAME / "1" / "model.onnx", body, outputs="float[n, h, w, 1] p", constants=constants)
    nuclei, warnings = nuclei_and_warnings(settings_of(tmp_path, {}), crop, caplog)
    assert nuclei == 1  # the speck of dirt
    assert warnings == []


def test_the_warning_is_in_the_summary_and_the_log_of_a_run(run: Run, arguments: list[str], tmp_path: Path) -> None:
    body, tensors, _, _ = SILENT["an ArgMax over two classes"]
    written(tmp_path / "models" / NAME / "1" / "model.onnx", body, **tensors)
    (tmp_path / "config.yaml").write_text(f"models: {{repository: {tmp_path / 'models'}}}\n")
    done = run(*arguments, "--config-path", tmp_path)
    assert done.code == 0
    assert "models: {output: mask}" in done.err
    assert "models: {output: mask}" in (tmp_path / "out" / "summary.json").read_text()


NAMES: dict[str, tuple[str, dict[str, str], bool]] = {
    "two maps": ("y = Slice (x, zero, two, last)", {"outputs": "uint8[n, h, w, 2] y"}, True),
    "two outputs": (
        "a = Identity (green) b = Identity (green)",
        {"outputs": "uint8[n, h, w, 1] a, uint8[n, h, w, 1] b"},
        True,
    ),
    "one of two outputs is named so": (
        "a = Identity (green) nucleus = Identity (green)",
        {"outputs": "uint8[n, h, w, 1] a, uint8[n, h, w, 1] nucleus"},
        False,
    ),
    "one map": ("a = Identity (green)", {"outputs": "uint8[n, h, w, 1] a"}, False),
}  # fmt: skip


@pytest.mark.parametrize("case", NAMES)
def test_the_first_of_several_maps_without_names_is_never_taken_without_a_word(
    tmp_path: Path, case: str, caplog: pytest.LogCaptureFixture
) -> None:
    body, tensors, doubtful = NAMES[case]
    written(tmp_path / NAME / "1" / "model.onnx", body, **tensors, constants="int64[1] zero = {0}")
    open_engine(settings_of(tmp_path, {})).close()
    assert ("the first is taken for the nuclei" in caplog.text) == doubtful
    if doubtful:
        (example,) = re.findall(r"models: \{.*?\}", caplog.text)
        caplog.clear()
        with open_engine(settings_of(tmp_path, yaml.safe_load(example)["models"])) as engine:
            assert engine.info.channels == ("nucleus", "other1")
        assert not caplog.records


def test_names_of_the_metadata_without_a_nucleus_are_doubted_and_the_setting_wins(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = written(
        tmp_path / NAME / "1" / "model.onnx",
        "y = Slice (x, zero, two, last)",
        outputs="uint8[n, h, w, 2] y",
        constants="int64[1] zero = {0}",
    )
    model = onnx.load(path)
    helper.set_model_props(model, {"channels": "background,cell"})
    onnx.save(model, path)
    tile = np.random.default_rng(1).integers(0, 256, (1, 256, 256, 3), np.uint8)
    with open_engine(settings_of(tmp_path, {})) as engine:
        assert "background, cell" in caplog.text
        np.testing.assert_array_equal(engine.infer(tile), tile[..., :2])
    with open_engine(settings_of(tmp_path, {"maps": ["background", "nucleus"]})) as engine:
        np.testing.assert_array_equal(engine.infer(tile), tile[..., 1::-1])
    with pytest.raises(ModelError, match=r"models\.maps in config\.yaml names 3 maps, but it returns 2 maps"):
        open_engine(settings_of(tmp_path, {"maps": ["a", "nucleus", "b"]}))


def resized(share: float) -> str:
    return """
        f = Cast <to = 1> (green)
        first = Transpose <perm = [0, 3, 1, 2]> (f)
        small = Resize <mode = "nearest"> (first, , scales)
        y = Cast <to = 2> (small)"""


@pytest.mark.parametrize(
    ("share", "words"),
    [(0.5, "half the size"), (0.25, "a quarter of the size"), (2, "twice the size"), (0.75, "another size")],
)
@pytest.mark.parametrize("tile", [64, 256])
def test_a_map_of_another_size_than_its_input_is_named_and_no_tile_size_is_advised(
    tmp_path: Path, share: float, words: str, tile: int
) -> None:
    scales = f"float[4] scales = {{1.0, 1.0, {share}, {share}}}"
    written(tmp_path / NAME / "1" / "model.onnx", resized(share), outputs="uint8[n, 1, a, b] y", constants=scales)
    with pytest.raises(ModelError, match=words) as caught:
        open_engine(replace(settings_of(tmp_path, {}), tile_size=tile))
    assert "-t" not in str(caught.value)


def test_a_tile_size_is_advised_only_if_the_model_fits_it(tmp_path: Path) -> None:
    scales = "float[4] scales = {1.0, 1.0, 0.5, 0.5}"
    fixed = {"inputs": "uint8[n, 128, 128, 3] x", "constants": scales}
    written(tmp_path / NAME / "1" / "model.onnx", resized(0.5), outputs="uint8[n, 1, 64, 64] y", **fixed)
    with pytest.raises(
        ModelError, match=r"for tiles of 128 pixels, not 256; with -t 128 it does not fit either: .* half"
    ):
        open_engine(settings_of(tmp_path, {}))
    written(tmp_path / NAME / "2" / "model.onnx", "y = Identity (green)", outputs="uint8[n, 128, 128, 1] y", **fixed)
    with pytest.raises(ModelError, match=r"use -t 128"):
        open_engine(settings_of(tmp_path, {}))
    open_engine(replace(settings_of(tmp_path, {}), tile_size=128)).close()
    written(
        tmp_path / NAME / "3" / "model.onnx",
        'f = Cast <to = 1> (green) r = Resize <mode = "nearest", axes = [1, 2]> (f, , , sides) y = Cast <to = 2> (r)',
        outputs="uint8[n, 128, 128, 1] y",
        constants="int64[2] sides = {128, 128}",
    )
    with pytest.raises(ModelError, match=r"use -t 128"):
        open_engine(settings_of(tmp_path, {}))


def test_logit_is_advised_only_for_what_can_be_logits(tmp_path: Path) -> None:
    written(tmp_path / NAME / "1" / "model.onnx", "y = Cast <to = 1> (green)", outputs="float[n, h, w, 1] y")
    with pytest.raises(ModelError, match=r"ranges from 5 to 255; expected probabilities, 0 to 1$"):
        open_engine(settings_of(tmp_path, {}))
    written(tmp_path / NAME / "2" / "model.onnx", DARK, outputs="float[n, h, w, 1] steep", constants=LIMITS)
    with pytest.raises(ModelError, match=r"set models.output to logit"):
        open_engine(settings_of(tmp_path, {}))


def test_a_mask_with_more_than_two_values_is_refused(tmp_path: Path) -> None:
    written(tmp_path / NAME / "1" / "model.onnx", "y = Identity (green)", outputs="uint8[n, h, w, 1] y")
    with pytest.raises(ModelError, match=r"values up to 255; with models.output: mask it must have only 0 and 1"):
        open_engine(settings_of(tmp_path, {"output": "mask"}))
