"""The embedded engine: ONNX Runtime in this process, on the calling threads.

One session serves all threads; each call computes on the thread that makes it, so the pool's workers are the only
parallelism there is. The results are bitwise the same for every batch size and number of threads.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped] # comes with onnx, without types

# From 1.29 on ONNX Runtime tells its maker about model and machine unless this is set before it is imported.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"


import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from nuclei_segmentation.operators.filter.inference.canary import fit_model
from nuclei_segmentation.operators.filter.inference.contract import Array, TensorSpec
from nuclei_segmentation.operators.filter.inference.embedded.graph import Unbounded
from nuclei_segmentation.operators.filter.inference.embedded.memory import bytes_per_call
from nuclei_segmentation.operators.filter.inference.embedded.receptive_field import ReceptiveField, receptive_field
from nuclei_segmentation.operators.filter.inference.engine import Engine, ModelInfo
from nuclei_segmentation.shared.batches import Pixels
from nuclei_segmentation.shared.errors import ModelError, NucleiError
from nuclei_segmentation.shared.settings import Settings

log = logging.getLogger("nuclei")


def _repositories() -> tuple[Path, ...]:
    """Return where the models may lie that come with the program: the images have them in a folder of their own."""
    image = Path("/app/models")
    try:
        return image, Path(str(resources.files("nuclei_segmentation.models")))
    except ModuleNotFoundError:
        return (image,)


REPOSITORIES = _repositories()

#: What the name of a model's int8 sibling ends in, and which of its metadata says what it was made from (SHA-256).
INT8, QUANTISED_FROM = "_int8", "quantised_from"

#: ONNX Runtime's errors have no base of their own.
_ORT_ERRORS = tuple(
    kind for kind in vars(ort_errors).values() if isinstance(kind, type) and issubclass(kind, Exception)
)

_DTYPES = {"tensor(uint8)": "uint8", "tensor(float16)": "float16", "tensor(float)": "float32"}

#: Bytes of a tensor that is a weight rather than a size.
_SMALL = 256

#: Memory and tiles per call, unless the settings say otherwise. A model that works for long is as fast with one tile a
#: call; for one that does not, what a call costs besides is shared by several.
_CALL_BYTES, _CALL_TILES = 32 << 20, 8

#: Side of the tile that a model of free size is tried with.
_CANARY = 128


def find_model(repository: Path | None, name: str) -> Path:
    """Find a model's file in a repository of Triton's layout, ``<name>/<version>/model.onnx``.

    Parameters
    ----------
    repository : pathlib.Path or None
        The folder; None takes the first of `REPOSITORIES` that exists.
    name : str
        The model's name.

    Returns
    -------
    pathlib.Path
        The file of the highest version.

    Raises
    ------
    ModelError
        There is none; the message lists what there is.
    """
    if repository is None:
        repository = next((folder for folder in REPOSITORIES if folder.is_dir()), None)
        if repository is None:
            raise ModelError(
                f"no model repository at {' or '.join(map(str, REPOSITORIES))}; name one: models.repository"
            )
    if not repository.is_dir():
        raise ModelError(f"the model repository {repository} (models.repository) is not a folder")
    files = {file for file in repository.glob("*/*/model.onnx") if file.parent.name.isdecimal()}
    if name in ("", ".", "..") or "/" in name:
        raise ModelError(f"'{name}' (-m) is not a model's name")
    versions = {int(file.parent.name): file for file in files if file.parent.parent.name == name}
    if not versions:
        there = ", ".join(sorted({file.parent.parent.name for file in files})) or "none"
        raise ModelError(
            f"model {name} (-m) is missing: no {repository / name}/<version number>/model.onnx; models there: {there}"
        )
    return versions[max(versions)]


class EmbeddedEngine(Engine):
    """Runs ``model.onnx`` in this process.

    Parameters
    ----------
    settings : Settings
        Tile size, model, precision, batch.

    Raises
    ------
    ModelError
        The model is missing, broken or unfit.
    """

    def __init__(self, settings: Settings) -> None:
        name = settings.model_name
        chosen = choose_model(settings)
        _chosen.cache_clear()  # another file may take its place, and the graph is large
        path, graph, digest, precision = chosen.path, chosen.graph, chosen.digest, chosen.precision
        options = ort.SessionOptions()
        # The workers are the threads; spinning would take the cores from decoding.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 4  # errors are raised; the runtime would also print them
        try:
            self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except _ORT_ERRORS as error:
            raise ModelError(f"{path} cannot be loaded: {_one_line(error)}") from error
        # Gives memory back after a call; with free shapes the arena would otherwise keep a region for each.
        self._shrink = ort.RunOptions()
        self._shrink.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        self._shape: tuple[int, ...] = ()
        self._path = path
        self._graph = _without_weights(graph)
        # The runtime keeps a copy in its own order; the file's is gone by then.
        self._weights = path.stat().st_size
        inputs, outputs = _specs(self._session.get_inputs()), _specs(self._session.get_outputs())
        self._input = inputs[0].name if inputs else ""
        self._outputs = [spec.name for spec in outputs]
        told: Mapping[str, str] = self._session.get_modelmeta().custom_metadata_map
        self._plan, channels = fit_model(settings, inputs, outputs, told.get("channels"), self._call, small=_CANARY)
        batch = settings.inference.batch or self._fitting(settings.tile_size)
        usual = (self._plan.limit(batch), settings.tile_size, settings.tile_size, 3)
        self._shape = self._plan.encode(np.zeros(usual, np.uint8)).shape
        reach = _receptive_field(name, graph)
        self.info = ModelInfo(
            name=name,
            engine="embedded",
            identity=f"{digest}:{precision}",
            channels=channels,
            halo=reach.halo if reach else None,
            batch=self._plan.limit(batch),
            mpp=_mpp_range(path, told),
            grid=reach.grid if reach else None,
        )

    def infer(self, pixels: Pixels) -> Pixels:
        """Return the maps of some tiles; see `Engine.infer`."""
        return self._plan.run(pixels, self.info.batch, self._call)

    def memory_needed(self, tile: int, workers: int) -> int:
        """Return what the tensors of `workers` calls take, and the weights; see `Engine.memory_needed`."""
        # However many tiles a call brings, no more than the engine's own batch are computed at once.
        return workers * bytes_per_call(self._graph, tile, self.info.batch) + self._weights

    def _fitting(self, tile: int) -> int:
        """Return the tiles per call that fit `_CALL_BYTES`, from 1 to `_CALL_TILES`."""
        return max(1, min(_CALL_TILES, _CALL_BYTES // bytes_per_call(self._graph, tile, 1)))

    def close(self) -> None:
        """Nothing to do: the session goes with the engine, and calls under way may finish."""

    def _call(self, array: Array) -> Sequence[Array]:
        try:
            # The arena's memory is used again by the next call of the same shape; giving it back costs page faults, 5%
            # of a U-Net's time. Other shapes (a last, smaller batch) must not leave regions of their own.
            options = None if array.shape == self._shape else self._shrink
            answer: Sequence[Array] = self._session.run(self._outputs, {self._input: array}, options)
        except _ORT_ERRORS as error:
            text = _one_line(error)
            if "allocate memory" in text:
                raise NucleiError(f"not enough memory for inference: {text}; use fewer workers (-w)") from error
            raise ModelError(f"{self._path} fails on an input of shape {list(array.shape)}: {text}") from error
        return answer


@dataclass(frozen=True, slots=True)
class ChosenModel:
    """The file that the embedded engine computes with.

    Attributes
    ----------
    path : pathlib.Path
        The file.
    graph : onnx.ModelProto
        Its content, without weights that lie in other files.
    digest : str
        SHA-256 of all files of the model.
    precision : str
        ``int8`` or ``fp32``.
    """

    path: Path
    graph: onnx.ModelProto
    digest: str
    precision: str


def choose_model(settings: Settings) -> ChosenModel:
    """Return the file to compute with: the model's own, or its int8 sibling.

    Parameters
    ----------
    settings : Settings
        Model, repository and precision.

    Raises
    ------
    ModelError
        There is no such model.
    """
    return _chosen(settings.models.repository, settings.model_name, settings.inference.precision)


@lru_cache(maxsize=1)  # the first line of the log names the model, then the engine opens it
def _chosen(repository: Path | None, name: str, precision: str) -> ChosenModel:
    path = find_model(repository, name)
    graph, digest = _read(path)
    if precision == "int8" and (sibling := _int8_sibling(path, digest)) is not None:
        log.debug("model %s is computed in int8: %s", name, sibling[0])
        return ChosenModel(*sibling, "int8")
    return ChosenModel(path, graph, digest, "fp32")


def _int8_sibling(path: Path, digest: str) -> tuple[Path, onnx.ModelProto, str] | None:
    """Find the int8 model that was made from a file; return it with its graph and digest.

    It is in the folder beside, whose name ends in ``_int8``, and says in its metadata which file it was made from:
    another model that took that file's place must not be answered for by what was made from the old one.
    """
    folder = path.parents[1]
    name = f"{folder.name}{INT8}"
    if not (folder.parent / name).is_dir():
        return None
    there = find_model(folder.parent, name)
    graph, own = _read(there)
    made_from = next((entry.value for entry in graph.metadata_props if entry.key == QUANTISED_FROM), None)
    if made_from != digest:
        log.warning("%s was not made from %s, which is used instead, in its own precision", there, path)
        return None
    return there, graph, own


def _read(path: Path) -> tuple[onnx.ModelProto, str]:
    """Return the graph without weights that are kept in other files, and the SHA-256 of all files of the model."""
    try:
        content = path.read_bytes()
        graph = onnx.load_model_from_string(content)
        if not graph.graph.output:
            raise ModelError(f"{path} is not an ONNX model: it has no output")
        digest = hashlib.sha256(content)
        beside = {
            entry.value
            for tensor in graph.graph.initializer
            for entry in tensor.external_data
            if entry.key == "location"
        }
        for name in sorted(beside):
            digest.update((path.parent / name).read_bytes())
    except OSError as error:
        raise ModelError(f"{error.filename} cannot be read: {error.strerror}") from error
    except DecodeError as error:
        raise ModelError(f"{path} is not an ONNX model: {_one_line(error)}") from error
    return graph, digest.hexdigest()


def _without_weights(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Drop what only the runtime needs; small tensors are sizes and scales, which tell shapes."""
    light = onnx.ModelProto()
    light.CopyFrom(graph)
    for tensor in light.graph.initializer:
        if len(tensor.raw_data) > _SMALL:
            tensor.ClearField("raw_data")
    return light


def _receptive_field(name: str, graph: onnx.ModelProto) -> ReceptiveField | None:
    try:
        return receptive_field(graph)
    except Unbounded as error:
        log.info("Model %s cannot be tiled without seams, whatever the overlap: %s", name, error)
        return None


def _specs(nodes: Sequence[Any]) -> list[TensorSpec]:
    return [
        TensorSpec(
            node.name,
            _DTYPES.get(node.type, node.type),
            tuple(side if isinstance(side, int) and side > 0 else None for side in node.shape),
        )
        for node in nodes
    ]


def _mpp_range(path: Path, told: Mapping[str, str]) -> tuple[float, float] | None:
    if "mpp_min" not in told or "mpp_max" not in told:
        return None
    try:
        low, high = float(told["mpp_min"]), float(told["mpp_max"])
    except ValueError as error:
        raise ModelError(f"{path}: metadata mpp_min and mpp_max must be numbers: {error}") from error
    return low, high


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
