"""Writes a model's int8 sibling, and compares the two: ``python -m training.quantise --data DIR --output models``.

Static quantisation in the QDQ form: activations are 8 bits without sign, with ranges taken from training images;
weights are 7 bits with sign, one scale for each output channel. The sums of two products that processors without VNNI
make on the way then cannot overflow 16 bits (2 * 255 * 64 < 32,768), so every processor computes the same integers.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
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
from training.data import Field, Image, load_fields
from training.export import NAME, VERSION, ExportError, session

log = logging.getLogger("training")

LARGEST = 2_500_000

#: What is computed in integers, but for the first and the last convolution: those have few channels at a high
#: resolution, where integers save 8 % of the time and ONNX Runtime takes half as much memory again.
OPERATORS = ["Conv", "Relu", "Add", "Resize"]

#: Training images of each modality that ranges are taken from, and the side of the piece, in pixels.
IMAGES, SIDE = 12, 256


class _Images(CalibrationDataReader):
    """Gives pieces of images to the calibration, one after the other."""

    def __init__(self, images: Sequence[Image]) -> None:
        self._images: Iterator[Image] = iter(images)

    def get_next(self) -> dict[str, Image] | None:
        image = next(self._images, None)
        return None if image is None else {"tiles": image[None]}


def pieces(fields: Sequence[Field], seed: int = 0) -> list[Image]:
    """Cut a few pieces of each modality.

    Parameters
    ----------
    fields : sequence of Field
        Training images.
    seed : int
        Decides which.

    Returns
    -------
    list of ndarray
        Each uint8 ``[SIDE, SIDE, 3]``.
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
    source, target : Path
        ONNX files.
    images : sequence of ndarray
        What ranges are taken from; each uint8 ``[H, W, 3]``.
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
    """Check the file: its size, the range of its weights, and that batch size and threads change no byte.

    Parameters
    ----------
    path : Path
        From :func:`quantise`.
    images : sequence of ndarray
        Of one size; what is inferred.

    Raises
    ------
    ExportError
        If any of that fails.
    """
    if path.stat().st_size > LARGEST:
        raise ExportError(f"{path} has {path.stat().st_size} bytes, more than {LARGEST}")
    widest = 0
    for tensor in onnx.load(path).graph.initializer:
        if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) == 4:
            widest = max(widest, int(np.abs(numpy_helper.to_array(tensor).astype(int)).max()))
    if not 0 < widest <= 64:
        raise ExportError(f"{path} has weights up to {widest}, not 1 to 64: processors would not agree")
    tiles = np.stack(images)
    answers = []
    for threads in (1, 2):
        model = session(path, threads)
        for batch in (1, 3):
            parts = [model.run(None, {"tiles": tiles[i : i + batch]})[0] for i in range(0, len(tiles), batch)]
            answers.append(np.concatenate(parts))
    if any(not np.array_equal(answers[0], other) for other in answers[1:]):
        raise ExportError("the answer depends on the batch size or the number of threads")


def export_int8(repository: Path, fields: Sequence[Field]) -> Path:
    """Write and check ``segmentation_unet_nuclei_int8/1/model.onnx`` beside ``segmentation_unet_nuclei``.

    Parameters
    ----------
    repository : Path
        The model repository.
    fields : sequence of Field
        Training images.

    Returns
    -------
    Path
        The written file.
    """
    images = pieces(fields)
    path = repository / f"{NAME}{INT8}" / VERSION / "model.onnx"
    quantise(repository / NAME / VERSION / "model.onnx", path, images)
    verify(path, images[:6])
    log.info("exported %s%s: %d bytes", NAME, INT8, path.stat().st_size)
    return path


def main() -> None:
    """Quantise a model from the command line."""
    parser = argparse.ArgumentParser(prog="python -m training.quantise", description=__doc__)
    parser.add_argument("--data", type=Path, action="append", required=True, help="data directory; repeatable")
    parser.add_argument("--output", type=Path, required=True, help="model repository, with the fp32 model")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    log.setLevel(logging.INFO)
    export_int8(options.output, load_fields(options.data, "train"))


if __name__ == "__main__":
    main()
