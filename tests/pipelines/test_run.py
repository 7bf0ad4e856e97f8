"""Runs: of the project's definitions, and of plans whose operators are small scripts."""

from __future__ import annotations

import io
import json
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from nuclei_segmentation.pipelines.project import MAIN
from nuclei_segmentation.pipelines.runner import execute, schedule
from nuclei_segmentation.pipelines.runner.launch import Process, Running
from nuclei_segmentation.pipelines.runner.step import Step
from nuclei_segmentation.pipelines.runner.view import View
from nuclei_segmentation.shared.errors import InputError, OutputError
from tests.helpers.command import ROOT, command, environment
from tests.helpers.jobs import Job, diamond, left
from tests.helpers.outputs import FILES
from tests.helpers.pipelines import pipelines, run

pytestmark = pytest.mark.slow  # each test runs whole operators


@pytest.mark.parametrize("name", ["embedded", "fused", "fastio"])
def test_the_definitions_give_the_bytes_of_segmentation(
    name: str, small_slide: Path, expected: bytes, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = run(f"nuclei-segmentation-{name}", small_slide.parent, out, "-p", "WORKERS=1")
    assert done.returncode == 0, done.stderr
    assert (out / "image.tif").read_bytes() == expected
    assert sorted(one.name for one in out.iterdir()) == [".job", *FILES]
    assert sorted(one.name for one in (out / ".job").iterdir()) == ["lock", "logs", "state.json"]
    assert done.stderr.splitlines()[-1] == f"the result is in {out}: {', '.join(FILES)}"
    again = run(f"nuclei-segmentation-{name}", small_slide.parent, out, "-p", "WORKERS=1")
    assert (again.returncode, "already holds the result of this run" in again.stderr) == (0, True)
    other = run(f"nuclei-segmentation-{name}", small_slide.parent, out, "-p", "WORKERS=2")
    assert (other.returncode, "holds the result of another run" in other.stderr) == (13, True)


def test_a_config_folder(small_slide: Path, dark_config: Path, expected: bytes, tmp_path: Path) -> None:
    line = command("segmentation", "--input-path", small_slide.parent, "--output-path", tmp_path / "one")
    subprocess.run([*line, "--config-path", dark_config], check=True, capture_output=True, env=environment())
    done = run("nuclei-segmentation-embedded", small_slide.parent, tmp_path / "two", "--config", str(dark_config))
    assert done.returncode == 0, done.stderr
    image = (tmp_path / "two" / "image.tif").read_bytes()
    assert image == (tmp_path / "one" / "image.tif").read_bytes()
    assert image != expected


def test_a_dry_run_prints_the_lines_and_writes_nothing(small_slide: Path, tmp_path: Path) -> None:
    done = run("nuclei-segmentation-embedded", small_slide.parent, tmp_path / "out", "--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    lines = [shlex.split(line) for line in done.stdout.splitlines()]
    assert [line[line.index(str(MAIN)) + 1] for line in lines] == ["load", "filter", "stitch"]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["-p", "WORKRES=1"], 2, "did you mean WORKERS?"),
        (["-p", "WORKERS"], 2, "is not NAME=VALUE"),
        (["--compat", "cpost"], 2, "add --engine docker"),
        (["--compat", "cpost", "--engine", "docker", "--pod"], 2, "remove --pod"),
        (["--input", "/nowhere"], 10, "/nowhere is not a folder"),
        (["--input", ""], 2, "a path is missing"),
        (["--time-limit", "soon"], 2, "'soon' is not a time such as 90, 90s, 15m or 2h"),
        (["--triton-image", "x:1", "--engine", "docker"], 2, "this definition has none"),
        (["-p", "WORKERS=0"], 2, "'0' is not a whole number from 1"),
    ],
)
def test_what_is_refused(more: list[str], code: int, message: str, small_slide: Path, tmp_path: Path) -> None:
    done = run("nuclei-segmentation-embedded", small_slide.parent, tmp_path / "out", *more)
    assert (done.returncode, message in done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr


def test_an_engine_that_is_not_there(small_slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    done = run("nuclei-segmentation-fused", small_slide.parent, tmp_path / "out", "--engine", "docker")
    assert (done.returncode, "docker is not installed on this machine" in done.stderr) == (2, True)


def test_an_output_folder_that_will_not_do(small_slide: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    done = run("nuclei-segmentation-fused", small_slide.parent, tmp_path)
    assert (done.returncode, "is not empty (mine.txt)" in done.stderr) == (13, True)
    done = run("nuclei-segmentation-fused", small_slide.parent, tmp_path / "mine.txt")
    assert (done.returncode, "is not a folder; --output must name" in done.stderr) == (13, True)
    done = run("nuclei-segmentation-fused", small_slide.parent, small_slide.parent / "out")
    assert (done.returncode, "choose a separate folder for the result" in done.stderr) == (13, True)


def stopped(name: str, number: int, slide: Path, place: Path) -> tuple[list[str], int | None, str]:
    """Send a run a signal while filter works; return its command, its exit code and what it said then."""
    (place / "in").mkdir()
    shutil.copy(slide, place / "in")
    definition = ROOT / "pipelines" / f"nuclei-segmentation-{name}.yaml"
    line = pipelines("run", definition, "--input", place / "in", "--output", place / "out")
    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True, env=environment()) as child:
        assert child.stderr is not None
        for text in child.stderr:
            if text == "filter: starts\n":
                break
        time.sleep(0.5)
        child.send_signal(number)
        rest = child.stderr.read()
    return line, child.returncode, rest


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_everything_and_the_next_run_goes_on(
    number: int, code: int, sample_slide: Path, tmp_path: Path
) -> None:
    line, ended, rest = stopped("embedded", number, sample_slide, tmp_path)
    assert ended == code, rest
    assert "run the same command again to resume" in rest
    assert not left(tmp_path)
    done = subprocess.run(line, capture_output=True, text=True, check=True, timeout=240, env=environment())
    assert "load: already done\n" in done.stderr
    assert "load: starts" not in done.stderr
    assert (tmp_path / "out" / "image.tif").is_file()


def test_arrays_in_memory_that_are_gone_are_made_again(sample_slide: Path, tmp_path: Path) -> None:
    line, _, _ = stopped("fastio", signal.SIGINT, sample_slide, tmp_path)
    store = tmp_path / "out" / ".job" / "data" / "load" / "tiles-manifest"
    tiles = Path(json.loads((store / "manifest.json").read_text())["arrays"]["tiles"]["file"])
    assert tiles.parent == Path("/dev/shm")
    tiles.unlink()
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=240, env=environment())
    assert done.returncode == 0, done.stderr
    assert not tiles.exists()
    assert (tmp_path / "out" / "image.tif").is_file()


def test_a_failing_operator_in_a_diamond(job: Job) -> None:
    diamond(job, b="for i in {1..40}; do echo line $i; done; echo wrong >&2; exit 15")
    assert job.run() == 15
    table = job.table()
    assert [table["a"][:4], table["c"][:4]] == ["done", "done"]
    assert table["b"].startswith("exit code 15")
    assert (table["d"], table["e"]) == ("not run", "not run")
    log = job.folders.log("b")
    assert job.shown[-16:] == [
        f"b failed with exit code 15; the end of {log}:", *(f"  line {number}" for number in range(27, 41)), "  wrong",
    ]  # fmt: skip
    assert [one.name for one in job.folders.output.iterdir()] == [".job"]
    assert job.run() == 15, "the next run goes on"
    assert [line for line in job.shown if line.endswith(": starts")] == ["b: starts"]


def test_the_result_is_placed(job: Job) -> None:
    diamond(job)
    assert job.run() == 0
    assert (job.folders.output / "result").read_text() == "e\n"
    assert not job.folders.data.exists()
    assert job.run() == 0
    assert job.shown == [f"{job.folders.output} already holds the result of this run: result"]
    (job.folders.output / "result").unlink()
    assert job.run() == 0, "a result that was removed is made anew"
    assert (job.folders.output / "result").read_text() == "e\n"


def test_another_payload_is_another_run(job: Job) -> None:
    diamond(job, c="exit 3")
    assert job.run() == 3
    (job.folders.payload / "slide").write_text("other")
    assert job.run() == 3
    assert "a: starts" in job.shown
    assert any("differs from this one" in line for line in job.shown)


def test_independent_operators_run_side_by_side(job: Job, tmp_path: Path) -> None:
    both = f"[ -e {tmp_path}/b -a -e {tmp_path}/c ]"
    meet = f"touch {tmp_path}/$0; for i in {{1..200}}; do {both} && exit; sleep 0.1; done; exit 9"
    diamond(job, b=meet, c=meet)
    assert job.run() == 0


def test_a_run_that_was_killed_while_the_result_was_placed(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    job.step("a", "echo 1 > $1/one; echo 2 > $1/two")
    move = Path.replace

    def stop(self: Path, target: Path) -> Path:
        if self.name == "two":
            raise KeyboardInterrupt
        return move(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", stop)
        with pytest.raises(KeyboardInterrupt):
            job.run()
    assert job.run() == 0
    assert "a: already done" in job.shown
    assert [(job.folders.output / name).read_text() for name in ("one", "two")] == ["1\n", "2\n"]


def test_two_runs_at_once(job: Job) -> None:
    job.step("a", "true")

    def launch(step: Step, log: Path) -> Running:
        with pytest.raises(OutputError, match="in use by another run"):
            execute.execute(job.plan, job.folders, None, View([], io.StringIO()))
        return Process(step, log)

    assert job.run(launch) == 0


def test_a_missing_payload_is_refused(job: Job) -> None:
    (job.folders.payload / "slide").unlink()
    job.folders.payload.rmdir()
    with pytest.raises(InputError):
        job.run()


def test_what_an_operator_leaves_running_is_ended(tmp_path: Path) -> None:
    script = f"bash -c 'sleep 100; : {tmp_path}/mark' & echo started"
    child = Process(Step("a", (), ("bash", "-c", script)), tmp_path / "log")
    status = child.wait()
    assert status.code == 0
    assert status.peak_memory is not None
    assert (tmp_path / "log").read_text() == "started\n"
    child.terminate()  # too late, and no harm
    limit = time.monotonic() + 30
    while left(tmp_path / "mark") and time.monotonic() < limit:
        time.sleep(0.05)
    assert not left(tmp_path / "mark")


def test_who_does_not_listen_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "GRACE_SECONDS", 0.5)
    deaf = Step("deaf", (), ("bash", "-c", "trap '' TERM; echo x; while true; do sleep 0.1; done"))
    after = Step("after", ("deaf",), ("true",))
    log = tmp_path / "deaf"
    made = schedule.Schedule(
        [deaf, after], lambda step: Process(step, tmp_path / step.name), lambda _: None,
        stop_requests=lambda: int(log.is_file() and log.stat().st_size > 0),
    )  # fmt: skip
    made.run()
    assert [one.status.code for one in made.results] == [128 + signal.SIGKILL]


def test_an_error_of_the_runner_leaves_nothing_behind(tmp_path: Path) -> None:
    children: list[Process] = []

    def launch(step: Step) -> Running:
        if step.name == "b":
            raise OSError("no")
        children.append(Process(step, tmp_path / step.name))
        return children[0]

    steps = [Step("a", (), ("sleep", "100")), Step("b", (), ("true",))]
    with pytest.raises(OSError, match="no"):
        schedule.Schedule(steps, launch, lambda _: None).run()
    assert children[0]._ended
