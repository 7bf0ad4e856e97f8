"""Real images, built from the working tree, in real containers."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.helpers.command import command, environment
from tests.helpers.container_engine import ROOT, Engine, folder, new_name


@pytest.fixture(scope="session")
def engine() -> Engine:
    found = Engine.find()
    if found is None:
        reason = "neither podman nor docker answers; on a bare Debian 12, tests/containers/setup.sh installs Podman"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


@pytest.fixture(scope="session")
def image(engine: Engine) -> Callable[[str], str]:
    """Build an image, once, and return its name. What has not changed since the last time is not built again."""
    built: dict[str, str] = {}

    def build(name: str) -> str:
        if name not in built:
            done = subprocess.run(
                [ROOT / "operators" / "images.sh", name], capture_output=True, text=True, check=False,
                env=os.environ | {"CONTAINER_ENGINE": engine.program},
            )  # fmt: skip
            assert done.returncode == 0, done.stdout + done.stderr
            built[name] = f"nuclei/{name}:latest"
        return built[name]

    return build


@pytest.fixture(scope="session")
def slide(small_slide: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the small slide that the containers' user may look into."""
    place = folder(tmp_path_factory.mktemp("slide") / "slide")
    shutil.copy(small_slide, place)
    return place


@pytest.fixture(scope="session")
def outside(small_slide: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The image.tif of the small slide and the shipped model, made without containers."""
    out = tmp_path_factory.mktemp("outside") / "out"
    subprocess.run(
        command("segmentation", "--input-path", small_slide, "--output-path", out), check=True, env=environment(),
        capture_output=True, timeout=240,
    )  # fmt: skip
    return (out / "image.tif").read_bytes()


@pytest.fixture(scope="session")
def network(engine: Engine) -> Iterator[str]:
    """A network that leads nowhere else, and where containers find each other by name."""
    name = new_name()
    engine.call("network", "create", "--internal", name)
    yield name
    engine.call("network", "rm", name, check=False)


@pytest.fixture(scope="session")
def triton(engine: Engine, image: Callable[[str], str], network: str) -> Iterator[str]:
    """The name of a container with a Triton server on port 8000, which shares its /dev/shm with those who ask."""
    options = [*engine.hardened(network=network), "--ipc", "shareable", "--shm-size", "256m", "--tmpfs", "/tmp"]
    with engine.started(image("triton"), *options) as name:
        ask = "import urllib.request as u; u.urlopen('http://localhost:8000/v2/health/ready', timeout=2)"
        until = time.monotonic() + 120
        while engine.call("exec", name, "python", "-c", ask, check=False).code:
            runs = engine.call("inspect", "--format", "{{.State.Running}}", name).out.strip()
            if runs != "true" or time.monotonic() > until:
                pytest.fail("the server does not start:\n" + engine.call("logs", name).err[-3000:])
            time.sleep(0.5)
        yield name
