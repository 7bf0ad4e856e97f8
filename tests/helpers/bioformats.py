"""Bio-Formats, by which Fiji, OMERO and QuPath read images, as a program of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import pyvips

from nuclei_segmentation.shared.batches import Pixels

JAR = Path(__file__).parents[2] / ".cache" / "readers" / "bioformats_package.jar"
_JAVA = ["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Djava.awt.headless=true", "-cp", str(JAR)]
_FOUND = re.compile(r"Checking file format \[(.*)\]")
_SIZE = re.compile(r"\tsizeX\[\d+\] = (\d+)")
_ATTRIBUTE = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True, slots=True)
class Info:
    """What Bio-Formats says of a file.

    Attributes
    ----------
    format : str
        As which format it reads the file.
    series : int
        Number of images.
    widths : tuple of int
        Of the levels of the first image, largest first.
    pixels : dict of str to str
        OME's attributes of the first image: sizes, pixel size, type.
    xml : str
        All that it knows of the file, as OME-XML.
    """

    format: str
    series: int
    widths: tuple[int, ...]
    pixels: dict[str, str]
    xml: str


def need() -> None:
    """Skip the test where Bio-Formats or Java is missing; fail there in CI."""
    missing = "Java" if shutil.which("java") is None else "" if JAR.is_file() else "Bio-Formats"
    if missing:
        reason = f"there is no {missing}: install default-jre-headless, then run tests/readers/setup.sh (43 MB)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)


def info(path: Path) -> Info:
    """Return what Bio-Formats says of a file, and check that its OME-XML is valid. It takes two seconds."""
    text = _run("ImageInfo", "-nopix", "-noflat", "-nometa", "-omexml", path)
    assert "No validation errors found." in text, text
    xml = text[text.index("<OME ") :]
    pixels = dict(_ATTRIBUTE.findall(re.findall("<Pixels .*?>", xml)[0]))
    found = _FOUND.search(text)
    assert found, text
    widths = tuple(map(int, _SIZE.findall(text))) or (int(pixels["SizeX"]),)
    return Info(found[1], xml.count("<Pixels "), widths, pixels, xml)


def crops(path: Path, x: int, y: int, width: int, height: int, folder: Path) -> list[Pixels]:
    """Return the same rectangle of each level, in pixels of that level, largest level first. It takes three seconds.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    x, y, width, height : int
        The rectangle, which must lie inside every level.
    folder : pathlib.Path
        An empty folder, to be written to.
    """
    _run("ImageConverter", "-crop", f"{x},{y},{width},{height}", path, folder / "%s.png")
    files = sorted(folder.iterdir(), key=lambda path: int(path.stem))
    return [np.asarray(pyvips.Image.new_from_file(str(file))) for file in files]


def _run(tool: str, *arguments: str | Path) -> str:
    done = subprocess.run(
        [*_JAVA, f"loci.formats.tools.{tool}", "-no-upgrade", *map(str, arguments)],
        capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Exception" not in done.stderr, done.stderr
    return done.stdout
