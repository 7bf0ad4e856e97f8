"""Exports a trained network as ONNX, bytes in and bytes out, and checks the file.

``python -m training.export --checkpoint FILE --output models``. Exit code 0: done; 1: an error, in one line on standard
error; 2: wrong options.
"""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray

from training.checkpoint import load, network_of
from training.command_line import EXPECTED, describe
from training.errors import ExportError
from training.network import CHANNELS, GRID, ByteModel, UNet, fold_batch_norm
from training.sampler import DIAMETERS, TYPICAL_NUCLEUS_UM

log = logging.getLogger("training")

NAME = "segmentation_unet_nuclei"
VERSION = "1"
LARGEST = 8_000_000
"""Largest file, in bytes."""
METADATA = {
    "task": "nucleus segmentation of H&E and fluorescence images; research use only",
    "channels": ",".join(CHANNELS),
    "mpp_min": f"{TYPICAL_NUCLEUS_UM / DIAMETERS[1]:.2f}",
    "mpp_max": f"{TYPICAL_NUCLEUS_UM / DIAMETERS[0]:.2f}",
    "grid": str(GRID),
    "license": "Apache-2.0; training data CC0-1.0 and BSD-3-Clause",
}


def session(path: Path, threads: int = 2) -> onnxruntime.InferenceSession:
    """Open a model in ONNX Runtime, on the CPU.

    Parameters
    ----------
    path : pathlib.Path
        ONNX file.
    threads : int
        Threads within an operator.

    Returns
    -------
    onnxruntime.InferenceSession
        The session.
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
    output : pathlib.Path
        The model repository.

    Returns
    -------
    pathlib.Path
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
    """Compare the output of the exported model with that of the network.

    They must be within 1 of 255 of each other. The output of the exported model must be identical for batches of 1, 4
    and 8 and for one and two threads.

    Parameters
    ----------
    network : UNet
        The network that was exported.
    path : pathlib.Path
        ONNX file, from `export`.

    Raises
    ------
    ExportError
        The outputs differ, or the file is larger than `LARGEST`.
    """
    if path.stat().st_size > LARGEST:
        raise ExportError(f"{path} has {path.stat().st_size} bytes; at most {LARGEST} are allowed")
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (8, 16, 16, 3)).astype(np.uint8)
    tiles: NDArray[np.uint8] = coarse.repeat(16, axis=1).repeat(16, axis=2)
    tiles = (tiles // 2 + rng.integers(0, 128, tiles.shape)).astype(np.uint8)
    with torch.no_grad():
        expected = ByteModel(fold_batch_norm(network)).eval()(torch.from_numpy(tiles)).numpy()
    outputs = []
    for threads in (1, 2):
        model = session(path, threads)
        for batch in (1, 4, 8):
            parts = [model.run(None, {"tiles": tiles[i : i + batch]})[0] for i in range(0, len(tiles), batch)]
            outputs.append(np.concatenate(parts))
    if any(not np.array_equal(outputs[0], other) for other in outputs[1:]):
        raise ExportError(f"the output of {path} depends on the batch size or on the number of threads")
    worst = int(np.abs(expected.astype(int) - outputs[0]).max())
    if worst > 1:
        raise ExportError(f"the outputs of PyTorch and ONNX Runtime differ by {worst} of 255")
    log.info(
        "exported %s: %d bytes; greatest difference between PyTorch and ONNX Runtime: %d of 255",
        NAME,
        path.stat().st_size,
        worst,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Export a checkpoint from the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m training.export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path, required=True, help="checkpoint.pt of a training run")
    parser.add_argument("--output", type=Path, required=True, help="model repository to write the model to")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        network = network_of(load(options.checkpoint))
        verify(network, export(network, options.output))
    except EXPECTED as error:
        print(describe(error), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
