"""Reads what a model says about itself: ``metadata_props`` of an ONNX file, ``parameters`` of Triton's configuration.

Both are texts by key. docs/models.md lists the keys.
"""

from __future__ import annotations

from collections.abc import Mapping

from nuclei_segmentation.shared.errors import ModelError


def mpp_range(metadata: Mapping[str, str], source: str) -> tuple[float, float] | None:
    """Return the µm per pixel that the model was trained for.

    Parameters
    ----------
    metadata : Mapping of str to str
        The model's texts.
    source : str
        Where they come from, for messages.

    Returns
    -------
    tuple of float or None
        The lowest and the highest; None if one of them is missing.

    Raises
    ------
    ModelError
        One of them is not a number.
    """
    if "mpp_min" not in metadata or "mpp_max" not in metadata:
        return None
    try:
        return float(metadata["mpp_min"]), float(metadata["mpp_max"])
    except ValueError as error:
        raise ModelError(f"{source}: mpp_min and mpp_max must be numbers: {error}") from error


def whole_number(metadata: Mapping[str, str], key: str, source: str) -> int | None:
    """Return a number from 0 up, such as ``halo``.

    Parameters
    ----------
    metadata : Mapping of str to str
        The model's texts.
    key : str
        Which of them.
    source : str
        Where they come from, for messages.

    Returns
    -------
    int or None
        None if the key is missing.

    Raises
    ------
    ModelError
        The text is not a whole number.
    """
    text = metadata.get(key)
    if text is None:
        return None
    if not text.isdecimal():
        raise ModelError(f"{source}: {key} must be a whole number, not '{text}'")
    return int(text)


def channel_names(metadata: Mapping[str, str], count: int) -> tuple[str, ...] | None:
    """Return the names of the maps, in the model's order.

    Parameters
    ----------
    metadata : Mapping of str to str
        The model's texts.
    count : int
        How many maps the model returns.

    Returns
    -------
    tuple of str or None
        None if the model does not name them.

    Raises
    ------
    ModelError
        There are more or fewer names than maps, or a name occurs twice.
    """
    text = metadata.get("channels")
    if not text:
        return None
    names = tuple(name.strip() for name in text.split(","))
    if len(names) != count or len(set(names)) != count:
        maps = "1 map" if count == 1 else f"{count} maps"
        raise ModelError(f"its metadata names the channels '{text}', but it returns {maps}")
    return names
