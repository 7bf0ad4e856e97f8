"""What the writers of images and of the report promise, whatever goes wrong."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nuclei_segmentation.operators.stitch.objects.nuclei import Nuclei
from nuclei_segmentation.operators.stitch.outputs import new_file
from nuclei_segmentation.operators.stitch.outputs.density import DensityWriter
from nuclei_segmentation.operators.stitch.outputs.labels import LabelsWriter
from nuclei_segmentation.operators.stitch.outputs.report import ReportWriter
from nuclei_segmentation.operators.stitch.outputs.writer import Writer
from nuclei_segmentation.shared.errors import NoSpace, OutputError
from nuclei_segmentation.shared.runtime.worker_pool import WorkerPool
from tests.helpers.drawn_nuclei import blobs, chunks_of, header
from tests.helpers.results import result

Make = Callable[[Path], Writer[Any]]
WIDTH, HEIGHT = 300, 200


@pytest.fixture(params=["labels", "density", "report"])
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    about = header(WIDTH, HEIGHT)
    with WorkerPool(2) as pool:
        makers: dict[str, Make] = {
            "labels": lambda path: LabelsWriter(path, about, pool, 64),
            "density": lambda path: DensityWriter(path, about),
            "report": lambda path: ReportWriter(path, about, result(), np.zeros((9, 9, 3), np.uint8)),
        }
        yield makers[request.param]


@pytest.fixture(scope="module")
def chunks() -> list[Nuclei]:
    return chunks_of(blobs(WIDTH, HEIGHT, seed=1, sigma=3), 20)


@pytest.fixture
def small_files() -> Iterator[None]:
    """Let no file become larger than 100 bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def write(writer: Writer[Any], chunks: list[Nuclei]) -> None:
    with writer:
        for nuclei in chunks:
            writer.append(writer.encode(nuclei))
        writer.finish()


def test_a_file_that_cannot_become_so_large(
    tmp_path: Path, make: Make, chunks: list[Nuclei], small_files: None
) -> None:
    with pytest.raises(NoSpace, match=f"{tmp_path / 'file'} would be larger than a file of this process may be"):
        write(make(tmp_path / "file"), chunks)


def test_a_folder_that_is_not_there(tmp_path: Path, make: Make) -> None:
    with pytest.raises(OutputError, match="No such file or directory"):
        make(tmp_path / "none" / "file")


def test_what_a_link_leads_to_is_not_written(tmp_path: Path, make: Make, chunks: list[Nuclei]) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "file").symlink_to("precious")
    write(make(tmp_path / "file"), chunks)
    assert (tmp_path / "precious").read_text() == "precious"
    assert not (tmp_path / "file").is_symlink()


def test_a_sync_that_fails_is_told(
    tmp_path: Path, make: Make, chunks: list[Nuclei], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(file: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(new_file, "sync_file", fail)
    with pytest.raises(OutputError, match="Input/output error"):
        write(make(tmp_path / "file"), chunks)


@pytest.mark.parametrize("appended", [0, 1, 2])
def test_it_may_be_closed_at_any_time(tmp_path: Path, make: Make, chunks: list[Nuclei], appended: int) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    writer = make(tmp_path / "file")
    for nuclei in chunks[:appended]:
        writer.append(writer.encode(nuclei))
    writer.close()
    writer.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_encoding_changes_nothing(tmp_path: Path, make: Make, chunks: list[Nuclei]) -> None:
    contents = set()
    for again in (1, 3):
        with make(tmp_path / "file") as writer:
            encoded = [[writer.encode(nuclei) for nuclei in chunks] for _ in range(again)]
            for one in encoded[-1]:
                writer.append(one)
            writer.finish()
        contents.add((tmp_path / "file").read_bytes())
    assert len(contents) == 1
