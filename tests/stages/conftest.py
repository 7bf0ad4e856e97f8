"""A small real slide, a model that takes no time, and the command line as users run it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import openslide
import pytest
import tifffile
from onnx import TensorProto, helper

ROOT = Path(__file__).parents[2]
NAME = "segmentation_unet_nuclei"


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


Run = Callable[..., Done]


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-u", str(ROOT / "operators" / "main.py"), *map(str, arguments)]


def environment(**variables: str) -> dict[str, str]:
    """Return this process's environment without Triton servers, plus some variables."""
    kept = {name: value for name, value in os.environ.items() if "TRITON" not in name and "TRTIS" not in name}
    return kept | variables


@pytest.fixture
def run() -> Run:
    """Run ``main.py`` in a process of its own."""

    def start(*arguments: str | Path, **variables: str) -> Done:
        done = subprocess.run(
            command(*arguments), capture_output=True, text=True, check=False, env=environment(**variables), timeout=240
        )
        return Done(done.returncode, done.stdout, done.stderr)

    return start


@pytest.fixture(scope="session")
def crop(sample_slide: Path) -> np.ndarray:
    """(500, 700, 3) uint8 of tissue and a little glass."""
    with openslide.OpenSlide(sample_slide) as slide:
        return np.asarray(slide.read_region((300, 100), 0, (700, 500)))[..., :3].copy()


@pytest.fixture(scope="session")
def small_slide(crop: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiled JPEG TIFF of 700 x 500 pixels, 0.5 µm each, in a folder of its own, as an input folder is."""
    path = tmp_path_factory.mktemp("input") / "small.tif"
    tifffile.imwrite(
        path, crop, tile=(240, 240), photometric="rgb", compression="jpeg", compressionargs={"level": 90},
        resolution=(20000, 20000), resolutionunit="CENTIMETER", metadata=None,
    )  # fmt: skip
    return path


def dark_model(path: Path) -> None:
    """Write a model that calls dark what is dark in green: two uint8 maps, 255 - green and green."""
    tiles = helper.make_tensor_value_info("tiles", TensorProto.UINT8, ["n", "h", "w", 3])
    masks = helper.make_tensor_value_info("masks", TensorProto.UINT8, ["n", "h", "w", 2])
    constants = [
        helper.make_tensor("one", TensorProto.INT64, [1], [1]),
        helper.make_tensor("two", TensorProto.INT64, [1], [2]),
        helper.make_tensor("axis", TensorProto.INT64, [1], [3]),
        helper.make_tensor("white", TensorProto.INT32, [], [255]),
    ]
    nodes = [
        helper.make_node("Slice", ["tiles", "one", "two", "axis"], ["green"]),
        helper.make_node("Cast", ["green"], ["wide"], to=TensorProto.INT32),
        helper.make_node("Sub", ["white", "wide"], ["dark"]),
        helper.make_node("Cast", ["dark"], ["nucleus"], to=TensorProto.UINT8),
        helper.make_node("Concat", ["nucleus", "green"], ["masks"], axis=3),
    ]
    graph = helper.make_graph(nodes, "dark", [tiles], [masks], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(model, {"channels": "nucleus,boundary", "mpp_min": "0.2", "mpp_max": "0.6"})
    path.parent.mkdir(parents=True)
    onnx.save(model, path)


@pytest.fixture(scope="session")
def dark_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config folder that names the repository of `dark_model`."""
    folder = tmp_path_factory.mktemp("config")
    dark_model(folder / "models" / NAME / "1" / "model.onnx")
    (folder / "config.yaml").write_text(f"models: {{repository: {folder / 'models'}}}\n")
    return folder


@pytest.fixture
def arguments(small_slide: Path, dark_config: Path, tmp_path: Path) -> list[str]:
    """The command line of a run that takes no time; its output folder is ``tmp_path / "out"``."""
    return [
        "segmentation", "--input-path", str(small_slide.parent), "--output-path", str(tmp_path / "out"),
        "--config-path", str(dark_config), "-w", "2",
    ]  # fmt: skip
