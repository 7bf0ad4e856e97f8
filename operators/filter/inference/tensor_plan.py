"""The plan by which any segmentation model is used: tiles to the model's input, the model's outputs to maps.

A model must have one input for RGB images, and each of its outputs must be one or several maps of the same height and
width. Everything else is read from the names, dtypes and shapes of its tensors, which an ONNX file and a Triton server
both report: channels last or first, dtype, whether there is a batch axis, and fixed sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from nuclei_segmentation.shared.batches import Pixels
from nuclei_segmentation.shared.errors import ModelError

Array = npt.NDArray[Any]

#: How far outside [0, 1] a probability may lie before the model is refused. Models in float16 do leave the range.
TOLERANCE = 1e-3

_DTYPES = ("uint8", "float16", "float32")

Reading = Literal["sigmoid", "logit", "mask"]
"""What the values of a map mean; see `ModelsSettings.output`."""

_SHARES = {Fraction(1, 2): "half", Fraction(1, 4): "a quarter of", Fraction(1, 8): "an eighth of", Fraction(2): "twice"}
"""How much of the tile's size a map has, in words."""


class WrongSize(ModelError):
    """A tensor has another size than the tile.

    Parameters
    ----------
    message : str
        What is wrong.
    side : int or None
        A tile size that might fit, which only an inference can show; None if there is none.
    """

    def __init__(self, message: str, side: int | None = None) -> None:
        self.side = side
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """What a model says about one of its tensors.

    Attributes
    ----------
    name : str
        The model's name for it.
    dtype : str
        NumPy's name for the type.
    shape : tuple of int or None
        All axes, including the batch axis if there is one; None where the size is free.
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
        The axis of channels, not counting the batch axis: 2 (last), 0 (first), or None (one map, no such axis).
    channels : int or None
        Number of maps; None if only an inference can show it.
    """

    spec: TensorSpec
    channel_axis: int | None
    channels: int | None


@dataclass(frozen=True, slots=True)
class TensorPlan:
    """How to make a model's input and read its outputs. Made by `make_plan`.

    Attributes
    ----------
    tile : int
        T, pixels.
    input : TensorSpec
        The image tensor.
    channels_first : bool
        Whether it is (…, 3, T, T) rather than (…, T, T, 3).
    batched : bool
        Whether it has a batch axis. If not, each tile is a request of its own.
    fixed_batch : int or None
        The size of the batch axis if the model fixes it. Smaller batches are padded.
    outputs : tuple of OutputPlan
        In the model's order, in which their channels are joined.
    input_scale : float
        Factor for the pixel values of float inputs.
    reading : str
        ``sigmoid``, ``logit`` or ``mask``: what the values of the maps mean.
    order : tuple of int or None
        For each map, which of the joined channels it is; None if the order stays.
    """

    tile: int
    input: TensorSpec
    channels_first: bool
    batched: bool
    fixed_batch: int | None
    outputs: tuple[OutputPlan, ...]
    input_scale: float
    reading: Reading
    order: tuple[int, ...] | None = None

    @property
    def channels(self) -> int | None:
        """Maps per tile; None if only an inference can show it."""
        total = 0
        for output in self.outputs:
            if output.channels is None:
                return None
            total += output.channels
        return total

    def limit(self, batch: int) -> int:
        """Return how many tiles a request holds if it should hold at most `batch`."""
        if not self.batched:
            return 1
        return self.fixed_batch or max(1, batch)

    def encode(self, pixels: Pixels) -> Array:
        """Turn tiles into the model's input.

        Parameters
        ----------
        pixels : numpy.ndarray
            (b, T, T, 3) uint8 RGB, b at most `limit`.

        Returns
        -------
        numpy.ndarray
            The input of one request, contiguous, of the input's dtype and rank.
        """
        if self.fixed_batch is not None and len(pixels) < self.fixed_batch:
            padding = np.zeros((self.fixed_batch - len(pixels), *pixels.shape[1:]), np.uint8)
            pixels = np.concatenate([pixels, padding])
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
            b, the number of tiles in the request, without padding.

        Returns
        -------
        numpy.ndarray
            (b, T, T, C) uint8, contiguous.

        Raises
        ------
        ModelError
            The dtype or shape is wrong, or a value is NaN or outside [0, 1], or above 1 in a mask.
        """
        maps = []
        for output, array in zip(self.outputs, arrays, strict=True):
            rows = self.fixed_batch or count
            if array.dtype != np.dtype(output.spec.dtype):
                raise ModelError(f"output {output.spec} was returned as {array.dtype}")
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
                tiles = "1 tile" if count == 1 else f"{count} tiles"
                raise ModelError(
                    f"output {output.spec} was returned with shape {list(array.shape)}, channels last, for {tiles} of "
                    f"{self.tile} pixels; expected {list(expected)}"
                )
            if array.dtype != np.uint8:
                array = _to_bytes(output.spec, array, self.reading)
            elif self.reading == "mask":
                array = _mask_to_bytes(output.spec, array)
            maps.append(array)
        joined = maps[0] if len(maps) == 1 else np.concatenate(maps, axis=-1)
        return np.ascontiguousarray(joined if self.order is None else joined[..., list(self.order)])

    def run(self, pixels: Pixels, batch: int, call: Callable[[Array], Sequence[Array]]) -> Pixels:
        """Infer any number of tiles, in as many requests as it takes.

        Parameters
        ----------
        pixels : numpy.ndarray
            (b, T, T, 3) uint8 RGB, b from 0.
        batch : int
            Most tiles per request.
        call : callable
            Sends one request: takes the model's input, returns its outputs.

        Returns
        -------
        numpy.ndarray
            (b, T, T, C) uint8.

        Raises
        ------
        ModelError
            See `decode`.
        """
        if pixels.ndim != 4 or pixels.shape[1:] != (self.tile, self.tile, 3) or pixels.dtype != np.uint8:
            raise ValueError(f"tiles must be (b, {self.tile}, {self.tile}, 3) uint8, not {pixels.shape} {pixels.dtype}")
        step = self.limit(batch)
        pixels = np.asarray(pixels)  # the same memory, but faster to slice than a memmap
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
    reading: Reading = "sigmoid",
) -> TensorPlan:
    """Find out how to use a model.

    Parameters
    ----------
    inputs : Sequence of TensorSpec
        The model's inputs.
    outputs : Sequence of TensorSpec
        The model's outputs.
    tile : int
        T, the tile size of the run, pixels.
    input_scale : float, optional
        See `TensorPlan`; the tensors do not show it.
    reading : str, optional
        See `TensorPlan`; the tensors do not show it.

    Returns
    -------
    TensorPlan
        How to use the model.

    Raises
    ------
    ModelError
        The model does not fit. The message names the tensor, its shape and what is expected.
    """
    if len(inputs) != 1:
        raise ModelError(
            f"the model has {len(inputs)} inputs ({', '.join(map(str, inputs)) or 'none'}); it must have one, the image"
        )
    if not outputs:
        raise ModelError("the model has no output; it must have at least one, for the maps")
    image = inputs[0]
    _check_dtype("input", image)
    if len(image.shape) not in (3, 4):
        raise ModelError(
            f"input {image} has {_axes(image)}; expected [height, width, 3] or [3, height, width], with or "
            "without a batch axis before them"
        )
    batched = len(image.shape) == 4
    channels_first = _channels_first(image, image.shape[-3:], tile)
    return TensorPlan(
        tile=tile,
        input=image,
        channels_first=channels_first,
        batched=batched,
        fixed_batch=image.shape[0] if batched else None,
        outputs=tuple(_output_plan(spec, tile, batched, channels_first) for spec in outputs),
        input_scale=input_scale,
        reading=reading,
    )


def _axes(spec: TensorSpec) -> str:
    return "1 axis" if len(spec.shape) == 1 else f"{len(spec.shape)} axes"


def _check_dtype(kind: str, spec: TensorSpec) -> None:
    if spec.dtype not in _DTYPES:
        raise ModelError(f"{kind} {spec} is of type {spec.dtype}; expected one of {', '.join(_DTYPES)}")


def _check_rows(spec: TensorSpec, array: Array, rows: int) -> None:
    if array.ndim != len(spec.shape) or len(array) != rows:
        raise ModelError(f"output {spec} was returned with shape {list(array.shape)} for a batch of {rows}")


def _fits(sides: Iterable[int | None], tile: int) -> bool:
    return all(side is None or side == tile for side in sides)


def _wrong_input_side(spec: TensorSpec, sides: tuple[int | None, ...], tile: int) -> ModelError:
    fixed = {side for side in sides if side is not None}
    if len(fixed) > 1:
        return ModelError(f"input {spec} is {sides[0]} by {sides[1]} pixels; tiles are square, here {tile} by {tile}")
    (side,) = fixed
    if not _is_tile_size(side):
        return ModelError(
            f"input {spec} is for tiles of {side} pixels; -t must be a multiple of 16 from 16 to 8192, so the model "
            "cannot be used"
        )
    return WrongSize(f"input {spec} is for tiles of {side} pixels, not {tile}", side)


def _wrong_output_side(spec: TensorSpec, sides: tuple[int | None, ...], tile: int) -> ModelError:
    height, width = (tile if side is None else side for side in sides)
    share = _SHARES.get(Fraction(height, tile)) if height == width else None
    comparison = f"{share} the size of its input" if share else "another size than its input"
    return WrongSize(
        f"output {spec} has a map of {height} by {width} pixels for a tile of {tile}: {comparison}; a map must be as "
        "large as the tile",
        height if height == width and _is_tile_size(height) else None,
    )


def _is_tile_size(side: int) -> bool:
    return side % 16 == 0 and 16 <= side <= 8192


def _channels_first(spec: TensorSpec, dims: tuple[int | None, ...], tile: int) -> bool:
    """Tell whether the colour channels come first. If both ends are 3, the sizes decide: no tile is 3 pixels wide."""
    layouts = [(False, dims[2], dims[:2]), (True, dims[0], dims[1:])]
    possible = [(first, sides) for first, channels, sides in layouts if channels == 3]
    for first, sides in possible:
        if _fits(sides, tile):
            return first
    if possible:
        raise _wrong_input_side(spec, possible[0][1], tile)
    raise ModelError(
        f"input {spec} has no axis of 3 colour channels; expected [height, width, 3] or [3, height, width], with or "
        "without a batch axis before them"
    )


def _output_plan(spec: TensorSpec, tile: int, batched: bool, channels_first: bool) -> OutputPlan:
    _check_dtype("output", spec)
    dims = spec.shape[1:] if batched else spec.shape
    if len(dims) == 2:
        if not _fits(dims, tile):
            raise _wrong_output_side(spec, dims, tile)
        return OutputPlan(spec, None, 1)
    if len(dims) != 3:
        batch = "batch, " if batched else ""
        raise ModelError(
            f"output {spec} has {_axes(spec)}; expected maps: [{batch}height, width, channels], "
            f"[{batch}channels, height, width] or [{batch}height, width]"
        )
    layouts = [(2, dims[2], dims[:2]), (0, dims[0], dims[1:])]
    if channels_first:
        layouts.reverse()  # if nothing else decides, outputs are laid out like the input
    # The surest sign is a channel axis of known size that is not T: no model returns as many maps as a tile is wide.
    layouts.sort(key=lambda layout: layout[1] is None or layout[1] == tile)
    for axis, channels, sides in layouts:
        if _fits(sides, tile):
            return OutputPlan(spec, axis, channels)
    # The message describes the likelier layout: that with few channels, or else the input's.
    likely = min(layouts, key=lambda layout: layout[1] if layout[1] is not None else tile)
    raise _wrong_output_side(spec, likely[2], tile)


def _to_bytes(spec: TensorSpec, array: Array, reading: Reading) -> Pixels:
    values = array.astype(np.float32)
    if reading == "logit":
        # exp(-|x|) cannot overflow. NaN stays NaN and fails the check below.
        small = np.exp(-np.abs(values))
        values = np.where(values >= 0, 1 / (1 + small), small / (1 + small))
    low, high = float(values.min()), float(values.max())
    # Written so that NaN, which compares as False, fails.
    if not (low >= -TOLERANCE and high <= 1 + TOLERANCE):
        # Of values that are never negative the logistic function would make nuclei everywhere.
        hint = "; set models.output to logit if the model ends without a sigmoid" if low < -TOLERANCE else ""
        raise ModelError(f"output {spec} ranges from {low:.4g} to {high:.4g}; expected probabilities, 0 to 1{hint}")
    maps: Pixels = np.rint(np.clip(values, 0.0, 1.0) * np.float32(255)).astype(np.uint8)
    return maps


def _mask_to_bytes(spec: TensorSpec, array: Pixels) -> Pixels:
    if array.size and (high := int(array.max())) > 1:
        raise ModelError(f"output {spec} has values up to {high}; with models.output: mask it must have only 0 and 1")
    maps: Pixels = array * np.uint8(255)
    return maps
