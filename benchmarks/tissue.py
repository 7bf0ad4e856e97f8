"""Measures the tissue mask against Otsu's threshold: the figures of docs/tissue-mask.md.

``python -m benchmarks.tissue [--overlays FOLDER]``; each thumbnail is written to the folder, next to its mask.

Exit code 0: done; 1: an error, in one line on standard error; 2: wrong options.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from skimage.filters import threshold_otsu

from benchmarks.slides import ROOT, SAMPLE
from benchmarks.synthetic import PENS, Canvas, blob, tissue_density
from nuclei_segmentation.operators.load import background
from nuclei_segmentation.operators.load.tissue import tissue_mask
from nuclei_segmentation.shared.errors import NucleiError
from nuclei_segmentation.shared.slides.open import open_slide

SLIDES = ROOT.parent / "shared" / "data" / "slides"
SHAPE = (900, 1100)
LIMIT = 1024 * 1024

Floats = npt.NDArray[np.float32]
Image = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]


def otsu_grey(thumbnail: Image) -> Mask:
    """Return the mask of pixels darker than Otsu's threshold of the grey levels, the method of most tools."""
    grey = cv2.cvtColor(thumbnail, cv2.COLOR_RGB2GRAY)
    mask: Mask = grey <= threshold_otsu(grey)  # type: ignore[no-untyped-call] # as all of scikit-image
    return mask


def otsu_saturation(thumbnail: Image) -> Mask:
    """Return the mask of pixels with a saturation above Otsu's threshold, after a median of 7 pixels, as in CLAM."""
    saturation = cv2.medianBlur(cv2.cvtColor(thumbnail, cv2.COLOR_RGB2HSV)[..., 1], 7)
    mask: Mask = saturation > threshold_otsu(saturation)  # type: ignore[no-untyped-call] # as all of scikit-image
    return mask


METHODS: dict[str, Callable[[Image], Mask]] = {
    "ours": tissue_mask,
    "Otsu, grey": otsu_grey,
    "Otsu, saturation": otsu_saturation,
}


def real_density(shape: tuple[int, int]) -> Floats:
    """Return the optical density of the dermis of the sample slide, mirrored to `shape`: (h, w, 3) float32."""
    with open_slide(SAMPLE) as slide:
        thumbnail = slide.thumbnail(LIMIT).pixels
    density = background.measure(thumbnail, ~background.unscanned(thumbnail)).density.transpose(1, 2, 0)
    height, width = density.shape[:2]
    patch = density[int(0.62 * height) : int(0.95 * height), int(0.32 * width) : int(0.42 * width)]
    return np.pad(
        patch,
        [(0, max(0, want - have)) for want, have in zip(shape, patch.shape[:2], strict=True)] + [(0, 0)],
        "symmetric",
    )[: shape[0], : shape[1]]


def scene(density: Floats, contrast: float = 0.1, pens: tuple[str, ...] = ("blue", "green"), **light: object) -> Canvas:
    """Return a thumbnail with two pieces of tissue, pen marks, dust and a coverslip.

    Parameters
    ----------
    density : numpy.ndarray
        (h, w, 3) float32 optical density of the tissue; its mean in green is scaled to 0.5 in the first piece.
    contrast : float
        Mean optical density in green of the second, pale piece.
    pens : tuple of str
        Keys of `PENS`.
    **light : object
        Arguments of `Canvas.glass`.
    """
    canvas = Canvas.glass(SHAPE, **light)  # type: ignore[arg-type] # the keywords have several types
    density = density / density[..., 1].mean()
    canvas.tissue(density * 0.5, blob(SHAPE, (0.3, 0.4), 0.2, 3))
    canvas.tissue(density * contrast, blob(SHAPE, (0.7, 0.6), 0.2, 4), "pale")
    for number, pen in enumerate(pens):
        y = 0.05 + 0.93 * number / max(1, len(pens) - 1) * 0.9
        canvas.pen(PENS[pen], [(0.05, y), (0.3, y + 0.02), (0.6, y - 0.01), (0.95, y + 0.03)], 24)
    return canvas.dust(25, (1, 6), 7).line((0.02, 0.16), (0.97, 0.12))


def scenes() -> Iterator[tuple[str, Canvas, Image]]:
    """Yield the name, the canvas and the pixels of every synthetic thumbnail."""
    synthetic = tissue_density(SHAPE, 1)
    real = real_density(SHAPE) if SAMPLE.is_file() else None
    for contrast in (0.03, 0.05, 0.1, 0.2):
        for name, density in (("synthetic", synthetic), ("real", real)):
            if density is not None:
                canvas = scene(density, contrast)
                yield f"pale {contrast:.2f}, {name} tissue", canvas, canvas.image()
    for pen in PENS:
        canvas = scene(synthetic, pens=(pen,))
        yield f"{pen} pen", canvas, canvas.image()
    lights: dict[str, dict[str, Any]] = {
        "grey glass": {"level": (205, 206, 205)},
        "yellow glass": {"level": (240, 234, 215)},
        "white glass": {"level": (255, 255, 255)},
        "light falls by 15%": {"tilt": 0.15},
        "vignette of 20%": {"vignette": 0.2},
    }
    for name, light in lights.items():
        canvas = scene(synthetic, **light)
        yield name, canvas, canvas.image()
    canvas = scene(synthetic)
    yield "noise of 4 levels, JPEG 60", canvas, canvas.image(noise=4, quality=60)
    canvas = scene(tissue_density(SHAPE, 1, ihc=True))
    yield "IHC", canvas, canvas.image()
    canvas = scene(synthetic).fill(slice(0, 120), slice(0, 400)).fill(slice(700, 900), slice(900, 1100), 0)
    yield "white and black fill", canvas, canvas.image()
    canvas = Canvas.glass(SHAPE).tissue(synthetic, np.ones(SHAPE, np.bool_))
    yield "tissue everywhere", canvas, canvas.image()
    canvas = Canvas.glass(SHAPE)
    yield "glass everywhere", canvas, canvas.image(noise=3, quality=60)


def shares(canvas: Canvas, mask: Mask) -> list[str]:
    """Return the shares of tissue, pale tissue, pen, dust and lines, and empty glass that a mask keeps.

    Parameters
    ----------
    canvas : Canvas
        The thumbnail with its truth.
    mask : numpy.ndarray
        (h, w) bool, a tissue mask of it.

    Returns
    -------
    list of str
        Five percentages; empty for a kind that the thumbnail does not have.
    """
    none = np.zeros(mask.shape, np.bool_)
    tissue = canvas.truth.get("tissue", none) | canvas.truth.get("pale", none)
    # Objects on or at tissue are kept with it, which is not an error.
    away = cv2.dilate(tissue.astype(np.uint8), np.ones((17, 17), np.uint8)) == 0
    under_ink = canvas.truth.get("pen", none)
    parts = [canvas.truth.get(kind, none) & ~under_ink for kind in ("tissue", "pale")]
    parts += [under_ink & away, (canvas.truth.get("dust", none) | canvas.truth.get("line", none)) & away & ~under_ink]
    parts.append(canvas.empty_glass())
    return [f"{100 * mask[part].mean():.1f}" if part.any() else "" for part in parts]


def overlay(thumbnail: Image, mask: Mask) -> Image:
    """Return the thumbnail next to a copy in which everything outside the mask is darkened.

    Parameters
    ----------
    thumbnail : numpy.ndarray
        (h, w, 3) uint8 RGB.
    mask : numpy.ndarray
        (h, w) bool.

    Returns
    -------
    numpy.ndarray
        (h, 2 * w, 3) uint8 BGR.
    """
    dark = np.where(mask[..., None], thumbnail, thumbnail // 3 + np.array([0, 60, 60], np.uint8))
    return np.hstack([thumbnail, dark.astype(np.uint8)])[..., ::-1]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure from the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tissue", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--overlays", type=Path, help="folder for PNG files of the thumbnails next to their masks")
    folder: Path | None = parser.parse_args(arguments).overlays
    try:
        if folder:
            folder.mkdir(parents=True, exist_ok=True)
        _print_tables(folder)
    except (NucleiError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _print_tables(folder: Path | None) -> None:
    """Print two tables: synthetic thumbnails with their truth, and the shares kept of real slides."""
    print("| thumbnail | method | tissue, % | pale tissue, % | pen, % | dust and lines, % | glass, % |")
    print("|---|---|---|---|---|---|---|")
    for name, canvas, thumbnail in scenes():
        for method, find in METHODS.items():
            mask = find(thumbnail)
            print(f"| {name} | {method} | {' | '.join(shares(canvas, mask))} |")
            if folder and method == "ours":
                file = f"{name.replace(',', '').replace('%', '').replace(' ', '-')}.png"
                _write_png(folder / file, overlay(thumbnail, mask))
    print("\n| slide | thumbnail | " + " | ".join(f"{method}, % kept" for method in METHODS) + " | ours, CPU ms |")
    print("|---|---|" + "---|" * (len(METHODS) + 1))
    names = ("HE_TMA_core.tif", "BRACS_1640_N_3_cropped.tiff", "camelyon_overview.dcm")
    for path in (SAMPLE, *(SLIDES / name for name in names)):
        if not path.is_file():
            continue
        with open_slide(path) as slide:
            thumbnail = slide.thumbnail(LIMIT).pixels
        kept = [f"{100 * find(thumbnail).mean():.1f}" for find in METHODS.values()]
        best = min(_seconds(thumbnail) for _ in range(5))
        print(f"| {path.name} | {thumbnail.shape[1]} × {thumbnail.shape[0]} | {' | '.join(kept)} | {1000 * best:.0f} |")
        if folder:
            _write_png(folder / f"{path.stem}.png", overlay(thumbnail, tissue_mask(thumbnail)))


def _write_png(path: Path, image: Image) -> None:
    path.write_bytes(cv2.imencode(".png", image)[1].tobytes())


def _seconds(thumbnail: Image) -> float:
    start = time.process_time()
    tissue_mask(thumbnail)
    return time.process_time() - start


if __name__ == "__main__":
    sys.exit(main())
