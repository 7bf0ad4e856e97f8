"""Workflows as `python -m pipelines argo` writes them, executed as real pods."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.containers.engine import ROOT, USER, Engine, folder
from tests.containers.podrunner import Failed, Run
from tests.stages.test_segmentation import FILES, names

Image = Callable[[str], str]
OPERATORS = ("load", "filter", "stitch")


def exported(definition: Path, *options: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "pipelines", "argo", definition, "--user", str(USER[0]), "-p", "WORKERS=1", *options],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return yaml.safe_load(done.stdout)


def shipped(name: str) -> Path:
    return ROOT / "pipelines" / f"nuclei-segmentation{name}.yaml"


@pytest.fixture
def run(engine: Engine, network: str, slide: Path, tmp_path: Path) -> Callable[..., Run]:
    """Makes a run whose payload is the small slide; the work volume is the test's folder ``work``."""
    if engine.program != "podman":
        pytest.skip("only Podman runs pods of Kubernetes")
    claims = {"nuclei-payload": slide.parent, "nuclei-work": folder(tmp_path / "work")}

    def make(document: dict[str, Any], **values: str) -> Run:
        return Run(engine, network, claims, document, {"payload": slide.name, **values}, pause=lambda seconds: None)

    return make


def result(done: Run) -> Path:
    return done.claims["nuclei-work"] / done.name / "result"


def test_filter_in_shards(run: Callable[..., Run], image: Image, outside: bytes) -> None:
    for one in OPERATORS:
        image(one)
    done = run(exported(shipped("-embedded")), shards="3")
    done()
    assert sorted(one.task for one in done.attempts) == ["filter-0", "filter-1", "filter-2", "load", "stitch"]
    assert names(result(done)) == FILES
    assert (result(done) / "image.tif").read_bytes() == outside
    for attempt in done.attempts:
        facts = attempt.facts["main"]
        assert facts["Config"]["User"] == f"{USER[0]}:{USER[1]}"
        assert facts["HostConfig"]["ReadonlyRootfs"]
        assert not facts["EffectiveCaps"]
        assert facts["HostConfig"]["Memory"] in (512 << 20, 768 << 20)
        assert facts["HostConfig"]["NanoCpus"] == 2e9
