"""Reads the files of a definition: the root, and what it imports from its own folder."""

from __future__ import annotations

import os
from pathlib import Path

from nuclei_segmentation.pipelines.language.findings import Findings, Place, shown
from nuclei_segmentation.pipelines.language.nodes import ROOT_PATH, Document
from nuclei_segmentation.pipelines.language.yamltree import parse
from nuclei_segmentation.shared.runtime.files import read_regular

LARGEST = 256 * 1024
"""The largest file, in bytes. A definition has a few thousand."""
MAX_FILES = 64
"""Files of one definition."""


class Files:
    """The files of one definition. Each is read once.

    Parameters
    ----------
    root : pathlib.Path
        The definition. What it imports must be in its folder or below.
    findings : Findings
        Collects what is wrong with the files.

    Attributes
    ----------
    root : Document or None
        The definition; None if it cannot be read.
    root_name : str
        Its name in findings.
    root_key : str
        Its key, as of `imported`.
    unreadable : bool
        Whether the definition itself cannot be read.
    """

    def __init__(self, root: Path, findings: Findings) -> None:
        self._folder = Path(os.path.realpath(root.parent))
        self._findings = findings
        self._read: dict[str, Document | None] = {}
        self.unreadable = False
        self.root_name = str(root)
        self.root_key = os.path.realpath(root)
        self.root = self._load(root, self.root_name)

    def imported(self, importer: str, path: str, at: Place) -> tuple[str, Document | None] | None:
        """Return an imported file.

        Parameters
        ----------
        importer : str
            The name of the file that has the import.
        path : str
            The path in the import, relative to that file's folder.
        at : Place
            The place of the path.

        Returns
        -------
        (str, Document or None) or None
            A key that is the same for the same file, and the document, if it can be read. None if the path is refused.
        """

        def refuse(message: str, expected: str) -> None:
            self._findings.add(at, "import", message, expected)

        if not path or not path.isprintable():
            refuse("this is not the path of a file", "give a path relative to the folder of this file")
            return None
        if path.startswith("/") or "\\" in path:
            refuse(
                "the path is not relative, or not written with '/'", "give a path relative to the folder of this file"
            )
            return None
        target = Path(importer).parent / path
        key = os.path.realpath(target)
        if not Path(key).is_relative_to(self._folder):
            refuse("the path leads out of the definition's folder", "import files in that folder or below it")
            return None
        if key not in self._read:
            if len(self._read) >= MAX_FILES:
                refuse(
                    f"the definition imports more than {MAX_FILES} files",
                    "write some operators in the definition itself",
                )
                return None
            self._read[key] = self._load(Path(key), os.path.normpath(target), at)
        return key, self._read[key]

    def _load(self, path: Path, name: str, at: Place | None = None) -> Document | None:
        place = at or Place(name, 1, 1, ROOT_PATH)
        what = "the file" if at is None else f"the imported file {shown(name)}"

        def refuse(message: str, expected: str) -> None:
            self.unreadable = self.unreadable or at is None
            self._findings.add(place, "file", message, expected)

        try:
            content = read_regular(path, LARGEST + 1)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            refuse(f"{what} cannot be read: {reason}", "give a file that exists and can be read")
            return None
        if content is None:
            refuse(f"{what} is not a regular file", "give a YAML file")
            return None
        if len(content) > LARGEST:
            refuse(f"{what} is larger than {LARGEST} bytes", "a definition has a few thousand")
            return None
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            good = Document.of(name, content[: error.start].decode("utf-8-sig"))
            where = good.place(len(good.text), "")
            self._findings.add(where, "encoding", "this is not UTF-8", "save the file as UTF-8")
            return None
        return parse(Document.of(name, text), self._findings)
