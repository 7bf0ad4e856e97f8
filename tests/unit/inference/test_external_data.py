"""Tensors that a model keeps in other files: all are part of its identity, and the files are opened with care."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from nuclei_segmentation.operators.filter.inference import open_engine
from nuclei_segmentation.operators.filter.inference.embedded import external_data
from nuclei_segmentation.operators.filter.inference.embedded.graph import Unbounded
from nuclei_segmentation.operators.filter.inference.embedded.model_files import choose_model, forget_choice
from nuclei_segmentation.operators.filter.inference.embedded.receptive_field import receptive_field
from nuclei_segmentation.shared.errors import ModelError
from nuclei_segmentation.shared.settings import ModelsSettings, Settings
from tests.helpers import nets
from tests.helpers.command import NAME, Run, refused

SIDES = 200
"""Rows of the tensor that is kept in another file."""


def outside(name: str = "far", location: str = "weights", kind: int = TensorProto.FLOAT) -> TensorProto:
    tensor = TensorProto(name=name, data_type=kind, dims=[SIDES, 3], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    return tensor


def branch(name: str, *nodes: onnx.NodeProto, weights: tuple[TensorProto, ...] = ()) -> onnx.GraphProto:
    return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info("far", TensorProto.FLOAT, None)], weights)


def constant() -> onnx.NodeProto:
    node = helper.make_node("Constant", [], ["far"])
    node.attribute.append(onnx.AttributeProto(name="value", type=onnx.AttributeProto.TENSOR, t=outside()))
    return node


def in_a_weight(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(outside())


def in_a_constant(model: onnx.ModelProto) -> None:
    model.graph.node.append(constant())


def in_a_branch(model: onnx.ModelProto) -> None:
    """As a weight of one branch of an `If`, and in a `Constant` of the other."""
    node = helper.make_node(
        "If", ["yes"], ["chosen"],
        then_branch=branch("then", helper.make_node("Identity", ["w"], ["far"]), weights=(outside("w"),)),
        else_branch=branch("else", constant()),
    )  # fmt: skip
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    model.graph.node.append(node)


def in_a_branch_of_a_branch(model: onnx.ModelProto) -> None:
    inner = helper.make_node(
        "If", ["yes"], ["far"], then_branch=branch("a", constant()), else_branch=branch("b", constant())
    )
    outer = helper.make_node(
        "If", ["yes"], ["top"], then_branch=branch("c", inner), else_branch=branch("d", constant())
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    model.graph.node.append(outer)


def in_a_function(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("own", 1))
    model.functions.append(helper.make_function("own", "F", [], ["far"], [constant()], [helper.make_opsetid("", 17)]))
    model.graph.node.append(helper.make_node("F", [], ["called"], domain="own"))


def in_a_sparse_weight(model: onnx.ModelProto) -> None:
    values = outside()
    values.dims[:] = [SIDES]
    indices = numpy_helper.from_array(np.arange(SIDES, dtype=np.int64), "indices")
    model.graph.sparse_initializer.append(onnx.SparseTensorProto(values=values, indices=indices, dims=[SIDES]))


def in_a_list_of_tensors(model: onnx.ModelProto) -> None:
    model.graph.node[0].attribute.append(
        onnx.AttributeProto(name="odd", type=onnx.AttributeProto.TENSORS, tensors=[outside()])
    )


PLACES: list[Callable[[onnx.ModelProto], None]] = [
    in_a_weight, in_a_constant, in_a_branch, in_a_branch_of_a_branch, in_a_function, in_a_sparse_weight,
    in_a_list_of_tensors,
]  # fmt: skip


def with_weights(folder: Path, place: Callable[[onnx.ModelProto], None] = in_a_weight) -> Path:
    """Write a model with a tensor in the file ``weights`` beside it, and return that file."""
    path = nets.unet(folder / NAME / "1" / "model.onnx", base=2, depth=1)
    model = onnx.load(path)
    place(model)
    path.write_bytes(model.SerializeToString())
    weights = path.parent / "weights"
    weights.write_bytes(bytes(SIDES * 3 * 4))
    return weights


def identity(folder: Path) -> str:
    forget_choice()
    return choose_model(Settings(models=ModelsSettings(folder)))[0].sha256


@pytest.mark.parametrize("place", PLACES)
def test_a_tensor_in_another_file_is_part_of_the_identity_wherever_the_model_names_it(
    tmp_path: Path, place: Callable[[onnx.ModelProto], None]
) -> None:
    weights = with_weights(tmp_path, place)
    first = identity(tmp_path)
    data = bytearray(weights.read_bytes())
    data[5] ^= 1
    weights.write_bytes(data)
    assert identity(tmp_path) != first


def test_a_branch_with_a_changed_weight_is_computed_and_is_another_model(tmp_path: Path) -> None:
    weights = with_weights(tmp_path, in_a_branch)
    settings = Settings(tile_size=64, models=ModelsSettings(tmp_path))
    before = open_engine(settings).info.identity
    weights.write_bytes(b"\1" * SIDES * 3 * 4)
    assert open_engine(settings).info.identity != before


def test_sizes_in_another_file_are_not_looked_for_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = nets.unet(tmp_path / "model.onnx")
    assert (found := receptive_field(onnx.load(path))) is not None
    assert found.halo == 24
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="weights", size_threshold=0)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Unbounded, match="in another file"):
        receptive_field(onnx.load(path, load_external_data=False))


def absolute(model: TensorProto, folder: Path) -> None:
    (folder / "outside").write_bytes(bytes(SIDES * 12))
    model.external_data[0].value = str(folder / "outside")


def above(model: TensorProto, folder: Path) -> None:
    (folder / NAME / "outside").write_bytes(bytes(SIDES * 12))
    model.external_data[0].value = "../outside"


def linked_out(model: TensorProto, folder: Path) -> None:
    (folder / "outside").write_bytes(bytes(SIDES * 12))
    (folder / NAME / "1" / "weights").unlink()
    (folder / NAME / "1" / "weights").symlink_to(folder / "outside")


def through_a_linked_folder(model: TensorProto, folder: Path) -> None:
    (folder / "other").mkdir()
    (folder / "other" / "weights").write_bytes(bytes(SIDES * 12))
    (folder / NAME / "1" / "sub").symlink_to(folder / "other")
    model.external_data[0].value = "sub/weights"


def a_pipe(model: TensorProto, folder: Path) -> None:
    (folder / NAME / "1" / "weights").unlink()
    os.mkfifo(folder / NAME / "1" / "weights")


def a_folder(model: TensorProto, folder: Path) -> None:
    (folder / NAME / "1" / "sub").mkdir()
    model.external_data[0].value = "sub"


def a_zero_byte(model: TensorProto, folder: Path) -> None:
    model.external_data[0].value = "a\0b"


def links_in_a_circle(model: TensorProto, folder: Path) -> None:
    (folder / NAME / "1" / "weights").unlink()
    (folder / NAME / "1" / "weights").symlink_to("weights")


def beyond_the_end(model: TensorProto, folder: Path) -> None:
    model.external_data.add(key="offset", value="4096")


def a_length_beyond_the_end(model: TensorProto, folder: Path) -> None:
    model.external_data.add(key="length", value=str(1 << 60))


def no_number(model: TensorProto, folder: Path) -> None:
    model.external_data.add(key="offset", value="-5")


def no_place(model: TensorProto, folder: Path) -> None:
    del model.external_data[:]


def missing(model: TensorProto, folder: Path) -> None:
    (folder / NAME / "1" / "weights").unlink()


def huge_and_sparse(model: TensorProto, folder: Path) -> None:
    """Eight TiB that take no space, of which the tensor is the end."""
    size = 8 << 40
    with (folder / NAME / "1" / "weights").open("r+b") as file:
        file.truncate(size)
    model.external_data.add(key="offset", value=str(size - SIDES * 12))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (absolute, "own folder"), (above, "own folder"), (linked_out, "own folder"),
        (through_a_linked_folder, "own folder"), (a_pipe, "regular file"), (a_folder, "regular file"),
        (a_zero_byte, "embedded null"), (links_in_a_circle, "weights"), (beyond_the_end, "2400 bytes instead of 6496"),
        (a_length_beyond_the_end, "instead of"), (no_number, "does not say where"), (no_place, "does not say where"),
        (missing, "cannot be read"), (huge_and_sparse, "more than 16"),
    ],
)  # fmt: skip
def test_weights_are_only_read_from_regular_files_in_the_models_folder(
    tmp_path: Path, change: Callable[[TensorProto, Path], None], message: str
) -> None:
    with_weights(tmp_path)
    path = tmp_path / NAME / "1" / "model.onnx"
    model = onnx.load(path, load_external_data=False)
    change(model.graph.initializer[-1], tmp_path)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=message) as caught:
        identity(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_link_to_a_file_in_the_same_folder_is_followed(tmp_path: Path) -> None:
    weights = with_weights(tmp_path)
    first = identity(tmp_path)
    weights.rename(weights.with_name("blob"))
    weights.symlink_to("blob")
    assert identity(tmp_path) == first


def test_bytes_after_the_last_tensor_are_not_read(tmp_path: Path) -> None:
    weights = with_weights(tmp_path)
    first = identity(tmp_path)
    with weights.open("r+b") as file:
        file.truncate(external_data.LARGEST * 2)
    assert identity(tmp_path) == first


def test_a_pipe_in_place_of_a_model_is_refused_at_once(run: Run, arguments: list[str], tmp_path: Path) -> None:
    path = tmp_path / "models" / NAME / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    (tmp_path / "config.yaml").write_text(f"models: {{repository: {tmp_path / 'models'}}}\n")
    refused(run(*arguments, "--config-path", tmp_path), 15, "model.onnx is not a regular file")


def test_a_huge_sparse_model_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / NAME / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ModelError, match="more than 2"):
        identity(tmp_path)
