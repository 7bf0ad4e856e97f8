"""Where a run finds itself: closed streams, odd terminals, strange things in its output folder."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tifffile

from tests.helpers.command import Done, Run, command, environment, refused
from tests.helpers.outputs import FILES, names


def shell(arguments: list[str], redirection: str, **variables: str) -> Done:
    line = f"{shlex.join(command(*arguments))} {redirection}"
    done = subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, check=False, env=environment(**variables), timeout=120
    )
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize(
    "redirection", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-", ">/dev/full", "| true; exit ${PIPESTATUS[0]}"]
)
def test_streams_that_are_closed_or_full_do_not_spoil_a_result(
    arguments: list[str], tmp_path: Path, redirection: str
) -> None:
    done = shell(arguments, redirection)
    assert done.code == 0, done.err
    assert "Traceback" not in done.err
    assert names(tmp_path / "out") == FILES


def test_a_terminal_that_knows_ascii_only(arguments: list[str]) -> None:
    done = shell(arguments, "", PYTHONIOENCODING="ascii")
    assert done.code == 0, done.err
    assert "per pixel" in done.out


def test_a_pipe_named_config_meta(run: Run, arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    os.mkfifo(tmp_path / "out" / "config.meta")
    refused(run(*arguments), 13, "another result")


def test_a_link_named_run_leads_nowhere(run: Run, arguments: list[str], dark_config: Path, tmp_path: Path) -> None:
    """What the link points to is somebody else's."""
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("x")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".run").symlink_to(precious)
    (tmp_path / "config.yaml").write_text((dark_config / "config.yaml").read_text() + "overwrite: true\n")
    refused(run(*arguments, "--config-path", tmp_path), 13, ".run is a link")
    assert [path.name for path in precious.iterdir()] == ["thesis.txt"]


def test_a_folder_named_image_tif(run: Run, arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "out" / "image.tif").mkdir(parents=True)
    refused(run(*arguments), 13, "another result")


def test_a_file_in_the_way_of_the_work_folder(run: Run, arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".run").write_text("")
    refused(run(*arguments), 13, "in the way")


def test_a_loop_of_links_as_output(run: Run, arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to(tmp_path / "out")
    refused(run(*arguments), 13, "out")


def test_a_changed_render_configuration_reaches_a_finished_result(
    run: Run, arguments: list[str], small_slide: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "small.tif").write_bytes(small_slide.read_bytes())
    (folder / "config_render.json").write_text("{}")
    assert run(*arguments, "--input-path", folder).code == 0
    (folder / "config_render.json").write_text('{"new": 1}')
    again = run(*arguments, "--input-path", folder)
    assert again.code == 0
    assert "already done" in again.err
    assert (tmp_path / "out" / "config_render.json").read_text() == '{"new": 1}'
    assert names(tmp_path / "out") == FILES


def test_samples_that_nobody_reads_are_refused_with_advice(run: Run, arguments: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    tifffile.imwrite(folder / "x.tif", np.zeros((300, 300, 3), np.float32), photometric="rgb", metadata=None)
    refused(run(*arguments, "--input-path", folder), 11, "floating-point", "vips")


def test_an_orientation_tag_is_ignored_and_said_so(
    run: Run, arguments: list[str], crop: np.ndarray, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    tifffile.imwrite(
        folder / "x.tif", crop, tile=(256, 256), photometric="rgb", compression="deflate", metadata=None,
        extratags=[(274, "H", 1, 2, True)],
    )  # fmt: skip
    done = run(*arguments, "--input-path", folder)
    assert done.code == 0, done.err
    assert "orientation" in done.err
    image = tifffile.imread(tmp_path / "out" / "image.tif", level=0)
    glass = (crop.min(axis=2) > 225)[:64, :64]
    assert np.abs(image[:64, :64].astype(int) - crop[:64, :64])[glass].mean() < 3
