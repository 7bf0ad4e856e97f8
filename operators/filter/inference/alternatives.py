"""Other ways to use a model than the one that the settings say, to find out which settings would help."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from nuclei_segmentation.operators.filter.inference.tensor_plan import Reading, TensorPlan
from nuclei_segmentation.operators.filter.inference.trial import FittedModel
from nuclei_segmentation.shared.batches import Pixels

_SCALES = (1.0, 1 / 255)
"""The ranges in which networks take floats: 0 to 255, and 0 to 1."""


@dataclass(frozen=True, slots=True)
class Alternative:
    """Another way to use a model.

    Attributes
    ----------
    settings : str
        What to write into config.yaml for it.
    changes : int
        How many settings differ.
    channels : tuple of str
        The names of the maps.
    infer : callable
        Turns tiles into maps, as `Engine.infer` does.
    """

    settings: str
    changes: int
    channels: tuple[str, ...]
    infer: Callable[[Pixels], Pixels]


def alternatives(model: FittedModel, run: Callable[[TensorPlan, Pixels], Pixels]) -> list[Alternative]:
    """Return the other ways to use a model that its tensors allow, those with fewer changes first.

    Parameters
    ----------
    model : FittedModel
        How it is used.
    run : callable
        Infers tiles by a plan.
    """
    plan = model.plan
    ways = itertools.product(_scales(plan), _readings(plan), _orders(model))
    found = []
    for (scale_text, scale), (reading_text, reading), (order_text, order) in ways:
        texts = [text for text in (scale_text, reading_text, order_text) if text]
        if texts:
            other = replace(plan, input_scale=scale, reading=reading, order=order)
            channels = (
                model.channels if not order_text else ("nucleus", *(f"other{i}" for i in range(1, len(order or ()))))
            )
            found.append(Alternative(f"models: {{{', '.join(texts)}}}", len(texts), channels, partial(run, other)))
    return sorted(found, key=lambda way: way.changes)


def _scales(plan: TensorPlan) -> Iterator[tuple[str, float]]:
    yield "", plan.input_scale
    if plan.input.dtype != "uint8":
        yield from ((f"input_scale: {scale!r}", scale) for scale in _SCALES if scale != plan.input_scale)


def _readings(plan: TensorPlan) -> Iterator[tuple[str, Reading]]:
    yield "", plan.reading
    dtypes = {output.spec.dtype for output in plan.outputs}
    floats: tuple[Reading, ...] = ("sigmoid", "logit") if dtypes - {"uint8"} else ()
    integers: tuple[Reading, ...] = ("sigmoid", "mask") if "uint8" in dtypes else ()
    for reading in dict.fromkeys((*floats, *integers)):
        if reading != plan.reading:
            yield f"output: {reading}", reading


def _orders(model: FittedModel) -> Iterator[tuple[str, tuple[int, ...] | None]]:
    yield "", model.plan.order
    for first in range(1, len(model.channels)) if model.guessed else ():
        order = (first, *(i for i in range(len(model.channels)) if i != first))
        names = [f"other{order.index(i)}" for i in range(len(order))]
        names[first] = "nucleus"
        yield f"maps: [{', '.join(names)}]", order
