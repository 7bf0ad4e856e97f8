"""The memory that a container uses, according to its control group on this machine."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path

from nuclei_segmentation.shared.runtime.resources import memory_groups
from nuclei_segmentation.shared.runtime.threads import start

INTERVAL_SECONDS = 0.25

_STAT = "memory.stat"
_KINDS = ("anon", "rss", "shmem")
"""Version 2 has `anon`, version 1 `rss`. Pages of files do not count: the system drops them when it needs memory."""


class MemorySampler:
    """Samples the memory of a container while it runs.

    Parameters
    ----------
    engine : str
        podman or docker.
    container : str
        Name or id of the container, which need not exist yet.
    """

    def __init__(self, engine: str, container: str) -> None:
        self.peak: int | None = None
        """In bytes; None where it is unknown, for example if the engine runs in a virtual machine."""
        self._inspect = (engine, "inspect", "--format", "{{.State.Pid}} {{.Id}}", container)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, name=f"memory of {container}", daemon=True)
        start(self._thread)

    def stop(self) -> None:
        """Stop sampling."""
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        group = None
        while not self._stop.wait(INTERVAL_SECONDS):
            group = group or self._group()
            if group is not None and (used := _memory_used(group)) is not None:
                self.peak = max(self.peak or 0, used)

    def _group(self) -> Path | None:
        done = subprocess.run(  # noqa: S603 - no shell, fixed words
            self._inspect, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )
        process, _, identifier = done.stdout.strip().partition(" ")
        if done.returncode or not identifier or process == "0":
            return None
        # An engine in a virtual machine or a namespace numbers processes in its own way: here, the number may belong to
        # another process. So the group must also have the container's id in its path.
        groups = (group for group, _, _ in memory_groups(process) if (group / _STAT).exists())
        return next((group for group in groups if identifier in str(group)), None)


def _memory_used(group: Path) -> int | None:
    try:
        text = (group / _STAT).read_text()
    except OSError:  # the container has ended
        return None
    pairs = (line.split(" ", 1) for line in text.splitlines())
    sizes = [int(size) for name, size in pairs if name in _KINDS]
    return sum(sizes) if sizes else None
