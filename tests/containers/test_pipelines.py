"""Definitions whose operators run as real containers."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.helpers.command import environment
from tests.helpers.container_engine import USER, Engine
from tests.helpers.outputs import FILES, names
from tests.helpers.pipelines import line
from tests.helpers.stages import STAGES
from tests.helpers.triton_server import add_shipped_model

Image = Callable[[str], str]


NVIDIAS = "nvcr.io/nvidia/tritonserver:24.12-py3"
"""What the definition names; here it is the name of an image with the same server from a Python package."""


@pytest.fixture
def ready(engine: Engine, image: Image) -> Callable[[], None]:
    """Builds all images that definitions name."""

    def make() -> None:
        for one in (*STAGES, "segmentation"):
            image(one)
        engine.call("tag", image("triton"), NVIDIAS)

    return make


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A repository that the server without ONNX Runtime's backend can serve."""
    folder = tmp_path / "models"
    add_shipped_model(folder)
    return folder


@dataclass
class Outcome:
    code: int
    said: str
    logs: dict[str, str]


def outcome(engine: Engine, out: Path, words: list[str]) -> Outcome:
    environment_ = environment(**engine.environment)
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=240, env=environment_)
    return Outcome(
        done.returncode, done.stderr, {log.stem: log.read_text() for log in (out / ".job" / "logs").glob("*")}
    )


@pytest.fixture
def left(engine: Engine) -> Callable[[], set[str]]:
    """Returns what a run left behind: containers, and folders in shared memory."""

    def there() -> set[str]:
        containers = engine.call("ps", "-a", "--format", "{{.Names}}").out.split()
        return {*containers, *(one.name for one in Path("/dev/shm").glob("nuclei-job-*"))}

    before = there()
    return lambda: there() - before


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("-embedded", ()),
        ("-embedded", ("--pod",)),
        ("-fused", ()),
        ("-fastio", ()),
        ("-fastio", ("--pod",)),
        ("-fastio", ("--triton-image", NVIDIAS, "--pod")),
        ("", ()),
    ],
)
def test_containers_give_the_bytes_of_one_process(
    name: str, more: tuple[str, ...], engine: Engine, ready: Callable[[], None], models: Path, slide: Path,
    outside: bytes, left: Callable[[], set[str]], tmp_path: Path,
) -> None:  # fmt: skip
    ready()
    out = tmp_path / "out"
    served = not name or "--triton-image" in more
    options = [*more, *(["--no-gpu", "--models", str(models)] if served else [])]
    got = outcome(engine, out, line(engine, name, slide, out, *options))
    assert got.code == 0, got.said + "".join(got.logs.values())
    assert (out / "image.tif").read_bytes() == outside
    assert [one for one in names(out) if not one.startswith(".")] == FILES
    assert not left()
    if "filter" in got.logs:
        assert f"by segmentation_unet_nuclei ({'triton' if served else 'embedded'})" in got.logs["filter"]
        assert ("in shared memory" in got.logs["filter"]) is (name == "-fastio")
    assert "MiB of memory" in got.said, "how much memory a container took is known"


def test_a_service_that_cannot_start(
    engine: Engine, ready: Callable[[], None], slide: Path, left: Callable[[], set[str]], tmp_path: Path
) -> None:
    ready()
    (tmp_path / "models" / "empty").mkdir(parents=True)
    out = tmp_path / "out"
    got = outcome(engine, out, line(engine, "", slide, out, "--no-gpu", "--models", str(tmp_path / "models")))
    assert got.code == 16, got.said
    assert "service triton ended with exit code 1 before it answered" in got.said
    assert "failed to load" in got.said.lower()
    assert not left()


TWO = """\
api-version: 0.4.0
name: two
operators:
- name: asks
  container:
    image: nuclei/load
    tag: 0.1.0
    command:
    - python
    - -c
    - |
      import os, urllib.request as u
      for name in ("ONE", "TWO"):
          u.urlopen(f"http://{os.environ[name]}/", timeout=5)
      open("/output/both", "w").close()
  input: [{path: /input}]
  output: [{path: /output}]
  services:
  - name: one
    container: {image: nuclei/load, tag: 0.1.0, command: [python, -m, http.server, "8001"]}
    connections: {http: [{name: ONE, port: 8001}]}
  - name: two
    container: {image: nuclei/load, tag: "0.1.0", command: [python, -u, -m, http.server, "8002"]}
    connections: {http: [{name: TWO, port: 8002}]}
"""


def test_an_operator_with_two_services(
    engine: Engine, image: Image, slide: Path, left: Callable[[], set[str]], tmp_path: Path
) -> None:
    image("load")
    words = line(engine, "-fused", slide, tmp_path / "out")[:-2]
    words[words.index("run") + 1] = str(tmp_path / "two.yaml")
    (tmp_path / "two.yaml").write_text(TWO)
    got = outcome(engine, tmp_path / "out", words)
    assert got.code == 0, got.said + "".join(got.logs.values())
    assert (tmp_path / "out" / "both").is_file()
    assert not left()


CURIOUS = """\
api-version: 0.4.0
name: curious
operators:
- name: curious
  container:
    image: nuclei/load
    tag: 0.1.0
    command:
    - python
    - -c
    - |
      import json, os, pathlib
      def may_write(folder):
          try:
              pathlib.Path(folder, "probe").write_text("")
          except OSError:
              return False
          return True
      status = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
      found = {name: status[name].strip() for name in ("CapEff", "CapBnd", "NoNewPrivs")}
      found["uid"], found["gid"] = os.getuid(), os.getgid()
      places = ("/", "/app", "/etc", "/input", "/output", "/tmp", "/var/tmp")
      found["writes"] = [place for place in places if may_write(place)]
      json.dump(found, open("/output/found.json", "w"))
  input: [{path: /input}]
  output: [{path: /output}]
"""


@pytest.mark.parametrize("user", [None, "0:0"])
def test_a_container_is_confined(user: str | None, engine: Engine, image: Image, slide: Path, tmp_path: Path) -> None:
    image("load")
    words = line(engine, "-fused", slide, tmp_path / "out")[:-2] + (["--user", user] if user else [])
    words[words.index("run") + 1] = str(tmp_path / "curious.yaml")
    (tmp_path / "curious.yaml").write_text(CURIOUS)
    got = outcome(engine, tmp_path / "out", words)
    assert got.code == 0, got.said + "".join(got.logs.values())
    found = json.loads((tmp_path / "out" / "found.json").read_text())
    assert int(found["CapEff"], 16) == int(found["CapBnd"], 16) == 0
    assert found["NoNewPrivs"] == "1"
    assert found["writes"] == ["/output", "/tmp", "/var/tmp"]
    expected = (0, 0) if user else USER
    assert (found["uid"], found["gid"]) == expected


@pytest.mark.parametrize(("name", "more"), [("-fused", ()), ("", ("--pod", "--no-gpu"))])
def test_a_signal_leaves_no_container(
    name: str, more: tuple[str, ...], engine: Engine, ready: Callable[[], None], models: Path, sample_slide: Path,
    left: Callable[[], set[str]], tmp_path: Path,
) -> None:  # fmt: skip
    ready()
    payload, out = tmp_path / "in", tmp_path / "out"
    payload.mkdir()
    shutil.copy(sample_slide, payload)
    words = line(engine, name, payload, out, *more, *(["--models", str(models)] if more else []))
    started = environment(**engine.environment)
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=started) as child:
        assert child.stderr is not None
        told = ""
        while child.poll() is None and not any("-operator-" in one for one in left()):
            time.sleep(0.1)
        child.send_signal(signal.SIGINT)
        told += child.stderr.read()
    assert child.returncode == 130, told
    assert not [one for one in left() if not one.startswith("nuclei-job-")]
    if folders := left():  # shared memory that holds something is kept for the next run, which is told
        assert all(one in told for one in folders)
        for one in folders:
            shutil.rmtree(Path("/dev/shm", one))
