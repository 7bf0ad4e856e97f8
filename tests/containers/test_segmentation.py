"""The fused operator in a container: the bytes that it makes outside, whoever runs it, killed in between or not."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.container_engine import Engine, folder
from tests.helpers.outputs import FILES, names, size_of_journal

Image = Callable[[str], str]


def test_the_bytes_of_a_run_outside(engine: Engine, image: Image, slide: Path, outside: bytes, tmp_path: Path) -> None:
    out = folder(tmp_path / "out")
    mounts = [(slide, "/input:ro"), (out, "/output")]
    done = engine.run(image("segmentation"), *engine.hardened(mounts))
    assert done.code == 0, done.err
    assert "/output/image.tif" in done.out
    assert "Traceback" not in done.err
    assert names(out) == FILES
    assert (out / "image.tif").read_bytes() == outside


def test_the_originals_command_line_and_a_config(
    engine: Engine, image: Image, slide: Path, outside: bytes, tmp_path: Path
) -> None:
    out, config = folder(tmp_path / "out"), folder(tmp_path / "config")
    (config / "config.yaml").write_text("overlay: {opacity: 0}\n")
    mounts = [(slide, "/input:ro"), (out, "/output"), (config, "/config:ro")]
    command = ["/bin/bash", "-c", "python -u /app/main.py segmentation -w 1"]
    done = engine.run(image("segmentation"), *engine.hardened(mounts), command=command)
    assert done.code == 0, done.err
    assert "with 1 worker" in done.out
    assert (out / "image.tif").read_bytes() != outside


def test_a_folder_of_somebody_else_is_an_error_not_a_traceback(
    engine: Engine, image: Image, slide: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir(mode=0o555)
    mounts = [(slide, "/input:ro"), (tmp_path / "out", "/output")]
    done = engine.run(image("segmentation"), *engine.hardened(mounts))
    assert done.code == 13, done.err
    assert "/output" in done.err
    assert "Traceback" not in done.err


def test_without_a_result_folder_it_says_so(engine: Engine, image: Image, slide: Path) -> None:
    done = engine.run(image("segmentation"), *engine.hardened([(slide, "/input:ro")]))
    assert done.code == 13, done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(("order", "code"), [(["stop", "-t", "60"], 143), (["kill"], 137)])
def test_stopped_and_started_again(
    engine: Engine, image: Image, sample_slide: Path, tmp_path: Path, order: list[str], code: int
) -> None:
    place, out = folder(tmp_path / "in"), folder(tmp_path / "out")
    shutil.copy(sample_slide, place)
    options = engine.hardened([(place, "/input:ro"), (out, "/output")])
    with engine.started(image("segmentation"), *options) as name:
        until = time.monotonic() + 120
        while size_of_journal(out) <= 5_000:
            assert time.monotonic() < until, engine.call("logs", name).err
            time.sleep(0.02)
        engine.call(*order, name)
        assert engine.wait(name).code == code
    assert names(out) == [".run"]
    again = engine.run(image("segmentation"), *options)
    assert again.code == 0, again.err
    assert "already inferred" in again.err
    assert names(out) == FILES


def test_triton_in_a_container_beside_it(
    engine: Engine, image: Image, slide: Path, outside: bytes, tmp_path: Path, triton: str, network: str
) -> None:
    out = folder(tmp_path / "out")
    mounts = [(slide, "/input:ro"), (out, "/output")]
    options = engine.hardened(mounts, network=network, NVIDIA_CLARA_TRTISURI=f"{triton}:8000")
    done = engine.run(image("segmentation"), *options)
    assert done.code == 0, done.err
    assert (out / "image.tif").read_bytes() == outside


def test_it_never_falls_back_silently(engine: Engine, image: Image, slide: Path, tmp_path: Path, triton: str) -> None:
    out, config = folder(tmp_path / "out"), folder(tmp_path / "config")
    (config / "config.yaml").write_text("inference: {retries: 0}\n")
    mounts = [(slide, "/input:ro"), (out, "/output"), (config, "/config:ro")]
    options = engine.hardened(mounts, NVIDIA_CLARA_TRTISURI=f"{triton}:8000")  # without its network
    done = engine.run(image("segmentation"), *options)
    assert done.code == 16, done.err
    assert names(out) == []
