"""The lock that lets one run at a time use an output folder.

The kernel locks a file for its holder, and drops the lock when the holder's process ends, however it ends. Other
containers on the machine see that lock, but on some network file systems other machines do not. So the holder also
writes its name into the file and touches the file now and then. A file that another machine has touched recently is in
use, whatever the kernel says. Where a file system has no locks at all, that is all there is, also on one machine.
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
import uuid
from pathlib import Path

from nuclei_segmentation.shared.errors import OutputError
from nuclei_segmentation.shared.runtime.closing import Closing
from nuclei_segmentation.shared.runtime.file_system import lock_file
from nuclei_segmentation.shared.runtime.files import write_all
from nuclei_segmentation.shared.runtime.outside import parse_json
from nuclei_segmentation.shared.runtime.threads import start

log = logging.getLogger(__name__)

FILE = "lock"
BEAT_SECONDS = 10.0
"""How often the holder touches the file."""
STALE_SECONDS = 60.0
"""A lock of another machine that was not touched for this long counts as abandoned."""
SETTLE_SECONDS = 1.0
"""Without the kernel's locks: how long to wait, after writing its name, for others that began at the same time."""
TRY_SECONDS = 1.0
"""How long to try for the kernel's lock: `held`, which only looks, has it for an instant."""

_BOOT = Path("/proc/sys/kernel/random/boot_id")


class FolderLock(Closing):
    """The lock of an output folder: the file ``lock`` in its work folder.

    Parameters
    ----------
    folder : pathlib.Path
        The work folder. It is made if it does not exist.
    output : pathlib.Path
        The output folder, for messages.

    Raises
    ------
    OutputError
        Another run holds the lock.
    OSError
        The work folder cannot be written.
    """

    def __init__(self, folder: Path, output: Path) -> None:
        self._folder, self._output = folder, output
        self._path = folder / FILE
        self._file = self._acquire()
        self._ended = threading.Event()
        self._beat = threading.Thread(target=self._keep_alive, name="lock", daemon=True)
        start(self._beat)

    def close(self) -> None:
        """Release the lock; the file stays."""
        if self._file < 0:
            return
        self._ended.set()
        self._beat.join()
        os.ftruncate(self._file, 0)  # other machines read it: the lock has no holder
        os.close(self._file)
        self._file = -1

    def remove(self) -> None:
        """Remove the file, and the work folder if nothing else is in it; then release the lock."""
        self._path.unlink(missing_ok=True)
        gone = self._remove_folder()
        self.close()
        end = time.monotonic() + TRY_SECONDS
        while not gone and self._holds_removed_files() and time.monotonic() < end:
            time.sleep(0.01)
            gone = self._remove_folder()

    def _remove_folder(self) -> bool:
        """Remove the work folder if nothing is in it; return whether it is gone."""
        try:
            self._folder.rmdir()
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):  # another run has just begun
                raise
            return error.errno == errno.ENOENT
        return True

    def _holds_removed_files(self) -> bool:
        """Tell whether only removed files are in the work folder, which NFS and FUSE keep until they are closed."""
        try:
            return all(entry.name.startswith((".nfs", ".fuse_hidden")) for entry in self._folder.iterdir())
        except FileNotFoundError:
            return False

    def _acquire(self) -> int:
        while True:
            try:
                self._folder.mkdir()
            except FileExistsError:
                try:
                    if not stat.S_ISDIR(self._folder.lstat().st_mode):
                        raise
                except FileNotFoundError:
                    continue  # the previous holder has just removed it
            try:
                file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
            except FileNotFoundError:
                continue
            try:
                self._take(file)
                # The previous holder may have removed the file after it was opened here, and before it was locked.
                if os.path.samestat(os.fstat(file), self._path.stat()):
                    self._sign(file)
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
                self._kernel_locks = lock_file(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
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
        # of this machine, where the kernel's lock is reliable
        if holder.get("boot") in (None, _boot()) if self._kernel_locks else _has_ended(holder):
            log.debug("%s: %s has ended; its lock is taken over", self._path, _describe(holder))
            return
        age = self._now() - os.fstat(file).st_mtime
        if age < STALE_SECONDS:
            where = ", another machine or this one before a restart" if self._kernel_locks else ""
            raise self._in_use(
                f"{_describe(holder)}{where}, last active {max(0, age):.0f} s ago; after {STALE_SECONDS:.0f} s without "
                "activity the lock is free"
            )
        log.warning("%s: %s was inactive for %.0f s; its lock is taken over", self._path, _describe(holder), age)

    def _sign(self, file: int) -> None:
        """Write this process's name into the file. Without the kernel's locks, the last of several that do so wins."""
        name = _this_process()
        os.ftruncate(file, 0)
        write_all(file, name, 0)
        if not self._kernel_locks:
            time.sleep(SETTLE_SECONDS)
            if os.pread(file, len(name), 0) != name:
                raise self._in_use(_describe(_read(file)) or "starting up")

    def _now(self) -> float:
        """Return the time by the file system's clock, which may be another machine's."""
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
            except OSError as error:  # only other machines need it
                log.debug("cannot touch %s: %s", self._path, error)


def held(folder: Path) -> bool:
    """Tell whether a process on this machine holds a work folder, as far as this process can see."""
    try:
        file = os.open(folder / FILE, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        if lock_file(file, fcntl.LOCK_SH | fcntl.LOCK_NB):
            return False
        holder = _read(file)
        return bool(holder) and not _has_ended(holder) and time.time() - os.fstat(file).st_mtime < STALE_SECONDS
    except OSError:
        return True
    finally:
        os.close(file)


def _this_process() -> bytes:
    name = {"process": os.getpid(), "host": socket.gethostname(), "boot": _boot(), "namespace": _namespace()}
    return json.dumps(name | {"token": uuid.uuid4().hex}).encode()


def _has_ended(holder: dict[str, object]) -> bool:
    """Tell whether a holder is known to have ended: it was a process of this machine and container."""
    here = holder.get("boot") == _boot() and holder.get("namespace") == _namespace() is not None
    process = holder.get("process")
    return here and isinstance(process, int) and not Path(f"/proc/{process}").exists()


def _namespace() -> str | None:
    """Return the name of this container's numbering of processes."""
    try:
        return os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - no path, but a name: pid:[4026531836]
    except OSError:  # this kernel does not tell
        return None


def _boot() -> str | None:
    try:
        return _BOOT.read_text().strip()
    except OSError:  # this kernel does not tell
        return None


def _read(file: int) -> dict[str, object]:
    try:
        content = parse_json(os.pread(file, 1000, 0))
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _describe(holder: dict[str, object]) -> str:
    return f"process {holder.get('process')} on {holder.get('host')}" if holder else ""
