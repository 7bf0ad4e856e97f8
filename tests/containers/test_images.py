"""What is in the images, and what is not."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable

import pytest

from tests.helpers.container_engine import ROOT, Engine
from tests.helpers.image_limits import MOST_MB
from tests.helpers.modules import module_name, modules_of

MOUNT_POINTS = {
    "load": ["/input", "/output", "/config"],
    "filter": ["/input", "/input/tiles", "/output", "/config"],
    "stitch": ["/input", "/input/slide", "/input/tiles", "/input/masks", "/output", "/config"],
    "segmentation": ["/input", "/output", "/config"],
}
NOT_HERE = {
    "load": ["onnxruntime", "tritonclient", "skimage"],
    "filter": ["skimage", "openslide"],
    "stitch": ["onnxruntime", "skimage", "pyarrow"],
}
WITH_PYARROW = "nuclei_segmentation.operators.stitch.outputs.parquet"
"""The module for which an image is built with PARQUET=true."""

IMPORTS = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
    print(name)
"""

FACTS = """
import hashlib, importlib.metadata as metadata, importlib.util, json, os, pathlib, sys
def licences(distribution):
    return [name for name in distribution.metadata.get_all("License-File") or []
            if not any(path.exists() for path in map(distribution.locate_file, (
                f"{distribution._path.name}/licenses/{name}", f"{distribution._path.name}/{name}")))]
print(json.dumps({
    "app": sorted(os.listdir("/app")),
    "folders": [path for path in ["/input", "/input/slide", "/input/tiles", "/input/masks", "/output", "/config"]
                if os.path.isdir(path)],
    "here": [name for name in ["cv2", "skimage", "pyarrow", "openslide", "onnxruntime", "tritonclient", "pip", "pytest"]
             if importlib.util.find_spec(name)],
    "no licence": {d.metadata["Name"]: missing for d in metadata.distributions() if (missing := licences(d))},
    "not compiled": [str(path) for path in pathlib.Path(sys.prefix, "lib").rglob("*.py")
                     if not pathlib.Path(importlib.util.cache_from_source(path)).exists()],
    "certificates": hashlib.sha256(pathlib.Path("/etc/ssl/certs/ca-certificates.crt").read_bytes()).hexdigest(),
    "pip": [name for name in ["/etc/pip.conf", "/root/.config/pip", "/root/.cache"] if os.path.exists(name)],
    "user": [os.getuid(), os.getgid()],
}))
"""


@pytest.fixture(scope="module", params=MOST_MB)
def operator(request: pytest.FixtureRequest) -> str:
    return request.param


def inspected(engine: Engine, name: str) -> dict:
    return json.loads(engine.call("image", "inspect", name).out)[0]


def test_the_image_is_small_and_says_what_it_is(engine: Engine, image: Callable[[str], str], operator: str) -> None:
    facts = inspected(engine, image(operator))
    assert facts["Size"] <= MOST_MB[operator] * 1_000_000
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    labels = {name.removeprefix("org.opencontainers.image."): text for name, text in facts["Config"]["Labels"].items()}
    assert labels["title"] == f"nuclei/{operator}"
    assert labels["version"] == project["version"]
    assert labels["licenses"] == project["license"]
    assert "research use only" in labels["description"]
    assert re.fullmatch(r"[0-9a-f]{40}|unknown", labels["revision"])
    assert "numpy==" in labels["nuclei.libraries"]
    assert ("nuclei.model" in labels) == (operator in ("filter", "segmentation"))
    assert inspected(engine, f"nuclei/{operator}:{project['version']}")["Id"] == facts["Id"]


def test_the_command_is_the_originals(engine: Engine, image: Callable[[str], str], operator: str) -> None:
    config = inspected(engine, image(operator))["Config"]
    assert not config.get("Entrypoint")  # else a pipeline's command would be taken for arguments
    assert config["Cmd"] == ["/bin/bash", "-c", f"python -u /app/main.py {operator}"]
    assert config["User"] == "1000:1000"
    assert "Healthcheck" not in config


def test_only_what_belongs_is_inside(engine: Engine, image: Callable[[str], str], operator: str) -> None:
    done = engine.run(
        image(operator),
        *engine.hardened(),
        "--user",
        "54321:54321",
        "--env",
        "HOME=",
        command=["python", "-"],
        stdin=FACTS,
    )
    assert done.code == 0, done.err
    facts = json.loads(done.out)
    assert facts["user"] == [54321, 54321]
    assert facts["app"] == ["main.py", *(["models"] if operator in ("filter", "segmentation") else [])]
    assert sorted(facts["folders"]) == sorted(MOUNT_POINTS[operator])
    assert not {"pip", "pytest", *NOT_HERE.get(operator, [])} & set(facts["here"])
    assert facts["no licence"] == {}
    assert [path for path in facts["not compiled"] if "/operators/" in path or "/shared/" in path] == []
    assert facts["pip"] == []
    base = inspected(engine, image(operator))["Config"]["Labels"]["org.opencontainers.image.base.name"]
    bundle = engine.run(base, "--network", "none", command=["sha256sum", "/etc/ssl/certs/ca-certificates.crt"])
    assert bundle.out.split()[0] == facts["certificates"]


def test_every_module_finds_what_it_imports(engine: Engine, image: Callable[[str], str], operator: str) -> None:
    modules = sorted({module_name(path) for path in modules_of(operator)} - {WITH_PYARROW})
    command = ["python", "-W", "error", "-", "nuclei_segmentation.operators.commands", *modules]
    done = engine.run(image(operator), *engine.hardened(), command=command, stdin=IMPORTS)
    assert done.code == 0, done.out + done.err
    assert f"nuclei_segmentation.operators.{operator}" in done.out.split()


def test_any_user_without_a_home_gets_the_usage(engine: Engine, image: Callable[[str], str], operator: str) -> None:
    command = ["/bin/bash", "-c", "unset HOME; python -u /app/main.py -h"]
    done = engine.run(image(operator), *engine.hardened(), "--user", "4711", command=command)
    assert done.code == 0, done.err
    assert done.out.startswith("usage: main.py [-h]")
    assert done.err == ""
