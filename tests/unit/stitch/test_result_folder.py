"""The output folder: one run at a time, no result lost, nothing left behind by a refusal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from nuclei_segmentation.operators.stitch.result_folder import ResultFolder
from nuclei_segmentation.shared.clara.config_meta import META
from nuclei_segmentation.shared.clara.render_config import RENDER
from nuclei_segmentation.shared.errors import OutputError
from nuclei_segmentation.shared.result import SUMMARY, checksum
from nuclei_segmentation.shared.slides.inputs import IMAGE
from tests.helpers.outputs import left_by_image, unfinished


def finish(folder: Path, key: str) -> None:
    tifffile.imwrite(folder / IMAGE, np.zeros((64, 64, 3), np.uint8), tile=(64, 64), photometric="rgb")
    (folder / RENDER).write_text("{}")
    image = {"bytes": (folder / IMAGE).stat().st_size, "xxh3": checksum(folder / IMAGE)}
    (folder / SUMMARY).write_text(json.dumps({"key": key, "image": image}))
    (folder / META).write_text(json.dumps({"run": key}))


def test_a_new_folder_is_made_and_claimed(tmp_path: Path) -> None:
    with ResultFolder(tmp_path / "a" / "b") as folder:
        assert folder.claim("one", {}, overwrite=False)
        assert folder.work.is_dir()


def test_the_same_run_goes_on_where_it_was(tmp_path: Path) -> None:
    with ResultFolder(tmp_path) as folder:
        folder.claim("one", {}, overwrite=False)
        (folder.work / "maps").write_bytes(b"kept")
    with ResultFolder(tmp_path) as folder:
        assert folder.claim("one", {}, overwrite=False)
        assert (folder.work / "maps").read_bytes() == b"kept"


def test_an_unfinished_run_with_another_key_is_refused_unless_overwrite(tmp_path: Path) -> None:
    with ResultFolder(tmp_path) as folder:
        folder.claim("one", {}, overwrite=False)
        (folder.work / "maps").write_bytes(b"kept")
    with ResultFolder(tmp_path) as folder, pytest.raises(OutputError, match="unfinished run"):
        folder.claim("two", {}, overwrite=False)
    assert unfinished(tmp_path, "maps") is not None
    with ResultFolder(tmp_path) as folder:
        assert folder.claim("two", {}, overwrite=True)
        assert not (folder.work / "maps").exists()


def test_a_finished_run_is_not_done_again(tmp_path: Path) -> None:
    finish(tmp_path, "one")
    with ResultFolder(tmp_path) as folder:
        assert not folder.claim("one", {}, overwrite=False)
        folder.finish()
    assert sorted(path.name for path in tmp_path.iterdir()) == [META, RENDER, IMAGE, SUMMARY]


def test_a_finished_run_whose_image_is_gone_is_done_again(tmp_path: Path) -> None:
    finish(tmp_path, "one")
    (tmp_path / IMAGE).unlink()
    with ResultFolder(tmp_path) as folder:
        assert folder.claim("one", {}, overwrite=False)


def test_a_finished_run_whose_image_is_cut_short_or_changed_is_done_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where the summary of an older version, or none, says nothing of it."""
    finish(tmp_path, "one")
    image, summary = tmp_path / IMAGE, tmp_path / SUMMARY
    whole, said = image.read_bytes(), summary.read_text()
    bare = json.dumps({"key": "one", "image": {"bytes": len(whole) - 100}})
    cut, flipped = whole[:-100], whole[:-1] + bytes([whole[-1] ^ 1])
    for content, text, wanted in (
        (whole, said, ""), (cut, said, "size"), (flipped, said, "checksum"), (cut, bare, "not a whole TIFF"),
        (cut, None, "not a whole TIFF"), (b"image", None, "not a whole TIFF"), (whole, None, ""),
        (whole, json.dumps({"key": "two"}), "different runs"), (whole, json.dumps({"key": "one"}), "size"),
    ):  # fmt: skip
        image.write_bytes(content)
        summary.unlink(missing_ok=True)
        if text is not None:
            summary.write_text(text)
        caplog.clear()
        with ResultFolder(tmp_path) as folder:
            assert folder.claim("one", {}, overwrite=False) is bool(wanted)
            folder.finish()
        assert wanted in caplog.text
        assert ("made again" in caplog.text) is bool(wanted)


def test_what_a_silent_run_may_still_write_to_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal of a run that has ended is moved."""
    for silent in (False, True):
        own = left_by_image(tmp_path / str(silent), key="one", maps="work", publishing="")
        if silent:
            monkeypatch.setenv("NUCLEI_LOCK_SILENCE", "1")
            lock = own.parent / "lock"
            lock.write_text(json.dumps({"process": 1, "host": "x", "boot": "y", "token": "0" * 32}))
            os.utime(lock, (1, 1))
        with (own / "maps").open("a") as theirs, ResultFolder(tmp_path / str(silent)) as folder:
            theirs.write("more")
            theirs.flush()
            assert (folder.work / "maps").read_text() == ("work" if silent else "workmore")
            assert sorted(path.name for path in folder.work.iterdir()) == ["key", "maps", "publishing"]
            assert not own.exists()


@pytest.mark.parametrize("meta", ['{"run": "other"}', "{}", "[]", "not json", None])
def test_another_result_is_refused_and_untouched_unless_overwrite(tmp_path: Path, meta: str | None) -> None:
    (tmp_path / IMAGE).write_bytes(b"somebody's")
    if meta is not None:
        (tmp_path / META).write_text(meta)
    before = sorted(tmp_path.iterdir())
    with ResultFolder(tmp_path) as folder, pytest.raises(OutputError, match="another result"):
        folder.claim("one", {}, overwrite=False)
    assert sorted(tmp_path.iterdir()) == before
    with ResultFolder(tmp_path) as folder:
        assert folder.claim("one", {}, overwrite=True)
    assert (tmp_path / IMAGE).read_bytes() == b"somebody's"


def test_a_second_run_is_refused_while_the_first_lives_and_welcome_when_it_is_dead(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path\n"
        "from nuclei_segmentation.operators.stitch.result_folder import ResultFolder\n"
        f"folder = ResultFolder(Path({str(tmp_path)!r})); folder.claim('one', {{}}, overwrite=False)\n"
        "print('held', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        with pytest.raises(OutputError, match=f"in use by another run .process {first.pid} on"):
            ResultFolder(tmp_path)
        first.kill()
    with ResultFolder(tmp_path) as folder:
        assert folder.claim("one", {}, overwrite=False)


def test_an_output_that_is_a_file_or_below_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OutputError, match="cannot write"):
            ResultFolder(path)


@pytest.mark.parametrize("path", ["/proc/nuclei", "/sys/kernel/nuclei"])
def test_an_output_where_even_root_may_not_write(path: str) -> None:
    with pytest.raises(OutputError, match=f"cannot write {path}"):
        ResultFolder(Path(path))
