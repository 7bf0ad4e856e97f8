"""Finds the one slide in the input folder."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import openslide

from nuclei_segmentation.shared.errors import InputError
from nuclei_segmentation.shared.slides.tiff_index import is_tiff

_TIFF: Final = frozenset({".svs", ".tif", ".tiff", ".ndpi", ".scn", ".svslide", ".bif", ".btf", ".tf2", ".tf8"})
EXTENSIONS: Final = _TIFF | {".vms", ".vmu", ".mrxs", ".dcm", ".czi"}
_SLIDE_FOLDER: Final = "slide"
_DICOM_HEAD: Final = 64 << 10  # bytes at the start of a DICOM file in which its series is named
_NAMED: Final = 3  # most names in an error message
_UNKNOWN: Final = 100  # most files without a known extension that are opened to see whether they are slides
_NOT_SLIDES: Final = frozenset(
    {".json", ".yaml", ".yml", ".txt", ".md", ".xml", ".csv", ".log", ".meta", ".npy", ".png"}
)


def find_slide(path: Path) -> Path:
    """Return the file to open for the slide at a path.

    Files whose names begin with a dot are ignored. The files of a DICOM series are one slide, and its first file is the
    one to open. An ``.mrxs``, ``.vms`` or ``.vmu`` file and the files that belong to it are one slide.

    If `path` itself is a symbolic link, it is followed. A symbolic link found in the folder is followed only to a file
    in the same folder: the content of an input folder may come from strangers, and must not make the program open
    ``/etc/passwd``.

    Parameters
    ----------
    path : pathlib.Path
        A slide file, or a folder that holds exactly one slide. If the folder holds none, its subfolder ``slide`` is
        searched.

    Returns
    -------
    pathlib.Path
        The file to open.

    Raises
    ------
    InputError
        There is no slide, or more than one, or it is not a regular file.
    """
    shown = _show(path)
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP) and path.is_symlink():
            raise InputError(f"{shown} is a broken symbolic link") from None
        raise InputError(f"{shown}: {error.strerror}; give a slide file, or a folder that holds one slide") from None
    if stat.S_ISREG(mode):
        return path
    if not stat.S_ISDIR(mode):
        raise InputError(f"{shown} is {_kind(mode)}, not a slide file")
    slides, others, problems = _slides_in(path)
    folder = path / _SLIDE_FOLDER
    if not slides and folder.is_dir():
        slides, more_others, more_problems = _slides_in(folder)
        others, problems = others + more_others, problems + more_problems
    if len(slides) == 1:
        return slides[0]
    if slides:
        names = _listing([_show(Path(slide.name)) for slide in slides])
        raise InputError(f"{shown} holds {len(slides)} slides ({names}); leave one there, or give the file itself")
    if problems:
        raise InputError(f"no slide in {shown}: {problems[0]}")
    if not others:
        raise InputError(f"{shown} is empty; put one slide there")
    raise InputError(f"no slide in {shown}, only {_listing(others)}; put one there (.svs, .tif, .ndpi, .dcm, …)")


def files_of(path: Path) -> list[Path]:
    """Return all files of the slide that `find_slide` found, in a fixed order. Usually there is one."""
    kind = path.suffix.lower()
    if kind == ".mrxs" and (folder := path.with_suffix("")).is_dir():
        return [path, *sorted(file for file in folder.iterdir() if file.is_file())]
    if kind in (".vms", ".vmu"):
        # The other files of such a slide lie in the same folder, and their names begin with the name of this one.
        return sorted(file for file in path.parent.iterdir() if file.name.startswith(path.stem) and file.is_file())
    if kind == ".dcm":
        return _series_of(path)
    return [path]


def _series_of(path: Path) -> list[Path]:
    """Return the DICOM files of a series, one of whose files is `path`. They lie in one folder."""
    uid = series_uid(path)
    if uid is None:
        return [path]
    files = sorted(file for file in path.parent.iterdir() if file.suffix.lower() == ".dcm" and file.is_file())
    return [file for file in files if file == path or series_uid(file) == uid]


def series_uid(path: Path) -> bytes | None:
    """Return the UID of the series that a DICOM file belongs to, or None if it names none.

    Searches the start of the file for the element (0020,000E) with the value representation UI, in the explicit
    little-endian encoding that all scanners write. This is not a full DICOM parser. If it fails, slides are counted
    wrongly, and the error message shows that.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_DICOM_HEAD)
    except OSError:
        return None  # opening the slide will report the error
    if head[128:132] != b"DICM":
        return None
    at = head.find(b"\x20\x00\x0e\x00UI")
    if at < 0:
        return None
    length = int.from_bytes(head[at + 6 : at + 8], "little")
    return head[at + 8 : at + 8 + length].rstrip(b"\0 ")


def _slides_in(folder: Path) -> tuple[list[Path], list[str], list[str]]:
    """Return the slides in a folder, the names of a few other files, and problems with files named like slides."""
    slides: list[Path] = []
    series: set[bytes] = set()
    others: list[str] = []
    problems: list[str] = []
    unknown: list[Path] = []
    for entry in _entries(folder):
        # Names are handled as plain strings: there may be a hundred thousand, most of which are not slides.
        kind = "".join(entry.name.rpartition(".")[1:]).lower()
        if kind not in EXTENSIONS:
            if len(others) <= _NAMED and entry.name != _SLIDE_FOLDER:
                others.append(_show(Path(entry.name)))
            if kind not in _NOT_SLIDES and len(unknown) < _UNKNOWN and entry.is_file(follow_symlinks=False):
                unknown.append(Path(entry.path))
            continue
        file, problem = Path(entry.path), _problem(entry, folder)
        if problem:
            problems.append(f"{_show(Path(entry.name))} {problem}")
        elif kind == ".dcm" and (uid := series_uid(file)) is not None:
            if uid not in series:
                series.add(uid)
                slides.append(file)
        else:
            slides.append(file)
    if not slides and not problems:
        slides = [file for file in unknown if _looks_like_slide(file)]
    return slides, others, problems


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            found = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise InputError(f"cannot list the folder {_show(folder)}: {error.strerror}") from None
    return iter(sorted(found, key=lambda entry: os.fsencode(entry.name)))


def _problem(entry: os.DirEntry[str], folder: Path) -> str:
    """Return why an entry named like a slide cannot be one, or an empty string."""
    if entry.is_symlink():
        try:
            target = Path(entry.path).resolve(strict=True)
        except (OSError, RuntimeError):  # RuntimeError: links in a loop
            return "is a broken symbolic link"
        if not target.is_relative_to(folder.resolve()):
            return "is a symbolic link that leads out of the folder and is not followed; copy or mount the slide itself"
    try:
        mode = entry.stat().st_mode
    except OSError as error:
        return f"cannot be inspected: {error.strerror}"
    return "" if stat.S_ISREG(mode) else f"is {_kind(mode)}, not a slide file"


def _looks_like_slide(file: Path) -> bool:
    """Tell whether a file without a known extension is a slide, judging by its content."""
    try:
        with file.open("rb") as stream:
            if is_tiff(stream.read(8)):
                return True
        return openslide.OpenSlide.detect_format(file) is not None
    except (OSError, openslide.OpenSlideError):
        return False


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFBLK: "a device",
        stat.S_IFCHR: "a device",
    }
    return kinds.get(stat.S_IFMT(mode), "a special file")


def _show(path: Path) -> str:
    """Return a name that is safe to print: unprintable characters are escaped, and a long name is shortened."""
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(path))
    return text if len(text) <= 200 else text[:120] + "…" + text[-60:]


def _listing(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")
