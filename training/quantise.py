"""Writes the int8 sibling of a model: ``python -m training.quantise --data DIR --output models``.

Static quantisation in the QDQ format. Activations are unsigned 8-bit integers, with ranges from training images.
Weights are signed 7-bit integers, with one scale for each output channel. Processors without VNNI add two products in
16 bits, which then cannot overflow (2 * 255 * 64 < 32,768), so every processor computes the same integers.

Exit code 0: done; 1: an error, in one line on standard error; 2: wrong options.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from nuclei_segmentation.operators.filter.inference.embedded.model_files import INT8, QUANTISED_FROM
from training.command_line import EXPECTED, describe
from training.data import Field, Image, load_fields
from training.errors import ExportError
from training.export import NAME, VERSION, session

log = logging.getLogger("training")

LARGEST = 2_500_000
"""Largest file, in bytes."""
OPERATORS = ["Conv", "Relu", "Add", "Resize"]
"""Operators that are computed in integers.

The first and the last convolution are not. They have few channels at a high resolution, where integers save only 8 % of
the time and ONNX Runtime needs half as much memory again.
"""
IMAGES = 12
"""Calibration crops of each modality."""
SIDE = 256
"""Side of a calibration crop, in pixels."""


class _Images(CalibrationDataReader):
    """Passes crops to the calibration, one after the other."""

    def __init__(self, images: Sequence[Image]) -> None:
        self._images: Iterator[Image] = iter(images)

    def get_next(self) -> dict[str, Image] | None:
        image = next(self._images, None)
        return None if image is None else {"tiles": image[None]}


def calibration_crops(fields: Sequence[Field], seed: int = 0) -> list[Image]:
    """Return `IMAGES` crops of each modality.

    Parameters
    ----------
    fields : Sequence of Field
        Training images.
    seed : int
        Decides which crops.

    Returns
    -------
    list of numpy.ndarray
        Each (SIDE, SIDE, 3) uint8 RGB.
    """
    rng = np.random.default_rng(seed)
    cut: list[Image] = []
    for modality in sorted({field.modality for field in fields}):
        group = [field for field in fields if field.modality == modality]
        for number in rng.permutation(np.resize(np.arange(len(group)), max(IMAGES, len(group))))[:IMAGES]:
            image = group[number].image
            short = [max(0, SIDE - side) for side in image.shape[:2]]
            image = cv2.copyMakeBorder(image, 0, short[0], 0, short[1], cv2.BORDER_REFLECT)
            top, left = (int(rng.integers(side - SIDE + 1)) for side in image.shape[:2])
            cut.append(np.ascontiguousarray(image[top : top + SIDE, left : left + SIDE], np.uint8))
    return cut


def quantise(source: Path, target: Path, images: Sequence[Image]) -> None:
    """Write the int8 sibling of a model.

    Parameters
    ----------
    source : pathlib.Path
        ONNX file of the model.
    target : pathlib.Path
        ONNX file to write.
    images : Sequence of numpy.ndarray
        Images from which the ranges of the activations are taken; each (h, w, 3) uint8 RGB.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    convolutions = [node.name for node in onnx.load(source).graph.node if node.op_type == "Conv"]
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(partial),
            _Images(images),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=OPERATORS,
            nodes_to_exclude=[convolutions[0], convolutions[-1]],
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    model = onnx.load(partial)
    del model.metadata_props[:]
    model.metadata_props.extend(onnx.load(source).metadata_props)
    entry = model.metadata_props.add()
    entry.key, entry.value = QUANTISED_FROM, hashlib.sha256(source.read_bytes()).hexdigest()
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, partial)
    partial.replace(target)


def verify(path: Path, images: Sequence[Image]) -> None:
    """Check the size and the weights of a quantised model, and that batch size and threads do not change its output.

    Parameters
    ----------
    path : pathlib.Path
        ONNX file, from `quantise`.
    images : Sequence of numpy.ndarray
        Images of one size to infer; each (h, w, 3) uint8 RGB.

    Raises
    ------
    ExportError
        A check fails.
    """
    if path.stat().st_size > LARGEST:
        raise ExportError(f"{path} has {path.stat().st_size} bytes; at most {LARGEST} are allowed")
    widest = 0
    for tensor in onnx.load(path).graph.initializer:
        if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) == 4:
            widest = max(widest, int(np.abs(numpy_helper.to_array(tensor).astype(int)).max()))
    if not 0 < widest <= 64:
        raise ExportError(
            f"the largest weight of {path} is {widest}, not 1 to 64; the output would depend on the processor"
        )
    tiles = np.stack(images)
    outputs = []
    for threads in (1, 2):
        model = session(path, threads)
        for batch in (1, 3):
            parts = [model.run(None, {"tiles": tiles[i : i + batch]})[0] for i in range(0, len(tiles), batch)]
            outputs.append(np.concatenate(parts))
    if any(not np.array_equal(outputs[0], other) for other in outputs[1:]):
        raise ExportError(f"the output of {path} depends on the batch size or on the number of threads")


def export_int8(repository: Path, fields: Sequence[Field]) -> Path:
    """Write and check ``segmentation_unet_nuclei_int8/1/model.onnx``, next to ``segmentation_unet_nuclei``.

    Parameters
    ----------
    repository : pathlib.Path
        Model repository that holds the fp32 model.
    fields : Sequence of Field
        Training images.

    Returns
    -------
    pathlib.Path
        The written file.
    """
    images = calibration_crops(fields)
    path = repository / f"{NAME}{INT8}" / VERSION / "model.onnx"
    quantise(repository / NAME / VERSION / "model.onnx", path, images)
    verify(path, images[:6])
    log.info("exported %s%s: %d bytes", NAME, INT8, path.stat().st_size)
    return path


def main(arguments: Sequence[str] | None = None) -> int:
    """Quantise a model from the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m training.quantise", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, action="append", required=True, help="data directory; repeatable")
    parser.add_argument("--output", type=Path, required=True, help="model repository that holds the fp32 model")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    log.setLevel(logging.INFO)
    try:
        export_int8(options.output, load_fields(options.data, "train"))
    except EXPECTED as error:
        print(describe(error), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
