"""How the tissue mask keeps tissue and drops the rest, beside Otsu's threshold: the figures of docs/tissue-mask.md.

``python -m benchmarks.tissue [--overlays FOLDER]``; the folder gets each thumbnail beside its mask.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from skimage.filters import threshold_otsu

from benchmarks.painted import PENS, Canvas, blob, woven
from nuclei_segmentation.operators.load import background
from nuclei_segmentation.operators.load.tissue import tissue_mask
from nuclei_segmentation.shared.slides.open import open_slide

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / ".cache" / "cmu_small_region.svs"
SLIDES = ROOT.parent / "shared" / "data" / "slides"
SHAPE = (900, 1100)
LIMIT = 1024 * 1024

Floats = npt.NDArray[np.float32]
Image = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]


def otsu_grey(thumbnail: Image) -> Mask:
    """Return what is darker than Otsu's threshold of the grey levels, as most tools do it."""
    grey = cv2.cvtColor(thumbnail, cv2.COLOR_RGB2GRAY)
    found: Mask = grey <= threshold_otsu(grey)  # type: ignore[no-untyped-call] # as all of scikit-image
    return found


def otsu_saturation(thumbnail: Image) -> Mask:
    """Return what is more saturated (HSV) than Otsu's threshold, after a median of 7 pixels, as CLAM does it."""
    saturation = cv2.medianBlur(cv2.cvtColor(thumbnail, cv2.COLOR_RGB2HSV)[..., 1], 7)
    found: Mask = saturation > threshold_otsu(saturation)  # type: ignore[no-untyped-call] # as all of scikit-image
    return found


METHODS: dict[str, Callable[[Image], Mask]] = {
    "ours": tissue_mask,
    "Otsu, grey": otsu_grey,
    "Otsu, saturation": otsu_saturation,
}


def real_density(shape: tuple[int, int]) -> Floats:
    """Return (h, w, 3) optical density of the sample slide's dermis, mirrored until it fills `shape`."""
    with open_slide(SAMPLE) as slide:
        thumbnail = slide.thumbnail(LIMIT)
    density = background.measure(thumbnail, ~background.unscanned(thumbnail)).density.transpose(1, 2, 0)
    height, width = density.shape[:2]
    patch = density[int(0.62 * height) : int(0.95 * height), int(0.32 * width) : int(0.42 * width)]
    return np.pad(
        patch,
        [(0, max(0, want - have)) for want, have in zip(shape, patch.shape[:2], strict=True)] + [(0, 0)],
        "symmetric",
    )[: shape[0], : shape[1]]


def scene(density: Floats, contrast: float = 0.1, pens: tuple[str, ...] = ("blue", "green"), **light: object) -> Canvas:
    """Paint two pieces of tissue, one at a mean green density of 0.5, one at `contrast`; pens, dust and a coverslip."""
    canvas = Canvas.glass(SHAPE, **light)  # type: ignore[arg-type] # one kind of value for all keywords
    density = density / density[..., 1].mean()
    canvas.tissue(density * 0.5, blob(SHAPE, (0.3, 0.4), 0.2, 3))
    canvas.tissue(density * contrast, blob(SHAPE, (0.7, 0.6), 0.2, 4), "pale")
    for number, pen in enumerate(pens):
        y = 0.05 + 0.93 * number / max(1, len(pens) - 1) * 0.9
        canvas.pen(PENS[pen], [(0.05, y), (0.3, y + 0.02), (0.6, y - 0.01), (0.95, y + 0.03)], 24)
    return canvas.dust(25, (1, 6), 7).line((0.02, 0.16), (0.97, 0.12))


def scenes() -> Iterator[tuple[str, Canvas, Image]]:
    """Yield name, truth and pixels of every painted thumbnail."""
    made = woven(SHAPE, 1)
    real = real_density(SHAPE) if SAMPLE.is_file() else None
    for contrast in (0.03, 0.05, 0.1, 0.2):
        for name, density in (("painted", made), ("real", real)):
            if density is not None:
                canvas = scene(density, contrast)
                yield f"pale {contrast:.2f}, {name} tissue", canvas, canvas.image()
    for pen in PENS:
        canvas = scene(made, pens=(pen,))
        yield f"{pen} pen", canvas, canvas.image()
    lights: dict[str, dict[str, Any]] = {
        "grey glass": {"level": (205, 206, 205)},
        "yellow glass": {"level": (240, 234, 215)},
        "white glass": {"level": (255, 255, 255)},
        "light falls by 15%": {"tilt": 0.15},
        "vignette of 20%": {"vignette": 0.2},
    }
    for name, light in lights.items():
        canvas = scene(made, **light)
        yield name, canvas, canvas.image()
    canvas = scene(made)
    yield "noise of 4 levels, JPEG 60", canvas, canvas.image(noise=4, quality=60)
    canvas = scene(woven(SHAPE, 1, ihc=True))
    yield "IHC", canvas, canvas.image()
    canvas = scene(made).fill(slice(0, 120), slice(0, 400)).fill(slice(700, 900), slice(900, 1100), 0)
    yield "white and black fill", canvas, canvas.image()
    canvas = Canvas.glass(SHAPE).tissue(made, np.ones(SHAPE, np.bool_))
    yield "tissue everywhere", canvas, canvas.image()
    canvas = Canvas.glass(SHAPE)
    yield "glass everywhere", canvas, canvas.image(noise=3, quality=60)


def shares(canvas: Canvas, mask: Mask) -> list[str]:
    """Return the shares of tissue, pale tissue, pen, dust and lines, and bare glass that `mask` holds."""
    none = np.zeros(mask.shape, np.bool_)
    tissue = canvas.truth.get("tissue", none) | canvas.truth.get("pale", none)
    # What lies on or at tissue is kept with it and is no fault.
    away = cv2.dilate(tissue.astype(np.uint8), np.ones((17, 17), np.uint8)) == 0
    under_ink = canvas.truth.get("pen", none)
    parts = [canvas.truth.get(kind, none) & ~under_ink for kind in ("tissue", "pale")]
    parts += [under_ink & away, (canvas.truth.get("dust", none) | canvas.truth.get("line", none)) & away & ~under_ink]
    parts.append(canvas.bare())
    return [f"{100 * mask[part].mean():.1f}" if part.any() else "" for part in parts]


def overlay(thumbnail: Image, mask: Mask) -> Image:
    """Return the thumbnail beside itself with all but the mask darkened, BGR."""
    dark = np.where(mask[..., None], thumbnail, thumbnail // 3 + np.array([0, 60, 60], np.uint8))
    return np.hstack([thumbnail, dark.astype(np.uint8)])[..., ::-1]


def main() -> None:
    """Print two tables: painted thumbnails with their truth, and the shares of real slides."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--overlays", type=Path, help="folder for thumbnails beside their masks, as PNG")
    folder: Path | None = parser.parse_args().overlays
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
    print("| thumbnail | method | tissue, % | pale tissue, % | pen, % | dust and lines, % | glass, % |")
    print("|---|---|---|---|---|---|---|")
    for name, canvas, thumbnail in scenes():
        for method, find in METHODS.items():
            mask = find(thumbnail)
            print(f"| {name} | {method} | {' | '.join(shares(canvas, mask))} |")
            if folder and method == "ours":
                cv2.imwrite(
                    str(folder / f"{name.replace(',', '').replace('%', '').replace(' ', '-')}.png"),
                    overlay(thumbnail, mask),
                )
    print("\n| slide | thumbnail | " + " | ".join(f"{method}, % kept" for method in METHODS) + " | ours, CPU ms |")
    print("|---|---|" + "---|" * (len(METHODS) + 1))
    names = ("HE_TMA_core.tif", "BRACS_1640_N_3_cropped.tiff", "camelyon_overview.dcm")
    for path in (SAMPLE, *(SLIDES / name for name in names)):
        if not path.is_file():
            continue
        with open_slide(path) as slide:
            thumbnail = slide.thumbnail(LIMIT)
        kept = [f"{100 * find(thumbnail).mean():.1f}" for find in METHODS.values()]
        best = min(_seconds(thumbnail) for _ in range(5))
        print(f"| {path.name} | {thumbnail.shape[1]} × {thumbnail.shape[0]} | {' | '.join(kept)} | {1000 * best:.0f} |")
        if folder:
            cv2.imwrite(str(folder / f"{path.stem}.png"), overlay(thumbnail, tissue_mask(thumbnail)))


def _seconds(thumbnail: Image) -> float:
    start = time.process_time()
    tissue_mask(thumbnail)
    return time.process_time() - start


if __name__ == "__main__":
    main()
