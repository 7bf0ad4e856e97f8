"""Definitions whose operators run as real containers."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines import Definition
from pipelines.plan import Options, plan
from tests.containers.engine import ROOT, Engine
from tests.stages.conftest import environment
from tests.stages.test_segmentation import FILES, names

Image = Callable[[str], str]


def line(engine: Engine, name: str, payload: Path, output: Path) -> list[str]:
    definition = ROOT / "pipelines" / f"nuclei-segmentation-{name}.yaml"
    return [
        sys.executable, "-m", "pipelines", "run", str(definition), "--engine", engine.program,
        "--input", str(payload), "--output", str(output), "-p", "WORKERS=1",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "operators"), [("embedded", ("load", "filter", "stitch")), ("fused", ("segmentation",))]
)
def test_containers_give_the_bytes_of_one_process(
    name: str, operators: tuple[str, ...], engine: Engine, image: Image, slide: Path, outside: bytes, tmp_path: Path
) -> None:
    for one in operators:
        image(one)
    out = tmp_path / "out"
    done = subprocess.run(
        line(engine, name, slide, out), capture_output=True, text=True, check=False, timeout=240,
        env=environment(**engine.environment),
    )  # fmt: skip
    logs = "".join(log.read_text() for log in (out / ".job" / "logs").glob("*"))
    assert done.returncode == 0, done.stderr + logs
    assert (out / "image.tif").read_bytes() == outside
    assert [one for one in names(out) if not one.startswith(".")] == FILES


def test_a_signal_leaves_no_container(engine: Engine, image: Image, sample_slide: Path, tmp_path: Path) -> None:
    image("segmentation")
    payload, out = tmp_path / "in", tmp_path / "out"
    payload.mkdir()
    shutil.copy(sample_slide, payload)
    pipeline = Definition(ROOT / "pipelines" / "nuclei-segmentation-fused.yaml").resolve({"WORKERS": "1"})
    name = plan(pipeline, Options(payload, out, "podman")).steps[0].container

    def there() -> bool:
        return name in engine.call("ps", "-a", "--format", "{{.Names}}").out

    started = environment(**engine.environment)
    with subprocess.Popen(line(engine, "fused", payload, out), stderr=subprocess.PIPE, text=True, env=started) as child:
        while child.poll() is None and not there():
            pass
        child.send_signal(signal.SIGINT)
        assert child.stderr is not None
        told = child.stderr.read()
    assert child.returncode == 130, told
    assert not there()
