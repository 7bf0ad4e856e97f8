"""Runs of users who are unlucky: closed terminals, what was left behind, folders within folders."""

from __future__ import annotations

import io
import signal
import subprocess
from pathlib import Path

import pytest

from nuclei_segmentation.pipelines.job_folder import Folders
from nuclei_segmentation.pipelines.runner import execute
from nuclei_segmentation.pipelines.runner.view import View
from nuclei_segmentation.shared.errors import InputError, LockLost
from tests.helpers.jobs import Job
from tests.helpers.pipelines import run


@pytest.mark.parametrize("option", ["--config", "--models"])
def test_a_folder_that_is_not_there(option: str, tmp_path: Path) -> None:
    done = run("nuclei-segmentation-fused", tmp_path, tmp_path.parent / "out", option, str(tmp_path / "nowhere"))
    assert (done.returncode, f"{option} {tmp_path}/nowhere is not a folder" in done.stderr) == (2, True), done.stderr
    assert not (tmp_path.parent / "out").exists()


def test_an_input_whose_name_is_too_long(job: Job) -> None:
    job.step("a", "true")
    job.folders = Folders(job.folders.payload / ("x" * 300), job.folders.output)
    with pytest.raises(InputError, match="is not a folder"):
        job.run()


def test_a_closed_terminal_ends_a_run_but_not_one_under_nohup(job: Job) -> None:
    job.step("a", "kill -HUP $PPID; sleep 1")
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may themselves run under nohup
    try:
        assert job.run() == 129
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        assert job.run() == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_folder_of_the_configuration_holds_the_output(job: Job, tmp_path: Path) -> None:
    job.step("a", "true")
    job.step("b", "exit 3", "a")
    for said in ("a: starts", "a: already done"):
        shown = io.StringIO()
        assert execute.execute(job.plan, job.folders, tmp_path / "in" / "..", View([], shown)) == 3
        assert said in shown.getvalue().splitlines()


def test_a_state_that_makes_no_sense(job: Job) -> None:
    job.step("a", "echo 1 > $1/one")
    job.folders.job.mkdir(parents=True)
    (job.folders.job / "state.json").write_text('{"key": "x", "done": [], "placed": ["", "/"], "whole": true}')
    assert job.run() == 0
    assert (job.folders.output / "one").exists()


@pytest.mark.parametrize("name", ["lock", "state.json", "state.json.new", "logs/a.log"])
def test_links_to_files_in_the_jobs_folder_lead_nowhere(job: Job, tmp_path: Path, name: str) -> None:
    precious = tmp_path / "precious"
    precious.write_text("thesis")
    path = job.folders.job / name
    path.parent.mkdir(parents=True)
    path.symlink_to(precious)
    job.step("a", "echo 1 > $1/one; echo said")
    assert job.run() == 0
    assert precious.read_text() == "thesis"
    assert (job.folders.output / "one").exists()


@pytest.mark.parametrize("name", ["data", "data/a", "logs", "inputs", "config"])
def test_links_to_folders_in_the_jobs_folder_lead_nowhere(job: Job, tmp_path: Path, name: str) -> None:
    """Also if they are put there between two runs."""
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis").write_text("x")
    path = job.folders.job / name
    job.step("a", "echo 1 > $1/one; echo said")
    job.step("b", "exit 3", "a")
    for _ in range(2):
        if path.is_dir():
            path.rename(tmp_path / "away")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(precious)
        assert job.run() == 3
        assert [(one.name, one.read_text()) for one in precious.iterdir()] == [("thesis", "x")]
        if path.is_symlink():
            path.unlink()


def test_a_run_whose_folder_another_one_has_taken_starts_and_places_nothing(job: Job) -> None:
    job.step("a", f"echo 1 > $1/one; rm {job.folders.job}/lock")
    job.step("b", "echo 1 > $1/two", "a")
    with pytest.raises(LockLost):
        job.run()
    assert [one.name for one in job.folders.output.iterdir()] == [".job"]
    assert not job.folders.written("b", "").exists()


def test_who_was_left_behind_does_not_write_into_the_log_of_the_next(job: Job) -> None:
    log = job.folders.log("a")
    job.step("a", "echo ours; exit 3")
    assert job.run() == 3
    with log.open("r+") as stream, subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=stream) as left:
        assert job.run() == 3
        left.communicate(b"theirs" * 100)
    assert log.read_text() == "ours\n"
