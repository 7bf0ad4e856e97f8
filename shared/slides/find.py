"""Finds the one slide in the input folder."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import openslide

from nuclei_segmentation.shared.errors import InputError, UnreadableSlide
from nuclei_segmentation.shared.runtime.files import read_regular
from nuclei_segmentation.shared.slides.companions import file_kind, files_of, is_dicom, series_uid
from nuclei_segmentation.shared.slides.tiff_index import is_tiff

_TIFF: Final = frozenset({".svs", ".tif", ".tiff", ".ndpi", ".scn", ".svslide", ".bif", ".btf", ".tf2", ".tf8"})
EXTENSIONS: Final = _TIFF | {".vms", ".vmu", ".mrxs", ".dcm", ".czi"}
WHAT_IS_READ: Final = (
    "slides of Aperio (.svs), Hamamatsu (.ndpi, .vms, .vmu), Leica (.scn), MIRAX (.mrxs), Philips (.tiff), Sakura "
    "(.svslide), Trestle (.tif), Ventana (.bif) and Zeiss (.czi), DICOM (.dcm), OME-TIFF and TIFF (.tif)"
)
_SLIDE_FOLDER: Final = "slide"
_NAMED: Final = 3  # most names in an error message
_UNKNOWN: Final = 100  # most files without a known extension that are opened to see whether they are slides
_NOT_SLIDES: Final = frozenset(
    {".json", ".yaml", ".yml", ".txt", ".md", ".xml", ".csv", ".log", ".meta", ".npy", ".png"}
)


def find_slide(path: Path) -> Path:
    """Return the file to open for the slide at a path.

    Files whose names begin with a dot are ignored. The files of a DICOM series are one slide, and its first file is the
    one to open. An ``.mrxs``, ``.vms`` or ``.vmu`` file and the files that belong to it are one slide.

    If `path` itself is a symbolic link, it is followed, and so is its subfolder ``slide``, which is how `pipelines run`
    and other engines hand over their inputs. A symbolic link to a file is followed only to a file in the same folder:
    the files of an input folder may come from strangers, and must not make the program open ``/etc/passwd``.

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
        raise InputError(f"{shown} is {file_kind(mode)}, not a slide file")
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
    raise InputError(f"no slide in {shown}, only {_listing(others)}; put one there; what is read: {WHAT_IS_READ}")


def _slides_in(folder: Path) -> tuple[list[Path], list[str], list[str]]:
    """Return the slides in a folder, the names of a few other files, and problems with files named like slides."""
    slides: list[Path] = []
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
        else:
            slides.append(file)
    if not slides and not problems:
        slides = [file for file in unknown if _looks_like_slide(file)]
    return _one_of_each_series(slides), others, problems


def _one_of_each_series(files: list[Path]) -> list[Path]:
    """Return the files without those that belong to the same DICOM series as one before them."""
    found: dict[bytes | Path, Path] = {}
    for file in files:
        found.setdefault(series_uid(file) or file, file)
    return list(found.values())


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
    return "" if stat.S_ISREG(mode) else f"is {file_kind(mode)}, not a slide file"


def _looks_like_slide(file: Path) -> bool:
    """Tell whether a file without a known extension is a slide, judging by its content."""
    try:
        head = read_regular(file, 1024)
        if head is None:
            return False
        if is_tiff(head) or is_dicom(head):
            return is_tiff(head) or series_uid(file) is not None  # DICOMDIR is no image
        files_of(file)  # before OpenSlide may follow any name in it
        return openslide.OpenSlide.detect_format(file) is not None
    except (OSError, UnreadableSlide, openslide.OpenSlideError):
        return False


def _show(path: Path) -> str:
    """Return a name that is safe to print: unprintable characters are escaped, and a long name is shortened."""
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(path))
    return text if len(text) <= 200 else text[:120] + "…" + text[-60:]


def _listing(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")
