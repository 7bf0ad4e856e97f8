"""Every setting of a run, as frozen values."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from nuclei_segmentation.shared.settings.shard import Shard


@dataclass(frozen=True, slots=True)
class OverlaySettings:
    """How nuclei are drawn. `threshold` is a probability; a pixel above it is nucleus."""

    style: Literal["fill", "outline"] = "outline"
    color: tuple[int, int, int] = (0, 255, 0)
    opacity: float = 0.9
    threshold: float = 0.5


@dataclass(frozen=True, slots=True)
class JpegSettings:
    """How image.tif is compressed."""

    quality: int = 85
    subsampling: Literal["444", "422", "420"] = "420"


@dataclass(frozen=True, slots=True)
class MaskSettings:
    """How foreground tiles are chosen; `none` takes every tile. `pixel_limit`: most pixels of the thumbnail."""

    method: Literal["tissue", "none"] = "tissue"
    pixel_limit: int = 1024 * 1024


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """Which model, and what its metadata cannot tell.

    `input_scale` multiplies the 0–255 pixel values of models with float input; `output` says whether float maps are
    probabilities (``sigmoid``) or need the logistic function yet (``logit``).
    """

    name: str = "segmentation_unet_nuclei"
    repository: Path | None = None
    input_scale: float = 1.0
    output: Literal["sigmoid", "logit"] = "sigmoid"


@dataclass(frozen=True, slots=True)
class InferenceSettings:
    """How inference is done. None of these but `precision` changes a byte of the result.

    `precision`: of the embedded engine, on every machine; ``int8`` takes a model's int8 sibling, where it has one.
    `batch`: tiles per request; 0 lets the engine choose. `deadline`: seconds for one request. `retries`: times that a
    failed request is repeated. `in_flight`: requests under way at once to one server. `shared_memory`: whether tiles go
    through it to a server that has it in common with this process.
    """

    precision: Literal["int8", "fp32"] = "int8"
    batch: int = 0
    deadline: float = 60.0
    retries: int = 8
    in_flight: int = 4
    shared_memory: bool = True


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of one run.

    Of a stage that runs apart: `more_inputs`, folders besides `input_path`; `run`, the run that it belongs to
    (``NUCLEI_RUN_ID``); `shared_memory`, whether stores have their arrays there; `wait_limit`, seconds without progress
    after which it gives up waiting for the stage before it, None for no waiting; `shard`, the share of the tiles that
    filter infers, None for all.

    Of a stage that NVIDIA's driver starts: `named_paths`, which of `input_path` and `output_path` the command line
    names, so that they win over the driver's; `fastio`, its `clara.FastIOContext`, if it has one.
    """

    input_path: Path = Path("/input")
    output_path: Path = Path("/output")
    config_path: Path = Path("/config")
    workers: int = 1
    tile: int = 256
    overlap: int = 0
    overlay: OverlaySettings = field(default_factory=OverlaySettings)
    jpeg: JpegSettings = field(default_factory=JpegSettings)
    mask: MaskSettings = field(default_factory=MaskSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    inference: InferenceSettings = field(default_factory=InferenceSettings)
    damaged_limit: float = 0.01
    overwrite: bool = False
    triton: tuple[str, ...] = ()
    more_inputs: tuple[Path, ...] = ()
    run: str = ""
    shared_memory: bool = False
    patience: float | None = 300.0
    shard: Shard | None = None
    named_paths: frozenset[str] = frozenset()
    fastio: Any = None

    @property
    def inputs(self) -> tuple[Path, ...]:
        """All input folders."""
        return (self.input_path, *self.more_inputs)
