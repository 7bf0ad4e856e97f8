"""What this process may use: processors, memory, disk; and what it used."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

MIB = 1024 * 1024
GIB = 1024 * MIB


def usable_cpus() -> int:
    """Return the number of processors this process may use: its affinity, cut by the cgroup's quota."""
    count = len(os.sched_getaffinity(0))
    quota = _cgroup_quota()
    return max(1, min(count, int(quota)) if quota else count)


def anonymous_memory() -> int:
    """Return the bytes of anonymous memory that this process holds; file-backed pages do not count."""
    match = re.search(r"^RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(match.group(1)) * 1024 if match else 0


def free_bytes(folder: Path) -> int:
    """Return the bytes that a user may still write to the file system that holds `folder`."""
    state = os.statvfs(folder)
    return state.f_bavail * state.f_frsize


def human(count: float) -> str:
    """Write a number of bytes the way people read it."""
    for unit, size in (("GiB", GIB), ("MiB", MIB), ("KiB", 1024)):
        if count >= size:
            return f"{count / size:.1f} {unit}" if count < 10 * size else f"{count / size:.0f} {unit}"
    return f"{count:.0f} bytes"


class MemoryPeak:
    """Samples anonymous memory while a run lasts (Linux keeps a peak of the total only, file pages included)."""

    def __init__(self, interval: float = 0.25) -> None:
        self.peak = anonymous_memory()
        self._interval = interval
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="memory", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self.peak = max(self.peak, anonymous_memory())

    def _sample(self) -> None:
        while not self._stop.wait(self._interval):
            self.peak = max(self.peak, anonymous_memory())


def _cgroup_quota() -> float | None:
    """Return the CPU quota of this process's control group in processors, or None where there is none."""
    try:
        groups = dict(
            line.split(":", 2)[1:]
            for line in Path("/proc/self/cgroup").read_text().splitlines()
            if line.count(":") >= 2
        )
    except OSError:
        return None
    quotas = []
    for folder in (Path("/sys/fs/cgroup"), Path(f"/sys/fs/cgroup{groups.get('', '/')}")):
        text = _text(folder / "cpu.max").split()
        if len(text) == 2 and text[0].isdigit():
            quotas.append(int(text[0]) / int(text[1]))
    for root in (Path("/sys/fs/cgroup/cpu"), Path(f"/sys/fs/cgroup/cpu{groups.get('cpu,cpuacct', '/')}")):
        quota, period = _text(root / "cpu.cfs_quota_us").strip(), _text(root / "cpu.cfs_period_us").strip()
        if quota.isdigit() and period.isdigit() and int(period):
            quotas.append(int(quota) / int(period))
    return min(quotas) if quotas else None


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # not every kernel has every file; no file means no quota
        return ""
