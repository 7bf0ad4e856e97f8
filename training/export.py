"""Writes the trained network as ONNX, bytes in and bytes out, and checks the file.

``python -m training.export --checkpoint FILE --output models``
"""

from __future__ import annotations

import argparse
import logging
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray

from training.checkpoint import load, network_of
from training.network import CHANNELS, GRID, ByteModel, UNet, fold_batch_norm
from training.sampler import DIAMETERS, TYPICAL_NUCLEUS_UM

log = logging.getLogger("training")

NAME = "segmentation_unet_nuclei"
VERSION = "1"
LARGEST = 8_000_000
METADATA = {
    "task": "nucleus segmentation of H&E and fluorescence images; research use only",
    "channels": ",".join(CHANNELS),
    "mpp_min": f"{TYPICAL_NUCLEUS_UM / DIAMETERS[1]:.2f}",
    "mpp_max": f"{TYPICAL_NUCLEUS_UM / DIAMETERS[0]:.2f}",
    "grid": str(GRID),
    "license": "Apache-2.0; training data CC0-1.0 and BSD-3-Clause",
}


class ExportError(Exception):
    """The written file is not what it must be."""


def session(path: Path, threads: int = 2) -> onnxruntime.InferenceSession:
    """Open a model on the CPU.

    Parameters
    ----------
    path : Path
        An ONNX file.
    threads : int
        Threads within an operator.

    Returns
    -------
    InferenceSession
        ONNX Runtime's.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def export(network: UNet, output: Path) -> Path:
    """Write ``segmentation_unet_nuclei/1/model.onnx``.

    Parameters
    ----------
    network : UNet
        The trained network.
    output : Path
        The model repository.

    Returns
    -------
    Path
        The written file.
    """
    path = output / NAME / VERSION / "model.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    axes = {name: {0: "batch", 1: "height", 2: "width"} for name in ("tiles", "masks")}
    example = torch.zeros((1, 8 * GRID, 8 * GRID, 3), dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            ByteModel(fold_batch_norm(network)).eval(),
            (example,),
            str(partial),
            dynamo=False,
            opset_version=17,
            input_names=["tiles"],
            output_names=["masks"],
            dynamic_axes=axes,
        )
    model = onnx.load(str(partial))
    for node in model.graph.node:
        node.ClearField("doc_string")
    for key, value in METADATA.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(partial))
    partial.replace(path)
    return path


def verify(network: UNet, path: Path) -> None:
    """Compare the file with the network, and its answers with one another.

    The answers must be within one step of the network's bytes, and equal to the bit for batches of 1, 4 and 8 and
    for one and two threads.

    Parameters
    ----------
    network : UNet
        What was exported.
    path : Path
        The file.

    Raises
    ------
    ExportError
        If any of that fails, or the file is too large.
    """
    if path.stat().st_size > LARGEST:
        raise ExportError(f"{path} has {path.stat().st_size} bytes, more than {LARGEST}")
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (8, 16, 16, 3)).astype(np.uint8)
    tiles: NDArray[np.uint8] = coarse.repeat(16, axis=1).repeat(16, axis=2)
    tiles = (tiles // 2 + rng.integers(0, 128, tiles.shape)).astype(np.uint8)
    with torch.no_grad():
        wanted = ByteModel(fold_batch_norm(network)).eval()(torch.from_numpy(tiles)).numpy()
    answers = []
    for threads in (1, 2):
        model = session(path, threads)
        for batch in (1, 4, 8):
            parts = [model.run(None, {"tiles": tiles[i : i + batch]})[0] for i in range(0, len(tiles), batch)]
            answers.append(np.concatenate(parts))
    if any(not np.array_equal(answers[0], other) for other in answers[1:]):
        raise ExportError("the answer depends on the batch size or the number of threads")
    worst = int(np.abs(wanted.astype(int) - answers[0]).max())
    if worst > 1:
        raise ExportError(f"PyTorch and ONNX Runtime differ by {worst} of 255")
    log.info("exported %s: %d bytes, PyTorch and ONNX Runtime within %d of 255", NAME, path.stat().st_size, worst)


def main() -> None:
    """Export a checkpoint from the command line."""
    parser = argparse.ArgumentParser(prog="python -m training.export", description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True, help="file written by the training")
    parser.add_argument("--output", type=Path, required=True, help="model repository")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    network = network_of(load(options.checkpoint))
    verify(network, export(network, options.output))


if __name__ == "__main__":
    main()
