"""What a person is told at the end of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from shared.clock import Clock
from shared.progress import duration
from shared.resources import human
from shared.slides import SlideInfo

ADVICE = {
    "load": "reading the slide; a faster disk would help most",
    "filter": "inference; more processors (-w) or faster Triton servers would help most",
    "stitch": "writing the image; more processors (-w) would help most",
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """The figures of a finished run. Areas are level-0 pixels."""

    info: SlideInfo
    output: Path
    tiles: int
    foreground: int
    resumed: int
    damaged: int
    nuclei_pixels: int
    image_bytes: int
    seconds: float
    peak_memory: int
    workers: int


def summarise(outcome: Outcome, clock: Clock) -> str:
    """Return the summary, several lines."""
    info = outcome.info
    rest = outcome.tiles - outcome.foreground
    resumed = f", {outcome.resumed} of them kept from an earlier run" if outcome.resumed else ""
    lines = [
        "",
        f"slide       {info.path.name}  ({info.format}, {info.width} x {info.height} pixels, {_scale(info)})",
        f"tiles       {outcome.tiles}: {outcome.foreground} with tissue{resumed}, {rest} background, not inferred",
        f"nuclei      {_area(outcome)}",
    ]
    if outcome.damaged:
        lines.append(f"damaged     {outcome.damaged} places could not be read; they are hatched in the image")
    busy = sum(stage.cpu for stage in clock.stages.values()) or 1.0
    lines += [
        f"time        {duration(outcome.seconds)} with {outcome.workers} "
        f"worker{'s' if outcome.workers > 1 else ''}; peak memory {human(outcome.peak_memory)}",
    ]
    for name in ("load", "filter", "stitch"):
        stage = clock.stages.get(name)
        if stage is not None:
            lines.append(
                f"  {name:<8}  {stage.cpu:8.1f} s of processor time ({stage.cpu / busy:4.0%}), "
                f"the run waited {stage.waited:.1f} s for it"
            )
    slowest = max(clock.stages, key=lambda name: clock.stages[name].waited, default="")
    if slowest in ADVICE and clock.stages[slowest].waited > 0.05 * outcome.seconds:
        lines.append(f"bottleneck  {ADVICE[slowest]}")
    lines += [
        f"result      {outcome.output / 'image.tif'}  ({human(outcome.image_bytes)})",
        "open it     drag it into QuPath, or use any viewer that reads pyramidal TIFF (OpenSlide, ASAP, libvips)",
        "            For research use only; not for diagnosis.",
    ]
    return "\n".join(lines)


def _scale(info: SlideInfo) -> str:
    if info.mpp is None:
        return "pixel size unknown"
    objective = f", {info.objective:g}x" if info.objective else ""
    return f"{info.mpp[0]:.3g} µm per pixel{objective}"


def _area(outcome: Outcome) -> str:
    share = outcome.nuclei_pixels / max(1, outcome.info.width * outcome.info.height)
    text = f"{outcome.nuclei_pixels:,} pixels ({share:.1%} of the slide)"
    if outcome.info.mpp is not None:
        square_mm = outcome.nuclei_pixels * outcome.info.mpp[0] * outcome.info.mpp[1] / 1e6
        text += f", {square_mm:.3f} mm²"
    return text
