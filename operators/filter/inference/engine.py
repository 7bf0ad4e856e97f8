"""The port to inference: what every engine offers, and what is known of a model."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

from nuclei_segmentation.shared.batches import Pixels
from nuclei_segmentation.shared.runtime.closing import Closing


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What is known of the model behind an engine.

    Attributes
    ----------
    name : str
        As given by ``--model-name``.
    engine : str
        ``embedded``, ``triton`` or ``mock``.
    identity : str
        Names the model's exact content for the run key: the SHA-256 of the model file with the precision for the
        embedded engine; what the server tells (name, version, platform, tensors) for Triton.
    channels : tuple of str
        Names of the maps' channels; the first is ``nucleus``.
    halo : int or None
        Pixels around a point on which the model's answer there depends, rounded up to what makes tiling exact; None
        where the graph is not at hand.
    batch : int
        Tiles per request that suit the engine and model.
    mpp : tuple of float or None
        The range of µm per pixel that the model was made for, or None.
    grid : int or None
        With a halo, tiling is exact only where tiles start at multiples of this and their size is one; None as `halo`.
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
    """Something that turns tiles into maps. `infer` may be called from several threads at once.

    Attributes
    ----------
    info : ModelInfo
        What is known of the model.
    in_flight : int or None
        Calls of `infer` worth having under way at once where the work is done elsewhere (a server); None where it is
        done by the calling thread, so that the number of workers decides.
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
            (b, T, T, C) uint8; probability times 255, rounded.

        Raises
        ------
        ModelError
            The model does not do what its metadata says.
        InferenceUnavailable
            The server did not answer in time, however often it was asked.
        """

    def memory_needed(self, tile: int, workers: int) -> int:
        """Return the bytes of anonymous memory that inference takes in this process; 0 where a server does it.

        Parameters
        ----------
        tile : int
            Side of a tile in pixels.
        workers : int
            Calls of `infer` at once.
        """
        return 0

    @abstractmethod
    def close(self) -> None:
        """Give back what is held."""
