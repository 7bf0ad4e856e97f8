"""Fits any segmentation model to the port: tiles to the model's input, the model's outputs to maps.

Nothing is assumed of a model but that it has one input for RGB images and that each output is a map, or several, of the
same height and width. Layout (colours last or first), dtype, whether there is a batch axis, and fixed sizes are read
from the tensors' names, dtypes and shapes, which is all that an ONNX file and a Triton server have in common.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nuclei_segmentation.shared.batches import Pixels
from nuclei_segmentation.shared.errors import ModelError

Array = npt.NDArray[Any]

#: How far outside [0, 1] a probability may lie before the model is refused; float16 models stray that far.
TOLERANCE = 1e-3

_DTYPES = ("uint8", "float16", "float32")


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """What a model says of one of its tensors.

    Attributes
    ----------
    name : str
        As the model calls it.
    dtype : str
        NumPy's name of the type.
    shape : tuple of int or None
        All axes, the batch axis too if there is one; None where the size is free.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        return f"'{self.name}' ({self.dtype} [{', '.join('?' if n is None else str(n) for n in self.shape)}])"


@dataclass(frozen=True, slots=True)
class OutputPlan:
    """How to read one output.

    Attributes
    ----------
    spec : TensorSpec
        The tensor.
    channel_axis : int or None
        The axis of channels, counted without the batch axis: 2 (last), 0 (first), or None (one map, no such axis).
    channels : int or None
        Number of maps; None where only an inference can tell.
    """

    spec: TensorSpec
    channel_axis: int | None
    channels: int | None


@dataclass(frozen=True, slots=True)
class Plan:
    """How to feed a model and read its answer. Made by `make_plan`.

    Attributes
    ----------
    tile : int
        T, pixels.
    input : TensorSpec
        The image tensor.
    channels_first : bool
        Whether it is (…, 3, T, T) rather than (…, T, T, 3).
    batched : bool
        Whether it has a batch axis; if not, each tile is a request of its own.
    fixed_batch : int or None
        The size of the batch axis if the model fixes it; smaller batches are filled up.
    outputs : tuple of OutputPlan
        In the model's order; their channels are joined in that order.
    input_scale : float
        Multiplies pixel values for float inputs.
    logit : bool
        Whether float outputs need the logistic function.
    order : tuple of int or None
        Where each channel of the answer comes from, if not from its own place.
    """

    tile: int
    input: TensorSpec
    channels_first: bool
    batched: bool
    fixed_batch: int | None
    outputs: tuple[OutputPlan, ...]
    input_scale: float
    logit: bool
    order: tuple[int, ...] | None = None

    @property
    def channels(self) -> int | None:
        """Maps per tile, or None where only an inference can tell."""
        total = 0
        for output in self.outputs:
            if output.channels is None:
                return None
            total += output.channels
        return total

    def limit(self, batch: int) -> int:
        """Return how many tiles go into one request when up to `batch` are wanted."""
        if not self.batched:
            return 1
        return self.fixed_batch or max(1, batch)

    def encode(self, pixels: Pixels) -> Array:
        """Turn tiles into the model's input.

        Parameters
        ----------
        pixels : numpy.ndarray
            (b, T, T, 3) uint8, b at most `limit`.

        Returns
        -------
        numpy.ndarray
            The input of one request, contiguous, of the input's dtype and rank.
        """
        if self.fixed_batch is not None and len(pixels) < self.fixed_batch:
            filling = np.zeros((self.fixed_batch - len(pixels), *pixels.shape[1:]), np.uint8)
            pixels = np.concatenate([pixels, filling])
        array: Array = pixels if self.batched else pixels[0]
        if self.channels_first:
            array = np.moveaxis(array, -1, -3)
        if self.input.dtype != "uint8":
            array = array.astype(np.float32)
            if self.input_scale != 1.0:
                array *= np.float32(self.input_scale)
            array = array.astype(self.input.dtype, copy=False)
        return np.ascontiguousarray(array)

    def decode(self, arrays: Sequence[Array], count: int) -> Pixels:
        """Turn the model's outputs into maps.

        Parameters
        ----------
        arrays : Sequence of numpy.ndarray
            One for each of `outputs`, in that order.
        count : int
            b, the number of tiles that were asked for.

        Returns
        -------
        numpy.ndarray
            (b, T, T, C) uint8, contiguous.

        Raises
        ------
        ModelError
            Wrong dtype or shape; NaN, or a value outside [0, 1].
        """
        maps = []
        for output, array in zip(self.outputs, arrays, strict=True):
            rows = self.fixed_batch or count
            if array.dtype != np.dtype(output.spec.dtype):
                raise ModelError(f"output {output.spec} came as {array.dtype}; it must keep to its dtype")
            if self.batched:
                _check_rows(output.spec, array, rows)
                array = array[:count]
            else:
                array = array[np.newaxis]
            if output.channel_axis is None:
                array = array[..., np.newaxis]
            elif output.channel_axis == 0:
                array = np.moveaxis(array, 1, -1)
            expected = (count, self.tile, self.tile, array.shape[-1] if output.channels is None else output.channels)
            if array.shape != expected:
                raise ModelError(
                    f"output {output.spec} came with shape {list(array.shape)} for {count} tile(s) of {self.tile} "
                    f"pixels; expected {list(expected)} once channels are last"
                )
            maps.append(array if array.dtype == np.uint8 else _to_bytes(output.spec, array, self.logit))
        joined = maps[0] if len(maps) == 1 else np.concatenate(maps, axis=-1)
        return np.ascontiguousarray(joined if self.order is None else joined[..., list(self.order)])

    def run(self, pixels: Pixels, batch: int, call: Callable[[Array], Sequence[Array]]) -> Pixels:
        """Infer any number of tiles in requests that the model takes.

        Parameters
        ----------
        pixels : numpy.ndarray
            (b, T, T, 3) uint8, b from 0.
        batch : int
            Most tiles per request.
        call : callable
            Sends one request: the model's input in, the outputs out.

        Returns
        -------
        numpy.ndarray
            (b, T, T, C) uint8.
        """
        if pixels.ndim != 4 or pixels.shape[1:] != (self.tile, self.tile, 3) or pixels.dtype != np.uint8:
            raise ValueError(f"tiles must be (b, {self.tile}, {self.tile}, 3) uint8, not {pixels.shape} {pixels.dtype}")
        step = self.limit(batch)
        pixels = np.asarray(pixels)  # the same memory; a memmap is slow to slice
        parts = [
            self.decode(call(self.encode(pixels[start : start + step])), len(pixels[start : start + step]))
            for start in range(0, len(pixels), step)
        ]
        if not parts:
            return np.zeros((0, self.tile, self.tile, self.channels or 1), np.uint8)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


def make_plan(
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    tile: int,
    *,
    input_scale: float = 1.0,
    logit: bool = False,
) -> Plan:
    """Find out how to use a model.

    Parameters
    ----------
    inputs, outputs : Sequence of TensorSpec
        The model's tensors.
    tile : int
        T, the tile size that is asked for, pixels.
    input_scale, logit : float, bool
        What the tensors cannot tell: see `Plan`.

    Raises
    ------
    ModelError
        The model does not fit; the message names the tensor, its shape and what is expected.
    """
    if len(inputs) != 1:
        raise ModelError(
            f"the model has {len(inputs)} inputs ({', '.join(map(str, inputs)) or 'none'}); it must have one, the image"
        )
    if not outputs:
        raise ModelError("the model has no output; it must have one for the maps")
    image = inputs[0]
    _check_dtype("input", image)
    if len(image.shape) not in (3, 4):
        raise ModelError(
            f"input {image} has {len(image.shape)} axes; an image has 3 (height, width, 3 or 3, height, width), or 4 "
            "with a batch axis before them"
        )
    batched = len(image.shape) == 4
    channels_first = _channels_first(image, image.shape[-3:], tile)
    return Plan(
        tile=tile,
        input=image,
        channels_first=channels_first,
        batched=batched,
        fixed_batch=image.shape[0] if batched else None,
        outputs=tuple(_output_plan(spec, tile, batched, channels_first) for spec in outputs),
        input_scale=input_scale,
        logit=logit,
    )


def _check_dtype(kind: str, spec: TensorSpec) -> None:
    if spec.dtype not in _DTYPES:
        raise ModelError(f"{kind} {spec} is of type {spec.dtype}; expected one of {', '.join(_DTYPES)}")


def _check_rows(spec: TensorSpec, array: Array, rows: int) -> None:
    if array.ndim != len(spec.shape) or len(array) != rows:
        raise ModelError(f"output {spec} came with shape {list(array.shape)} for a batch of {rows}")


def _fits(sides: Iterable[int | None], tile: int) -> bool:
    return all(side is None or side == tile for side in sides)


def _wrong_side(kind: str, spec: TensorSpec, sides: tuple[int | None, ...], tile: int) -> ModelError:
    fixed = {side for side in sides if side is not None}
    if len(fixed) == 1:
        (side,) = fixed
        if side % 16 == 0:
            return ModelError(f"{kind} {spec} is for tiles of {side} pixels, not {tile}: use -t {side}")
        return ModelError(
            f"{kind} {spec} is for tiles of {side} pixels; -t must be a multiple of 16, so it cannot serve"
        )
    return ModelError(f"{kind} {spec} is {sides[0]} by {sides[1]} pixels; tiles are square, here {tile} by {tile}")


def _channels_first(spec: TensorSpec, dims: tuple[int | None, ...], tile: int) -> bool:
    """Tell where the three colours are. The sizes decide where both ends are 3, since no tile is 3 pixels wide."""
    layouts = [(False, dims[2], dims[:2]), (True, dims[0], dims[1:])]
    coloured = [(first, sides) for first, colours, sides in layouts if colours == 3]
    for first, sides in coloured:
        if _fits(sides, tile):
            return first
    if coloured:
        raise _wrong_side("input", spec, coloured[0][1], tile)
    raise ModelError(
        f"input {spec} has no axis of 3 colours; expected height, width, 3 or 3, height, width, with or without a "
        "batch axis before them"
    )


def _output_plan(spec: TensorSpec, tile: int, batched: bool, channels_first: bool) -> OutputPlan:
    _check_dtype("output", spec)
    dims = spec.shape[1:] if batched else spec.shape
    if len(dims) == 2:
        if not _fits(dims, tile):
            raise _wrong_side("output", spec, dims, tile)
        return OutputPlan(spec, None, 1)
    if len(dims) != 3:
        batch = "batch, " if batched else ""
        raise ModelError(
            f"output {spec} has {len(spec.shape)} axes; expected maps: [{batch}height, width, channels], "
            f"[{batch}channels, height, width] or [{batch}height, width]"
        )
    layouts = [(2, dims[2], dims[:2]), (0, dims[0], dims[1:])]
    if channels_first:
        layouts.reverse()  # where nothing else decides, outputs are laid out like the input
    # A channel axis of known size that is not T itself is the surest sign; maps by the hundred are not to be expected.
    layouts.sort(key=lambda layout: layout[1] is None or layout[1] == tile)
    for axis, channels, sides in layouts:
        if _fits(sides, tile):
            return OutputPlan(spec, axis, channels)
    # Say what is wrong with the likelier reading: few channels, or else the input's layout.
    likely = min(layouts, key=lambda layout: layout[1] if layout[1] is not None else tile)
    raise _wrong_side("output", spec, likely[2], tile)


def _to_bytes(spec: TensorSpec, array: Array, logit: bool) -> Pixels:
    values = array.astype(np.float32)
    if logit:
        # exp(-|x|) cannot overflow; NaN passes through to the check below.
        small = np.exp(-np.abs(values))
        values = np.where(values >= 0, 1 / (1 + small), small / (1 + small))
    low, high = float(values.min()), float(values.max())
    # Written so that NaN, which compares as False, fails.
    if not (low >= -TOLERANCE and high <= 1 + TOLERANCE):
        hint = "" if logit else "; set models.output to logit if the model ends without a sigmoid"
        raise ModelError(f"output {spec} ranges from {low:.4g} to {high:.4g}; expected probabilities, 0 to 1{hint}")
    maps: Pixels = np.rint(np.clip(values, 0.0, 1.0) * np.float32(255)).astype(np.uint8)
    return maps
