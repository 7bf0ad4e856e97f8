"""How much memory a container takes, as its control group on this machine says."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path

from nuclei_segmentation.shared.runtime.resources import memory_groups

INTERVAL_SECONDS = 0.25

_STAT = "memory.stat"
_KINDS = ("anon", "rss", "shmem")
"""Version 2 has `anon`, version 1 `rss`. Pages of files do not count: the system drops them when it needs memory."""


class Footprint:
    """Samples the memory of a container while it runs.

    Parameters
    ----------
    engine, name : str
        Of the container; it may not be there yet.
    """

    def __init__(self, engine: str, name: str) -> None:
        self.peak: int | None = None
        """Bytes; None where nothing is known, as when the engine runs in a machine of its own."""
        self._ask = (engine, "inspect", "--format", "{{.State.Pid}} {{.Id}}", name)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, name=f"memory of {name}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End it."""
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        group = None
        while not self._stop.wait(INTERVAL_SECONDS):
            group = group or self._group()
            if group is not None and (taken := _taken(group)) is not None:
                self.peak = max(self.peak or 0, taken)

    def _group(self) -> Path | None:
        done = subprocess.run(  # noqa: S603 - words of ours
            self._ask, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )
        number, _, whole = done.stdout.strip().partition(" ")
        if done.returncode or not whole or number == "0":
            return None
        # an engine in a machine, or a namespace, of its own counts processes in its own way: it may be another's number
        folders = (folder for folder, _, _ in memory_groups(number) if (folder / _STAT).exists())
        return next((one for one in folders if whole in str(one)), None)


def _taken(group: Path) -> int | None:
    try:
        told = (group / _STAT).read_text()
    except OSError:  # it has ended
        return None
    pairs = (line.split(" ", 1) for line in told.splitlines())
    found = [int(rest) for name, rest in pairs if name in _KINDS]
    return sum(found) if found else None
