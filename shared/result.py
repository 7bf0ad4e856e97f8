"""The result of a run that wrote an image: its figures as a value, as ``summary.json``, and as lines for people."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import xxhash

from nuclei_segmentation.shared.geometry import Region
from nuclei_segmentation.shared.nuclei_outputs import NucleiOutputs
from nuclei_segmentation.shared.provenance import ModelProvenance, Provenance, SlideProvenance
from nuclei_segmentation.shared.runtime.files import read_regular
from nuclei_segmentation.shared.runtime.outside import parse_json
from nuclei_segmentation.shared.runtime.resources import human
from nuclei_segmentation.shared.runtime.stage_timer import StageTime
from nuclei_segmentation.shared.runtime.summary import named_lines, time_lines
from nuclei_segmentation.shared.runtime.version import Program
from nuclei_segmentation.shared.scale import can_count, describe_scale, doubt

IMAGE = "image.tif"
SUMMARY = "summary.json"
FORMAT, VERSION = "nuclei-summary", "1.2"
_BLOCK = 4 << 20
LARGEST = 16 << 20
"""Most bytes of a summary; one with ten thousand damaged tiles has one million."""


@dataclass(frozen=True, slots=True)
class SegmentationResult:
    """What a finished run found, and what it took.

    Attributes
    ----------
    output : pathlib.Path
        The folder that holds ``image.tif``.
    key : str
        Hash of everything that decides the image's bytes.
    provenance : Provenance
        Slide, model, settings, program.
    tiles : int
        Tiles of the grid.
    foreground : int
        Of these, with tissue.
    resumed : int
        Of these, kept from an earlier run.
    shards : int
        Number of filter processes that shared the tiles; 1 if none did.
    tissue_pixels : int or None
        Level-0 pixels of the tissue mask; None where every tile was inferred.
    guessed_pixels : int or None
        Of these, level-0 pixels where the slide cannot be read, so that tissue is only guessed.
    nuclei : int
        Number of nuclei.
    nuclear_pixels : int
        Level-0 pixels above the overlay's threshold.
    damaged : tuple of Region
        Regions that could not be read and are hatched.
    guessed : tuple of Region
        The boxes around the places where tissue is only guessed; at most a thousand.
    warnings : tuple of str
        As logged by the process that wrote the image.
    seconds : float
        Wall time until the image was complete.
    waited : float
        Of these, seconds spent on waiting for other stages.
    stages : dict of str to StageTime
        Seconds by stage.
    num_workers : int
        Threads.
    peak_memory : int
        Bytes of anonymous memory.
    image_bytes : int
        Size of ``image.tif``.
    image_checksum : str
        Its XXH3-64, 16 hexadecimal digits; empty where an older version made it.
    outputs : NucleiOutputs or None
        The files of nuclei beside the image; None if there are none.
    already_done : bool
        Whether an earlier run made it, so that nothing was done now.
    """

    output: Path
    key: str
    provenance: Provenance
    tiles: int
    foreground: int
    resumed: int
    shards: int
    tissue_pixels: int | None
    guessed_pixels: int | None
    nuclei: int
    nuclear_pixels: int
    damaged: tuple[Region, ...]
    guessed: tuple[Region, ...]
    warnings: tuple[str, ...]
    seconds: float
    waited: float
    stages: dict[str, StageTime]
    num_workers: int
    peak_memory: int
    image_bytes: int
    image_checksum: str
    outputs: NucleiOutputs | None = None
    already_done: bool = False

    @property
    def image(self) -> Path:
        """The pyramidal TIFF."""
        return self.output / IMAGE

    @property
    def slide(self) -> SlideProvenance:
        """The slide."""
        return self.provenance.slide

    @property
    def model(self) -> ModelProvenance:
        """The model."""
        return self.provenance.model

    @property
    def tissue_area(self) -> float | None:
        """Area of the tissue in mm²; None where it or the pixel size is not known."""
        return None if self.tissue_pixels is None else self._area(self.tissue_pixels)

    @property
    def nuclear_area(self) -> float | None:
        """Area of all nuclei in mm²; None where the pixel size is not known."""
        return self._area(self.nuclear_pixels)

    @property
    def density(self) -> float | None:
        """Nuclei per mm² of tissue; None where either is not known, or there is no tissue."""
        return self.nuclei / self.tissue_area if self.tissue_area else None

    def to_json(self) -> bytes:
        """Return the content of ``summary.json``; docs/summary.md describes it."""
        document = {
            "format": FORMAT,
            "version": VERSION,
            "key": self.key,
            **self.provenance.to_json(),
            "tiles": {"all": self.tiles, "with_tissue": self.foreground, "kept_from_earlier_run": self.resumed},
            "shards": self.shards,
            "tissue_pixels": self.tissue_pixels,
            "tissue_mm2": self.tissue_area,
            "tissue_guessed_pixels": self.guessed_pixels,
            "tissue_guessed": [asdict(region) for region in self.guessed],
            "nuclei": self.nuclei,
            "nuclei_per_mm2": self.density,
            "nuclear_pixels": self.nuclear_pixels,
            "nuclear_mm2": self.nuclear_area,
            "damaged": [asdict(region) for region in self.damaged],
            "warnings": list(self.warnings),
            "times": {
                "seconds": round(self.seconds, 3),
                "waited": round(self.waited, 3),
                "stages": {name: asdict(stage) for name, stage in self.stages.items()},
            },
            "num_workers": self.num_workers,
            "peak_memory_bytes": self.peak_memory,
            "image": {"file": IMAGE, "bytes": self.image_bytes, "xxh3": self.image_checksum},
            "outputs": None if self.outputs is None else self.outputs.to_json(),
        }
        return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()

    @classmethod
    def from_json(cls, document: Mapping[str, Any], output: Path) -> SegmentationResult:
        """Return the result that a summary describes.

        Parameters
        ----------
        document : Mapping of str to object
            As read from ``summary.json``.
        output : pathlib.Path
            The folder that holds it.

        Raises
        ------
        KeyError, TypeError, ValueError, AttributeError
            It is not a summary of this version.
        """
        if document["format"] != FORMAT or str(document["version"]).split(".")[0] != VERSION.split(".")[0]:
            raise ValueError("not a summary of this version")
        slide = dict(document["slide"])
        slide["mpp"] = None if slide["mpp"] is None else (float(slide["mpp"][0]), float(slide["mpp"][1]))
        model = {name: str(document["model"][name]) for name in ("name", "engine", "identity")}
        times = document["times"]
        return cls(
            output=output,
            key=str(document["key"]),
            provenance=Provenance(
                SlideProvenance(**slide),
                ModelProvenance(**model),
                dict(document["settings"]),
                Program(**document["program"]),
            ),
            tiles=int(document["tiles"]["all"]),
            foreground=int(document["tiles"]["with_tissue"]),
            resumed=int(document["tiles"]["kept_from_earlier_run"]),
            shards=int(document["shards"]),
            tissue_pixels=_count(document["tissue_pixels"]),
            guessed_pixels=_count(document.get("tissue_guessed_pixels")),  # 1.0 had none
            guessed=tuple(Region(**region) for region in document.get("tissue_guessed", [])),
            nuclei=int(document["nuclei"]),
            nuclear_pixels=int(document["nuclear_pixels"]),
            damaged=tuple(Region(**region) for region in document["damaged"]),
            warnings=tuple(map(str, document["warnings"])),
            seconds=float(times["seconds"]),
            waited=float(times["waited"]),
            stages={name: StageTime(**stage) for name, stage in times["stages"].items()},
            num_workers=int(document["num_workers"]),
            peak_memory=int(document["peak_memory_bytes"]),
            image_bytes=int(document["image"]["bytes"]),
            image_checksum=str(document["image"].get("xxh3", "")),
            outputs=None if document.get("outputs") is None else NucleiOutputs.from_json(document["outputs"]),
            already_done=True,
        )

    def lines(self) -> list[str]:
        """Return the summary as a run prints it."""
        slide, rest = self.slide, self.tiles - self.foreground
        kept = f", {self.resumed} of them kept from an earlier run" if self.resumed else ""
        damaged, scale = len(self.damaged), describe_scale(slide.mpp, slide.objective)
        places = f"{damaged} place{'' if damaged == 1 else 's'} could not be read and {_is(damaged)} hatched"
        return [
            *named_lines({
                "slide": f"{slide.name}  ({slide.format}, {slide.width} x {slide.height} pixels, {scale})",
                "tiles": f"{self.tiles}: {self.foreground} with tissue{kept}, {rest} background, not inferred",
                "tissue": self._tissue(),
                "nuclei": self._nuclei(),
                "nuclear area": self._areas(),
                "damaged": places if damaged else "",
            }),
            *time_lines(self.seconds, self.num_workers, self.peak_memory, self.stages, self.waited),
            *named_lines({
                "result": f"{self.image}  ({human(self.image_bytes)})",
                "outputs": self._outputs(),
                "open it": "drag it into QuPath, or use any viewer that reads pyramidal TIFF (ASAP, Fiji, OMERO, …)",
            }),
            "            For research use only; not for diagnosis.",
        ]  # fmt: skip

    def _tissue(self) -> str:
        area = "" if self.tissue_area is None else f"{self.tissue_area:.3g} mm²"
        if not self.guessed_pixels or not self.tissue_pixels:
            return area
        guess = (
            f"{self.guessed_pixels / self.tissue_pixels:.0%} of it only guessed, since the slide cannot be read there"
        )
        return f"{area}, {guess}" if area else guess

    def _nuclei(self) -> str:
        share = self.nuclear_pixels / max(1, self.slide.width * self.slide.height)
        text = f"{self.nuclei:,}{doubt(self.slide.mpp)}; {self.nuclear_pixels:,} pixels ({share:.1%} of the slide)"
        text += "" if self.nuclear_area is None else f", {self.nuclear_area:.3f} mm²"
        if self.density is None or not can_count(self.slide.mpp):
            return text
        return f"{text}; {self.density:,.0f} per mm² of tissue"

    def _areas(self) -> str:
        if self.outputs is None or self.outputs.areas is None:
            return ""
        unit = "pixels" if self.slide.mpp is None else "µm²"
        low, median, high = (f"{area:.3g}" for area in self.outputs.areas)
        return f"median {median} {unit} (quartiles {low} and {high})"

    def _outputs(self) -> str:
        if self.outputs is None:
            return ""
        names = ", ".join(f"{one.file} ({human(one.bytes)})" for one in self.outputs.files)
        left_out = [
            f"{count:,} {what}"
            for count, what in (
                (self.outputs.too_small, "too small"),
                (self.outputs.too_large, "too large to be a nucleus"),
            )
            if count
        ]
        without = f", without {' and '.join(left_out)}" if left_out else ""
        return f"{names}: {self.outputs.written:,} nuclei{without}"

    def _area(self, pixels: int) -> float | None:
        """Return an area in mm²."""
        mpp = self.slide.mpp
        return None if mpp is None else pixels * mpp[0] * mpp[1] / 1e6


def checksum(path: Path) -> str:
    """Return the XXH3-64 of a file, as ``xxhsum -H3`` prints it: 16 hexadecimal digits.

    Raises
    ------
    OSError
        The file cannot be read.
    """
    digest = xxhash.xxh3_64()
    block = bytearray(_BLOCK)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(block):
            digest.update(memoryview(block)[:count])
    return digest.hexdigest()


def read_document(folder: Path) -> dict[str, Any] | None:
    """Return the summary in an output folder as it stands; None where there is none that can be read."""
    try:
        document = parse_json(read_regular(folder / SUMMARY, LARGEST) or b"")
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None


def read_result(folder: Path, key: str) -> SegmentationResult | None:
    """Return the result of an earlier run from its summary.

    Parameters
    ----------
    folder : pathlib.Path
        The output folder.
    key : str
        The key that the result must have.

    Returns
    -------
    SegmentationResult or None
        None where there is no summary, as of results of older versions, or it is of another result.
    """
    document = read_document(folder)
    if document is None or document.get("key") != key:
        return None
    try:
        result = SegmentationResult.from_json(document, folder)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        return None
    return replace(result, already_done=True) if math.isfinite(result.seconds) else None


def _count(value: object) -> int | None:
    return None if value is None else int(value)  # type: ignore[call-overload] # what JSON holds; else TypeError


def _is(count: int) -> str:
    return "is" if count == 1 else "are"
