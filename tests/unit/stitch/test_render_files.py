from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nuclei_segmentation.operators.stitch.render_files import publish
from nuclei_segmentation.shared.clara.config_meta import META
from nuclei_segmentation.shared.clara.render_config import RENDER, RENDER_LIMIT
from nuclei_segmentation.shared.errors import InputError, NoSpace, OutputError
from nuclei_segmentation.shared.result import IMAGE, SUMMARY

SUMMARY_TEXT = b'{"format": "nuclei-summary"}\n'


def held() -> None:
    """Stands for the lock, which nobody else takes here."""


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    output = tmp_path / "output"
    work = output / ".run"
    work.mkdir(parents=True)
    (work / IMAGE).write_bytes(b"new image")
    return work, output


def test_writes_all_files(folders: tuple[Path, Path]) -> None:
    work, output = folders
    publish(work, output, name="model", run="0123", damaged=0, render_config=None, summary=SUMMARY_TEXT, check=held)
    assert sorted(path.name for path in output.iterdir()) == [".run", META, RENDER, IMAGE, SUMMARY]
    assert [path.name for path in work.iterdir()] == ["publishing"]
    assert (output / IMAGE).read_bytes() == b"new image"
    # Our choice, pinned: NVIDIA's keys for slides are not public.
    assert (output / META).read_text() == (
        "{\n"
        '    "damaged": 0,\n'
        '    "density": "image.tif",\n'
        '    "name": "model",\n'
        '    "run": "0123",\n'
        '    "seg_masks": [],\n'
        '    "settings": "config_render.json"\n'
        "}\n"
    )
    assert json.loads((output / RENDER).read_bytes()) == {
        "DataView": {
            "name": "DataView",
            "zoomFactor": 1.0,
            "viewOffset": {"x": 0.0, "y": 0.0},
            "pixelAspectRatio": 1.0,
        },
        "View": {"mode": "TWOD", "dataViewName": "DataView"},
    }


def test_a_given_render_config_is_copied_byte_for_byte(folders: tuple[Path, Path], tmp_path: Path) -> None:
    content = b'\xef\xbb\xbf{"a": NaN,\r\n "a": 1}'
    (tmp_path / "given").write_bytes(content)
    publish(*folders, name="m", run="r", damaged=0, render_config=tmp_path / "given", summary=SUMMARY_TEXT, check=held)
    assert (folders[1] / RENDER).read_bytes() == content


def test_only_a_regular_file_of_sane_size_is_taken(folders: tuple[Path, Path], tmp_path: Path) -> None:
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(RENDER_LIMIT + 1)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path, said in ((large, "16 MiB"), (pipe, "regular"), (tmp_path, "regular"), (tmp_path / "absent", "No such")):
        with pytest.raises(InputError, match=said):
            publish(*folders, name="m", run="r", damaged=0, render_config=path, summary=SUMMARY_TEXT, check=held)
    with large.open("r+b") as file:
        file.truncate(RENDER_LIMIT)
    publish(*folders, name="m", run="r", damaged=0, render_config=large, summary=SUMMARY_TEXT, check=held)
    assert (folders[1] / RENDER).stat().st_size == RENDER_LIMIT


class Killed(BaseException):
    """Stands for a kill: nobody catches it."""


def _counted(monkeypatch: pytest.MonkeyPatch, stop: Callable[[int], None]) -> None:
    """Call `stop` with a running number before each call that changes or forces something on the disk."""
    calls = 0

    def before(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            stop(calls)
            return function(*arguments, **options)

        return call

    monkeypatch.setattr(os, "fsync", before(os.fsync))
    for name in ("rename", "unlink"):
        monkeypatch.setattr(Path, name, before(getattr(Path, name)))


def test_killed_anywhere_the_output_is_the_old_result_or_none_or_the_new(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    work, output = folders
    for number in range(1, 100):
        for name, content in ((IMAGE, "old image"), (RENDER, "old settings"), (META, '{"run": "old"}')):
            (output / name).write_text(content)
        (work / IMAGE).write_bytes(b"new image")

        def stop(count: int, number: int = number) -> None:
            if count == number:
                raise Killed

        with monkeypatch.context() as patch:
            _counted(patch, stop)
            try:
                publish(
                    work, output, name="m", run="new", damaged=0, render_config=None, summary=SUMMARY_TEXT, check=held
                )
                done = True
            except Killed:
                done = False
        if (output / META).exists():
            run = json.loads((output / META).read_text())["run"]
            assert (output / IMAGE).read_text() == f"{run} image"
            assert (output / RENDER).read_text() == "old settings" or run == "new"
        assert {path.name for path in output.iterdir()} <= {".run", IMAGE, RENDER, SUMMARY, META}
        if done:
            assert run == "new"
            assert number > 10
            return
    pytest.fail("never got through")


@pytest.mark.parametrize(("code", "kind"), [(errno.ENOSPC, NoSpace), (errno.EIO, OutputError)])
def test_a_failing_disk_is_reported_and_never_leaves_a_result_that_claims_to_be_whole(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, code: int, kind: type[Exception]
) -> None:
    work, output = folders
    for number in range(1, 12):
        (work / IMAGE).write_bytes(b"new image")

        def stop(count: int, number: int = number) -> None:
            if count == number:
                raise OSError(code, os.strerror(code))

        with monkeypatch.context() as patch:
            _counted(patch, stop)
            with pytest.raises(kind):
                publish(
                    work, output, name="m", run="new", damaged=0, render_config=None, summary=SUMMARY_TEXT, check=held
                )
        assert not (output / META).exists()


def test_the_order_is_files_synced_then_old_meta_gone_then_renames_then_meta(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    work, output = folders
    seen: list[str] = []
    rename = Path.rename
    monkeypatch.setattr(Path, "rename", lambda path, to: (seen.append(path.name), rename(path, to))[1])
    monkeypatch.setattr(os, "fsync", lambda number: seen.append(Path(f"/proc/self/fd/{number}").readlink().name))
    publish(work, output, name="m", run="r", damaged=0, render_config=None, summary=SUMMARY_TEXT, check=held)
    made = [name for file in (RENDER, SUMMARY, META, "publishing") for name in (f"{file}.part", f"{file}.part", ".run")]
    assert seen == [*made, IMAGE, META, "output", RENDER, IMAGE, SUMMARY, "output", META, "output"]
