"""The first inference: what metadata cannot promise is tried once, before work begins."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from nuclei_segmentation.operators.filter.inference.contract import Array, OutputPlan, Plan, TensorSpec, make_plan
from nuclei_segmentation.shared.batches import Pixels
from nuclei_segmentation.shared.errors import ModelError
from nuclei_segmentation.shared.settings import Settings


def canary_tile(tile: int) -> Pixels:
    """Return a tile with structure at every scale; a blank one would hide NaN and dead channels.

    Returns
    -------
    numpy.ndarray
        (1, T, T, 3) uint8, always the same.
    """
    random = np.random.default_rng(20)
    total = np.zeros((tile, tile, 3))
    for cell in (64, 16, 4, 1):
        coarse = random.random((-(-tile // cell), -(-tile // cell), 3))
        total += np.kron(coarse, np.ones((cell, cell, 1)))[:tile, :tile]
    low, high = total.min(), total.max()
    pixels: Pixels = np.rint((total - low) / (high - low) * 255).astype(np.uint8)[np.newaxis]
    return pixels


def fit_model(
    settings: Settings,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    channels: str | None,
    call: Callable[[Array], Sequence[Array]],
    *,
    small: int | None = None,
) -> tuple[Plan, tuple[str, ...]]:
    """Find out how to use a model, and try it.

    Parameters
    ----------
    settings : Settings
        Tile size, and what the user says of the model.
    inputs, outputs : Sequence of TensorSpec
        The model's tensors.
    channels : str or None
        Names of the channels, separated by commas, if the model tells.
    call : callable
        Sends one request: the model's input in, the outputs out.
    small : int or None, optional
        Where the model takes any size, try it with a tile of this side, if whole ones make up the tile size: what is
        asked for may take a minute. A model that cannot do that is tried as asked.

    Returns
    -------
    tuple
        The plan, and the names of the channels in the order in which the plan returns them, ``nucleus`` first.

    Raises
    ------
    ModelError
        The model does not fit, or answers with NaN, values outside [0, 1], or another shape or dtype than it says.
    """
    tile = settings.tile_size
    try:
        if small is not None and small < tile and tile % small == 0 and _takes_any_size(inputs):
            with contextlib.suppress(ModelError):
                plan, maps = _try(settings, inputs, outputs, small, call)
                plan = replace(plan, tile=tile, outputs=tuple(map(_resized, plan.outputs, outputs)))
                return _named(plan, _channel_names(channels, outputs, maps.shape[-1]))
        plan, maps = _try(settings, inputs, outputs, tile, call)
        return _named(plan, _channel_names(channels, outputs, maps.shape[-1]))
    except ModelError as error:
        raise ModelError(f"model {settings.model_name}: {error}") from error


def _try(
    settings: Settings,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    tile: int,
    call: Callable[[Array], Sequence[Array]],
) -> tuple[Plan, Pixels]:
    """Infer one tile; return the plan for tiles of that side, with all that the answer tells, and the maps."""
    logit = settings.models.output == "logit"
    scale = settings.models.input_scale
    plan = make_plan(inputs, outputs, tile, input_scale=scale, logit=logit)
    arrays = call(plan.encode(canary_tile(tile)))
    # Where a size is free, the answer tells it; the batch axis stays what the model says.
    seen = [
        replace(spec, shape=(*spec.shape[: int(plan.batched)], *array.shape[int(plan.batched) :]))
        if array.ndim == len(spec.shape)
        else spec
        for spec, array in zip(outputs, arrays, strict=True)
    ]
    plan = make_plan(inputs, seen, tile, input_scale=scale, logit=logit)
    return plan, plan.decode(arrays, 1)


def _takes_any_size(inputs: Sequence[TensorSpec]) -> bool:
    return len(inputs) == 1 and inputs[0].shape.count(None) >= 2 + (len(inputs[0].shape) == 4)


def _resized(output: OutputPlan, spec: TensorSpec) -> OutputPlan:
    """Return the plan of an output without the sizes that were tried."""
    return replace(output, spec=spec)


def _named(plan: Plan, names: tuple[str, ...]) -> tuple[Plan, tuple[str, ...]]:
    """Put the channel ``nucleus`` first."""
    if "nucleus" in names and names[0] != "nucleus":
        first = names.index("nucleus")
        order = (first, *(i for i in range(len(names)) if i != first))
        plan = replace(plan, order=order)
        names = tuple(names[i] for i in order)
    return plan, names


def _channel_names(told: str | None, outputs: Sequence[TensorSpec], count: int) -> tuple[str, ...]:
    if told:
        names = tuple(name.strip() for name in told.split(","))
        if len(names) != count or len(set(names)) != count:
            raise ModelError(f"it names its channels '{told}', but answers with {count} channel(s)")
        return names
    if count == len(outputs) > 1 and any(spec.name == "nucleus" for spec in outputs):
        return tuple(spec.name for spec in outputs)
    return ("nucleus", *(f"channel{i}" for i in range(1, count)))
