"""What runs here: the program's version and commit, Python, and the libraries that read, compute and write."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from nuclei_segmentation.shared.runtime.outside import parse_json

PROGRAM = "nuclei-segmentation-operators"
COMMIT = "NUCLEI_COMMIT"
"""Environment variable of the images: the commit that they were built from."""

_LIBRARIES = (
    "imagecodecs",
    "numpy",
    "onnxruntime",
    "opencv-python-headless",
    "openslide-bin",
    "openslide-python",
    "scipy",
    "simplejpeg",
    "tifffile",
    "tritonclient",
)


@dataclass(frozen=True, slots=True)
class Program:
    """The program as it is installed here.

    Attributes
    ----------
    name : str
        Of the distribution.
    version : str
        Of the distribution.
    commit : str
        Of the source, in full; empty where it is not known.
    python : str
        Version of Python.
    libraries : dict of str to str
        Versions by distribution, of those that are installed: an image has only what its stage needs.
    """

    name: str
    version: str
    commit: str
    python: str
    libraries: dict[str, str]

    def __str__(self) -> str:
        commit = f" (commit {self.commit[:12]})" if self.commit else ""
        return f"{self.name} {self.version}{commit}"

    @property
    def environment(self) -> str:
        """Python and the libraries, on one line."""
        return ", ".join([f"Python {self.python}", *(f"{name} {text}" for name, text in self.libraries.items())])


@cache
def program() -> Program:
    """Return the program as it is installed here."""
    from importlib import metadata  # takes as long as everything else that the usage needs

    libraries = {}
    for name in _LIBRARIES:
        try:
            libraries[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return Program(PROGRAM, metadata.version(PROGRAM), _commit(), platform.python_version(), libraries)


def _commit() -> str:
    """Return the commit: of the image, of what pip installed from, or of the checkout that holds this file."""
    image = os.environ.get(COMMIT, "").strip().replace("unknown", "")
    return image or _installed_commit() or _checked_out(Path(__file__).resolve().parents[2])


def _installed_commit() -> str:
    """Return the commit that pip recorded (PEP 610); empty if it installed no repository."""
    from importlib import metadata

    try:
        recorded = parse_json(metadata.distribution(PROGRAM).read_text("direct_url.json") or "{}")
        return str(recorded.get("vcs_info", {}).get("commit_id", ""))
    except (ValueError, AttributeError):
        return ""


def _checked_out(root: Path) -> str:
    """Return the commit that is checked out in `root`, read from git's files: git itself need not be installed."""
    try:
        folder = root / ".git"
        if folder.is_file():  # of a worktree it names the folder
            folder = root / folder.read_text().removeprefix("gitdir:").strip()
        head = (folder / "HEAD").read_text().strip()
        if not head.startswith("ref:"):
            return head
        reference = head.removeprefix("ref:").strip()
        common = folder / "commondir"
        shared = folder / common.read_text().strip() if common.exists() else folder
        for place in (folder, shared):
            if (place / reference).exists():
                return (place / reference).read_text().strip()
        packed = (shared / "packed-refs").read_text().splitlines()
        return next((line.split()[0] for line in packed if line.endswith(f" {reference}")), "")
    except (OSError, UnicodeDecodeError, IndexError):
        return ""
