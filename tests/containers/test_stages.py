"""load, filter and stitch as three containers: in turn, all at once, with Triton; always the bytes of one process."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.helpers.command import Done
from tests.helpers.container_engine import Engine, Mounts, folder
from tests.helpers.outputs import FILES, names

Image = Callable[[str], str]


@dataclass(frozen=True)
class Folders:
    slide: Path
    tiles: Path
    masks: Path
    out: Path

    @property
    def mounts(self) -> dict[str, Mounts]:
        return {
            "load": [(self.slide, "/input:ro"), (self.tiles, "/output")],
            "filter": [(self.tiles, "/input/tiles:ro"), (self.masks, "/output")],
            "stitch": [
                (self.slide, "/input/slide:ro"), (self.tiles, "/input/tiles:ro"), (self.masks, "/input/masks:ro"),
                (self.out, "/output"),
            ],
        }  # fmt: skip


@pytest.fixture
def folders(slide: Path, tmp_path: Path) -> Folders:
    return Folders(slide, *(folder(tmp_path / name) for name in ("tiles", "masks", "out")))


def in_turn(engine: Engine, image: Image, folders: Folders, filter_options: list[str] | None = None) -> Done:
    """Run the three one after another and return filter's words; `filter_options` replaces its own options."""
    told = {}
    for stage, mounts in folders.mounts.items():
        options = engine.hardened(mounts, NVIDIA_CLARA_NOSYNCLOCK="TRUE")
        if stage == "filter" and filter_options:
            options = filter_options
        command = ["/bin/bash", "-c", f"python -u /app/main.py {stage} -d DEBUG"]
        told[stage] = done = engine.run(image(stage), *options, command=command)
        assert done.code == 0, done.err
        assert "Traceback" not in done.err
    return told["filter"]


def test_one_after_another(engine: Engine, image: Image, folders: Folders, outside: bytes) -> None:
    in_turn(engine, image, folders)
    assert names(folders.out) == FILES
    assert (folders.out / "image.tif").read_bytes() == outside


def test_the_next_stage_does_not_wait_when_told_not_to(engine: Engine, image: Image, folders: Folders) -> None:
    options = engine.hardened(folders.mounts["filter"], NVIDIA_CLARA_NOSYNCLOCK="TRUE")
    done = engine.run(image("filter"), *options)
    assert done.code == 10, done.err
    assert "/input/tiles" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("order", [["load", "filter", "stitch"], ["stitch", "filter", "load"]])
def test_stages_started_at_once_in_any_order_give_the_same_bytes(
    engine: Engine, image: Image, folders: Folders, outside: bytes, order: list[str]
) -> None:
    with ExitStack() as stack:
        running = {
            stage: stack.enter_context(engine.started(image(stage), *engine.hardened(folders.mounts[stage])))
            for stage in order
        }
        done = {stage: engine.wait(name) for stage, name in running.items()}
    assert {stage: end.code for stage, end in done.items()} == dict.fromkeys(order, 0), done
    assert names(folders.out) == FILES
    assert (folders.out / "image.tif").read_bytes() == outside


@pytest.mark.parametrize("shared_memory", [False, True], ids=["over the network", "with a shared /dev/shm"])
def test_filter_beside_triton(
    engine: Engine, image: Image, folders: Folders, outside: bytes, triton: str, network: str, shared_memory: bool
) -> None:
    options = engine.hardened(
        folders.mounts["filter"],
        network,
        NVIDIA_CLARA_NOSYNCLOCK="TRUE",
        NVIDIA_CLARA_TRTISURI=f"{triton}:8000",
    )
    if shared_memory:
        options += ["--ipc", f"container:{triton}"]
    done = in_turn(engine, image, folders, options)
    assert ("tiles travel through shared memory" in done.err) == shared_memory, done.err
    assert (folders.out / "image.tif").read_bytes() == outside
