"""Finds the one slide in a folder."""

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
_DICOM_HEAD: Final = 64 << 10  # bytes of a DICOM file in which its series is named
_NAMED: Final = 3  # names that an error message shows
_UNKNOWN: Final = 100  # files without a known extension that are looked into
_NOT_SLIDES: Final = frozenset(
    {".json", ".yaml", ".yml", ".txt", ".md", ".xml", ".csv", ".log", ".meta", ".npy", ".png"}
)


def find_slide(path: Path) -> Path:
    """Return the file to open for the slide that a path names.

    Parameters
    ----------
    path : pathlib.Path
        A slide file, or a folder that holds exactly one slide, itself or in its subfolder ``slide``. Names that begin
        with a dot do not count. A DICOM series in several files is one slide, named by its first file; an ``.mrxs``,
        ``.vms`` or ``.vmu`` file and the files it belongs with are one slide.

        A symbolic link that the user names is followed. One that is found in the folder is followed only to a file in
        that folder: what lies in an input folder may come from strangers, and must not make the program open
        ``/etc/passwd``.

    Raises
    ------
    InputError
        There is no slide, or more than one, or it is no regular file.
    """
    shown = _show(path)
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP) and path.is_symlink():
            raise InputError(f"{shown} is a symbolic link that leads nowhere") from None
        raise InputError(f"{shown}: {error.strerror}; name a slide file, or a folder with one slide in it") from None
    if stat.S_ISREG(mode):
        return path
    if not stat.S_ISDIR(mode):
        raise InputError(f"{shown} is {_kind(mode)}, not a slide file")
    slides, seen, problems = _slides_in(path)
    folder = path / _SLIDE_FOLDER
    if not slides and folder.is_dir():
        slides, more, trouble = _slides_in(folder)
        seen, problems = seen + more, problems + trouble
    if len(slides) == 1:
        return slides[0]
    if slides:
        names = _listing([_show(Path(slide.name)) for slide in slides])
        raise InputError(f"{len(slides)} slides in {shown} ({names}); leave one, or name the file itself")
    if problems:
        raise InputError(f"no slide in {shown}: {problems[0]}")
    if not seen:
        raise InputError(f"{shown} is empty; put one slide into it")
    raise InputError(f"no slide in {shown}, only {_listing(seen)}; put one slide into it (.svs, .tif, .ndpi, .dcm, …)")


def files_of(path: Path) -> list[Path]:
    """Return all files of the slide that `find_slide` found, sorted by name: usually just one."""
    kind = path.suffix.lower()
    if kind == ".mrxs" and (folder := path.with_suffix("")).is_dir():
        return [path, *sorted(file for file in folder.iterdir() if file.is_file())]
    if kind in (".vms", ".vmu"):
        # The other files of such a slide are named in this one; they lie beside it and begin with its name.
        return sorted(file for file in path.parent.iterdir() if file.name.startswith(path.stem) and file.is_file())
    if kind == ".dcm":
        return _series_of(path)
    return [path]


def _series_of(path: Path) -> list[Path]:
    """Return the DICOM files beside a DICOM file that belong to its series."""
    identity = series_uid(path)
    if identity is None:
        return [path]
    beside = sorted(file for file in path.parent.iterdir() if file.suffix.lower() == ".dcm" and file.is_file())
    return [file for file in beside if file == path or series_uid(file) == identity]


def series_uid(path: Path) -> bytes | None:
    """Return the series that a DICOM file belongs to, or None where it does not say.

    Looks for the element (0020,000E) of kind UI near the start; the explicit little-endian form that all scanners
    write. That is no full DICOM parser: a wrong answer means a wrong count of slides, which the message shows.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_DICOM_HEAD)
    except OSError:
        return None  # opening the slide will say why
    if head[128:132] != b"DICM":
        return None
    at = head.find(b"\x20\x00\x0e\x00UI")
    if at < 0:
        return None
    length = int.from_bytes(head[at + 6 : at + 8], "little")
    return head[at + 8 : at + 8 + length].rstrip(b"\0 ")


def _slides_in(folder: Path) -> tuple[list[Path], list[str], list[str]]:
    """Return the slides in a folder, names of other things in it, and what is wrong with what looks like a slide."""
    slides: list[Path] = []
    series: set[bytes] = set()
    seen: list[str] = []
    problems: list[str] = []
    unknown: list[Path] = []
    for entry in _entries(folder):
        # Plain text up to here: there may be a hundred thousand of them, and most are no slides.
        kind = "".join(entry.name.rpartition(".")[1:]).lower()
        if kind not in EXTENSIONS:
            if len(seen) <= _NAMED and entry.name != _SLIDE_FOLDER:
                seen.append(_show(Path(entry.name)))
            if kind not in _NOT_SLIDES and len(unknown) < _UNKNOWN and entry.is_file(follow_symlinks=False):
                unknown.append(Path(entry.path))
            continue
        file, problem = Path(entry.path), _problem(entry, folder)
        if problem:
            problems.append(f"{_show(Path(entry.name))} {problem}")
        elif kind == ".dcm" and (identity := series_uid(file)) is not None:
            if identity not in series:
                series.add(identity)
                slides.append(file)
        else:
            slides.append(file)
    if not slides and not problems:
        slides = [file for file in unknown if _looks_like_slide(file)]
    return slides, seen, problems


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            found = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise InputError(f"cannot look into {_show(folder)}: {error.strerror}") from None
    return iter(sorted(found, key=lambda entry: os.fsencode(entry.name)))


def _problem(entry: os.DirEntry[str], folder: Path) -> str:
    """Return why an entry with a slide's name is none, or an empty text."""
    if entry.is_symlink():
        try:
            target = Path(entry.path).resolve(strict=True)
        except (OSError, RuntimeError):  # RuntimeError: links in a circle
            return "is a symbolic link that leads nowhere"
        if not target.is_relative_to(folder.resolve()):
            return "is a symbolic link out of the folder, which is not followed; copy or mount the slide itself"
    try:
        mode = entry.stat().st_mode
    except OSError as error:
        return f"cannot be looked at: {error.strerror}"
    return "" if stat.S_ISREG(mode) else f"is {_kind(mode)}, not a slide file"


def _looks_like_slide(file: Path) -> bool:
    """Tell whether a file without a slide's extension is one all the same."""
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
    return kinds.get(stat.S_IFMT(mode), "no regular file")


def _show(path: Path) -> str:
    """Return a name that is safe to print: what is no text, or would move the cursor, is escaped; long ones are cut."""
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(path))
    return text if len(text) <= 200 else text[:120] + "…" + text[-60:]


def _listing(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")
