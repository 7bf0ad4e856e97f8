"""load, filter and stitch, started at once and in any order, wait for one another."""

from __future__ import annotations

import itertools
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from nuclei_segmentation.shared.store.manifest import COMPLETE, FILE
from tests.helpers.command import Run, command, environment, refused
from tests.helpers.outputs import FILES, digest, names
from tests.helpers.stages import STAGES, Stages


@pytest.mark.parametrize("order", [*itertools.permutations(STAGES)], ids="-".join)
def test_stages_started_at_once_in_any_order_make_the_image(
    stages: Stages, expected: str, order: tuple[str, ...]
) -> None:
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


def test_stages_stream_and_continue_after_a_killed_one_is_restarted(
    stages: Stages, slow_load: Path, tmp_path: Path
) -> None:
    """load is killed half-way: filter computes maps before load is complete, and waits for the rest."""
    for _ in range(10):  # on a busy machine load may finish before this test runs again
        load = stages.start("load")
        stages.until((stages.output("load") / FILE).exists)
        while load.poll() is None and not stages.records("load"):
            load.send_signal(signal.SIGSTOP)  # a moment at a time: else it might be done before it has written records
            time.sleep(0.05)
            load.send_signal(signal.SIGCONT)
            time.sleep(0.005)
        load.kill()
        stages.end("load")
        if not (stages.output("load") / COMPLETE).exists():
            break
        shutil.rmtree(stages.output("load"))
    assert not (stages.output("load") / COMPLETE).exists()
    assert stages.records("load")
    stages.start("filter")
    stages.start("stitch")
    stages.until(lambda: stages.records("filter") > 0)
    assert stages.processes["filter"].poll() is None
    assert stages.processes["stitch"].poll() is None
    stages.start("load")
    done = {stage: stages.end(stage) for stage in STAGES}
    for stage in STAGES:
        assert done[stage].code == 0, f"{stage}: {done[stage].err}"
    assert "kept from an earlier run" in done["load"].out
    options = ["--input-path", slow_load, "--output-path", tmp_path / "fused", "--config-path", stages.config]
    subprocess.run(command("segmentation", *options, "-t", "48"), check=True, capture_output=True, env=environment())
    assert digest(stages.output("stitch")) == digest(tmp_path / "fused")


def test_stages_that_wait_for_a_killed_one_give_up_and_are_resumed_later(
    stages: Stages, expected: str, run: Run
) -> None:
    stages.setting("wait: {limit: 11}\n")
    assert run(*stages.arguments("load")).code == 0
    (stages.output("load") / COMPLETE).unlink()  # as if it had been killed just before
    stages.start("filter")
    stages.start("stitch")
    for stage in ("filter", "stitch"):
        done = stages.end(stage)
        refused(done, 17, "without any progress", " store in ", "wait.limit")
        assert " store in " in done.err
        assert "which no stage is writing at the moment" in done.err
        assert "NVIDIA_CLARA_NOSYNCLOCK=TRUE turns waiting off" in done.err
    assert not (stages.output("filter") / COMPLETE).exists()
    kept = stages.records("filter")
    assert kept == stages.records("load") > 0, "the tiles that load had stored were inferred"
    for stage in STAGES:
        stages.start(stage)
    assert f"{kept} kept from an earlier run" in stages.end("load").out
    assert f"{kept} of them kept from an earlier run" in stages.end("filter").out
    assert stages.end("stitch").code == 0
    assert digest(stages.output("stitch")) == expected


def test_sigterm_ends_waiting_and_working_stages(stages: Stages, run: Run) -> None:
    for stage in ("filter", "stitch"):
        stages.start(stage)
    load = stages.start("load")
    stages.until_in_use(stages.output("load"))
    load.send_signal(signal.SIGSTOP)
    stages.until_in_use(stages.output("stitch"))
    stages.until_in_use(stages.output("filter"))
    second = run(*stages.arguments("load"))
    refused(second, 13, f"in use by another run (process {load.pid} on")
    for stage in ("filter", "stitch", "load"):
        stages.processes[stage].terminate()
        stages.processes[stage].send_signal(signal.SIGCONT)
        done = stages.end(stage)
        assert done.code == 143, done.err
        assert "Traceback" not in done.err
        assert "run the same command again" in done.err
    assert run(*stages.arguments("load")).code == 0


def test_a_finished_store_of_another_run_is_not_used(stages: Stages, expected: str, run: Run) -> None:
    """The old store is of the same slide: load hands it over to the new run, and only then filter begins."""
    assert run(*stages.arguments("load"), NUCLEI_RUN_ID="yesterday").code == 0
    stages.start("filter", NUCLEI_RUN_ID="today")
    stages.until_in_use(stages.output("filter"))
    time.sleep(1)
    assert stages.processes["filter"].poll() is None
    assert not (stages.output("filter") / "manifest.json").exists()
    stages.start("stitch", NUCLEI_RUN_ID="today")
    stages.start("load", NUCLEI_RUN_ID="today")
    for stage in STAGES:
        done = stages.end(stage)
        assert done.code == 0, f"{stage}: {done.err}"
    assert digest(stages.output("stitch")) == expected


def test_without_a_run_id_stitch_waits_for_stores_of_its_own_slide(
    stages: Stages, sample_slide: Path, expected: str, run: Run, tmp_path: Path
) -> None:
    """Stores of another slide lie in the folders until the right ones replace them."""
    other = ["--input-path", str(sample_slide)]
    assert run(*stages.arguments("load"), *other, "-t", "256").code == 0
    stages.setting("overwrite: true\n")
    stages.start("stitch")
    stages.until_in_use(stages.output("stitch"))
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
def test_with_waiting_turned_off_it_fails_at_once_and_says_what_to_mount(run: Run, stages: Stages, value: str) -> None:
    done = run(*stages.arguments("filter"), NVIDIA_CLARA_NOSYNCLOCK=value)
    refused(done, 10, "no tile store", f"-v <folder that load wrote>:{stages.inputs}/tiles:ro")
    if value == "TRUE":
        done = run(*stages.arguments("stitch"), NVIDIA_CLARA_NOSYNCLOCK=value)
        refused(done, 10, "no tile store", "-v <folder that load wrote>")
        assert run(*stages.arguments("load"), NVIDIA_CLARA_NOSYNCLOCK=value).code == 0
        done = run(*stages.arguments("stitch"), NVIDIA_CLARA_NOSYNCLOCK=value)
        refused(done, 10, "no map store", f"-v <folder that filter wrote>:{stages.inputs}/masks:ro")
        (stages.output("load") / COMPLETE).unlink()
        done = run(*stages.arguments("filter"), NVIDIA_CLARA_NOSYNCLOCK=value)
        refused(done, 10, "not complete", "NVIDIA_CLARA_NOSYNCLOCK")


@pytest.mark.parametrize("value", ["", "FALSE", "off"])
def test_with_any_other_value_it_waits(run: Run, stages: Stages, value: str) -> None:
    stages.setting("wait: {limit: 1}\n")
    done = run(*stages.arguments("filter"), NVIDIA_CLARA_NOSYNCLOCK=value)
    refused(done, 17, "tile store", str(stages.inputs / "tiles"))


def test_load_and_segmentation_never_wait_for_their_input(run: Run, stages: Stages, tmp_path: Path) -> None:
    (stages.inputs / "slide" / "small.tif").unlink()
    refused(run(*stages.arguments("load")), 10)
    (tmp_path / "empty").mkdir()
    refused(run("segmentation", "--input-path", tmp_path / "empty", "--output-path", tmp_path / "out"), 10, "empty")
