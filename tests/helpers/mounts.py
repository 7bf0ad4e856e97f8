"""Real file systems in user space (FUSE), for as long as a test needs one."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_SFTP_SERVER = Path("/usr/lib/openssh/sftp-server")


def _run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"


def _bindfs(folder: Path, at: Path) -> None:
    _run("bindfs", folder, at)


def _gocryptfs(folder: Path, at: Path) -> None:
    password = folder.parent / "password"
    password.write_text("secret\n")
    _run("gocryptfs", "-q", "-init", "-scryptn", "10", "-passfile", password, folder)
    _run("gocryptfs", "-q", "-passfile", password, folder, at)


def _sshfs(folder: Path, at: Path) -> None:
    """Mount by a server of the protocol of SSH, but without SSH."""
    with socket.create_server(("127.0.0.1", 0)) as door:

        def serve() -> None:
            connection, _ = door.accept()
            with connection:
                subprocess.run([_SFTP_SERVER], stdin=connection, stdout=connection, check=False)

        threading.Thread(target=serve, daemon=True).start()
        _run("sshfs", "-o", f"directport={door.getsockname()[1]}", f"127.0.0.1:{folder}", at)


KINDS: dict[str, Callable[[Path, Path], None]] = {"bindfs": _bindfs, "gocryptfs": _gocryptfs, "sshfs": _sshfs}


def _missing(kind: str) -> str:
    """Return why a kind cannot be mounted here; empty if it can."""
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as error:
        return f"/dev/fuse cannot be opened ({error.strerror})"
    tools = [tool for tool in (kind, "fusermount3") if shutil.which(tool) is None]
    if kind == "sshfs" and not _SFTP_SERVER.exists():
        tools.append(str(_SFTP_SERVER))
    if tools and os.environ.get("CI"):
        pytest.fail(f"{' and '.join(tools)} missing; .ci/run installs them")
    return f"{' and '.join(tools)} missing" if tools else ""


@contextmanager
def mounted(kind: str, folder: Path) -> Iterator[Path]:
    """Mount a file system of a kind; gives a folder in it. Skips the test where that is not possible."""
    if reason := _missing(kind):
        pytest.skip(reason)
    stored, at = folder / "stored", folder / kind
    stored.mkdir()
    at.mkdir()
    KINDS[kind](stored, at)
    try:
        yield at
    finally:
        end = time.monotonic() + 60  # a process that has just ended may still have a file open
        while subprocess.run(["fusermount3", "-u", at], capture_output=True, check=False).returncode:
            if time.monotonic() > end:
                subprocess.run(["fusermount3", "-uz", at], check=True)
                break
            time.sleep(0.1)
