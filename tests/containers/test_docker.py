"""Definitions that our runner runs with Docker."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.helpers.command import environment
from tests.helpers.container_engine import Engine
from tests.helpers.docker_daemon import CLIENT, TAGS, daemon, need_docker
from tests.helpers.pipelines import line
from tests.helpers.stages import STAGES

ONE = """\
api-version: 0.4.0
name: one
operators:
- name: one
  container: {image: nuclei/load, tag: 0.1.0, command: [sh, -c, "%s"]}
  input: [{path: /input}]
  output: [{path: /output}]
"""


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
        for name, more in (("-embedded", ["--compat", "cpost"]), ("-fastio", ["--pod"])):
            out = tmp_path / name
            done = subprocess.run(
                line(Engine("docker", {}), name, slide, out, *more), capture_output=True, text=True, check=False,
                timeout=240, env=environment(**shared),
            )  # fmt: skip
            logs = "".join(log.read_text() for log in (out / ".job" / "logs").glob("*"))
            assert done.returncode == 0, done.stderr + logs
            assert (out / "image.tif").read_bytes() == outside
        for script, code, said in (("echo wrong >&2; sleep 2; exit 7", 7, "  wrong"), ("exit 9", 9, "")):
            definition = tmp_path / "pipeline.yaml"
            definition.write_text(ONE % script)
            words = [*line(Engine("docker", {}), "-fused", slide, tmp_path / f"exit-{code}")[:-2], "--compat", "cpost"]
            words[words.index("run") + 1] = str(definition)
            done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60, env=shared)
            assert (done.returncode, said in done.stderr.splitlines()) == (code, bool(said)), done.stderr
        until = time.monotonic() + 30  # Docker removes what has ended in its own time
        while docker.call("ps", "--all", "--quiet") and time.monotonic() < until:
            time.sleep(0.1)
        assert not docker.call("ps", "--all", "--quiet")
