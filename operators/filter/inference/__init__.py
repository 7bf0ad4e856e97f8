"""Inference: the interface `Engine`, and the engines that implement it."""

from nuclei_segmentation.operators.filter.inference.engine import Engine, ModelInfo
from nuclei_segmentation.shared.errors import ModelError, UsageError
from nuclei_segmentation.shared.settings import Settings

__all__ = ["Engine", "ModelInfo", "describe_model", "open_engine"]


def open_engine(settings: Settings) -> Engine:
    """Open the engine that the settings name, and try its model with one tile.

    Parameters
    ----------
    settings : Settings
        The engine is Triton if `Settings.triton_servers` names servers, and the embedded engine otherwise. Neither
        ever replaces the other.

    Returns
    -------
    Engine
        An engine whose model fits. Close it after use.

    Raises
    ------
    UsageError
        The address of a server is not ``host:port``, or the package tritonclient is not installed.
    ModelError
        The model is missing or unfit.
    InferenceUnavailable
        No server answers.
    """
    # Imported here: each engine's libraries cost 0.1 s and 70 MiB, and an image may have only one of them.
    if settings.triton_servers:
        try:
            from nuclei_segmentation.operators.filter.inference.triton.engine import TritonEngine
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != "tritonclient":
                raise
            raise UsageError(
                f"{settings.triton_variable or 'triton_servers'} names a Triton server, but the package tritonclient "
                "is not installed: pip install 'nuclei-segmentation-operators[triton]'"
            ) from error

        return TritonEngine(settings)
    from nuclei_segmentation.operators.filter.inference.embedded.engine import EmbeddedEngine

    return EmbeddedEngine(settings)


def describe_model(settings: Settings) -> str:
    """Return the model that `open_engine` would use, in words.

    Parameters
    ----------
    settings : Settings
        As for `open_engine`. No server is asked.

    Returns
    -------
    str
        Its name and precision; "missing" where the embedded engine has no such model.
    """
    if settings.triton_servers:
        return f"{settings.model_name} on Triton at {', '.join(settings.triton_servers)}"
    from nuclei_segmentation.operators.filter.inference.embedded.model_files import choose_model

    try:
        chosen, precision = choose_model(settings)
    except ModelError:  # opening it says why
        return f"{settings.model_name} (missing)"
    return f"{settings.model_name} ({precision}, SHA-256 {chosen.sha256[:12]})"
