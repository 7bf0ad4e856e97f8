"""The lock of an output folder: the living keep it, the dead do not."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from nuclei_segmentation.shared.errors import LockLost, OutputError, UsageError
from nuclei_segmentation.shared.runtime import lock as module
from nuclei_segmentation.shared.runtime.lock import STALE_SECONDS, FolderLock, held


def lock(folder: Path) -> FolderLock:
    return FolderLock(folder / ".run", folder)


def left_by(folder: Path, seconds_ago: float, **holder: object) -> Path:
    """Write what a holder left, which was last heard of so long ago."""
    path = folder / ".run" / "lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"process": 77, "host": "elsewhere", "boot": "another boot"} | holder))
    then = time.time() - seconds_ago
    os.utime(path, (then, then))
    return path


def test_it_says_who_holds_it_and_is_gone_when_it_is_removed(tmp_path: Path) -> None:
    with lock(tmp_path) as holder:
        assert held(tmp_path / ".run")
        said = json.loads((tmp_path / ".run" / "lock").read_text())
        assert said["process"] == os.getpid()
        with pytest.raises(OutputError, match=f"in use by another run .process {os.getpid()} on"):
            lock(tmp_path)
        holder.remove()
    assert not (tmp_path / ".run").exists()
    assert not held(tmp_path / ".run")


def test_a_folder_that_was_given_back_is_nobodys(tmp_path: Path) -> None:
    lock(tmp_path).close()
    assert (tmp_path / ".run" / "lock").read_bytes() == b""
    assert not held(tmp_path / ".run")
    lock(tmp_path).close()


def test_a_process_that_was_killed_holds_nothing(tmp_path: Path) -> None:
    script = (
        "import time; from pathlib import Path; from nuclei_segmentation.shared.runtime.lock import FolderLock\n"
        f"lock = FolderLock(Path({str(tmp_path / '.run')!r}), Path({str(tmp_path)!r}))\n"
        "print('held', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        assert held(tmp_path / ".run")
        first.kill()
    assert json.loads((tmp_path / ".run" / "lock").read_text())["process"] == first.pid
    assert not held(tmp_path / ".run")
    lock(tmp_path).close()


def test_this_machines_dead_are_known_to_be_dead_at_once(tmp_path: Path) -> None:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    left_by(tmp_path, 0, boot=boot)
    lock(tmp_path).close()


@pytest.mark.parametrize("ago", [0, STALE_SECONDS / 2, -STALE_SECONDS / 2])
def test_another_machine_that_was_heard_of_is_in_the_way(tmp_path: Path, ago: float) -> None:
    """Also if its clock is a little ahead."""
    path = left_by(tmp_path, ago)
    before = path.read_bytes(), path.stat().st_mtime_ns
    with pytest.raises(OutputError, match="process 77 on elsewhere, another machine"):
        lock(tmp_path)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert [entry.name for entry in (tmp_path / ".run").iterdir()] == ["lock"]


def test_another_machine_that_fell_silent_is_gone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    left_by(tmp_path, 2 * STALE_SECONDS)
    with caplog.at_level(logging.WARNING, "nuclei_segmentation"):
        lock(tmp_path).close()
    assert "process 77 on elsewhere was inactive for 120 s; its lock is taken over" in caplog.text


@pytest.mark.parametrize("ahead", [3600, 86_400 * 365])
def test_a_lock_from_the_future_is_free_if_nobody_touches_it(
    tmp_path: Path, ahead: float, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NUCLEI_LOCK_SILENCE", "1")
    left_by(tmp_path, -ahead)
    with caplog.at_level(logging.WARNING, "nuclei_segmentation"):
        lock(tmp_path).close()
    assert "is from the future, since a clock was wrong" in caplog.text


def test_a_lock_from_the_future_is_in_the_way_while_its_holder_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUCLEI_LOCK_SILENCE", "60")
    path = left_by(tmp_path, -7200)
    later = time.time() + 7210
    beat = threading.Timer(0.3, os.utime, (path, (later, later)))
    beat.start()
    with pytest.raises(OutputError, match="process 77 on elsewhere, another machine"):
        lock(tmp_path)
    beat.join()


@pytest.mark.parametrize("boot", ["a boot", None])
def test_without_a_boot_id_the_host_name_decides(
    tmp_path: Path, boot: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This kernel tells none: a lock of this host is of this machine, whatever boot it names."""
    monkeypatch.setattr(module, "_BOOT", tmp_path / "nothing")
    left_by(tmp_path, 0, boot=boot, host=socket.gethostname())
    lock(tmp_path).close()
    left_by(tmp_path / "other", 0, boot=boot)
    with pytest.raises(OutputError, match="process 77 on elsewhere, another machine"):
        lock(tmp_path / "other")


def test_the_holder_says_for_how_long_it_may_be_silent(tmp_path: Path) -> None:
    left_by(tmp_path, 2 * STALE_SECONDS, silence=4 * STALE_SECONDS)
    with pytest.raises(OutputError, match="after 240 s without activity"):
        lock(tmp_path)
    left_by(tmp_path / "other", 2 * STALE_SECONDS, silence=1e9)
    lock(tmp_path / "other").close()


@pytest.mark.parametrize("text", ["0", "-5", "soon", "nan", "inf", "3601"])
def test_a_silence_that_is_none_is_refused(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUCLEI_LOCK_SILENCE", text)
    with pytest.raises(UsageError, match=r"NUCLEI_LOCK_SILENCE: .* is not a number of seconds from 1 to 3600"):
        lock(tmp_path)


def test_a_holder_whose_lock_was_taken_notices_and_leaves_the_other_alone(tmp_path: Path) -> None:
    first = lock(tmp_path)
    (tmp_path / ".run" / "lock").unlink()
    second = lock(tmp_path)
    said = (tmp_path / ".run" / "lock").read_bytes()
    second.check()
    with pytest.raises(LockLost, match=r"took .* over while this one, or its machine, stood still"):
        first.check()
    first.remove()
    assert (tmp_path / ".run" / "lock").read_bytes() == said
    second.check()
    second.remove()
    assert not (tmp_path / ".run").exists()


def test_a_holder_notices_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUCLEI_LOCK_SILENCE", "1")
    with lock(tmp_path) as first:
        (tmp_path / ".run" / "lock").unlink()
        end = time.monotonic() + 60
        while not first.lost:
            assert time.monotonic() < end
            time.sleep(0.01)


@pytest.mark.parametrize("content", ["", "not json", "[]", "{}", "null", '{"boot": null}', "\0" * 200])
def test_what_is_no_lock_of_ours_is_taken_over(tmp_path: Path, content: str) -> None:
    left_by(tmp_path, 0).write_text(content)
    lock(tmp_path).close()


def test_who_only_looks_is_not_in_the_way(tmp_path: Path) -> None:
    """`held` holds the kernel's lock for an instant, in which another run may begin."""
    lock(tmp_path).close()
    with (tmp_path / ".run" / "lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        threading.Timer(0.3, fcntl.flock, (file, fcntl.LOCK_UN)).start()
        lock(tmp_path).close()


def test_what_a_link_in_its_place_points_to_is_not_touched_and_a_pipe_is_in_the_way(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("x")
    (tmp_path / ".run").mkdir()
    (tmp_path / ".run" / "lock").symlink_to(precious)
    lock(tmp_path).remove()
    assert precious.read_text() == "x"
    (tmp_path / ".run").mkdir()
    os.mkfifo(tmp_path / ".run" / "lock")
    with pytest.raises(FileExistsError, match="lock"):
        lock(tmp_path)


def test_many_begin_and_end_and_one_at_a_time_holds_it(tmp_path: Path) -> None:
    """Also while the one before removes file and folder."""
    inside, most, got = 0, 0, 0
    guard, errors = threading.Lock(), []

    def work() -> None:
        nonlocal inside, most, got
        for _ in range(15):
            try:
                held_now = lock(tmp_path)
            except OutputError:
                continue
            except BaseException as error:
                errors.append(error)
                return
            with guard:
                inside, got = inside + 1, got + 1
                most = max(most, inside)
            with guard:
                inside -= 1
            held_now.remove()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert most == 1
    assert got > 6
    assert not (tmp_path / ".run").exists()
