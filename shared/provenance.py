"""What a result was made from: slide, settings, model, program. Two of them say how two results differ."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nuclei_segmentation.shared.runtime.version import Program, program
from nuclei_segmentation.shared.settings.config_file import KEYS
from nuclei_segmentation.shared.settings.run_key import IMAGE_LAYOUT
from nuclei_segmentation.shared.settings.shard import Shard
from nuclei_segmentation.shared.settings.values import Settings

OPTIONS = ("tile_size", "overlap", "model_name", "mask_pixel_count_limit", "num_workers", "triton_servers")
"""Settings that are options of the command line or come from the environment, and that a result records."""

_NO_EFFECT = {
    "damaged.limit", "inference.batch", "inference.deadline", "inference.in_flight", "inference.precision",
    "inference.retries", "inference.shared_memory", "keep_maps", "models.repository", "nuclei.eosin",
    "nuclei.hematoxylin", "nuclei.min_area", "num_workers", "outputs", "overwrite", "shard", "store.shm",
    "triton_servers", "wait.limit",
}  # fmt: skip
"""Settings that change no byte of an image by themselves. The precision is the model's, and shows there."""

_MOST_DIFFERENCES = 5


@dataclasses.dataclass(frozen=True, slots=True)
class SlideProvenance:
    """A slide, as a result records it.

    Attributes
    ----------
    name : str
        Of the file, without its folder.
    fingerprint : str
        A hash of its content.
    format : str
        The field's name of the format.
    width, height : int
        In level-0 pixels.
    mpp : tuple of float or None
        Micrometres per level-0 pixel in x and y.
    objective : float or None
        Objective power.
    """

    name: str
    fingerprint: str
    format: str
    width: int
    height: int
    mpp: tuple[float, float] | None
    objective: float | None


@dataclasses.dataclass(frozen=True, slots=True)
class ModelProvenance:
    """A model, as a result records it.

    Attributes
    ----------
    name : str
        As ``--model-name`` gave it.
    engine : str
        ``embedded`` or ``triton``.
    identity : str
        Names its exact content: SHA-256 and precision for the embedded engine, what the server reports for Triton.
    """

    name: str
    engine: str
    identity: str

    @property
    def precision(self) -> str:
        """``int8`` or ``fp32``; empty where a server decides it."""
        return self.identity.rpartition(":")[2] if self.engine == "embedded" else ""


@dataclasses.dataclass(frozen=True, slots=True)
class Provenance:
    """What a result is made from.

    Attributes
    ----------
    slide : SlideProvenance
        The slide.
    model : ModelProvenance
        The model.
    settings : dict of str to object
        Every setting by its path (``overlay.color``), as JSON holds it.
    program : Program
        The program and its libraries.
    """

    slide: SlideProvenance
    model: ModelProvenance
    settings: dict[str, Any]
    program: Program = dataclasses.field(default_factory=program)

    def to_json(self) -> dict[str, Any]:
        """Return the document that `differences` takes."""
        document = dataclasses.asdict(self)
        document["model"]["precision"] = self.model.precision
        document["layout"] = IMAGE_LAYOUT
        return document


def recorded(settings: Settings) -> dict[str, Any]:
    """Return every setting that a result records, by its path, as JSON holds it."""
    found = {name: _plain(getattr(settings, name)) for name in OPTIONS}
    for key in KEYS:
        section, _, name = key.path.rpartition(".")
        found[key.path] = _plain(getattr(getattr(settings, section) if section else settings, name))
    return found


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Say how two results differ.

    Parameters
    ----------
    old, new : Mapping of str to object
        Two documents of `Provenance.to_json`; `old` may come from another version of the program.

    Returns
    -------
    str
        "overlay.opacity 0.9 -> 0.5; slide a.svs -> b.svs"; empty where nothing differs that is recorded.
    """
    found = list(_differences(old, new))
    more = len(found) - _MOST_DIFFERENCES
    return "; ".join(found[:_MOST_DIFFERENCES]) + (f"; and {more} more" if more > 0 else "")


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    before, after = _section(old, "slide"), _section(new, "slide")
    if before.get("fingerprint") != after.get("fingerprint"):
        same = before.get("name") == after.get("name")
        yield f"slide {before.get('name')} -> {after.get('name')}{' with other content' if same else ''}"
    before, after = _section(old, "model"), _section(new, "model")
    for name in ("name", "engine", "precision"):
        if before.get(name) != after.get(name):
            yield f"model {name} {before.get(name) or '-'} -> {after.get(name) or '-'}"
    if before.get("name") == after.get("name") and before.get("identity") != after.get("identity"):
        yield f"model {before.get('name')}: other content ({_short(before)} -> {_short(after)})"
    before, after = _section(old, "settings"), _section(new, "settings")
    for name in sorted((before.keys() | after.keys()) - _NO_EFFECT - {"model_name"}):
        if before.get(name) != after.get(name):
            yield f"{name} {before.get(name)} -> {after.get(name)}"
    before, after = _section(old, "program"), _section(new, "program")
    if before.get("version") != after.get("version"):
        yield f"program {before.get('version')} -> {after.get('version')}"
    if old.get("layout", 1) != new.get("layout", 1):  # versions before the first change of it recorded none
        yield f"layout of image.tif {old.get('layout', 1)} -> {new.get('layout', 1)}"
    before, after = _section(before, "libraries"), _section(after, "libraries")
    for name in sorted(before.keys() & after.keys()):
        if before[name] != after[name]:
            yield f"{name} {before[name]} -> {after[name]}"


def _section(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = document.get(name)
    return section if isinstance(section, dict) else {}


def _short(model: Mapping[str, Any]) -> str:
    return str(model.get("identity", ""))[:12]


def _plain(value: object) -> object:
    if isinstance(value, Path | Shard):
        return str(value)
    return list(value) if isinstance(value, tuple) else value
