"""The lock that lets one run at a time use an output folder.

The kernel locks a file for its holder, and drops the lock when the holder's process ends, however it ends. Other
containers on the machine see that lock, but on some network file systems other machines do not. So the holder also
writes its name into the file and touches the file now and then. A file that another machine has touched recently is in
use, whatever the kernel says. Where a file system has no locks at all, that is all there is, also on one machine.

A holder may sleep for longer than that, with its whole machine, and go on when another run has taken its place. So each
holder makes a file of its own, with a token that no other has, and looks whether the file under the lock's name is
still its own before it gives any file its final name. What it has not finished lies in a folder named for the token.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import re
import socket
import stat
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from nuclei_segmentation.shared.errors import LockLost, OutputError
from nuclei_segmentation.shared.runtime.closing import Closing
from nuclei_segmentation.shared.runtime.file_system import lock_file
from nuclei_segmentation.shared.runtime.files import write_all
from nuclei_segmentation.shared.runtime.folder import OpenFolder
from nuclei_segmentation.shared.runtime.outside import parse_json
from nuclei_segmentation.shared.runtime.threads import start
from nuclei_segmentation.shared.settings.environment import lock_silence

log = logging.getLogger(__name__)

FILE = "lock"
STALE_SECONDS = lock_silence({})
"""A lock of another machine that was not touched for so long counts as abandoned, unless the environment differs."""
BEATS = 6
"""How often within that time the holder touches the file."""
SETTLE_SECONDS = 1.0
"""Without the kernel's locks: how long to wait, after taking the lock, for others that began at the same time."""
TRY_SECONDS = 1.0
"""How long to try for the kernel's lock: `held`, which only looks, has it for an instant."""

Check = Callable[[], None]
"""Raises `LockLost` if the folder has another holder by now."""

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_OWN = re.compile(r"run-[0-9a-f]{32}")
_LIMIT = 1000  # bytes of a lock


class FolderLock(Closing):
    """The lock of an output folder: the file ``lock`` in its work folder.

    Parameters
    ----------
    folder : pathlib.Path
        The work folder. It is made if it does not exist.
    output : pathlib.Path
        The output folder, for messages.

    Attributes
    ----------
    folder : pathlib.Path
        The work folder.
    own : pathlib.Path
        This holder's own folder in the work folder, for what it has not finished.
    lost : bool
        Whether it is known that another run holds the lock by now.

    Raises
    ------
    OutputError
        Another run holds the lock.
    OSError
        The work folder cannot be written.
    """

    def __init__(self, folder: Path, output: Path) -> None:
        self.folder, self._output = folder, output
        self._token = uuid.uuid4().hex
        self._silence = lock_silence(os.environ)
        self.own = folder / f"run-{self._token}"
        self.lost = False
        self._ended_holder: str | None = None  # its token; "" for all that ever were; None if it may still be alive
        self._file = self._acquire()
        self._ended = threading.Event()
        self._beat = threading.Thread(target=self._keep_alive, name="lock", daemon=True)
        start(self._beat)

    def check(self) -> None:
        """Raise an error if another run holds the lock by now.

        Raises
        ------
        LockLost
            It does.
        OSError
            The work folder cannot be read.
        """
        holder = {} if self.lost else self._holder()
        if holder.get("token") != self._token:
            self.lost = True
            by = f" ({_describe(holder)})" if holder else ""
            raise LockLost(
                f"another run{by} took {self._output} over while this one, or its machine, stood still; nothing was "
                "published since; run the same command again: it reports the result, or resumes"
            )

    def others(self) -> list[tuple[str, bool]]:
        """Return the folders of earlier holders, by name, each with whether its holder is known to have ended.

        The last holder's comes first.
        """
        with OpenFolder(self.folder) as folder:
            found = [name for name in folder.names() if _OWN.fullmatch(name) and name != self.own.name]
        last = f"run-{self._ended_holder}"
        found.sort(key=lambda name: name != last)
        return [(name, self._ended_holder == "" or name == last) for name in found]

    def close(self) -> None:
        """Release the lock; the file stays, and this holder's own folder if there is something in it."""
        if self._file >= 0:
            os.ftruncate(self._file, 0)  # other machines read it: the lock has no holder
        self.abandon()

    def abandon(self) -> None:
        """Release the lock as a kill does: the file goes on to name this holder."""
        if self._file < 0:
            return
        self._ended.set()
        self._beat.join()
        with suppress(OSError):  # it is not empty, or another holder has removed it
            self.own.rmdir()
        os.close(self._file)
        self._file = -1

    def remove(self) -> None:
        """Remove the file, and the work folder if nothing else is in it; then release the lock."""
        with suppress(OSError):
            self.own.rmdir()
        if self._holder().get("token") != self._token:
            self.close()
            return
        (self.folder / FILE).unlink(missing_ok=True)
        gone = self._remove_folder()
        self.close()
        end = time.monotonic() + TRY_SECONDS
        while not gone and self._holds_removed_files() and time.monotonic() < end:
            time.sleep(0.01)
            gone = self._remove_folder()

    def _remove_folder(self) -> bool:
        """Remove the work folder if nothing is in it; return whether it is gone."""
        try:
            self.folder.rmdir()
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):  # another run has just begun
                raise
            return error.errno == errno.ENOENT
        return True

    def _holds_removed_files(self) -> bool:
        """Tell whether only removed files are in the work folder, which NFS and FUSE keep until they are closed."""
        try:
            return all(entry.name.startswith((".nfs", ".fuse_hidden")) for entry in self.folder.iterdir())
        except FileNotFoundError:
            return False

    def _acquire(self) -> int:
        while True:
            with suppress(FileExistsError):
                self.folder.mkdir()
            try:
                with OpenFolder(self.folder) as folder:
                    found = folder.status(FILE)
                    if found is not None and stat.S_ISLNK(found.st_mode):
                        folder.remove(FILE)
                    file = folder.open(FILE, os.O_RDWR | os.O_CREAT)
                    try:
                        self._take(file, folder)
                        # The holder before may have replaced or removed it after it was opened, and before it was
                        # locked.
                        now = folder.status(FILE)
                        if now is not None and os.path.samestat(os.fstat(file), now):
                            return self._replace(folder)
                    finally:
                        os.close(file)
            except FileNotFoundError:
                continue  # the previous holder has just removed the folder

    def _take(self, file: int, folder: OpenFolder) -> None:
        """Lock a file in the kernel, and make sure that whoever it names has ended or fallen silent."""
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
            self._ended_holder = "" if os.fstat(file).st_size == 0 else None
            return
        # On this machine the kernel's lock is reliable, where there is one.
        if _of_this_machine(holder) if self._kernel_locks else _has_ended(holder):
            self._ended_holder = str(holder.get("token"))
            log.debug("%s: %s has ended; its lock is taken over", self.folder / FILE, _describe(holder))
            return
        self._ended_holder = None
        self._await_silence(file, folder, holder)

    def _await_silence(self, file: int, folder: OpenFolder, holder: dict[str, object]) -> None:
        """Raise an error unless the holder, whom the kernel's locks do not show, has fallen silent."""
        silence = _silence_of(holder) or self._silence
        age = self._now(folder) - os.fstat(file).st_mtime
        if age < -silence:  # a clock was wrong, and the time says nothing
            log.warning(
                "%s is from the future, since a clock was wrong; waiting up to %.0f s for a sign of life from %s",
                self.folder / FILE,
                silence,
                _describe(holder),
            )
            age = 0.0 if self._touched(folder, silence) else silence
        if age < silence:
            where = ", another machine or this one before a restart" if self._kernel_locks else ""
            raise self._in_use(
                f"{_describe(holder)}{where}, last active {max(0, age):.0f} s ago; after {silence:.0f} s without "
                "activity the lock is free"
            )
        log.warning(
            "%s: %s was inactive for %.0f s; its lock is taken over", self.folder / FILE, _describe(holder), age
        )

    def _touched(self, folder: OpenFolder, seconds: float) -> bool:
        """Tell whether the lock's holder touches it within so many seconds."""
        before, end = folder.status(FILE), time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(min(1.0, seconds / BEATS))
            os.close(folder.open(FILE))  # else a network file system may tell an old time
            now = folder.status(FILE)
            if before is None or now is None or now.st_mtime_ns != before.st_mtime_ns:
                return True
        return False

    def _replace(self, folder: OpenFolder) -> int:
        """Put a file of this holder's own under the lock's name; the caller has locked the one that is there."""
        with folder.make(self.own.name) as own:
            file = own.create(FILE)
            try:
                lock_file(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                write_all(file, self._content(), 0)
                os.rename(FILE, FILE, src_dir_fd=own.number, dst_dir_fd=folder.number)
                self._settle()
            except BaseException:
                os.close(file)
                with suppress(OSError):
                    folder.remove(self.own.name)
                raise
        return file

    def _settle(self) -> None:
        """Without the kernel's locks, make sure that of several runs that began at the same time only one goes on."""
        if self._kernel_locks:
            return
        time.sleep(SETTLE_SECONDS)
        holder = self._holder()  # the last of them
        if holder.get("token") != self._token:
            raise self._in_use(_describe(holder) or "starting up")

    def _content(self) -> bytes:
        names = {"process": os.getpid(), "host": socket.gethostname(), "boot": _boot(), "namespace": _namespace()}
        return json.dumps({**names, "token": self._token, "silence": self._silence}).encode()

    def _holder(self) -> dict[str, object]:
        """Return what the file under the lock's name says; nothing if it is not there."""
        try:
            with OpenFolder(self.folder) as folder:
                return _parsed(folder.read(FILE, _LIMIT) or b"")
        except (FileNotFoundError, FileExistsError):
            return {}

    def _now(self, folder: OpenFolder) -> float:
        """Return the time by the file system's clock, which may be another machine's."""
        probe = f"clock-{self._token}"
        file = folder.create(probe)
        try:
            os.utime(file)
            return os.fstat(file).st_mtime
        finally:
            os.close(file)
            folder.remove(probe)

    def _in_use(self, holder: str) -> OutputError:
        return OutputError(f"{self._output} is in use by another run ({holder}); wait for it, or use another folder")

    def _keep_alive(self) -> None:
        while not self._ended.wait(self._silence / BEATS):
            try:
                self.check()
                os.utime(self._file)
            except LockLost as error:
                log.debug("%s", error)
                return
            except OSError as error:  # only other machines need it
                log.debug("cannot touch %s: %s", self.folder / FILE, error)


def held(folder: Path) -> bool:
    """Tell whether a process on this machine holds a work folder, as far as this process can see."""
    try:
        with OpenFolder(folder) as opened:
            file = opened.open(FILE)
    except OSError:
        return False
    try:
        if lock_file(file, fcntl.LOCK_SH | fcntl.LOCK_NB):
            return False
        holder = _read(file)
        silence = _silence_of(holder) or lock_silence(os.environ)
        return bool(holder) and not _has_ended(holder) and time.time() - os.fstat(file).st_mtime < silence
    except OSError:
        return True
    finally:
        os.close(file)


def _of_this_machine(holder: dict[str, object]) -> bool:
    """Tell whether a holder is of this machine since it started: by the boot's id or, without one, by the host name."""
    theirs, ours = holder.get("boot"), _boot()
    if theirs is None or ours is None:
        return holder.get("host") == socket.gethostname()
    return theirs == ours


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
    return _parsed(os.pread(file, _LIMIT, 0))


def _parsed(content: bytes) -> dict[str, object]:
    """Return what a lock says of its holder; nothing if it is not a lock of ours."""
    try:
        document = parse_json(content)
    except ValueError:
        return {}
    return document if isinstance(document, dict) and "process" in document else {}


def _silence_of(holder: dict[str, object]) -> float | None:
    """Return after how many seconds the holder itself allows to be taken for dead; None if it does not say."""
    said = holder.get("silence")
    return float(said) if isinstance(said, (int, float)) and 1 <= said <= 3600 else None


def _describe(holder: dict[str, object]) -> str:
    return f"process {holder.get('process')} on {holder.get('host')}" if holder else ""
