# ruff: noqa: E402 - what needs PyTorch is imported once it is known to be there
from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (requirements/training.txt)")

from nuclei_segmentation.operators.filter.inference import open_engine
from nuclei_segmentation.operators.filter.inference.embedded.receptive_field import receptive_field
from nuclei_segmentation.shared.settings import ModelsSettings, Settings
from training.data import Field
from training.errors import ExportError
from training.export import METADATA, NAME, export
from training.network import UNet
from training.quantise import SIDE, calibration_crops, export_int8, verify


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose outputs vary between 0 and 1."""
    torch.manual_seed(1)
    network = UNet(base=4)
    torch.nn.init.normal_(network.head.weight, std=2.0)
    folder = tmp_path_factory.mktemp("models")
    export(network.eval(), folder)
    return folder


def test_the_sibling_outputs_nearly_as_the_model(repository: Path, fields: dict[str, list[Field]]) -> None:
    every = [field for group in fields.values() for field in group]
    path = export_int8(repository, every)
    original = repository / NAME / "1" / "model.onnx"
    assert path.stat().st_size < original.stat().st_size
    metadata = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert metadata == {**METADATA, "quantised_from": hashlib.sha256(original.read_bytes()).hexdigest()}
    assert receptive_field(onnx.load(path)) == receptive_field(onnx.load(original))
    tiles = np.stack(calibration_crops(every, seed=5)[:4])
    outputs = []
    for name in (NAME, f"{NAME}_int8"):
        model = onnx.load(repository / name / "1" / "model.onnx")
        kinds = [node.op_type for node in model.graph.node]
        assert ("QuantizeLinear" in kinds) == name.endswith("int8")
    for precision in ("fp32", "int8"):
        settings = Settings(model_name=NAME, models=ModelsSettings(repository))
        inference = type(settings.inference)(precision=precision)  # type: ignore[arg-type] # one of the two
        with open_engine(replace(settings, inference=inference)) as engine:
            assert engine.info.identity.endswith(precision)
            outputs.append(engine.infer(tiles).astype(int))
    assert outputs[0].std() > 10
    assert 0 < np.abs(outputs[0] - outputs[1]).mean() < 4


def test_calibration_crops_are_of_one_size_and_of_every_modality(fields: dict[str, list[Field]]) -> None:
    crops = calibration_crops([field for group in fields.values() for field in group])
    assert len(crops) == 12 * len(fields)
    assert {crop.shape for crop in crops} == {(SIDE, SIDE, 3)}


def test_weights_of_8_bits_are_refused(repository: Path, fields: dict[str, list[Field]], tmp_path: Path) -> None:
    path = export_int8(repository, [field for group in fields.values() for field in group])
    model = onnx.load(path)
    weights = next(t for t in model.graph.initializer if t.data_type == onnx.TensorProto.INT8 and len(t.dims) == 4)
    weights.raw_data = b"\x7f" + weights.raw_data[1:]
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(ExportError, match="127"):
        verify(tmp_path / "model.onnx", [])
