"""The size of pixels: what is plausible, at which size nuclei can be counted, and how people read it."""

from __future__ import annotations

from typing import Final

SMALLEST_MPP: Final = 0.01  # µm; smaller pixels are those of an electron microscope
LARGEST_MPP: Final = 100.0  # µm; larger pixels are those of a macro photograph
SMALLEST_COUNTABLE: Final = 0.05  # µm; a nucleus of 6 µm has 120 pixels across
LARGEST_COUNTABLE: Final = 2.0  # µm; a nucleus of 6 µm has 3 pixels across


def can_count(mpp: tuple[float, float] | None) -> bool:
    """Tell whether nuclei have a size in pixels at which they can be told apart.

    Parameters
    ----------
    mpp : tuple of float or None
        Micrometres per pixel in x and y. Without it nothing speaks against counting.
    """
    return mpp is None or all(SMALLEST_COUNTABLE <= side <= LARGEST_COUNTABLE for side in mpp)


def doubt(mpp: tuple[float, float] | None) -> str:
    """Return what stands behind a count of nuclei that means nothing; empty where it may mean something.

    Parameters
    ----------
    mpp : tuple of float or None
        Micrometres per pixel in x and y.
    """
    if can_count(mpp):
        return ""
    return f" (this means nothing: at {describe_scale(mpp, None)}, nuclei cannot be told apart)"


def describe_scale(mpp: tuple[float, float] | None, objective: float | None) -> str:
    """Return pixel size and objective power for a summary, such as "0.25 µm per pixel, 40x".

    Parameters
    ----------
    mpp : tuple of float or None
        Micrometres per level-0 pixel in x and y, or None if unknown.
    objective : float or None
        Objective power, or None if unknown.
    """
    if mpp is None:
        return "pixel size unknown"
    power = f", {objective:g}x" if objective else ""
    return f"{mpp[0]:.3g} µm per pixel{power}"
