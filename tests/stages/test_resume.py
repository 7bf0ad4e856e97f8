"""Killed at any instant, the next run finishes with the same bytes and infers only what is missing."""

from __future__ import annotations

import os
import random
import re
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto, helper, numpy_helper, save

from tests.helpers.command import NAME, Run, command, environment
from tests.helpers.outputs import FILES, digest, names, size_of_journal, unfinished

TILES = 165
"""Tiles of 48 pixels on a slide of 700 x 500."""


@pytest.fixture(scope="session")
def slow_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config folder with a model that takes about 10 ms a tile: a 15 x 15 mean, many times over."""
    folder = tmp_path_factory.mktemp("slow")
    import numpy as np

    count = 14
    nodes = [
        helper.make_node("Cast", ["tiles"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["x0"], perm=[0, 3, 1, 2]),
    ]
    weights = [numpy_helper.from_array(np.full((16, 3, 3, 3), 1 / 27, np.float32), "w0")]
    weights += [numpy_helper.from_array(np.full((16, 16, 7, 7), 1 / 784, np.float32), f"w{n}") for n in range(1, count)]
    for n in range(count):
        pad = 1 if n == 0 else 3
        nodes.append(helper.make_node("Conv", [f"x{n}", f"w{n}"], [f"x{n + 1}"], pads=[pad] * 4))
    weights.append(numpy_helper.from_array(np.full((1, 16, 1, 1), -1 / 16 / 255, np.float32), "last"))
    nodes += [
        helper.make_node("Conv", [f"x{count}", "last"], ["minus"]),
        helper.make_node("Add", ["minus", "one"], ["masks"]),
    ]
    weights.append(numpy_helper.from_array(np.float32(1), "one"))
    graph = helper.make_graph(
        nodes, "slow",
        [helper.make_tensor_value_info("tiles", TensorProto.UINT8, ["n", "h", "w", 3])],
        [helper.make_tensor_value_info("masks", TensorProto.FLOAT, ["n", 1, "h", "w"])],
        weights,
    )  # fmt: skip
    path = folder / "models" / NAME / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    (folder / "config.yaml").write_text(f"models: {{repository: {folder / 'models'}}}\nmask: none\n")
    return folder


@pytest.fixture
def slow(small_slide: Path, slow_config: Path, tmp_path: Path) -> list[str]:
    return [
        "segmentation", "--input-path", str(small_slide.parent), "--output-path", str(tmp_path / "out"),
        "--config-path", str(slow_config), "-w", "2", "-t", "48",
    ]  # fmt: skip


def inferred(text: str) -> int:
    """Return how many tiles a run reports as already inferred."""
    match = re.search(r"\((\d+) already inferred\)", text)
    return int(match[1]) if match else 0


def journal_grows(folder: Path, process: subprocess.Popen[Any], size: int) -> None:
    """Wait until the journal has more than `size` bytes, or the run has ended."""
    while process.poll() is None and size_of_journal(folder) <= size:
        time.sleep(0.002)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_run_soon_and_the_next_run_resumes_it(
    run: Run, slow: list[str], tmp_path: Path, number: int, code: int
) -> None:
    with subprocess.Popen(command(*slow), stderr=subprocess.PIPE, text=True, env=environment()) as first:
        journal_grows(tmp_path / "out", first, 2000)
        first.send_signal(number)
        _, errors = first.communicate(timeout=30)
    assert first.returncode == code
    assert "run the same command again" in errors
    assert "Traceback" not in errors
    assert names(tmp_path / "out") == [".run"]
    assert [unfinished(tmp_path / "out", name) for name in ("image.tif", "spool")] == [None, None]
    again = run(*slow)
    assert again.code == 0, again.err
    assert 0 < inferred(again.err) < TILES
    assert names(tmp_path / "out") == FILES
    assert run(*slow, "--output-path", tmp_path / "straight").code == 0
    assert digest(tmp_path / "out") == digest(tmp_path / "straight")


def test_a_run_killed_at_random_instants_is_finished_by_the_next_runs(
    run: Run, slow: list[str], tmp_path: Path
) -> None:
    start = time.monotonic()
    assert run(*slow, "--output-path", tmp_path / "straight").code == 0
    seconds = time.monotonic() - start
    seed = int.from_bytes(os.urandom(4), "little")
    chance = random.Random(seed)
    kept = 0
    for _ in range(12):
        with subprocess.Popen(command(*slow), stderr=subprocess.PIPE, text=True, env=environment()) as process:
            try:
                _, errors = process.communicate(timeout=chance.uniform(0.3 * seconds, 1.1 * seconds))
            except subprocess.TimeoutExpired:
                process.kill()
                _, errors = process.communicate()
        assert "Traceback" not in errors, f"seed {seed}"
        if " tiles of " in errors:  # it ran long enough to say how many tiles were inferred
            assert inferred(errors) >= kept, f"seed {seed}: work was lost"
            kept = inferred(errors)
        if process.returncode == 0:
            break
        if (tmp_path / "out").exists():  # it may be killed before it makes the folder
            assert set(names(tmp_path / "out")) <= {".run", *FILES}
    last = run(*slow)
    assert last.code == 0, last.err
    assert kept > 0 or inferred(last.err) > 0 or "already done" in last.err, f"seed {seed}: nothing was ever kept"
    assert names(tmp_path / "out") == FILES
    assert digest(tmp_path / "out") == digest(tmp_path / "straight"), f"seed {seed}"


def test_a_finished_run_is_not_repeated(run: Run, arguments: list[str], tmp_path: Path) -> None:
    assert run(*arguments).code == 0
    before = (tmp_path / "out" / "image.tif").stat().st_mtime_ns
    again = run(*arguments)
    assert again.code == 0
    assert "already done" in again.err
    assert (tmp_path / "out" / "image.tif").stat().st_mtime_ns == before
    assert names(tmp_path / "out") == FILES


def test_another_result_is_kept_unless_overwrite_is_on(
    run: Run, arguments: list[str], dark_config: Path, tmp_path: Path
) -> None:
    assert run(*arguments).code == 0
    before = digest(tmp_path / "out")
    other = run(*arguments, "-t", "128")
    assert other.code == 13
    assert "another result" in other.err
    assert digest(tmp_path / "out") == before
    assert names(tmp_path / "out") == FILES
    (tmp_path / "config.yaml").write_text(
        (dark_config / "config.yaml").read_text() + "overwrite: true\noverlay: {color: [255, 0, 0]}\n"
    )
    assert run(*arguments, "--config-path", tmp_path).code == 0
    assert digest(tmp_path / "out") != before
    assert names(tmp_path / "out") == FILES


def test_a_signal_ends_a_run_that_waits_for_a_silent_server(run: Run, arguments: list[str], tmp_path: Path) -> None:
    """The server accepts connections and never answers; the run would wait for minutes."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(8)
        server = f"127.0.0.1:{silent.getsockname()[1]}"
        with (
            subprocess.Popen(
                command(*arguments), stderr=subprocess.PIPE, text=True, env=environment(NVIDIA_CLARA_TRTISURI=server)
            ) as process,
            silent.accept()[0],
        ):
            time.sleep(0.5)
            process.terminate()
            _, errors = process.communicate(timeout=30)
    assert process.returncode == 143, errors
    assert "Traceback" not in errors


def test_a_signal_ends_a_run_during_one_long_inference(run: Run, slow: list[str], tmp_path: Path) -> None:
    """A tile of 2048 pixels takes this model half a minute, during which Python runs no signal handler."""
    with subprocess.Popen(
        command(*slow, "-t", "2048", "-w", "1"), stderr=subprocess.PIPE, text=True, env=environment()
    ) as process:
        assert process.stderr is not None
        process.stderr.readline()  # the versions
        assert "700 x 500" in process.stderr.readline()
        time.sleep(2)
        process.terminate()
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 143, errors


def test_a_disk_with_room_for_one_image_is_enough_for_the_next_attempt(
    run: Run, slow: list[str], tmp_path: Path
) -> None:
    """What a killed run had reserved for its image is not counted against the next run."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(disk)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"mounting a small file system needs root: {mounted.stderr.strip()}")
    try:
        there = [*slow, "--output-path", str(disk / "out")]
        needs = re.search(r"needs up to ([0-9.]+) MiB", run(*there).err)
        assert needs
        size = f"remount,size={int(float(needs[1]) * 1024 * 1.2)}k"
        subprocess.run(["mount", "-o", size, str(disk)], check=True)
        with subprocess.Popen(command(*there), stderr=subprocess.DEVNULL, env=environment()) as process:
            journal_grows(disk / "out", process, 20_000)
            process.kill()
        image = unfinished(disk / "out", "image.tif")
        assert image is not None
        assert image.stat().st_blocks > 0
        again = run(*there)
        assert again.code == 0, again.err
        assert inferred(again.err) > 0
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_second_run_on_the_same_folder_is_refused(run: Run, slow: list[str], tmp_path: Path) -> None:
    with subprocess.Popen(command(*slow), stderr=subprocess.PIPE, text=True, env=environment()) as first:
        journal_grows(tmp_path / "out", first, 100)
        first.send_signal(signal.SIGSTOP)  # else it might be done before the second begins
        second = run(*slow)
        first.send_signal(signal.SIGCONT)
        assert second.code == 13
        assert f"in use by another run (process {first.pid} on" in second.err
        first.communicate()
    assert first.returncode == 0
    assert names(tmp_path / "out") == FILES
