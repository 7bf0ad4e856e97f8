"""One run at a time in an output folder.

The kernel's lock on a file says whether the holder lives: it is gone with its process, however that ended. It reaches
other containers on the machine, but on some network file systems no other machine. So the holder also writes its name
into the file and touches it now and then: what another machine touched lately is in use, whatever the kernel says.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import socket
import stat
import threading
import time
from pathlib import Path

from nuclei_segmentation.shared.errors import OutputError
from nuclei_segmentation.shared.runtime.closing import Closing

log = logging.getLogger("nuclei")

BEAT_SECONDS = 10.0
"""How often the holder touches the file."""
STALE_SECONDS = 60.0
"""A file of another machine that was not touched for so long belongs to nobody."""
TRY_SECONDS = 1.0
"""For how long the kernel's lock is tried: who only looks whether a folder is in use holds it for an instant."""

_BOOT = Path("/proc/sys/kernel/random/boot_id")


class FolderLock(Closing):
    """The lock of an output folder, ``lock`` in its folder of work.

    Parameters
    ----------
    folder : pathlib.Path
        The folder of work; made if it does not exist.
    output : pathlib.Path
        The output folder, for messages.

    Raises
    ------
    OutputError
        Another run holds it.
    OSError
        The folder cannot be written.
    """

    def __init__(self, folder: Path, output: Path) -> None:
        self._folder, self._output = folder, output
        self._path = folder / "lock"
        self._file = self._acquire()
        self._ended = threading.Event()
        self._beat = threading.Thread(target=self._keep_alive, name="lock", daemon=True)
        self._beat.start()

    def close(self) -> None:
        """Give the folder back; the file stays."""
        if self._file < 0:
            return
        self._ended.set()
        self._beat.join()
        os.ftruncate(self._file, 0)  # nobody's, also to another machine
        os.close(self._file)
        self._file = -1

    def remove(self) -> None:
        """Remove the file and, if nothing else is in it, the folder; then give it back."""
        self._path.unlink(missing_ok=True)
        try:
            self._folder.rmdir()
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):  # else another run has just begun
                raise
        self.close()

    def _acquire(self) -> int:
        while True:
            try:
                self._folder.mkdir()
            except FileExistsError:
                try:
                    if not stat.S_ISDIR(self._folder.lstat().st_mode):
                        raise
                except FileNotFoundError:
                    continue  # the holder before us has just removed it
            try:
                file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
            except FileNotFoundError:
                continue
            try:
                self._take(file)
                # the holder before us may have removed the file between our open and our lock
                if os.path.samestat(os.fstat(file), self._path.stat()):
                    os.ftruncate(file, 0)
                    os.pwrite(file, _ourselves(), 0)
                    return file
            except FileNotFoundError:
                pass
            except BaseException:
                os.close(file)
                raise
            os.close(file)

    def _take(self, file: int) -> None:
        end = time.monotonic() + TRY_SECONDS
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                    raise
                if time.monotonic() > end:
                    raise self._in_use(_describe(_read(file)) or "starting up") from error
                time.sleep(0.05)
        holder = _read(file)
        if not holder:
            return
        if holder.get("boot") in (None, _boot()):  # this machine's, where the kernel knows
            log.debug("%s: %s is gone; its run is continued", self._path, _describe(holder))
            return
        age = self._now() - os.fstat(file).st_mtime
        if age < STALE_SECONDS:
            raise self._in_use(
                f"{_describe(holder)}, another machine, or this one before it was started again, which was there "
                f"{max(0, age):.0f} s ago; after {STALE_SECONDS:.0f} s of silence it counts as gone"
            )
        log.warning("%s: %s was not heard of for %.0f s; its run is continued", self._path, _describe(holder), age)

    def _now(self) -> float:
        """Return the file system's time: its server's clock may differ from this machine's."""
        probe = self._folder / f"clock-{os.getpid()}-{socket.gethostname()}"
        try:
            file = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
            try:
                os.utime(file)
                return os.fstat(file).st_mtime
            finally:
                os.close(file)
        finally:
            probe.unlink(missing_ok=True)

    def _in_use(self, holder: str) -> OutputError:
        return OutputError(f"{self._output} is in use by another run ({holder}); wait for it, or use another folder")

    def _keep_alive(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            try:
                os.utime(self._file)
            except OSError as error:  # it is a help to others only
                log.debug("cannot touch %s: %s", self._path, error)


def held(folder: Path) -> bool:
    """Tell whether somebody on this machine works in an output folder, as far as can be seen."""
    try:
        file = os.open(folder / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(file)
    return False


def _ourselves() -> bytes:
    return json.dumps({"process": os.getpid(), "host": socket.gethostname(), "boot": _boot()}).encode()


def _boot() -> str | None:
    try:
        return _BOOT.read_text().strip()
    except OSError:  # a kernel without it: the host's name decides
        return None


def _read(file: int) -> dict[str, object]:
    try:
        content = json.loads(os.pread(file, 1000, 0))
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _describe(holder: dict[str, object]) -> str:
    return f"process {holder.get('process')} on {holder.get('host')}" if holder else ""
