"""What this process may use (processors, memory, disk), and what it has used."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from nuclei_segmentation.shared.runtime.threads import start

MIB = 1024 * 1024
GIB = 1024 * MIB

_CGROUPS = Path("/sys/fs/cgroup")


def usable_cpus() -> int:
    """Return the number of processors that this process may use: its affinity, limited by the cgroup's quota."""
    count = len(os.sched_getaffinity(0))
    quota = _cgroup_quota()
    return max(1, min(count, int(quota)) if quota else count)


def anonymous_memory() -> int:
    """Return the bytes of anonymous memory that this process holds; file-backed pages are not counted."""
    match = re.search(r"^RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(match.group(1)) * 1024 if match else 0


def free_bytes(folder: Path) -> int:
    """Return the bytes that a user may still write to the file system that holds `folder`."""
    state = os.statvfs(folder)
    return state.f_bavail * state.f_frsize


def human(count: float) -> str:
    """Return a number of bytes as people write it: ``1.5 GiB``."""
    for unit, size in (("GiB", GIB), ("MiB", MIB), ("KiB", 1024)):
        if count >= size:
            return f"{count / size:.1f} {unit}" if count < 10 * size else f"{count / size:.0f} {unit}"
    return f"{count:.0f} bytes"


class MemoryPeak:
    """Samples anonymous memory during a run. Linux itself keeps a peak of the total only, file pages included."""

    def __init__(self, interval: float = 0.25) -> None:
        self.peak = anonymous_memory()
        self._interval = interval
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="memory", daemon=True)

    def __enter__(self) -> Self:
        start(self._thread)
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


def memory_left() -> int | None:
    """Return the bytes of memory that this process's control group may still take; None if it has no limit.

    File pages, which the system drops when it needs memory, are not counted as taken.
    """
    left = []
    for folder, limit, usage in memory_groups():
        most, used = _text(folder / limit).strip(), _text(folder / usage).strip()
        if most.isdigit() and used.isdigit() and int(most) < 1 << 60:  # version 1 writes 2^63 for no limit
            stat = dict(line.split(" ", 1) for line in _text(folder / "memory.stat").splitlines() if " " in line)
            prefix = "total_" if "total_inactive_file" in stat else ""
            files = sum(int(stat.get(f"{prefix}{name}_file", 0)) for name in ("active", "inactive"))
            left.append(max(0, int(most) - int(used) + files))
    return min(left) if left else None


def memory_groups(process: str = "self") -> list[tuple[Path, str, str]]:
    """Return the folders of a process's memory groups, outermost last, with their files of limit and usage.

    Parameters
    ----------
    process : str, optional
        Its number, or ``self``.
    """
    groups, found = _groups(process), []
    for root, path, limit, usage in (
        (_CGROUPS, groups.get("", "/"), "memory.max", "memory.current"),
        (_CGROUPS / "memory", _path_of("memory", groups), "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        own = Path(f"{root}{path}")
        found += [(folder, limit, usage) for folder in (own, *own.parents) if folder.is_relative_to(root)]
    return found


def _path_of(controller: str, groups: Mapping[str, str]) -> str:
    """Return the path of a controller's group of version 1; several controllers may share one."""
    return next((path for names, path in groups.items() if controller in names.split(",")), "/")


def _groups(process: str = "self") -> dict[str, str]:
    """Return a process's control groups: their paths by controllers, whose name is empty in version 2."""
    lines = _text(Path("/proc", process, "cgroup"))
    return dict(line.split(":", 2)[1:] for line in lines.splitlines() if line.count(":") >= 2)


def _cgroup_quota() -> float | None:
    """Return the CPU quota of this process's control group in processors, or None where there is none."""
    groups = _groups()
    quotas = []
    for folder in (_CGROUPS, Path(f"{_CGROUPS}{groups.get('', '/')}")):
        text = _text(folder / "cpu.max").split()
        if len(text) == 2 and text[0].isdigit():
            quotas.append(int(text[0]) / int(text[1]))
    for root in (_CGROUPS / "cpu", Path(f"{_CGROUPS}/cpu{groups.get('cpu,cpuacct', '/')}")):
        quota, period = _text(root / "cpu.cfs_quota_us").strip(), _text(root / "cpu.cfs_period_us").strip()
        if quota.isdigit() and period.isdigit() and int(period):
            quotas.append(int(quota) / int(period))
    return min(quotas) if quotas else None


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # not every kernel has every file; a missing file means no quota
        return ""
