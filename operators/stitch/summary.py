"""What a person is told at the end of a run that wrote an image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nuclei_segmentation.shared.runtime.resources import human
from nuclei_segmentation.shared.runtime.stage_timer import StageTimer
from nuclei_segmentation.shared.runtime.summary import finished, lines_of_time
from nuclei_segmentation.shared.slides.describe import describe_scale
from nuclei_segmentation.shared.slides.inputs import IMAGE
from nuclei_segmentation.shared.slides.slide import SlideInfo


@dataclass(frozen=True, slots=True)
class Outcome:
    """The figures of a finished run.

    Areas are level-0 pixels; `nuclei` is None where filter did not count them; `shards` is in how many it did;
    `waited` is the seconds spent on waiting for others.
    """

    info: SlideInfo
    output: Path
    tiles: int
    foreground: int
    resumed: int
    damaged: int
    nuclei: int | None
    shards: int
    nuclei_pixels: int
    image_bytes: int
    seconds: float
    peak_memory: int
    workers: int
    waited: float = 0.0


def summarise(outcome: Outcome, timer: StageTimer) -> list[str]:
    """Return the summary's lines."""
    info = outcome.info
    rest = outcome.tiles - outcome.foreground
    resumed = f", {outcome.resumed} of them kept from an earlier run" if outcome.resumed else ""
    size = f"{info.width} x {info.height} pixels"
    damaged = f"{outcome.damaged} places could not be read; they are hatched in the image" if outcome.damaged else ""
    return [
        *finished({
            "slide": f"{info.path.name}  ({info.format}, {size}, {describe_scale(info.mpp, info.objective)})",
            "tiles": f"{outcome.tiles}: {outcome.foreground} with tissue{resumed}, {rest} background, not inferred",
            "nuclei": _nuclei(outcome),
            "damaged": damaged,
        }),
        *lines_of_time(outcome.seconds, outcome.workers, outcome.peak_memory, timer, outcome.waited),
        *finished({
            "result": f"{outcome.output / IMAGE}  ({human(outcome.image_bytes)})",
            "open it": "drag it into QuPath, or use any viewer that reads pyramidal TIFF (OpenSlide, ASAP, libvips)",
        }),
        "            For research use only; not for diagnosis.",
    ]  # fmt: skip


def _nuclei(outcome: Outcome) -> str:
    share = outcome.nuclei_pixels / max(1, outcome.info.width * outcome.info.height)
    twice = " (twice where a border of shards cuts one)" if outcome.shards > 1 else ""
    count = "" if outcome.nuclei is None else f"{outcome.nuclei:,}{twice}; "
    text = f"{count}{outcome.nuclei_pixels:,} pixels ({share:.1%} of the slide)"
    if outcome.info.mpp is not None:
        square_mm = outcome.nuclei_pixels * outcome.info.mpp[0] * outcome.info.mpp[1] / 1e6
        text += f", {square_mm:.3f} mm²"
    return text
