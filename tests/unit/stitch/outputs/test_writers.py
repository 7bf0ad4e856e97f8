"""What all writers of files of nuclei promise, whatever goes wrong."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.nuclei import MEASUREMENTS, header, nuclei
from nuclei_segmentation.operators.stitch.objects.nuclei import NucleiHeader
from nuclei_segmentation.operators.stitch.outputs import new_file
from nuclei_segmentation.operators.stitch.outputs.csv_table import CsvWriter
from nuclei_segmentation.operators.stitch.outputs.geojson import geojson_writer
from nuclei_segmentation.operators.stitch.outputs.parquet import ParquetWriter
from nuclei_segmentation.operators.stitch.outputs.writer import Writer
from nuclei_segmentation.shared.errors import NoSpace, OutputError
from tests.helpers.nuclei_files import write

COUNT = 300
MAKERS: dict[str, Callable[[Path, NucleiHeader], Writer[Any]]] = {
    "geojson.gz": geojson_writer,
    "geojson.zip": lambda path, about: geojson_writer(path, about, one_file=0, entry=100),
    "csv.gz": lambda path, about: CsvWriter(path, about, MEASUREMENTS),
    "parquet": lambda path, about: ParquetWriter(path, about, MEASUREMENTS, rows=100),
}


@pytest.fixture
def small_files() -> Iterator[None]:
    """Let no file become larger than 10 kB."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_a_file_that_cannot_become_so_large(
    tmp_path: Path, make: Callable[..., Writer[Any]], small_files: None
) -> None:
    path = tmp_path / "file"
    with pytest.raises(NoSpace, match=f"{path} would be larger than a file of this process may be"):
        write(make(path, header(COUNT)), [nuclei(COUNT)])
    assert path.stat().st_size <= 10_000


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_a_folder_that_is_not_there(tmp_path: Path, make: Callable[..., Writer[Any]]) -> None:
    with pytest.raises(OutputError, match="No such file or directory"):
        make(tmp_path / "none" / "file", header(COUNT))


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_what_a_link_leads_to_is_not_written(tmp_path: Path, make: Callable[..., Writer[Any]]) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "file").symlink_to("precious")
    write(make(tmp_path / "file", header(COUNT)), [nuclei(COUNT)])
    assert (tmp_path / "precious").read_text() == "precious"
    assert not (tmp_path / "file").is_symlink()


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_a_sync_that_fails_is_told(
    tmp_path: Path, make: Callable[..., Writer[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(file: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(new_file, "sync_file", fail)
    with pytest.raises(OutputError, match="Input/output error"):
        write(make(tmp_path / "file", header(COUNT)), [nuclei(COUNT)])


@pytest.mark.parametrize("appended", [0, 1, 250])
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_it_may_be_closed_at_any_time(tmp_path: Path, make: Callable[..., Writer[Any]], appended: int) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    writer = make(tmp_path / "file", header(COUNT))
    if appended:
        writer.append(writer.encode(nuclei(appended)))
    size = (tmp_path / "file").stat().st_size
    writer.close()
    writer.close()
    del writer
    assert (tmp_path / "file").stat().st_size == size
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_encoding_changes_nothing(tmp_path: Path, make: Callable[..., Writer[Any]]) -> None:
    contents = set()
    for again in (1, 3):
        with make(tmp_path / "file", header(100)) as writer:
            encoded = [writer.encode(nuclei(100)) for _ in range(again)]
            writer.append(encoded[-1])
            writer.finish()
        contents.add((tmp_path / "file").read_bytes())
    assert len(contents) == 1
