"""Workflows as `python -m pipelines argo` writes them, executed as real pods."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helpers.container_engine import ROOT, USER, Engine, folder
from tests.helpers.outputs import FILES, names
from tests.helpers.triton_server import add_shipped_model
from tests.helpers.workflow_runner import Failed, Run

Image = Callable[[str], str]
NVIDIAS = "nvcr.io/nvidia/tritonserver:24.12-py3"
OPERATORS = ("load", "filter", "stitch")


def exported(definition: Path, *options: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "pipelines", "argo", definition, "--user", str(USER[0]), *options],
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
        given = {"payload": slide.name, "WORKERS": "1", **values}
        return Run(engine, network, claims, document, given, pause=lambda seconds: None)

    return make


def result(done: Run) -> Path:
    return done.claims["nuclei-work"] / done.name / "result"


@pytest.mark.parametrize("volumes", ["claims", "folders"])
def test_filter_in_shards(
    volumes: str, run: Callable[..., Run], image: Image, slide: Path, outside: bytes, tmp_path: Path
) -> None:
    for one in OPERATORS:
        image(one)
    folders = ["--payload-claim", str(slide.parent), "--work-claim", str(tmp_path / "work")]
    done = run(exported(shipped("-embedded"), *(folders if volumes == "folders" else ())), shards="3")
    if volumes == "folders":
        done.claims = {"nuclei-work": tmp_path / "work"}
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


@pytest.mark.parametrize(("name", "options"), [("", ()), ("-fastio", ("--triton-image", NVIDIAS))])
def test_triton_as_a_daemon(
    name: str, options: tuple[str, ...], run: Callable[..., Run], engine: Engine, image: Image, outside: bytes,
    tmp_path: Path,
) -> None:  # fmt: skip
    """Another server takes the place of NVIDIA's, which cannot be had here; nor is there a GPU."""
    for one in OPERATORS:
        image(one)
    engine.call("tag", image("triton"), NVIDIAS)
    add_shipped_model(tmp_path / "models")
    document = exported(shipped(name), *options)
    (daemon,) = (one for one in document["spec"]["templates"] if one.get("daemon"))
    for amounts in daemon["container"]["resources"].values():
        assert amounts.pop("nvidia.com/gpu") == "1"
    done = run(document)
    done.claims = {**done.claims, "nuclei-models": tmp_path / "models"}
    done()
    tasks = sorted(one.task for one in done.attempts)
    assert tasks == (["operators"] if name else ["filter-0", "filter-1", "load", "stitch"])
    assert (result(done) / "image.tif").read_bytes() == outside
    manifests = (done.claims["nuclei-work"] / done.name / "data" / "filter").glob("**/manifest.json")
    assert {json.loads(one.read_bytes())["model"]["engine"] for one in manifests} == {"triton"}


def test_typed_is_one_pod_with_shared_memory(run: Callable[..., Run], image: Image, outside: bytes) -> None:
    for one in OPERATORS:
        image(one)
    done = run(exported(shipped("-fastio")))
    done()
    (attempt,) = done.attempts
    assert list(attempt.codes) == list(OPERATORS)
    assert (result(done) / "image.tif").read_bytes() == outside
    for store, kind in (("load/tiles-manifest", "tiles"), ("filter/masks-manifest", "masks")):
        manifest = json.loads((done.claims["nuclei-work"] / done.name / "data" / store / "manifest.json").read_bytes())
        assert manifest["arrays"][kind]["file"].startswith("/dev/shm/nuclei-")
        assert manifest["run"] == done.name

    shutil.rmtree(result(done))
    again = replace(done, attempts=[])
    assert again.name == done.name
    again()  # as after the loss of a pod, with which its memory went
    assert (result(again) / "image.tif").read_bytes() == outside


def toy(tmp_path: Path, command: str) -> Path:
    """Return a definition with one operator of this project, which runs another command than its own."""
    words = json.dumps(["/bin/bash", "-c", command])
    (tmp_path / "toy.yaml").write_text(
        "api-version: 0.4.0\nname: Toy_Pipeline\noperators:\n- name: Step_One\n"
        f"  container: {{image: nuclei/load, tag: 0.1.0, command: {words}}}\n"
        "  input: [{path: /input}]\n  output: [{path: /output}]\n"
    )
    return tmp_path / "toy.yaml"


@pytest.mark.parametrize("code", [16, 17, 143])
def test_tried_again_after_an_exit_code_that_is_worth_it(
    run: Callable[..., Run], image: Image, tmp_path: Path, code: int
) -> None:
    image("load")
    command = f"echo >> /output/tries; [ $(wc -l < /output/tries) = 3 ] || exit {code}; cat /input/* > /output/copy"
    done = run(exported(toy(tmp_path, command)))
    done()
    assert [one.code for one in done.attempts] == [code, code, 0]
    assert names(result(done)) == ["copy", "tries"]


def test_tried_no_more_than_three_times_again(run: Callable[..., Run], image: Image, tmp_path: Path) -> None:
    image("load")
    done = run(exported(toy(tmp_path, "exit 16")))
    with pytest.raises(Failed):
        done()
    assert [one.code for one in done.attempts] == [16, 16, 16, 16]


@pytest.mark.parametrize("code", [1, 2, 11, 14, 18, 70, 137])
def test_not_tried_again_where_that_is_no_use(run: Callable[..., Run], image: Image, tmp_path: Path, code: int) -> None:
    image("load")
    done = run(exported(toy(tmp_path, f"exit {code}")))
    with pytest.raises(Failed):
        done()
    assert [one.code for one in done.attempts] == [code]


def test_a_pod_that_is_stopped_goes_on_where_it_was(
    run: Callable[..., Run], image: Image, sample_slide: Path, tmp_path: Path
) -> None:
    """As where a node is drained: the operator gets SIGTERM, ends with 143, and is started again."""
    for one in OPERATORS:
        image(one)
    shutil.copy(sample_slide, folder(tmp_path / "payload"))
    done = run(exported(shipped("-embedded")), payload="payload", shards="1")
    done.claims = {**done.claims, "nuclei-payload": tmp_path}
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(done)
        ledgers = done.claims["nuclei-work"] / done.name / "data" / "filter"
        while not any(ledger.stat().st_size > 100 for ledger in ledgers.glob("**/ledger")):
            assert not running.done(), running.exception()
            time.sleep(0.02)
        done.engine.call("kill", "--signal", "TERM", f"{done.name}-filter-0-0-main")
        running.result()
    first, second = (one for one in done.attempts if one.task == "filter-0")
    assert (first.code, second.code) == (143, 0)
    assert "stopped by SIGTERM" in first.logs["main"]
    assert "already inferred" in second.logs["main"]
    assert names(result(done)) == FILES
