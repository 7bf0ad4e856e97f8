"""load, filter and stitch started at once, in any order: they wait for one another."""

from __future__ import annotations

import itertools
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shared.store import ledger
from shared.store.manifest import COMPLETE
from tests.faults.test_bad_input import refused
from tests.stages.conftest import Done, Run, command, environment
from tests.stages.test_segmentation import FILES, digest, names

STAGES = ("load", "filter", "stitch")
OUTPUT = {"load": "tiles", "filter": "masks", "stitch": "out"}


class Stages:
    """The three stages on one slide, each in a process of its own."""

    def __init__(self, root: Path, slide: Path, config: Path) -> None:
        self.root, self.inputs, self.config = root, root / "in", root / "config"
        (self.inputs / "slide").mkdir(parents=True)
        shutil.copy(slide, self.inputs / "slide")
        shutil.copytree(config, self.config)
        self.processes: dict[str, subprocess.Popen[str]] = {}

    def setting(self, text: str) -> None:
        with (self.config / "config.yaml").open("a") as file:
            file.write(text)

    def output(self, stage: str) -> Path:
        return (self.root if stage == "stitch" else self.inputs) / OUTPUT[stage]

    def arguments(self, stage: str) -> list[str]:
        tiles = ["-t", "48"] if stage == "load" else []
        return [
            stage, "--input-path", str(self.inputs), "--output-path", str(self.output(stage)),
            "--config-path", str(self.config), "-w", "2", *tiles,
        ]  # fmt: skip

    def start(self, stage: str, **variables: str) -> subprocess.Popen[str]:
        self.processes[stage] = subprocess.Popen(
            command(*self.arguments(stage)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=environment(**variables),
        )  # fmt: skip
        return self.processes[stage]

    def end(self, stage: str) -> Done:
        process = self.processes.pop(stage)
        out, err = process.communicate(timeout=120)
        return Done(process.returncode, out, err)

    def records(self, stage: str) -> int:
        path = self.output(stage) / ledger.FILE
        return max(0, path.stat().st_size - ledger.HEADER) // 16 if path.exists() else 0

    def until(self, holds: Callable[[], object], seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < end, {name: process.poll() for name, process in self.processes.items()}
            time.sleep(0.005)


@pytest.fixture
def stages(small_slide: Path, dark_config: Path, tmp_path: Path) -> Iterator[Stages]:
    found = Stages(tmp_path, small_slide, dark_config)
    yield found
    for process in found.processes.values():
        process.kill()
        process.communicate()


@pytest.fixture(scope="session")
def expected(small_slide: Path, dark_config: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Digest of the image that `segmentation` makes of the slide."""
    out = tmp_path_factory.mktemp("expected")
    options = ["--input-path", small_slide.parent, "--output-path", out, "--config-path", dark_config, "-t", "48"]
    subprocess.run(command("segmentation", *options), check=True, capture_output=True, env=environment())
    return digest(out)


@pytest.mark.parametrize("order", [*itertools.permutations(STAGES)], ids="-".join)
def test_in_every_order(stages: Stages, expected: str, order: tuple[str, ...]) -> None:
    for stage in order:
        stages.start(stage, NUCLEI_RUN_ID="this run")
    for stage in STAGES:
        done = stages.end(stage)
        assert done.code == 0, f"{stage}: {done.err}"
    assert names(stages.output("stitch")) == FILES
    assert digest(stages.output("stitch")) == expected
    for stage in ("load", "filter"):
        assert (stages.output(stage) / COMPLETE).exists()
        assert not (stages.output(stage) / ".run").exists()


def test_filter_works_on_tiles_as_they_come(stages: Stages, slow_load: Path, expected_slow: str) -> None:
    """load reads a slide that comes slowly; filter has maps on the disk, and stitch takes them, before it is done."""
    stages.start("load")
    stages.until(lambda: stages.records("load") > 0)
    stages.processes["load"].send_signal(signal.SIGSTOP)
    there = stages.records("load")
    stages.start("filter")
    stages.start("stitch")
    stages.until(lambda: stages.records("filter") > 0)
    assert not (stages.output("load") / COMPLETE).exists()
    assert stages.records("filter") <= there
    assert stages.processes["filter"].poll() is None
    stages.processes["load"].send_signal(signal.SIGCONT)
    for stage in STAGES:
        done = stages.end(stage)
        assert done.code == 0, f"{stage}: {done.err}"
    assert digest(stages.output("stitch")) == expected_slow


@pytest.fixture
def slow_load(stages: Stages, sample_slide: Path) -> Path:
    """The sample slide, of whose 2,914 tiles of 48 pixels load needs some seconds."""
    folder = stages.inputs / "slide"
    for path in folder.iterdir():
        path.unlink()
    shutil.copy(sample_slide, folder / "slide.svs")
    stages.setting("mask: none\n")
    return folder


@pytest.fixture
def expected_slow(stages: Stages, slow_load: Path, tmp_path: Path) -> str:
    options = ["--input-path", slow_load, "--output-path", tmp_path / "fused", "--config-path", stages.config]
    subprocess.run(command("segmentation", *options, "-t", "48"), check=True, capture_output=True, env=environment())
    return digest(tmp_path / "fused")


def test_who_waits_for_the_dead_gives_up_and_goes_on_later(stages: Stages, slow_load: Path, expected_slow: str) -> None:
    stages.setting("wait: {limit: 3}\n")
    stages.start("load")
    stages.until(lambda: stages.records("load") > 0)
    stages.processes["load"].kill()
    stages.end("load")
    assert not (stages.output("load") / COMPLETE).exists()
    stages.start("filter")
    stages.start("stitch")
    for stage, lacking in (("filter", "tiles"), ("stitch", "masks")):
        done = stages.end(stage)
        refused(done, 17, "without any progress", f"store of {lacking}", "wait.limit")
    kept = stages.records("filter")
    assert kept > 0, "what was there was inferred"
    for stage in STAGES:
        stages.start(stage)
    assert "kept from an earlier run" in stages.end("load").out
    assert f"{kept} of them kept from an earlier run" in stages.end("filter").out
    assert stages.end("stitch").code == 0
    assert digest(stages.output("stitch")) == expected_slow


def test_who_waits_goes_on_when_the_dead_one_is_started_again(
    stages: Stages, slow_load: Path, expected_slow: str
) -> None:
    stages.start("load")
    stages.until(lambda: stages.records("load") > 0)
    stages.processes["load"].kill()
    stages.end("load")
    stages.start("filter")
    stages.start("stitch")
    stages.until(lambda: stages.records("filter") == stages.records("load"))
    stages.start("load")
    for stage in STAGES:
        done = stages.end(stage)
        assert done.code == 0, f"{stage}: {done.err}"
    assert digest(stages.output("stitch")) == expected_slow


def test_sigterm_ends_a_stage_that_waits_and_one_that_works(stages: Stages, slow_load: Path) -> None:
    stages.start("load")
    stages.start("filter")
    stages.start("stitch")
    stages.until(lambda: (stages.output("stitch") / ".run" / "lock").exists())
    stages.until(lambda: stages.records("load") > 0)
    stages.processes["load"].send_signal(signal.SIGSTOP)
    for stage in ("filter", "stitch"):
        stages.processes[stage].terminate()
        done = stages.end(stage)
        assert done.code == 143, done.err
        assert "Traceback" not in done.err
    stages.processes["load"].send_signal(signal.SIGCONT)
    stages.processes["load"].terminate()
    done = stages.end("load")
    assert done.code in (143, 0), done.err
    stages.start("load")
    assert stages.end("load").code == 0


def test_a_second_run_on_one_store_is_refused(stages: Stages, slow_load: Path) -> None:
    first = stages.start("load")
    stages.until(lambda: stages.records("load") > 0)
    first.send_signal(signal.SIGSTOP)
    second = subprocess.run(
        command(*stages.arguments("load")), capture_output=True, text=True, check=False, env=environment(), timeout=60
    )
    first.send_signal(signal.SIGCONT)
    refused(Done(second.returncode, second.stdout, second.stderr), 13, f"in use by another run (process {first.pid} on")
    assert stages.end("load").code == 0


def test_a_finished_store_of_another_run_is_not_taken(stages: Stages, expected: str, run: Run) -> None:
    """The store in the way is of the same slide; load gives it to the new run, and only then filter begins."""
    assert run(*stages.arguments("load"), NUCLEI_RUN_ID="yesterday").code == 0
    stages.start("filter", NUCLEI_RUN_ID="today")
    stages.until(lambda: (stages.output("filter") / ".run" / "lock").exists())
    time.sleep(1)
    assert stages.processes["filter"].poll() is None
    assert not (stages.output("filter") / "manifest.json").exists()
    stages.start("stitch", NUCLEI_RUN_ID="today")
    stages.start("load", NUCLEI_RUN_ID="today")
    for stage in STAGES:
        done = stages.end(stage)
        assert done.code == 0, f"{stage}: {done.err}"
    assert digest(stages.output("stitch")) == expected


def test_without_a_name_for_the_run_stitch_tells_by_the_slide(
    stages: Stages, sample_slide: Path, expected: str, run: Run, tmp_path: Path
) -> None:
    """Stores of another slide are in the way until the right ones replace them."""
    other = ["--input-path", str(sample_slide)]
    assert run(*stages.arguments("load"), *other, "-t", "256").code == 0
    stages.setting("overwrite: true\n")
    stages.start("stitch")
    stages.until(lambda: (stages.output("stitch") / ".run" / "lock").exists())
    time.sleep(1)
    assert stages.processes["stitch"].poll() is None
    stages.start("load")
    assert stages.end("load").code == 0
    stages.start("filter")
    for stage in ("filter", "stitch"):
        done = stages.end(stage)
        assert done.code == 0, f"{stage}: {done.err}"
    assert digest(stages.output("stitch")) == expected


@pytest.mark.parametrize("value", ["TRUE", "1", "yes", "On"])
def test_told_not_to_wait_it_fails_at_once_and_says_what_to_mount(run: Run, stages: Stages, value: str) -> None:
    done = run(*stages.arguments("filter"), NVIDIA_CLARA_NOSYNCLOCK=value)
    refused(done, 10, "no store of tiles", f"-v <folder that load wrote>:{stages.inputs}/tiles:ro")
    if value == "TRUE":
        done = run(*stages.arguments("stitch"), NVIDIA_CLARA_NOSYNCLOCK=value)
        refused(done, 10, "no store of tiles", "-v <folder that load wrote>")
        assert run(*stages.arguments("load"), NVIDIA_CLARA_NOSYNCLOCK=value).code == 0
        done = run(*stages.arguments("stitch"), NVIDIA_CLARA_NOSYNCLOCK=value)
        refused(done, 10, "no store of masks", f"-v <folder that filter wrote>:{stages.inputs}/masks:ro")
        (stages.output("load") / COMPLETE).unlink()
        done = run(*stages.arguments("filter"), NVIDIA_CLARA_NOSYNCLOCK=value)
        refused(done, 10, "not complete", "NVIDIA_CLARA_NOSYNCLOCK")


@pytest.mark.parametrize("value", ["", "FALSE", "0", "no", "off"])
def test_any_other_value_means_waiting(run: Run, stages: Stages, value: str) -> None:
    stages.setting("wait: {limit: 1}\n")
    done = run(*stages.arguments("filter"), NVIDIA_CLARA_NOSYNCLOCK=value)
    refused(done, 17, "store of tiles", str(stages.inputs / "tiles"))


def test_after_ten_seconds_it_says_for_what_it_waits(run: Run, stages: Stages) -> None:
    stages.setting("wait: {limit: 12}\n")
    done = run(*stages.arguments("stitch"))
    refused(done, 17)
    assert "waiting for the store of tiles in" in done.err
    assert "NVIDIA_CLARA_NOSYNCLOCK=TRUE turns waiting off" in done.err


def test_load_and_segmentation_never_wait(run: Run, stages: Stages, tmp_path: Path) -> None:
    (stages.inputs / "slide" / "small.tif").unlink()
    refused(run(*stages.arguments("load")), 10)
    (tmp_path / "empty").mkdir()
    refused(run("segmentation", "--input-path", tmp_path / "empty", "--output-path", tmp_path / "out"), 10, "empty")
