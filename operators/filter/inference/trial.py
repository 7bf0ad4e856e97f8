"""The first inference: one tile, before the work begins, to find out what a model's metadata do not say."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from nuclei_segmentation.operators.filter.inference.model_metadata import channel_names
from nuclei_segmentation.operators.filter.inference.tensor_plan import Array, TensorPlan, TensorSpec, make_plan
from nuclei_segmentation.shared.batches import Pixels
from nuclei_segmentation.shared.errors import ModelError
from nuclei_segmentation.shared.settings import Settings


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
) -> tuple[TensorPlan, tuple[str, ...]]:
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
    plan : TensorPlan
        How to use the model.
    channels : tuple of str
        The names of the maps in the order in which the plan returns them; ``nucleus`` is first.

    Raises
    ------
    ModelError
        The model does not fit, or returns NaN, values outside [0, 1], or another shape or dtype than its metadata
        say.
    """
    tile = settings.tile_size
    try:
        if small is not None and small < tile and tile % small == 0 and takes_any_size(inputs):
            with contextlib.suppress(ModelError):
                plan, maps = _try(settings, inputs, outputs, small, call)
                # Without the sizes of the small tile.
                free = tuple(replace(output, spec=spec) for output, spec in zip(plan.outputs, outputs, strict=True))
                plan = replace(plan, tile=tile, outputs=free)
                return _nucleus_first(plan, _channels(metadata, outputs, maps.shape[-1]))
        plan, maps = _try(settings, inputs, outputs, tile, call)
        return _nucleus_first(plan, _channels(metadata, outputs, maps.shape[-1]))
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
    logit = settings.models.output == "logit"
    scale = settings.models.input_scale
    plan = make_plan(inputs, outputs, tile, input_scale=scale, logit=logit)
    arrays = call(plan.encode(trial_tile(tile)))
    # The result shows the sizes that the model leaves free. The batch axis stays as the model says.
    seen = [
        replace(spec, shape=(*spec.shape[: int(plan.batched)], *array.shape[int(plan.batched) :]))
        if array.ndim == len(spec.shape)
        else spec
        for spec, array in zip(outputs, arrays, strict=True)
    ]
    plan = make_plan(inputs, seen, tile, input_scale=scale, logit=logit)
    return plan, plan.decode(arrays, 1)


def takes_any_size(inputs: Sequence[TensorSpec]) -> bool:
    """Tell whether a model takes images of any size.

    Parameters
    ----------
    inputs : Sequence of TensorSpec
        The model's inputs.
    """
    return len(inputs) == 1 and inputs[0].shape.count(None) >= 2 + (len(inputs[0].shape) == 4)


def _nucleus_first(plan: TensorPlan, names: tuple[str, ...]) -> tuple[TensorPlan, tuple[str, ...]]:
    if "nucleus" in names and names[0] != "nucleus":
        first = names.index("nucleus")
        order = (first, *(i for i in range(len(names)) if i != first))
        plan = replace(plan, order=order)
        names = tuple(names[i] for i in order)
    return plan, names


def _channels(metadata: Mapping[str, str], outputs: Sequence[TensorSpec], count: int) -> tuple[str, ...]:
    """Return the names of the maps: those of the metadata, else of the outputs, else invented ones."""
    names = channel_names(metadata, count)
    if names is not None:
        return names
    if count == len(outputs) > 1 and any(spec.name == "nucleus" for spec in outputs):
        return tuple(spec.name for spec in outputs)
    return ("nucleus", *(f"channel{i}" for i in range(1, count)))
