"""All operators started at once, and limits of time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nuclei_segmentation.pipelines.runner.schedule import Limits
from tests.helpers.jobs import Job, diamond
from tests.helpers.pipelines import run

pytestmark = pytest.mark.slow  # each test runs whole operators

WAITS = "touch $1/here; until [ -e {before} ]; do sleep 0.05; done; touch $1/done"


@pytest.fixture
def pod(job: Job) -> Job:
    job.plan = replace(job.plan, pod=True)
    return job


@pytest.mark.parametrize("name", ["embedded", "fastio"])
def test_the_definitions_give_the_bytes_of_segmentation(
    name: str, small_slide: Path, expected: bytes, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = run(f"nuclei-segmentation-{name}", small_slide.parent, out, "--pod", "-p", "WORKERS=1")
    assert done.returncode == 0, done.stderr
    assert (out / "image.tif").read_bytes() == expected
    starts = [line for line in done.stderr.splitlines() if line.endswith(": starts")]
    ends = next(number for number, line in enumerate(done.stderr.splitlines()) if "exit code" in line)
    assert starts == ["load: starts", "filter: starts", "stitch: starts"]
    assert done.stderr.splitlines().index("stitch: starts") < ends, "all start before one ends"


def test_who_waits_for_one_that_failed_is_ended(pod: Job) -> None:
    folder = pod.folders.written
    pod.step("a", "exit 3")
    pod.step("b", WAITS.format(before=folder("a", "") / "done"), "a")
    pod.step("c", WAITS.format(before=folder("b", "") / "done"), "b")
    pod.step("d", "touch $1/result")
    assert pod.run() == 3
    table = pod.table()
    assert table["a"].startswith("exit code 3")
    assert [table["b"], table["c"]] == ["stopped: a failed"] * 2
    assert table["d"].startswith("done")


def test_the_next_run_starts_what_is_missing(pod: Job) -> None:
    folder = pod.folders.written
    flag = pod.folders.payload.parent / "flag"
    pod.step("a", "touch $1/done")
    pod.step("b", f"[ -e {flag} ] || exit 4; touch $1/done", "a")
    pod.step("c", WAITS.format(before=folder("b", "") / "done"), "b")
    assert pod.run() == 4
    flag.touch()
    assert pod.run() == 0
    assert [line for line in pod.shown if line.endswith(": starts")] == ["b: starts", "c: starts"]


def test_the_time_of_an_operator(job: Job) -> None:
    diamond(job, b="sleep 100")
    job.options = replace(job.options, limits=Limits(step=1.0))
    assert job.run() == 124
    table = job.table()
    assert table["b"] == "stopped: its time"
    assert [table["c"][:4], table["d"]] == ["done", "not run"]
    assert "a time limit is reached" in job.shown[-1]


def test_the_time_of_a_run(job: Job) -> None:
    diamond(job, b="sleep 100", c="sleep 100")
    job.options = replace(job.options, limits=Limits(run=1.5))
    assert job.run() == 124
    table = job.table()
    assert table["a"].startswith("done")
    assert [table["b"], table["c"]] == ["stopped: its time"] * 2
    job.options = replace(job.options, limits=Limits(run=1.5))
    assert job.run() == 124
    assert "a: already done" in job.shown


def test_who_ends_with_0_when_told_to_end_is_not_done(job: Job) -> None:
    """Podman ends so if it has not started the container yet."""
    job.step("a", "[ -e $1/result ] && exit; trap 'touch $1/result; exit 0' TERM; sleep 100 & wait")
    job.options = replace(job.options, limits=Limits(step=0.5))
    assert job.run() == 124
    assert job.run() == 0
    assert "a: starts" in job.shown
    assert (job.folders.output / "result").exists()
