"""What is remembered of a run, so that the next one goes on: the file ``state.json`` in the job's folder."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from nuclei_segmentation.pipelines.runner.schedule import Result
from nuclei_segmentation.shared.runtime.files import write_file

FILE = "state.json"


@dataclass(slots=True)
class State:
    """How far a run is.

    Attributes
    ----------
    key : str
        Of the plan and what it reads.
    done : set of str
        Operators that ended well.
    placed : list of str
        Paths of the result, from the output folder.
    whole : bool
        Whether all of it is there.
    """

    key: str
    done: set[str] = field(default_factory=set)
    placed: list[str] = field(default_factory=list)
    whole: bool = False

    def took(self, result: Result) -> None:
        """Note that an operator has ended."""
        if result.ended.code == 0:
            self.done.add(result.name)

    def save(self, job: Path) -> None:
        """Write it down, whole or not at all."""
        text = json.dumps(
            {"key": self.key, "done": sorted(self.done), "placed": self.placed, "whole": self.whole}, indent=2
        )
        write_file(job / FILE, f"{text}\n".encode(), job / f"{FILE}.new")


def load(job: Path) -> State | None:
    """Return what was written down; None if there is nothing that can be read."""
    try:
        found = json.loads((job / FILE).read_text(encoding="utf-8"))
        placed = [str(one) for one in found["placed"]]
        return State(str(found["key"]), {str(one) for one in found["done"]}, placed, found["whole"] is True)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def key(plan: str, *folders: Path, output: Path) -> str:
    """Return what a run depends on: its plan, and names, sizes and times of all files in some folders.

    What lies in the output folder does not count: a folder that a run reads may hold that.
    """
    own = os.path.realpath(output)
    digest = hashlib.sha256(plan.encode())
    for root in folders:
        for folder, inner, files in os.walk(root):
            inner[:] = sorted(name for name in inner if os.path.realpath(os.path.join(folder, name)) != own)  # noqa: PTH118
            for name in sorted(files):
                path = Path(folder, name)
                try:
                    facts = path.stat()
                except OSError:  # a link that leads nowhere: who needs the file will say so
                    continue
                line = f"{path.relative_to(root)}\0{facts.st_size}\0{facts.st_mtime_ns}\n"
                digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()
