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


OURS = ("lock", "key", "maps", "summary.json", "making", "publishing", "image.tif", "spool", "config_render.json",
        "config.meta", "key.part", "maps.part", "summary.json.part", "config_render.json.part")  # fmt: skip


def planted(folder: Path, target: Path) -> None:
    """Put a link to a file into a folder under each name that a run uses there."""
    folder.mkdir(parents=True)
    for name in OURS:
        (folder / name).symlink_to(target)


@pytest.mark.parametrize("place", ["", "run-" + "1" * 32])
@pytest.mark.parametrize("command", ["segmentation", "load"])
def test_links_in_the_work_folder_lead_nowhere(
    run: Run, arguments: list[str], tmp_path: Path, place: str, command: str
) -> None:
    """Nothing is written to what they point to, and the run does its work."""
    precious = tmp_path / "precious"
    precious.write_text("thesis")
    planted(tmp_path / "out" / ".run" / place, precious)
    done = run(command, *arguments[1:])
    assert done.code == 0, done.err
    assert precious.read_text() == "thesis"
    assert not (tmp_path / "out" / ".run" / "lock").exists()
    assert not place or not (tmp_path / "out" / ".run").exists()


def test_what_a_second_name_of_a_file_leads_to_is_not_written(run: Run, arguments: list[str], tmp_path: Path) -> None:
    """A hard link is no link to the eye: a journal with two names is copied before it is continued."""
    precious = tmp_path / "precious"
    precious.write_text("thesis")
    own = tmp_path / "out" / ".run" / ("run-" + "1" * 32)
    own.mkdir(parents=True)
    for name in ("maps", "lock", "image.tif", "summary.json.part"):
        os.link(precious, own / name)
    os.link(precious, own.parent / "lock")
    done = run(*arguments)
    assert done.code == 0, done.err
    assert precious.read_text() == "thesis"
    assert names(tmp_path / "out") == FILES


def test_a_folder_of_another_program_with_the_name_of_ours_is_left_alone(
    run: Run, arguments: list[str], dark_config: Path, tmp_path: Path
) -> None:
    """JetBrains' programs keep run configurations in `.run`."""
    theirs = tmp_path / "out" / ".run"
    (theirs / "maps").mkdir(parents=True)
    kept = {theirs / name: name for name in ("main.run.xml", "key", "image.tif", "summary.json", "maps/x")}
    for path, text in kept.items():
        path.write_text(text)
    assert run(*arguments).code == 0
    again = run(*arguments)
    assert "already done" in again.err
    config = tmp_path / "config"
    config.mkdir()
    (config / "config.yaml").write_text((dark_config / "config.yaml").read_text() + "overwrite: true\n")
    assert run(*arguments, "--config-path", config, "-t", "128").code == 0
    assert {path: path.read_text() for path in theirs.rglob("*") if path.is_file()} == kept
    assert names(tmp_path / "out") == [".run", *FILES]


@pytest.mark.parametrize("name", ["config_render.json", "summary.json"])
def test_a_file_of_the_user_is_not_replaced_unless_overwrite_is_on(
    run: Run, arguments: list[str], dark_config: Path, tmp_path: Path, name: str
) -> None:
    out, config = tmp_path / "out", tmp_path / "config"
    out.mkdir()
    (out / name).write_text('{"mine": 1}')
    refused(run(*arguments), 13, f"{name} was not written by a run", "overwrite: true")
    assert (out / name).read_text() == '{"mine": 1}'
    assert names(out) == [name]
    config.mkdir()
    (config / "config.yaml").write_text((dark_config / "config.yaml").read_text() + "overwrite: true\n")
    assert run(*arguments, "--config-path", config).code == 0
    assert names(out) == FILES


def test_a_pipe_in_the_place_of_the_lock(run: Run, arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "out" / ".run").mkdir(parents=True)
    os.mkfifo(tmp_path / "out" / ".run" / "lock")
    refused(run(*arguments), 13, ".run/lock is in the way")


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
    refused(run(*arguments, "--input-path", folder), 11, "floating-point", "export it again")


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
