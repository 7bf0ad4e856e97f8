"""How a finished image and its two small files get their final names."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from nuclei_segmentation.shared.clara.config_meta import META, config_meta
from nuclei_segmentation.shared.clara.render_config import DEFAULT, RENDER, take_over
from nuclei_segmentation.shared.errors import OutputError
from nuclei_segmentation.shared.result import IMAGE, SUMMARY
from nuclei_segmentation.shared.runtime.disk import writing
from nuclei_segmentation.shared.runtime.file_system import sync
from nuclei_segmentation.shared.runtime.files import write_file
from nuclei_segmentation.shared.runtime.lock import Check
from nuclei_segmentation.shared.runtime.output_folder import PUBLISHING


def publish(
    work: Path,
    output: Path,
    *,
    name: str,
    run: str,
    damaged: int,
    render_config: Path | None,
    summary: bytes,
    check: Check,
    outputs: Sequence[str] = (),
    stale: Sequence[str] = (),
) -> None:
    """Give a finished image and its two files their final names.

    All files are first written and synced in the work folder. Then an older result's config.meta is moved there, the
    other files are renamed into place, and config.meta comes last: where it exists, the result is complete and belongs
    to the run that it names.

    A run that takes the output folder over removes this one's work folder. After that no rename succeeds, even if this
    process has slept since its last look at the lock.

    Parameters
    ----------
    work : pathlib.Path
        The work folder, which has the finished image.tif; on the same file system as `output`.
    output : pathlib.Path
        The output folder.
    name : str
        The data set's name in config.meta.
    run : str
        The run's key.
    damaged : int
        Number of places of the slide that could not be read.
    render_config : pathlib.Path or None
        A config_render.json to copy byte for byte, or None for default settings.
    summary : bytes
        The content of summary.json.
    check : callable
        Called before every rename.
    outputs : Sequence of str, optional
        Names of files of nuclei, which the work folder has, forced to the disk.
    stale : Sequence of str, optional
        Names of those of an older result that have no successor.

    Raises
    ------
    InputError
        `render_config` cannot be read, is not a regular file, or is too large.
    NoSpace
        The disk is full.
    OutputError
        The files cannot be written.
    LockLost
        Another run holds the output folder by now.
    """
    for file in (IMAGE, RENDER, SUMMARY, META, *outputs):
        refuse_folder(output / file)
    settings = DEFAULT if render_config is None else take_over(render_config)
    write_file(work / RENDER, settings, work / f"{RENDER}.part")
    write_file(work / SUMMARY, summary, work / f"{SUMMARY}.part")
    write_file(work / META, config_meta(name, run, damaged), work / f"{META}.part")
    _announce(work, outputs)
    with writing(work / IMAGE):
        sync(work / IMAGE)
    with writing(output / META):
        check()
        with suppress(FileNotFoundError):
            (output / META).rename(work / f"{META}.old")
        sync(output)
        _replace(work, output, outputs, stale, check)
        for file in (RENDER, IMAGE, SUMMARY):
            check()
            (work / file).rename(output / file)
        sync(output)
        check()
        (work / META).rename(output / META)
        sync(output)


def publish_outputs(
    work: Path, output: Path, *, summary: bytes, check: Check, outputs: Sequence[str], stale: Sequence[str]
) -> None:
    """Give files of nuclei their final names beside an image that is finished already.

    Parameters
    ----------
    work : pathlib.Path
        The work folder, which has the files, forced to the disk.
    output : pathlib.Path
        The output folder.
    summary : bytes
        The new content of summary.json.
    check : callable
        Called before every rename.
    outputs : Sequence of str
        Their names.
    stale : Sequence of str
        Names of older ones that have no successor.

    Raises
    ------
    NoSpace
        The disk is full.
    OutputError
        The files cannot be written.
    LockLost
        Another run holds the output folder by now.
    """
    for file in outputs:
        refuse_folder(output / file)
    _announce(work, outputs)
    with writing(output / SUMMARY):
        _replace(work, output, outputs, stale, check)
        sync(output)
    write_file(output / SUMMARY, summary, work / f"{SUMMARY}.part", check)


def refuse_folder(path: Path) -> None:
    """Refuse a folder that has the name of a file of the result."""
    if path.is_dir():
        raise OutputError(f"{path} is a folder; remove it or use another output folder")


def _announce(work: Path, outputs: Sequence[str]) -> None:
    """Note which files are about to get their names: whoever finds the note knows whose they are."""
    write_file(work / PUBLISHING, "\n".join(outputs).encode(), work / f"{PUBLISHING}.part")


def _replace(work: Path, output: Path, outputs: Sequence[str], stale: Sequence[str], check: Check) -> None:
    """Remove files of nuclei that have no successor, and give the others their names."""
    for file in stale:
        check()
        (output / file).unlink(missing_ok=True)
    for file in outputs:
        check()
        (work / file).rename(output / file)


def renew_render_config(work: Path, output: Path, render_config: Path, check: Check) -> bool:
    """Copy a config_render.json that changed after its image was finished.

    Parameters
    ----------
    work : pathlib.Path
        The work folder.
    output : pathlib.Path
        The output folder.
    render_config : pathlib.Path
        The file to copy byte for byte.
    check : callable
        Called before the rename.

    Returns
    -------
    bool
        Whether it had changed.

    Raises
    ------
    InputError
        `render_config` cannot be read, is not a regular file, or is too large.
    NoSpace
        The disk is full.
    OutputError
        The file cannot be written.
    """
    content = take_over(render_config)
    with writing(output / RENDER):
        if (output / RENDER).read_bytes() == content:
            return False
    write_file(output / RENDER, content, work / f"{RENDER}.part", check)
    return True
