"""NVIDIA's own sizing tool on our definitions and on published ones: the result, and what it really executes."""

from __future__ import annotations

import http.server
import random
import shlex
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.helpers.container_engine import ROOT, Engine
from tests.helpers.docker_daemon import GROUPS, PLACE, TAGS, daemon, need_docker
from tests.helpers.outputs import FILES, names
from tests.helpers.published import CHAIN, GENOME, SPLIT
from tests.helpers.sizing_tool import DATA, Told, size

OPERATORS = ["load", "filter", "stitch", "segmentation"]
MODELS = ROOT / "models"
SHIPPED = {path.stem.removeprefix("nuclei-segmentation-"): path for path in (ROOT / "pipelines").glob("*.yaml")}
RESULTS = {"embedded": "stitch", "fused": "segmentation"}
"""Those that are really run, and which operator writes the image."""

SERVICES = """\
api-version: 0.4.0
name: services
operators:
- name: infer
  container: {image: x/infer, command: [run, "a b", "it's", "$HOME"]}
  variables: {FIRST: mine, TEXT: "true"}
  input: [{path: /input}]
  output: [{path: /output, name: maps}]
  services:
  - name: trtis
    container: {image: x/one, tag: "1", command: [serve, "$(NVIDIA_CLARA_SERVICE_DATA_PATH)/models"]}
    connections: {http: [{name: FIRST, port: 8000}]}
  - name: my-triton
    container: {image: x/two, tag: "1", command: [serve]}
    connections: {http: [{name: SECOND, port: 8000}, {name: THIRD, port: 8002}]}
  - name: other
    container: {image: x/other, tag: "1", command: [serve]}
    connections: {http: [{name: OTHER, port: 8080}]}
"""
SERVICE = """\
api-version: 0.4.0
name: service
operators:
- name: infer
  container: {image: x/infer}
  input: [{path: /input}]
  services:
  - {name: triton, container: CONTAINER, connections: CONNECTIONS}
"""
WORDS = {
    **{name: path.read_text() for name, path in SHIPPED.items() if name not in RESULTS},
    "models": CHAIN + "  models:\n  - name: segmentation_unet_nuclei\n",
    "split": SPLIT,
    "genome": GENOME,
    "services": SERVICES,
}
"""Those of which only the command lines are looked at."""

BROKEN = {
    "arrays": WORDS.pop("fastio"),
    "no connection": SERVICE.replace("CONTAINER", "{image: x, command: [run]}").replace("CONNECTIONS", "{}"),
    "no port": SERVICE.replace("CONTAINER", "{image: x, command: [run]}").replace("CONNECTIONS", "{http: [{name: A}]}"),
    "no command": SERVICE.replace("CONTAINER", "{image: x}").replace("CONNECTIONS", "{http: [{name: A, port: 8000}]}"),
}
"""Those at which the tool breaks off, with a traceback."""


@pytest.fixture(scope="module")
def told(
    engine: Engine, image: Callable[[str], str], slide: Path, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, Told]:
    """What the tool did with each definition; it is done, and the daemon is gone."""
    need_docker()
    for name in OPERATORS:
        image(name)
    place = tmp_path_factory.mktemp("cpost")
    running: dict[str, Future[Told]] = {}
    with daemon() as docker, healthy() as address, ThreadPoolExecutor(32) as pool:
        docker.adopt(engine, "nuclei/load", TAGS)
        for name, text in (WORDS | BROKEN).items():
            (place / f"{name}.yaml").write_text(text)
            running[name] = pool.submit(
                size, docker, place / f"{name}.yaml", slide, place / name, MODELS, image="nuclei/load", triton=address
            )
        for name in OPERATORS[1:]:
            docker.adopt(engine, f"nuclei/{name}", TAGS)
        for name in RESULTS:
            running[name] = pool.submit(size, docker, SHIPPED[name], slide, place / name)
        return {name: one.result().at(address) for name, one in running.items()}


@contextmanager
def healthy() -> Iterator[str]:
    """Give an address where something says at port 8000 that it is well, in the way of the tool's Triton server."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path.startswith("/api/status") else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    address = f"127.{random.randint(1, 254)}.{random.randint(1, 254)}.1"  # at 127.0.0.1 it may be taken
    with http.server.ThreadingHTTPServer((address, 8000), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield address
        server.shutdown()


def ours(definition: Path, slide: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """Have our runner print its lines."""
    return subprocess.run(
        [sys.executable, "-m", "pipelines", "run", definition, "--engine", "docker", "--compat", "cpost", "--dry-run",
         "--input", slide, "--output", out, "--models", MODELS],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


@pytest.mark.parametrize("name", RESULTS)
def test_the_shipped_definition_gives_its_image(told: Mapping[str, Told], outside: bytes, name: str) -> None:
    tool, result = told[name], told[name].made / RESULTS[name]
    assert tool.code == 0, tool.text
    assert "Non-zero exitcode" not in tool.text  # it returns 0 all the same
    assert names(result) == FILES, tool.text
    assert (result / "image.tif").read_bytes() == outside


@pytest.mark.parametrize("name", [*RESULTS, *WORDS])
def test_our_lines_are_the_tools(told: Mapping[str, Told], slide: Path, tmp_path: Path, name: str) -> None:
    definition = SHIPPED.get(name, tmp_path / "pipeline.yaml")
    if name not in SHIPPED:
        definition.write_text(WORDS[name])
    assert told[name].code == 0, told[name].text
    out = tmp_path / "out"
    done = ours(definition, slide, out)
    assert done.returncode == 0, done.stderr
    lines = [shlex.split(line) for line in done.stdout.replace(f"{out}/.job/data", DATA).splitlines()]
    assert lines == [*told[name].servers, *told[name].operators]


@pytest.mark.parametrize("name", BROKEN)
def test_we_refuse_what_the_tool_breaks_off_at(
    told: Mapping[str, Told], slide: Path, tmp_path: Path, name: str
) -> None:
    definition = tmp_path / "pipeline.yaml"
    definition.write_text(BROKEN[name])
    assert told[name].code != 0
    assert "Traceback" in told[name].text
    assert told[name].operators == []
    done = ours(definition, slide, tmp_path / "out")
    assert (done.returncode, done.stdout) == (2, "")
    assert "NVIDIA's tool" in done.stderr


def test_nothing_is_left(engine: Engine) -> None:
    need_docker()
    machine = sorted(path.name for path in Path("/sys/class/net").glob("docker*"))
    with daemon() as docker:
        docker.adopt(engine, "nuclei/load", TAGS)
        container = docker.call("run", "-d", "--rm", "--stop-signal", "KILL", "nuclei/load", "sleep", "600")
        groups = list(GROUPS.glob(f"*/docker/{container}"))
        processes = [int(one) for one in (groups[0] / "cgroup.procs").read_text().split()]
        assert processes
        processes.append(docker.process.pid)
    assert [one for one in processes if Path("/proc", str(one)).exists()] == []
    assert [one for one in groups if one.exists()] == []
    assert str(PLACE) not in Path("/proc/mounts").read_text()
    assert not docker.folder.exists()
    assert sorted(path.name for path in Path("/sys/class/net").glob("docker*")) == machine
