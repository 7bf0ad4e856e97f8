"""The embedded engine: ONNX Runtime in this process, on the calling threads.

One session serves all threads. Each call computes on the thread that makes it, so nothing runs in parallel except the
workers. The result has the same bytes for every batch size and number of threads.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx

# From 1.29 on, ONNX Runtime reports model and machine to its maker unless this is set before the import.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"


import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from nuclei_segmentation.operators.filter.inference.alternatives import Alternative, alternatives
from nuclei_segmentation.operators.filter.inference.embedded.graph import Unbounded
from nuclei_segmentation.operators.filter.inference.embedded.memory_estimate import bytes_per_call
from nuclei_segmentation.operators.filter.inference.embedded.model_files import choose_model, forget_choice
from nuclei_segmentation.operators.filter.inference.embedded.receptive_field import ReceptiveField, receptive_field
from nuclei_segmentation.operators.filter.inference.engine import Engine, ModelInfo
from nuclei_segmentation.operators.filter.inference.model_metadata import mpp_range
from nuclei_segmentation.operators.filter.inference.tensor_plan import Array, TensorSpec
from nuclei_segmentation.operators.filter.inference.trial import fit_model, takes_any_size
from nuclei_segmentation.shared.batches import Pixels
from nuclei_segmentation.shared.errors import ModelError, NucleiError
from nuclei_segmentation.shared.runtime.memory import memory_there
from nuclei_segmentation.shared.runtime.resources import human
from nuclei_segmentation.shared.settings import Settings

log = logging.getLogger(__name__)

#: ONNX Runtime's errors have no common base.
_ORT_ERRORS = tuple(
    kind for kind in vars(ort_errors).values() if isinstance(kind, type) and issubclass(kind, Exception)
)

_DTYPES = {"tensor(uint8)": "uint8", "tensor(float16)": "float16", "tensor(float)": "float32"}

#: A tensor of more bytes than this is a weight; a smaller one may be a size.
_SMALL = 256

#: Most memory and tiles per call, unless the settings say otherwise. A slow model is as fast with one tile per call;
#: with a fast one, several tiles share the overhead of the call.
_CALL_BYTES, _CALL_TILES = 32 << 20, 8

#: Sides of tiles that are advised where memory is short.
_SIDES = (4096, 2048, 1024, 512, 256, 128)

#: Side of the tile on which a model of free size is tried.
_TRIAL_SIDE = 128


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
        (path, model, sha256), precision = choose_model(settings)
        forget_choice()
        options = ort.SessionOptions()
        # The workers are the threads. Spinning would take the cores from decoding.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 4  # errors are raised; the runtime would print them as well
        try:
            self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except _ORT_ERRORS as error:
            raise ModelError(f"{path} cannot be loaded: {_one_line(error)}") from error
        # Returns memory after a call. With free shapes, the arena would otherwise keep a block for each.
        self._shrink = ort.RunOptions()
        self._shrink.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        self._usual_shape: tuple[int, ...] = ()
        self._path = path
        self._graph = _without_weights(model)
        # The runtime keeps the weights in its own layout; by then it has released the file's.
        self._weights = path.stat().st_size
        inputs, outputs = _specs(self._session.get_inputs()), _specs(self._session.get_outputs())
        self._input = inputs[0].name if inputs else ""
        self._outputs = [spec.name for spec in outputs]
        metadata: Mapping[str, str] = self._session.get_modelmeta().custom_metadata_map
        self._check_memory(settings.tile_size, inputs)
        self._fitted = fit_model(settings, inputs, outputs, metadata, self._call, small=_TRIAL_SIDE)
        self._plan = self._fitted.plan
        batch = self._plan.limit(settings.inference.batch or self._default_batch(settings.tile_size))
        usual = np.zeros((batch, settings.tile_size, settings.tile_size, 3), np.uint8)
        self._usual_shape = self._plan.encode(usual).shape
        field = _receptive_field(name, model)
        self.info = ModelInfo(
            name=name,
            engine="embedded",
            identity=f"{sha256}:{precision}",
            channels=self._fitted.channels,
            halo=field.halo if field else None,
            batch=batch,
            mpp=mpp_range(metadata, str(path)),
            grid=field.grid if field else None,
        )

    def infer(self, pixels: Pixels) -> Pixels:
        """See `Engine.infer`."""
        return self._plan.run(pixels, self.info.batch, self._call)

    def alternatives(self) -> Sequence[Alternative]:
        """See `Engine.alternatives`."""
        return alternatives(self._fitted, lambda plan, pixels: plan.run(pixels, self.info.batch, self._call))

    def memory_needed(self, tile: int, workers: int) -> int:
        """See `Engine.memory_needed`."""
        # However many tiles a call brings, no more than the engine's own batch are computed at once.
        return workers * bytes_per_call(self._graph, tile, self.info.batch) + self._weights

    def close(self) -> None:
        """Do nothing: the session goes with the engine, and calls under way may finish."""

    def _check_memory(self, tile: int, inputs: Sequence[TensorSpec]) -> None:
        """Refuse a model of which not even one tile can be inferred here: the system would kill this process."""
        needed, there = bytes_per_call(self._graph, tile, 1), memory_there()
        if needed > there:
            sides = (side for side in _SIDES if side < tile and bytes_per_call(self._graph, side, 1) <= there)
            smaller = next(sides, 0) if takes_any_size(inputs) else 0
            advice = f"smaller tiles (-t {smaller}), " if smaller else ""
            raise ModelError(
                f"{self._path} needs {human(needed)} of memory to infer a tile of {tile} pixels, and there are "
                f"{human(there)}; use {advice}another model or a machine with more memory"
            )

    def _default_batch(self, tile: int) -> int:
        return max(1, min(_CALL_TILES, _CALL_BYTES // bytes_per_call(self._graph, tile, 1)))

    def _call(self, array: Array) -> Sequence[Array]:
        try:
            # The next call of the same shape uses the arena's memory again; releasing it would cost page faults, 5 % of
            # a U-Net's time. Calls of other shapes, such as a smaller last batch, must not leave blocks of their own.
            options = None if array.shape == self._usual_shape else self._shrink
            outputs: Sequence[Array] = self._session.run(self._outputs, {self._input: array}, options)
        except _ORT_ERRORS as error:
            text = _one_line(error)
            if "allocate memory" in text:
                raise NucleiError(f"not enough memory for inference: {text}; use fewer workers (-w)") from error
            raise ModelError(f"{self._path} fails on an input of shape {list(array.shape)}: {text}") from error
        return outputs


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop what only the runtime needs. Small tensors stay: they are sizes and scales, which determine shapes."""
    light = onnx.ModelProto()
    light.CopyFrom(model)
    for tensor in light.graph.initializer:
        if len(tensor.raw_data) > _SMALL:
            tensor.ClearField("raw_data")
    return light


def _receptive_field(name: str, model: onnx.ModelProto) -> ReceptiveField | None:
    try:
        return receptive_field(model)
    except Unbounded as error:
        log.info("model %s cannot be tiled without seams, whatever the overlap: %s", name, error)
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


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
