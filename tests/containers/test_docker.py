"""Definitions that our runner runs with Docker."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.containers.cpost.daemon import CLIENT, daemon
from tests.containers.engine import Engine
from tests.containers.test_cpost import TAGS, need_docker
from tests.containers.test_pipelines import STAGES, line
from tests.stages.conftest import environment


def test_docker_gives_the_bytes_of_one_process(
    engine: Engine, image: Callable[[str], str], slide: Path, outside: bytes, tmp_path: Path
) -> None:
    need_docker()
    for one in STAGES:
        image(one)
    with daemon() as docker:
        for one in STAGES:
            docker.adopt(engine, f"nuclei/{one}", TAGS)
        shared = docker.environment | {"PATH": f"{CLIENT.parent}:{docker.environment['PATH']}"}
        for name, more in (("-embedded", []), ("-fastio", ["--pod"])):
            out = tmp_path / name
            done = subprocess.run(
                line(Engine("docker", {}), name, slide, out, *more), capture_output=True, text=True, check=False,
                timeout=240, env=environment(**shared),
            )  # fmt: skip
            logs = "".join(log.read_text() for log in (out / ".job" / "logs").glob("*"))
            assert done.returncode == 0, done.stderr + logs
            assert (out / "image.tif").read_bytes() == outside
        assert not docker.call("ps", "--all", "--quiet")
