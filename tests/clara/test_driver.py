"""A stage under NVIDIA's driver: when it is taken, where it gets its folders, and how it may end."""

from __future__ import annotations

import signal
import subprocess
import time
import tomllib
from pathlib import Path

import pytest

from tests.helpers.clara_job import Job
from tests.helpers.command import ROOT, Run, command, environment
from tests.helpers.outputs import FILES, size_of_journal


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


@pytest.mark.parametrize("value", ["", "false", "0"])
def test_the_payload_names_the_folders(job: Job, small_slide: Path, tmp_path: Path, plain: bytes, value: str) -> None:
    inputs, outputs = [("slide", small_slide.parent)], [("", tmp_path / "mapped")]
    done = job.stage("segmentation", inputs, outputs, NVIDIA_CLARA_NOSYNCLOCK=value)
    assert done.code == 0, done.err
    assert job.calls[-1] == job.calls[-1] | {"call": "executed", "good": True}
    assert names(tmp_path / "mapped") == FILES
    assert (tmp_path / "mapped" / "image.tif").read_bytes() == plain


@pytest.mark.parametrize("value", ["TRUE", "1", " yes "])
def test_the_variable_turns_the_driver_off(job: Job, arguments: list[str], value: str) -> None:
    done = job.stage(*arguments[:1], [], [], *arguments[1:], NVIDIA_CLARA_NOSYNCLOCK=value)
    assert done.code == 0, done.err
    assert not job.calls


def test_a_folder_named_clara_is_no_driver(run: Run, arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "path" / "clara").mkdir(parents=True)
    done = run(*arguments, PYTHONPATH=str(tmp_path / "path"), NVIDIA_CLARA_NOSYNCLOCK="")
    assert done.code == 0, done.err


def test_options_win_over_the_payload(job: Job, small_slide: Path, tmp_path: Path) -> None:
    elsewhere = [("", tmp_path / "elsewhere")]
    given = ["--input-path", small_slide.parent, "--output-path", tmp_path / "out"]
    done = job.stage("segmentation", elsewhere, elsewhere, *given)
    assert done.code == 0, done.err
    assert job.called("executed") == 1
    assert names(tmp_path / "out") == FILES
    assert not (tmp_path / "elsewhere").exists()


def test_an_option_wins_even_where_it_names_the_default(job: Job, small_slide: Path, tmp_path: Path) -> None:
    done = job.stage("segmentation", [("", small_slide.parent)], [("", tmp_path / "out")], "--input-path", "/input")
    assert done.code == 10, done.err
    assert "/input" in done.err


@pytest.mark.parametrize("titles", [("", "b", "c"), ("masks", "tiles", "slide"), ("x y", "é", "")])
def test_the_slide_is_found_whatever_the_folders_are_called(
    job: Job, small_slide: Path, tmp_path: Path, titles: tuple[str, ...]
) -> None:
    for name in ("first", "last"):
        (tmp_path / name).mkdir()
    inputs = list(zip(titles, (tmp_path / "first", small_slide.parent, tmp_path / "last"), strict=True))
    done = job.stage("segmentation", inputs, [("one", tmp_path / "out"), ("two", tmp_path / "other")])
    assert done.code == 0, done.err
    assert "2 output folders" in done.err
    assert names(tmp_path / "out") == FILES
    assert not (tmp_path / "other").exists()


def test_a_failing_stage_keeps_its_code(job: Job, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = job.stage("segmentation", [("", tmp_path / "empty")], [("", tmp_path / "out")])
    assert done.code == 10, done.err
    assert str(tmp_path / "empty") in done.err
    assert "Traceback" not in done.err
    assert job.calls[-1] == job.calls[-1] | {"call": "executed", "good": False}  # the driver was told


def test_a_stage_in_a_thread_of_the_driver(job: Job, small_slide: Path, tmp_path: Path) -> None:
    done = job.stage("segmentation", [("", small_slide.parent)], [("", tmp_path / "out")], fault="thread")
    assert done.code == 0, done.err
    assert names(tmp_path / "out") == FILES
    failed = job.stage("segmentation", [("", tmp_path / "none")], [("", tmp_path / "out")], fault="thread")
    assert failed.code == 10, failed.err
    assert "Traceback" not in failed.err


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        ("never", 17, ["without starting this stage", "clara-pod-manager"]),
        ("no-library", 2, ["libnvclara.so", "NVIDIA_CLARA_NOSYNCLOCK=TRUE"]),
        ("no-driver", 2, ["has no class Driver", "NVIDIA_CLARA_NOSYNCLOCK=TRUE"]),
        ("refuses", 2, ["no Pod Manager answers", "NVIDIA_CLARA_NOSYNCLOCK=TRUE"]),
        ("breaks", 70, ["the stage is done", "the Pod Manager has gone"]),
    ],
)
def test_a_driver_that_fails(
    job: Job, small_slide: Path, tmp_path: Path, fault: str, code: int, words: list[str]
) -> None:
    done = job.stage("segmentation", [("", small_slide.parent)], [("", tmp_path / "out")], fault=fault)
    assert done.code == code, done.err
    last = done.err.splitlines()[-1]
    assert [word for word in words if word not in last] == []
    assert "Traceback" not in done.err
    assert names(tmp_path / "out") == (FILES if fault == "breaks" else [])


def test_the_failure_of_the_stage_tells_more_than_that_of_the_driver(job: Job, tmp_path: Path) -> None:
    done = job.stage("segmentation", [("", tmp_path / "none")], [("", tmp_path / "out")], fault="breaks")
    assert done.code == 10, done.err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_a_driver_that_waits_in_c(
    job: Job, small_slide: Path, tmp_path: Path, number: int, code: int
) -> None:
    variables = job.variables([("", small_slide.parent)], [("", tmp_path / "out")], "blocks")
    with subprocess.Popen(
        command("segmentation", "--config-path", job.config), stderr=subprocess.PIPE, text=True,
        env=environment(**variables),
    ) as process:  # fmt: skip
        while process.poll() is None and not job.called("blocks"):
            time.sleep(0.01)
        process.send_signal(number)
        _, told = process.communicate(timeout=30)
    assert process.returncode == code, told
    assert "run the same command again" in told
    assert "Traceback" not in told


def test_a_signal_ends_the_work_itself(job: Job, small_slide: Path, tmp_path: Path) -> None:
    variables = job.variables([("", small_slide.parent)], [("", tmp_path / "out")])
    with subprocess.Popen(
        command("segmentation", "--config-path", job.config, "-t", "16", "-w", "1"),
        stderr=subprocess.PIPE, text=True, env=environment(**variables),
    ) as process:  # fmt: skip
        while process.poll() is None and not size_of_journal(tmp_path / "out"):
            time.sleep(0.002)
        process.terminate()
        _, told = process.communicate(timeout=30)
    assert process.returncode == 143, told
    assert "Traceback" not in told
    again = job.stage("segmentation", [("", small_slide.parent)], [("", tmp_path / "out")], "-t", "16")
    assert again.code == 0, again.err


def test_the_stand_in_goes_into_no_wheel() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    folders = project["tool"]["setuptools"]["package-dir"].values()
    assert not [folder for folder in folders if folder.startswith("tests")]
