"""The first inference: one tile, before the work begins, to find out what a model's metadata do not say."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from nuclei_segmentation.operators.filter.inference.model_metadata import channel_names
from nuclei_segmentation.operators.filter.inference.tensor_plan import (
    Array,
    TensorPlan,
    TensorSpec,
    WrongSize,
    make_plan,
)
from nuclei_segmentation.shared.batches import Pixels
from nuclei_segmentation.shared.errors import ModelError, NucleiError
from nuclei_segmentation.shared.settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FittedModel:
    """How to use a model that was tried.

    Attributes
    ----------
    plan : TensorPlan
        From tiles to maps.
    channels : tuple of str
        The names of the maps in the order in which the plan returns them. The first shows the nuclei.
    guessed : bool
        Whether nothing says which of several maps shows the nuclei, so that the model's first is taken.
    """

    plan: TensorPlan
    channels: tuple[str, ...]
    guessed: bool


def trial_tile(side: int) -> Pixels:
    """Return a tile with structure at every scale. A blank one would hide NaN and dead channels.

    Parameters
    ----------
    side : int
        T, pixels.

    Returns
    -------
    numpy.ndarray
        (1, T, T, 3) uint8, always the same.
    """
    random = np.random.default_rng(20)
    total = np.zeros((side, side, 3))
    for cell in (64, 16, 4, 1):
        coarse = random.random((-(-side // cell), -(-side // cell), 3))
        total += np.kron(coarse, np.ones((cell, cell, 1)))[:side, :side]
    low, high = total.min(), total.max()
    pixels: Pixels = np.rint((total - low) / (high - low) * 255).astype(np.uint8)[np.newaxis]
    return pixels


def fit_model(
    settings: Settings,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    metadata: Mapping[str, str],
    call: Callable[[Array], Sequence[Array]],
    *,
    small: int | None = None,
) -> FittedModel:
    """Find out how to use a model, and try it with one tile.

    Parameters
    ----------
    settings : Settings
        The tile size, and what the user says about the model.
    inputs : Sequence of TensorSpec
        The model's inputs.
    outputs : Sequence of TensorSpec
        The model's outputs.
    metadata : Mapping of str to str
        What the model says about itself; see `model_metadata`.
    call : callable
        Sends one request: takes the model's input, returns its outputs.
    small : int or None, optional
        Side of a smaller tile, in pixels. It is tried first if the model takes any size and the tile size is a
        multiple of it, because inference of a large tile may take a minute. If it fails, the tile size is tried.

    Returns
    -------
    FittedModel
        How to use the model.

    Raises
    ------
    ModelError
        The model does not fit, or returns NaN, values outside [0, 1], or another shape or dtype than its metadata
        say. Another tile size is advised only if the model fits it.
    """
    tile = settings.tile_size
    try:
        if small is not None and small < tile and tile % small == 0 and takes_any_size(inputs, outputs):
            with contextlib.suppress(ModelError):
                plan, maps = _try(settings, inputs, outputs, small, call)
                # Without the sizes of the small tile.
                free = tuple(replace(output, spec=spec) for output, spec in zip(plan.outputs, outputs, strict=True))
                plan = replace(plan, tile=tile, outputs=free)
                return _nucleus_first(plan, settings, metadata, outputs, maps.shape[-1])
        plan, maps = _try(settings, inputs, outputs, tile, call)
        return _nucleus_first(plan, settings, metadata, outputs, maps.shape[-1])
    except WrongSize as error:
        advice = "" if error.side is None else _advice(settings, inputs, outputs, error.side, call)
        raise ModelError(f"model {settings.model_name}: {error}{advice}") from error
    except ModelError as error:
        raise ModelError(f"model {settings.model_name}: {error}") from error


def _try(
    settings: Settings,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    tile: int,
    call: Callable[[Array], Sequence[Array]],
) -> tuple[TensorPlan, Pixels]:
    """Infer one tile. Return its maps, and the plan for tiles of that size, completed by what came back."""
    scale, reading = settings.models.input_scale, settings.models.output
    plan = make_plan(inputs, outputs, tile, input_scale=scale, reading=reading)
    arrays = call(plan.encode(trial_tile(tile)))
    # The result shows the sizes that the model leaves free. The batch axis stays as the model says.
    seen = [
        replace(spec, shape=(*spec.shape[: int(plan.batched)], *array.shape[int(plan.batched) :]))
        if array.ndim == len(spec.shape)
        else spec
        for spec, array in zip(outputs, arrays, strict=True)
    ]
    plan = make_plan(inputs, seen, tile, input_scale=scale, reading=reading)
    return plan, plan.decode(arrays, 1)


def takes_any_size(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec] = ()) -> bool:
    """Tell whether a model says that it takes images, and returns maps, of any size.

    Parameters
    ----------
    inputs : Sequence of TensorSpec
        The model's inputs.
    outputs : Sequence of TensorSpec, optional
        The model's outputs, if they count.
    """
    tensors = (*inputs, *outputs)
    return len(inputs) == 1 and all(spec.shape.count(None) >= 2 + (len(spec.shape) == 4) for spec in tensors)


def _advice(
    settings: Settings,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    side: int,
    call: Callable[[Array], Sequence[Array]],
) -> str:
    """Advise another tile size if the model fits it; if the model was made for that size and does not, say why."""
    try:
        _try(settings, inputs, outputs, side, call)
    except ModelError as error:
        made_for_it = any(side in spec.shape for spec in inputs)
        return f"; with -t {side} it does not fit either: {error}" if made_for_it else ""
    except NucleiError:  # such a tile is too large for the memory, or the server is gone: no advice
        return ""
    return f": use -t {side} (of load, if the stages run apart)"


def _nucleus_first(
    plan: TensorPlan, settings: Settings, metadata: Mapping[str, str], outputs: Sequence[TensorSpec], count: int
) -> FittedModel:
    """Put the map of the nuclei first, and warn if that is a guess."""
    names = settings.models.maps
    if names is not None and len(names) != count:
        raise ModelError(f"models.maps in config.yaml names {_maps(len(names))}, but it returns {_maps(count)}")
    names = names or _own_names(metadata, outputs, count)
    if names is None:
        guessed = count > 1
        names = ("nucleus", *(f"channel{i}" for i in range(1, count)))
        said = f"returns {_maps(count)} without names"
    else:
        guessed = "nucleus" not in names
        said = f"names its maps {', '.join(names)}, and none of them nucleus"
    if guessed:
        example = ", ".join([*(f"other{i}" for i in range(1, count)), "nucleus"])
        log.warning(
            "model %s %s: the first is taken for the nuclei; config.yaml can say which one it is, as in "
            "models: {maps: [%s]}",
            settings.model_name,
            said,
            example,
        )
    elif "nucleus" in names and names[0] != "nucleus":
        first = names.index("nucleus")
        order = (first, *(i for i in range(len(names)) if i != first))
        plan = replace(plan, order=order)
        names = tuple(names[i] for i in order)
    return FittedModel(plan, names, guessed)


def _own_names(metadata: Mapping[str, str], outputs: Sequence[TensorSpec], count: int) -> tuple[str, ...] | None:
    """Return the names of the maps that the model itself gives, in its metadata or by the names of its outputs."""
    names = channel_names(metadata, count)
    if names is None and count == len(outputs) > 1 and any(spec.name == "nucleus" for spec in outputs):
        names = tuple(spec.name for spec in outputs)
    return names


def _maps(count: int) -> str:
    return "1 map" if count == 1 else f"{count} maps"
