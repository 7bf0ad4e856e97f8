"""The definitions that come with the project say what is true of its images."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nuclei_segmentation.operators import commands
from nuclei_segmentation.operators.filter.inference import open_engine
from nuclei_segmentation.operators.load.command import BATCH_BYTES
from nuclei_segmentation.operators.load.foreground import MASK_BYTES
from nuclei_segmentation.operators.segmentation.estimate import BASE_MEMORY, JOURNAL_BYTES
from nuclei_segmentation.operators.stitch import memory_needed
from nuclei_segmentation.operators.stitch.command import BASE_MEMORY as STAGE_MEMORY
from nuclei_segmentation.pipelines import DYNAMIC, Definition, Operator, Pipeline
from nuclei_segmentation.shared.runtime import cli
from nuclei_segmentation.shared.settings import Settings, command_line, environment

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "pipelines").glob("*.yaml"))
NAMES = [path.stem for path in FILES]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
STAGED = ("nuclei-segmentation", "nuclei-segmentation-embedded", "nuclei-segmentation-fastio")
FUSED = ("nuclei-segmentation-fused", "nuclei-segmentation-render")
MIB = 2**20
WIDTH, TILES = 100_000, 40_000
"""What the memory that is requested is enough for: the slide's width; tiles in shared memory."""


def pipeline(name: str, **arguments: str) -> Pipeline:
    return Definition(ROOT / "pipelines" / f"{name}.yaml").resolve(arguments)


def ours(one: Pipeline) -> list[Operator]:
    return [operator for operator in one.operators if operator.container.image.startswith("nuclei/")]


def parsed(operator: Operator) -> argparse.Namespace:
    """The options that an operator's command gives to the program, by the program's own parser."""
    shell, option, command = operator.container.command
    assert (shell, option) == ("/bin/bash", "-c")
    python, unbuffered, program, *arguments = shlex.split(command)
    assert (python, unbuffered, program) == ("python", "-u", "/app/main.py")
    return command_line.parser({}).parse_args(arguments)


def test_every_definition_is_tested() -> None:
    assert {*STAGED, *FUSED} == set(NAMES)


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_the_projects_definitions_have_no_findings(path: Path) -> None:
    assert Definition(path).check().findings == ()


@pytest.mark.parametrize("name", NAMES)
def test_named_as_the_file(name: str) -> None:
    assert pipeline(name).name == name


@pytest.mark.parametrize("name", NAMES)
def test_images_are_those_of_this_version(name: str) -> None:
    for operator in ours(pipeline(name)):
        assert operator.container.tag == VERSION
        assert operator.container.image == f"nuclei/{operator.name}"
        assert (ROOT / "operators" / operator.name).is_dir()


@pytest.mark.parametrize("name", NAMES)
def test_commands_are_those_of_the_program(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    known: dict[str, Any] = {}

    def main(arguments: Sequence[str], table: dict[str, Any], version: object) -> int:
        known.update(table)
        return 0

    monkeypatch.setattr(cli, "main", main)
    commands.run([])
    for operator in ours(pipeline(name)):
        assert parsed(operator).command == operator.name
        assert operator.name in known


@pytest.mark.parametrize("name", NAMES)
def test_defaults_are_those_of_the_program(name: str) -> None:
    defaults = command_line.parser({}).parse_args(["x"])
    values = pipeline(name).arguments
    assert values == {
        "TILE_SIZE": str(defaults.tile_size),
        "OVERLAP": str(defaults.overlap),
        "MODEL_NAME": defaults.model_name,
        "WORKERS": "2",
    }
    for operator in ours(pipeline(name)):
        assert operator.requests.cpu_millis == 1000 * int(values["WORKERS"])


@pytest.mark.parametrize("name", NAMES)
def test_parameters_reach_every_operator_that_has_a_use_for_them(name: str) -> None:
    given = {"TILE_SIZE": "512", "OVERLAP": "64", "MODEL_NAME": "other", "WORKERS": "7"}
    for operator in ours(pipeline(name, **given)):
        options = parsed(operator)
        assert options.num_workers == 7
        if operator.name in ("load", "segmentation"):
            assert (options.tile_size, options.overlap) == (512, 64)
        if operator.name in ("filter", "segmentation"):
            assert options.model_name == "other"
        assert [model.name for model in operator.models] in ([], ["other"])


@pytest.mark.parametrize("name", STAGED)
def test_folders_of_the_stages(name: str) -> None:
    wanted = {
        "load": [(None, "/input")],
        "filter": [("load", "/input/tiles")],
        "stitch": [(None, "/input/slide"), ("load", "/input/tiles"), ("filter", "/input/masks")],
    }
    one = pipeline(name)
    for stage, folders in wanted.items():
        operator = one.operator(stage)
        assert [(item.source, item.path) for item in operator.inputs if item.path] == folders
        assert [output.path for output in operator.outputs if output.path] == ["/output"]


@pytest.mark.parametrize("name", FUSED)
def test_folders_of_the_fused(name: str) -> None:
    operator = pipeline(name).operator("segmentation")
    assert [(item.source, item.path) for item in operator.inputs] == [(None, "/input")]
    assert [output.path for output in operator.outputs] == ["/output"]


@pytest.mark.parametrize("name", NAMES)
def test_the_images_have_these_folders_and_run_this_command(name: str) -> None:
    for operator in ours(pipeline(name)):
        lines = (ROOT / "operators" / operator.name / "Dockerfile").read_text().splitlines()
        (made,) = (line.partition("&&")[0].split()[3:] for line in lines if line.startswith("RUN mkdir -p "))
        assert {item.path for item in (*operator.inputs, *operator.outputs) if item.path} <= set(made)
        (command,) = (json.loads(line.removeprefix("CMD ")) for line in lines if line.startswith("CMD "))
        assert operator.container.command[:2] == tuple(command[:2])
        assert operator.container.command[2].startswith(command[2])


def test_the_model_is_there() -> None:
    for name in NAMES:
        assert (ROOT / "models" / pipeline(name).arguments["MODEL_NAME"] / "config.pbtxt").is_file()


def test_triton_is_reached_by_a_variable_that_the_program_reads() -> None:
    (service,) = pipeline("nuclei-segmentation").operator("filter").services
    (connection,) = service.connections
    assert connection.name in environment.TRITON
    assert connection.port == 8000
    assert pipeline("nuclei-segmentation").services == (service,)
    assert not pipeline("nuclei-segmentation-embedded").services


def test_one_ends_at_the_render_server() -> None:
    last = pipeline("nuclei-segmentation-render").operators[-1]
    assert last.container.image.endswith("clara/register-results")
    assert last.container.command == ("python", "register.py", "--agent", "renderserver")
    assert last.upstream == ("segmentation",)


def _memory() -> dict[str, int]:
    """The most anonymous memory of each operator at the definitions' defaults: the formulas of docs/memory.md."""
    settings = Settings(num_workers=2)
    with open_engine(settings) as engine:
        inference, channels, batch = engine.memory_needed(256, 2), len(engine.info.channels), engine.info.batch
    assert channels == 2
    cache = WIDTH * 256 * 3  # a row of the slide's tiles
    batches = 5 * 2 * batch * 256**2 * (3 + channels)
    drawing = memory_needed(WIDTH, 256, 2, channels=channels)
    mask = MASK_BYTES * settings.mask_pixel_count_limit
    return {
        "load": STAGE_MEMORY + max(mask, cache + 3 * 2 * BATCH_BYTES),
        "filter": STAGE_MEMORY + batches + inference,
        "stitch": STAGE_MEMORY + cache + drawing + 2 * 2 * BATCH_BYTES,
        "segmentation": BASE_MEMORY
        + max(mask, cache + batches + inference + drawing + (WIDTH // 256 + 1) ** 2 * JOURNAL_BYTES),
    }


@pytest.mark.parametrize("name", NAMES)
def test_memory_is_what_the_formulas_say(name: str) -> None:
    """As NVIDIA's sizing tool does it: 100 MB more than needed, rounded up to a multiple of 256."""
    needs = _memory()
    shared = {"load": TILES * 256 * 256 * 3, "filter": TILES * 256 * 256 * 2} if name.endswith("fastio") else {}
    for operator in ours(pipeline(name)):
        need = (needs[operator.name] + shared.get(operator.name, 0)) / MIB + 100
        assert operator.requests.memory_bytes / MIB == -(-need // 256) * 256, f"{operator.name} needs {need:.0f}"
        assert operator.requests.gpu == 0


def test_types_are_those_of_the_stores(sample_slide: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    shutil.copy(sample_slide, tmp_path / "in" / "slide.svs")
    (tmp_path / "in" / "config_render.json").write_text("{}")
    command = [sys.executable, "-u", ROOT / "operators" / "main.py", "load",
               "--input-path", tmp_path / "in", "--output-path", tmp_path / "out"]  # fmt: skip
    subprocess.run(command, check=True, env={**os.environ, "NVIDIA_CLARA_NOSYNCLOCK": "1"}, capture_output=True)
    operator = pipeline("nuclei-segmentation-fastio").operator("load")
    for output in operator.outputs:
        assert output.type is not None
        if output.path is None:
            array = np.load(tmp_path / "out" / f"{output.name}.npy", mmap_mode="r")
            assert array.dtype == output.type.element
            assert array.ndim == len(output.type.shape)
            for size, said in zip(array.shape, output.type.shape, strict=True):
                assert said in (DYNAMIC, size)
    assert {"manifest.json", "config_render.json"} <= {path.name for path in (tmp_path / "out").iterdir()}
