"""The interface of all engines, and what they report about their model."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from nuclei_segmentation.operators.filter.inference.alternatives import Alternative
from nuclei_segmentation.shared.batches import Pixels
from nuclei_segmentation.shared.runtime.closing import Closing


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What an engine reports about its model.

    Attributes
    ----------
    name : str
        As given by ``--model-name``.
    engine : str
        ``embedded``, ``triton`` or ``mock``.
    identity : str
        Identifies the model's exact content, for the run key. Embedded engine: the SHA-256 of the model file, and the
        precision. Triton: a hash of what the server reports (name, versions, platform, tensors, configuration).
    channels : tuple of str
        Names of the maps; the first is ``nucleus``.
    halo : int or None
        Pixels to cut off at each side of a tile so that tiling is exact; None if the receptive field is unknown.
    batch : int
        Tiles per request that suit the engine and the model.
    mpp : tuple of float or None
        Lowest and highest µm per pixel that the model was trained for; None if unknown.
    grid : int or None
        Tiling is exact only if tiles start at multiples of this number and their size is one; None as for `halo`.
    """

    name: str
    engine: str
    identity: str
    channels: tuple[str, ...]
    halo: int | None
    batch: int
    mpp: tuple[float, float] | None
    grid: int | None = None


class Engine(Closing):
    """Turns tiles into maps. Several threads may call `infer` at once.

    Attributes
    ----------
    info : ModelInfo
        The model.
    in_flight : int or None
        For a server: how many calls of `infer` are worth having under way at once. None if the calling thread does the
        work, so that the number of workers decides.
    """

    info: ModelInfo
    in_flight: int | None = None

    @abstractmethod
    def infer(self, pixels: Pixels) -> Pixels:
        """Return the maps of some tiles.

        Parameters
        ----------
        pixels : numpy.ndarray
            (b, T, T, 3) uint8 RGB.

        Returns
        -------
        numpy.ndarray
            (b, T, T, C) uint8: probability times 255, rounded.

        Raises
        ------
        ModelError
            The model does not do what its metadata says.
        InferenceUnavailable
            The server failed in all attempts.
        """

    def memory_needed(self, tile: int, workers: int) -> int:
        """Return how much anonymous memory inference takes in this process.

        Parameters
        ----------
        tile : int
            Side of a tile in pixels.
        workers : int
            Calls of `infer` at once.

        Returns
        -------
        int
            Bytes.
        """
        return 0

    def alternatives(self) -> Sequence[Alternative]:
        """Return other ways to use the model, which other settings would give."""
        return ()

    @abstractmethod
    def close(self) -> None:
        """Release what the engine holds."""
