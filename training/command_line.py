"""What the command lines of this package share: types of arguments, and one line for each expected error."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable

from nuclei_segmentation.shared.errors import NucleiError
from training.errors import TrainingError

EXPECTED = (TrainingError, NucleiError, OSError)
"""Errors that a user can cause and mend; a command line reports them in one line."""

NEEDED = ("torch", "onnx")
"""Packages of ``requirements/training.txt`` that the program itself does not need."""


def integer_from(least: int) -> Callable[[str], int]:
    """Return a type for argparse: a whole number that is not below `least`."""

    def convert(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,18}", text) or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least}")
        return int(text)

    return convert


def positive_number(text: str) -> float:
    """Return a finite number above 0; a type for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def describe(error: Exception) -> str:
    """Return the message of an expected error: one line, with the file's name for an error of the file system."""
    if isinstance(error, ModuleNotFoundError) and error.name in NEEDED:
        return f"{error.name} is not installed: run `pip install -r requirements/training.txt`"
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error)
