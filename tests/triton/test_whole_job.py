"""A whole run with a real server gives the embedded engine's bytes, even if the server is killed in the middle."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.command import NAME, Run, command, environment
from tests.helpers.outputs import FILES, digest, names, size_of_journal
from tests.helpers.triton_server import TritonServer, add_model

IMAGE, MAPS = ("tiles", "TYPE_UINT8", [-1, -1, 3]), ("masks", "TYPE_UINT8", [-1, -1, 2])


@pytest.fixture
def small_tiles(arguments: list[str], dark_config: Path, tmp_path: Path) -> list[str]:
    """Tiles of 64 pixels, one per request, all of them inferred: 88 requests."""
    folder = tmp_path / "config"
    folder.mkdir()
    text = (dark_config / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text + "mask: none\ninference: {batch: 1, in_flight: 2, retries: 12}\n")
    return [*arguments, "-t", "64", "--config-path", str(folder)]


@pytest.fixture
def dark_server(dark_config: Path, tmp_path: Path) -> Iterator[TritonServer]:
    """A server with the embedded engine's model that takes 0.05 s longer for each request."""
    repository = tmp_path / "repository"
    add_model(
        repository, NAME, dark_config / "models" / NAME / "1" / "model.onnx", IMAGE, [MAPS], max_batch=8, delay=0.05
    )
    with TritonServer(repository, tmp_path / "server.log") as server:
        yield server


def test_a_server_gives_the_embedded_engines_bytes(
    run: Run, small_tiles: list[str], dark_server: TritonServer, tmp_path: Path
) -> None:
    done = run(*small_tiles, NVIDIA_CLARA_TRTISURI=f"http://{dark_server.address}")
    assert done.code == 0, done.err
    assert names(tmp_path / "out") == FILES
    assert run(*small_tiles, "--output-path", tmp_path / "embedded").code == 0
    assert digest(tmp_path / "out") == digest(tmp_path / "embedded")


def test_a_server_killed_and_started_again_in_the_middle_of_a_run(
    run: Run, small_tiles: list[str], dark_server: TritonServer, tmp_path: Path
) -> None:
    with subprocess.Popen(
        command(*small_tiles), stderr=subprocess.PIPE, text=True,
        env=environment(NVIDIA_TRITON_HTTPURI=dark_server.address),
    ) as process:  # fmt: skip
        while process.poll() is None and size_of_journal(tmp_path / "out") <= 20_000:
            time.sleep(0.005)
        assert process.poll() is None, "the run was over before the server could be killed"
        dark_server.kill()
        time.sleep(0.5)
        assert process.poll() is None
        dark_server.start()
        _, log = process.communicate(timeout=120)
    assert process.returncode == 0, log
    assert "is back after" in log
    assert run(*small_tiles, "--output-path", tmp_path / "embedded").code == 0
    assert digest(tmp_path / "out") == digest(tmp_path / "embedded")


def test_a_server_that_stays_away_ends_the_run_and_the_work_is_kept(
    run: Run, small_tiles: list[str], dark_server: TritonServer, tmp_path: Path
) -> None:
    config = tmp_path / "config" / "config.yaml"
    config.write_text(config.read_text().replace("retries: 12", "retries: 1"))
    server = {"CLARA_TRITON_URI": dark_server.address}
    with subprocess.Popen(
        command(*small_tiles), stderr=subprocess.PIPE, text=True, env=environment(**server)
    ) as process:
        while process.poll() is None and size_of_journal(tmp_path / "out") <= 20_000:
            time.sleep(0.005)
        dark_server.kill()
        _, log = process.communicate(timeout=120)
    assert process.returncode == 16, log
    assert "Traceback" not in log
    assert names(tmp_path / "out") == [".run"]
    dark_server.start()
    again = run(*small_tiles, **server)
    assert again.code == 0, again.err
    assert "already inferred" in again.err
    assert names(tmp_path / "out") == FILES


def test_a_model_of_another_shape(
    run: Run, arguments: list[str], server: TritonServer, nets_folder: Path, tmp_path: Path
) -> None:
    """Channels first, float, one probability map, fixed size, no batches."""
    (tmp_path / "config.yaml").write_text(f"models: {{repository: {nets_folder}, input_scale: 0.00392156862745098}}\n")
    odd = [*arguments, "--config-path", str(tmp_path), "-m", "planar"]
    done = run(*odd, NVIDIA_CLARA_TRTISURI=server.address)
    assert done.code == 0, done.err
    assert run(*odd, "--output-path", tmp_path / "embedded").code == 0
    assert digest(tmp_path / "out") == digest(tmp_path / "embedded")


@pytest.mark.parametrize(
    ("model", "words"), [("nan", "nan"), ("small", "-t 64"), ("cropped", "cropped"), ("none", "none")]
)
def test_a_wrong_model(
    run: Run, arguments: list[str], server: TritonServer, tmp_path: Path, model: str, words: str
) -> None:
    done = run(*arguments, "-m", model, NVIDIA_CLARA_TRTISURI=server.address)
    assert done.code == 15, done.err
    assert words in done.err
    assert "Traceback" not in done.err
    assert list((tmp_path / "out").iterdir()) == []
