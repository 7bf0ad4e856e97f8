"""Every setting of a run, as frozen values.

A field that is made by `setting` is a key of ``config.yaml`` with the same name: this is the only place where its
type, range, default and meaning stand. The other fields are options of the command line
(`shared.settings.command_line`) or come from the environment (`shared.settings.environment`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from nuclei_segmentation.shared.runtime.resources import usable_cpus
from nuclei_segmentation.shared.scale import LARGEST_MPP, SMALLEST_MPP
from nuclei_segmentation.shared.settings import declaration as kind
from nuclei_segmentation.shared.settings.declaration import setting
from nuclei_segmentation.shared.settings.environment import OUTPUTS as OUTPUTS_VARIABLE
from nuclei_segmentation.shared.settings.environment import SHARD
from nuclei_segmentation.shared.settings.shard import Shard


@dataclass(frozen=True, slots=True)
class OverlaySettings:
    """How nuclei are drawn."""

    style: Literal["fill", "outline"] = setting("outline", kind.choice("outline", "fill"), "How nuclei are drawn.")
    color: tuple[int, int, int] = setting((0, 255, 0), kind.color(), "Colour of the overlay.")
    opacity: float = setting(0.9, kind.number(0, 1), "0 shows the slide only, 1 the colour only.")
    threshold: float = setting(0.5, kind.number(0, 1), "A pixel is nucleus where its probability is above this.")


@dataclass(frozen=True, slots=True)
class JpegSettings:
    """How image.tif is compressed."""

    quality: int = setting(85, kind.whole_number(1, 100), "JPEG quality of image.tif.")
    subsampling: Literal["444", "422", "420"] = setting(
        "420", kind.choice("444", "422", "420"), "Chroma subsampling of image.tif; 420 is smallest, 444 sharpest."
    )


@dataclass(frozen=True, slots=True)
class MaskSettings:
    """How foreground tiles are chosen."""

    method: Literal["tissue", "none"] = setting(
        "tissue",
        kind.choice("tissue", "none"),
        "Which tiles are inferred: those with tissue, or all (for fluorescence). `mask: none` is short for it.",
    )


@dataclass(frozen=True, slots=True)
class ModelsSettings:
    """Where models lie, and what their metadata cannot tell."""

    repository: Path | None = setting(  # noqa: RUF009 - it makes a field, as dataclasses.field does
        None,
        kind.folder(),
        "Triton model repository for the embedded engine; by default the one that comes with the program.",
    )
    input_scale: float = setting(
        1.0, kind.number(1e-6, 1e6), "For models with float input: what a 0-255 pixel value is multiplied by."
    )
    output: Literal["sigmoid", "logit", "mask"] = setting(
        "sigmoid",
        kind.choice("sigmoid", "logit", "mask"),
        "What the maps hold: probabilities; floats that still need the logistic function; or 0 and 1 as uint8.",
    )
    maps: tuple[str, ...] | None = setting(
        None,
        kind.map_names(),
        "Names of the model's maps, in its order, if it does not name them itself: [background, nucleus].",
    )


@dataclass(frozen=True, slots=True)
class InferenceSettings:
    """How inference is done. Only `precision` changes the result."""

    precision: Literal["int8", "fp32"] = setting(
        "int8",
        kind.choice("int8", "fp32"),
        "Arithmetic of the embedded engine, on every machine; int8 for models that have an int8 sibling, else fp32.",
    )
    batch: int = setting(
        0, kind.whole_number(0, 1024), "Tiles per request; 0 lets the engine choose. Does not change the result."
    )
    deadline: float = setting(60.0, kind.number(0.1, 86400), "Seconds that one request to a server may take.")
    retries: int = setting(8, kind.whole_number(0, 1000), "How often a failed request is repeated.")
    in_flight: int = setting(4, kind.whole_number(1, 64), "Requests in flight at once to one server.")
    shared_memory: bool = setting(
        True,
        kind.switch(),
        "Pass tiles to a server on this machine through shared memory, if it allows. Does not change the result.",
    )


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """Where stores keep their arrays."""

    shm: bool = setting(
        False,
        kind.switch(),
        "Put tiles and maps into shared memory (/dev/shm), for stages in containers that share it.",
    )


@dataclass(frozen=True, slots=True)
class WaitSettings:
    """How long a stage waits for the one before it. A `limit` of None, which only the program sets, is no waiting."""

    limit: float | None = setting(
        300.0,
        kind.number(1, 86400),
        "Seconds without progress after which filter and stitch stop waiting for the stage before them.",
    )


@dataclass(frozen=True, slots=True)
class DamagedSettings:
    """How much of a slide may be unreadable."""

    limit: float = setting(
        0.01, kind.number(0, 1), "Share of tiles that may be unreadable; they are hatched. More is an error."
    )


OUTPUTS = ("geojson", "table", "labels", "density", "report")
"""Files of nuclei that a run can write besides the image."""


@dataclass(frozen=True, slots=True)
class NucleiSettings:
    """What is measured of nuclei for the outputs."""

    min_area: float = setting(
        5.0,
        kind.number(0, 10000),
        "Square micrometres. Smaller nuclei are left out of the outputs, if the pixel size is known.",
    )
    hematoxylin: tuple[float, float, float] = setting(
        (0.65, 0.70, 0.29), kind.stain(), "How much light pure haematoxylin absorbs (by default Ruifrok's)."
    )
    eosin: tuple[float, float, float] = setting(
        (0.07, 0.99, 0.11), kind.stain(), "How much light pure eosin absorbs (by default Ruifrok's)."
    )


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of one run.

    Attributes
    ----------
    input_path, output_path, config_path : pathlib.Path
        ``--input-path``, ``--output-path``, ``--config-path``.
    num_workers : int
        ``--num-workers``: threads for everything together.
    mask_pixel_count_limit : int
        ``--mask-pixel-count-limit``: most pixels of the thumbnail that tissue is found on.
    tile_size : int
        ``--tile-size``: side of a tile in level-0 pixels, a multiple of 16.
    model_name : str
        ``--model-name``: a folder in the model repository, or a model on the server.
    overlap : int
        ``--overlap``: pixels that neighbouring tiles share, a multiple of 16 below `tile_size`.
    overlay, jpeg, mask, models, inference, store, wait, damaged, nuclei : *Settings
        The sections of ``config.yaml``.
    outputs : tuple of str
        As in ``config.yaml``: which files of nuclei are written, in the order of `OUTPUTS`.
    keep_maps, overwrite, shard : bool, bool, Shard or None
        As in ``config.yaml``.
    channel, plane, mpp : str, int, tuple of float or None
        As in ``config.yaml``: what of the slide is used, and the size of its pixels.
    triton_servers : tuple of str
        ``host:port`` of each Triton server; empty for the embedded engine.
    triton_variable : str
        The environment variable that named the servers, for messages.
    run_id : str
        The run that a stage belongs to (``NUCLEI_RUN_ID``).
    more_inputs : tuple of pathlib.Path
        Input folders besides `input_path`, from NVIDIA's driver.
    named_paths : frozenset of str
        Which of `input_path` and `output_path` the command line names, so that they win over the driver's.
    fastio : clara.FastIOContext or None
        Of NVIDIA's driver, if it started this stage.
    """

    input_path: Path = Path("/input")
    output_path: Path = Path("/output")
    config_path: Path = Path("/config")
    num_workers: int = field(default_factory=usable_cpus)
    mask_pixel_count_limit: int = 1024 * 1024
    tile_size: int = 256
    model_name: str = "segmentation_unet_nuclei"
    overlap: int = 0
    overlay: OverlaySettings = field(default_factory=OverlaySettings)
    jpeg: JpegSettings = field(default_factory=JpegSettings)
    mask: MaskSettings = field(default_factory=MaskSettings)
    models: ModelsSettings = field(default_factory=ModelsSettings)
    inference: InferenceSettings = field(default_factory=InferenceSettings)
    store: StoreSettings = field(default_factory=StoreSettings)
    wait: WaitSettings = field(default_factory=WaitSettings)
    damaged: DamagedSettings = field(default_factory=DamagedSettings)
    nuclei: NucleiSettings = field(default_factory=NucleiSettings)
    outputs: tuple[str, ...] = setting(
        (),
        kind.words_of(*OUTPUTS),
        f"Files of nuclei to write besides image.tif. The variable {OUTPUTS_VARIABLE} wins over it.",
    )
    keep_maps: bool = setting(
        False,
        kind.switch(),
        "Keep the maps of a finished `segmentation`, in the folder .run: outputs asked for later need no inference.",
    )
    overwrite: bool = setting(
        False,
        kind.switch(),
        "Replace another result in the output folder; without it such a folder is refused.",
    )
    shard: Shard | None = setting(  # noqa: RUF009 - it makes a field
        None,
        kind.shard(),
        f"Which share of the tiles filter infers; all of them without it. The variable {SHARD} wins over it.",
    )
    channel: str | int | None = setting(
        None,
        kind.name_or_number(),
        "Which channel of a slide with several is used, by its name or number; `rgb` puts three together.",
    )
    plane: str | int | None = setting(
        None,
        kind.name_or_number(),
        "Which plane of a slide with several depths or times is used; the first without it.",
    )
    mpp: tuple[float, float] | None = setting(
        None,
        kind.pixel_size(SMALLEST_MPP, LARGEST_MPP),
        "Micrometres per pixel, for a slide that states none or a wrong one. It wins over the slide's own.",
    )
    triton_servers: tuple[str, ...] = ()
    triton_variable: str = ""
    run_id: str = ""
    more_inputs: tuple[Path, ...] = ()
    named_paths: frozenset[str] = frozenset()
    fastio: Any = None

    @property
    def inputs(self) -> tuple[Path, ...]:
        """All input folders."""
        return (self.input_path, *self.more_inputs)
