"""load, the shards of filter, and stitch, started at once in a process each, wait for one another."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from nuclei_segmentation.shared.settings.shard import Shard
from nuclei_segmentation.shared.store import ledger
from nuclei_segmentation.shared.store.manifest import COMPLETE, read_manifest
from tests.helpers.command import Run, command, environment, refused
from tests.helpers.outputs import FILES, digest, names
from tests.helpers.stages import Stages

THREE = tuple(str(Shard(number, 3)) for number in range(3))


class Divided:
    """The stages, with filter in shards; a part is ``load``, ``stitch`` or a shard like ``0/3``."""

    def __init__(self, stages: Stages) -> None:
        self.stages = stages

    def start(self, part: str, **variables: str) -> subprocess.Popen[str]:
        stages = self.stages
        if part in ("load", "stitch"):
            return stages.start(part, **variables)
        stages.processes[part] = subprocess.Popen(
            command(*stages.arguments("filter")), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=environment(**variables, NUCLEI_SHARD=part),
        )  # fmt: skip
        return stages.processes[part]

    def end(self, *parts: str) -> dict[str, str]:
        """Wait for parts, which must succeed; return their output."""
        outputs = {}
        for part in parts:
            done = self.stages.end(part)
            assert done.code == 0, f"{part}: {done.err}"
            outputs[part] = done.err + done.out
        return outputs

    def folder(self, shard: str) -> Path:
        number, count = shard.split("/")
        return self.stages.output("filter") / f"shard-{number}-of-{count}"

    def records(self, shard: str) -> int:
        return ledger.records(self.folder(shard) / ledger.FILE)


@pytest.fixture
def divided(stages: Stages) -> Iterator[Divided]:
    yield Divided(stages)
    for folder in stages.root.rglob("manifest.json"):
        if (manifest := read_manifest(folder.parent)) is not None:
            left = [Path(facts.file) for facts in manifest.arrays.values() if facts.file.startswith("/dev/shm/nuclei-")]
            assert not [path for path in left if path.exists()], "shared memory was not given back"


ORDERS = [
    ("load", *THREE, "stitch"),
    ("stitch", *reversed(THREE), "load"),
    ("1/3", "stitch", "load", "2/3", "0/3"),
]


@pytest.mark.parametrize("order", ORDERS, ids=" ".join)
@pytest.mark.parametrize("shm", [False, True], ids=["disk", "shared memory"])
def test_shards_started_at_once_in_any_order_make_the_image(
    divided: Divided, stages: Stages, expected: str, order: tuple[str, ...], shm: bool
) -> None:
    stages.setting(f"store: {{shm: {str(shm).lower()}}}\n")
    for part in order:
        divided.start(part, NUCLEI_RUN_ID="this run")
    divided.end(*order)
    assert names(stages.output("stitch")) == FILES
    assert digest(stages.output("stitch")) == expected
    assert sorted(path.name for path in stages.output("filter").iterdir()) == [
        f"shard-{number}-of-3" for number in range(3)
    ]
    for shard in THREE:
        assert (divided.folder(shard) / COMPLETE).exists()
        assert not (divided.folder(shard) / ".run").exists()


@pytest.mark.parametrize("order", [THREE, THREE[::-1]], ids=" ".join)
def test_stitch_waits_for_shards_that_run_one_after_the_other(
    divided: Divided, stages: Stages, expected: str, order: tuple[str, ...]
) -> None:
    stitch = divided.start("stitch")
    divided.start("load")
    for shard in order:
        assert stitch.poll() is None
        divided.start(shard)
        divided.end(shard)
    divided.end("load", "stitch")
    assert digest(stages.output("stitch")) == expected


def test_a_killed_shard_is_resumed_while_the_others_work(
    divided: Divided, stages: Stages, slow_load: Path, tmp_path: Path
) -> None:
    """The tiles end within the shard, as if load had been killed, so the shard cannot finish before it is killed."""
    divided.start("load")
    divided.end("load")
    (stages.output("load") / COMPLETE).unlink()
    os.truncate(stages.output("load") / ledger.FILE, ledger.HEADER + 1000 * 20)
    for part in ("stitch", "0/2", "1/2"):
        divided.start(part)
    stages.until(lambda: divided.records("0/2") > 0)
    stages.processes["0/2"].kill()
    assert stages.end("0/2").code == -signal.SIGKILL
    kept = divided.records("0/2")
    divided.start("0/2")
    divided.start("load")
    outputs = divided.end("load", "0/2", "1/2", "stitch")
    assert f"{kept} of them kept from an earlier run" in outputs["0/2"]
    options = ["--input-path", slow_load, "--output-path", tmp_path / "fused", "--config-path", stages.config]
    subprocess.run(command("segmentation", *options, "-t", "48"), check=True, capture_output=True, env=environment())
    assert digest(stages.output("stitch")) == digest(tmp_path / "fused")


def test_stitch_waits_until_shards_of_another_run_and_number_are_replaced(
    divided: Divided, stages: Stages, expected: str
) -> None:
    for part in ("load", "0/2", "1/2"):
        divided.start(part, NUCLEI_RUN_ID="yesterday")
        divided.end(part)
    stages.setting("overwrite: true\n")
    for part in ("stitch", *THREE, "load"):
        divided.start(part, NUCLEI_RUN_ID="today")
    divided.end("load", *THREE, "stitch")
    assert sorted(path.name for path in stages.output("filter").iterdir()) == [
        f"shard-{number}-of-3" for number in range(3)
    ]
    assert digest(stages.output("stitch")) == expected


def test_stitch_says_which_shard_it_waits_for(divided: Divided, stages: Stages, run: Run) -> None:
    for part in ("load", "0/3", "2/3"):
        divided.start(part)
        divided.end(part)
    stages.setting("wait: {limit: 1}\n")
    refused(run(*stages.arguments("stitch")), 17, f"map store of shard 1/3 in {stages.inputs} or {stages.inputs}/masks")
    (divided.folder("0/3") / COMPLETE).unlink()
    divided.start("1/3")
    divided.end("1/3")
    done = run(*stages.arguments("stitch"))
    refused(done, 17, f"map store in {divided.folder('0/3')}", "which no stage is writing at the moment")


def test_a_second_filter_for_the_same_shard_or_another_shard_set_is_refused(
    divided: Divided, stages: Stages, run: Run
) -> None:
    first = divided.start("0/2")
    stages.until_in_use(divided.folder("0/2"))
    assert run(*stages.arguments("load")).code == 0
    divided.end("0/2")
    first = divided.start("1/2")
    stages.until_in_use(divided.folder("1/2"))
    first.send_signal(signal.SIGSTOP)
    try:
        again = run(*stages.arguments("filter"), NUCLEI_SHARD="1/2")
        refused(again, 13, f"{divided.folder('1/2')} is in use by another run (process {first.pid} on")
        for overwrite in (False, True):
            stages.setting(f"overwrite: {str(overwrite).lower()}\n" if overwrite else "")
            other = run(*stages.arguments("filter"), NUCLEI_SHARD="0/3")
            assert other.code == 13, other.err
            assert not divided.folder("0/3").exists()
            assert (divided.folder("0/2") / COMPLETE).exists(), "something was removed for a run that was refused"
    finally:
        first.send_signal(signal.SIGCONT)
    divided.end("1/2")
