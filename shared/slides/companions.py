"""The files that belong to a slide: all that may be opened to read it, and no other.

A library that opens one file of a slide follows names in it to others. Who made the slide may not be trusted: a name
could lead out of the folder, to another patient's image, and a named pipe would be waited for without end. So the files
are listed here before any library sees the slide. Each is a regular file in the slide's own folder, or the slide is
refused; and the fingerprint is taken of the same list.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Final

from nuclei_segmentation.shared.errors import UnreadableSlide
from nuclei_segmentation.shared.runtime.files import read_regular

_HEAD: Final = 64 << 10  # bytes at the start of a file by which its format is told, and the series of a DICOM file
_LARGEST_LIST: Final = 16 << 20  # bytes of a text that names other files
_PREAMBLE: Final = 128  # bytes before the mark of a DICOM file
_LISTS_OTHERS: Final = re.compile(rb"1\.2\.840\.10008\.1\.3\.10(?![0-9.])")  # the kind of object that DICOMDIR is
_SERIES: Final = re.compile(rb"\x20\0\x0e\0(?:UI(?P<short>..)|(?P<long>.)\0\0\0)(?P<uid>[0-9.]{1,64})", re.DOTALL)
_VMS: Final = re.compile(rb"^\s*\[(?:Uncompressed )?Virtual Microscope Specimen\]", re.MULTILINE)
_VMS_NAMES: Final = re.compile(
    rb"^[ \t]*((?:ImageFile|MapFile|OptimisationFile|MacroImage)[^=\n]*)=[ \t]*([^\r\n]*?)[ \t]*\r?$", re.MULTILINE
)
_MIRAX_NAMES: Final = re.compile(rb"^[ \t]*(FILE_[^=\n]*|INDEXFILE[^=\n]*)=[ \t]*([^\r\n]*?)[ \t]*\r?$", re.MULTILINE)
_MIRAX: Final = ".mrxs"
_MIRAX_LIST: Final = "Slidedat.ini"
_SQLITE: Final = b"SQLite format 3\0"
_SQLITE_ENDINGS: Final = ("-journal", "-wal", "-shm")


def files_of(path: Path) -> list[Path]:
    """Return all files of a slide, in a fixed order. Usually there is one.

    Parameters
    ----------
    path : pathlib.Path
        The slide's file, as `find_slide` returns it.

    Returns
    -------
    list of pathlib.Path
        `path` and the files that belong to it: those that a ``.vms`` or ``.vmu`` file names; all in the folder of an
        ``.mrxs`` file; the other files of a DICOM series. What a file is is told by its content, as OpenSlide does it.

    Raises
    ------
    UnreadableSlide
        One of them is no regular file, or lies outside the folder.
    OSError
        `path` cannot be read.
    """
    head = read_regular(path, _HEAD)
    if head is None:
        raise UnreadableSlide(f"{path.name} is {file_kind(path.stat().st_mode)}, not a slide file")
    if path.suffix.lower() == _MIRAX:
        return _mirax_files(path)
    if is_dicom(head):
        return _dicom_files(path, head)
    if head.startswith(_SQLITE):
        for ending in _SQLITE_ENDINGS:
            if os.path.lexists(f"{path}{ending}"):
                raise UnreadableSlide(
                    f"{path.name} is a database with unfinished changes ({path.name}{ending}); copy the slide again"
                )
    if _VMS.search(head):
        return _vms_files(path)
    return [path]


def series_uid(path: Path) -> bytes | None:
    """Return the UID of the series that a file belongs to; None if it is no DICOM file or names none.

    This is not a full DICOM parser: it searches the start of the file for the element (0020,000E) in little-endian
    encoding. If it fails, slides are counted wrongly, and the error message shows that.

    Parameters
    ----------
    path : pathlib.Path
        Any file.
    """
    try:
        if not is_dicom(read_regular(path, _PREAMBLE + 4) or b""):
            return None
        return _series_in(read_regular(path, _HEAD) or b"")
    except OSError:
        return None  # opening the slide will report the error


def is_dicom(head: bytes) -> bool:
    """Tell whether a file that starts with these bytes is a DICOM file."""
    return head[_PREAMBLE : _PREAMBLE + 4] == b"DICM"


def _series_in(head: bytes) -> bytes | None:
    if not is_dicom(head) or _LISTS_OTHERS.search(head, 0, 1024):
        return None
    found = _SERIES.search(head)
    if found is None:
        return None
    length = int.from_bytes(found["short"] or found["long"], "little")
    return found["uid"][:length].rstrip(b"\0 ")


def _dicom_files(path: Path, head: bytes) -> list[Path]:
    """Return the files of the series of a DICOM file. OpenSlide opens every file in the folder to find them."""
    uid, found = _series_in(head), {path}
    folder = path.parent.resolve()
    for name in _names(path.parent):
        file = path.parent / name
        if file.is_dir():
            continue
        _check(file, folder, path)
        if uid is not None and series_uid(file) == uid:
            found.add(file)
    return sorted(found)


def _mirax_files(path: Path) -> list[Path]:
    folder = path.with_suffix("")
    if not folder.is_dir():
        return [path]
    inside = folder.resolve()
    if not inside.is_relative_to(path.parent.resolve()):
        raise UnreadableSlide(f"the folder of {path.name} is a link that leads out of its own folder; copy it instead")
    files = [folder / name for name in _names(folder) if not (folder / name).is_dir()]
    for file in files:
        _check(file, inside, path)
    if folder / _MIRAX_LIST in files:
        _check_names(path, folder / _MIRAX_LIST, _MIRAX_NAMES)
    return [path, *files]


def _vms_files(path: Path) -> list[Path]:
    folder = path.parent.resolve()
    files = {path} | {path.parent / name for name in _check_names(path, path, _VMS_NAMES)}
    there = sorted(file for file in files if os.path.lexists(file))  # the library says what is missing
    for file in there:
        if file != path:
            _check(file, folder, path)
    return there


def _check_names(slide: Path, file: Path, pattern: re.Pattern[bytes]) -> list[str]:
    """Return the names of other files that a file gives; raise an error if one is a path."""
    text = read_regular(file, _LARGEST_LIST + 1) or b""
    if len(text) > _LARGEST_LIST:
        raise UnreadableSlide(
            f"{file.name}, which names the files of {slide.name}, has more than {_LARGEST_LIST} bytes"
        )
    names = [os.fsdecode(name) for _, name in pattern.findall(text) if name]
    for name in names:
        if "/" in name or "\\" in name or "\0" in name or name in (".", ".."):
            raise UnreadableSlide(f"{file.name} names {name!r:.80}, which is not a file in the slide's own folder")
    return names


def _check(file: Path, folder: Path, slide: Path) -> None:
    """Raise an error unless a file is a regular one and lies in a folder (resolved)."""
    shown = f"{file.name!r:.80}, beside or below {slide.name},"
    try:
        target = file.resolve(strict=True)
        mode = target.stat().st_mode
    except (OSError, RuntimeError):  # RuntimeError: links in a loop
        raise UnreadableSlide(f"{shown} is a broken link; remove it or copy the slide again") from None
    if not target.is_relative_to(folder):
        raise UnreadableSlide(
            f"{shown} is a link that leads out of the folder and is not followed; copy the file itself"
        )
    if not stat.S_ISREG(mode):
        raise UnreadableSlide(f"{shown} is {file_kind(mode)}, not a file, and may not be opened; remove it")


def _names(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries)


def file_kind(mode: int) -> str:
    """Return what a file is that is not a regular one, in words, by its mode."""
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFBLK: "a device",
        stat.S_IFCHR: "a device",
    }
    return kinds.get(stat.S_IFMT(mode), "a special file")
