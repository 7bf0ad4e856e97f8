"""How far a run is, so that the next one can resume it: the file ``state.json`` in the job's folder."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from nuclei_segmentation.pipelines.runner.schedule import Result
from nuclei_segmentation.shared.runtime.files import write_file
from nuclei_segmentation.shared.runtime.folder import OpenFolder
from nuclei_segmentation.shared.runtime.lock import FolderLock
from nuclei_segmentation.shared.runtime.outside import parse_json

FILE = "state.json"
LIMIT = 16 << 20
"""The most bytes that are read of the file."""


@dataclass(slots=True)
class State:
    """How far a run is.

    Attributes
    ----------
    key : str
        A hash of the plan and of what it reads.
    done : set of str
        Operators that have succeeded.
    placed : list of str
        Paths of the result, relative to the output folder.
    complete : bool
        Whether the whole result is there.
    """

    key: str
    done: set[str] = field(default_factory=set)
    placed: list[str] = field(default_factory=list)
    complete: bool = False

    def record(self, result: Result) -> None:
        """Record that an operator has ended."""
        if result.status.code == 0:
            self.done.add(result.name)

    def save(self, lock: FolderLock) -> None:
        """Write the file whole or not at all, into the job's folder, which this run holds by `lock`."""
        text = json.dumps(
            {"key": self.key, "done": sorted(self.done), "placed": self.placed, "whole": self.complete}, indent=2
        )
        write_file(lock.folder / FILE, f"{text}\n".encode(), lock.own / f"{FILE}.part", lock.check)


def load(job: Path) -> State | None:
    """Return the state in a job's folder; None if there is none that can be read."""
    try:
        with OpenFolder(job) as folder:
            stored = parse_json(folder.read(FILE, LIMIT) or b"")
        placed = [str(path) for path in stored["placed"]]
        return State(str(stored["key"]), {str(name) for name in stored["done"]}, placed, stored["whole"] is True)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def key(plan: str, *folders: Path, output: Path) -> str:
    """Return a hash of a plan and of the names, sizes and times of all files that it reads.

    Parameters
    ----------
    plan : str
        The plan's own hash.
    *folders : pathlib.Path
        The folders that it reads.
    output : pathlib.Path
        The output folder. It may lie in one of the others; its files do not count.
    """
    excluded = os.path.realpath(output)
    digest = hashlib.sha256(plan.encode())
    for root in folders:
        for folder, inner, files in os.walk(root):
            inner[:] = sorted(name for name in inner if os.path.realpath(os.path.join(folder, name)) != excluded)  # noqa: PTH118 - `walk` gives strings
            for name in sorted(files):
                path = Path(folder, name)
                try:
                    status = path.stat()
                except OSError:  # a broken link: an operator that needs the file will report it
                    continue
                line = f"{path.relative_to(root)}\0{status.st_size}\0{status.st_mtime_ns}\n"
                digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()
