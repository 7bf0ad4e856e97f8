"""Finds the file of the model that the embedded engine computes with: in a repository, as fp32 or int8."""

from __future__ import annotations

import hashlib
import logging
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped] # comes with onnx, without types

from nuclei_segmentation.operators.filter.inference.embedded import external_data
from nuclei_segmentation.operators.filter.inference.embedded.external_data import ExternalFile, ExternalTensor
from nuclei_segmentation.shared.errors import ModelError
from nuclei_segmentation.shared.runtime.files import read_regular
from nuclei_segmentation.shared.runtime.resources import human
from nuclei_segmentation.shared.settings import Settings

log = logging.getLogger(__name__)

#: The name of a model's int8 sibling ends in this.
INT8 = "_int8"

#: Most bytes of an ONNX file: protobuf holds no more.
_LARGEST_ONNX = 2 << 30

#: Metadata entry of a sibling: the SHA-256 of the file that it was made from.
QUANTISED_FROM = "quantised_from"


def _repositories() -> tuple[Path, ...]:
    """Return the folders that may hold the bundled models: the images' own, and the package's."""
    of_images = Path("/app/models")
    try:
        return of_images, Path(str(resources.files("nuclei_segmentation.models")))
    except ModuleNotFoundError:
        return (of_images,)


#: Where models are looked for if the settings name no repository: the first folder that exists.
DEFAULT_REPOSITORIES = _repositories()


class ModelFile(NamedTuple):
    """A model that was read.

    Attributes
    ----------
    path : pathlib.Path
        The file.
    model : onnx.ModelProto
        Its content, without tensors that are kept in other files.
    sha256 : str
        Of all files of the model, hexadecimal.
    """

    path: Path
    model: onnx.ModelProto
    sha256: str


def find_model(repository: Path | None, name: str) -> Path:
    """Find a model's file in a repository of Triton's layout, ``<name>/<version>/model.onnx``.

    Parameters
    ----------
    repository : pathlib.Path or None
        The folder; None takes the first of `DEFAULT_REPOSITORIES` that exists.
    name : str
        The model's name.

    Returns
    -------
    pathlib.Path
        The file of the highest version.

    Raises
    ------
    ModelError
        There is no such model; the message lists those that are there.
    """
    if repository is None:
        repository = next((folder for folder in DEFAULT_REPOSITORIES if folder.is_dir()), None)
        if repository is None:
            places = " or ".join(map(str, DEFAULT_REPOSITORIES))
            raise ModelError(f"no model repository at {places}; name one in config.yaml: models.repository")
    if not repository.is_dir():
        raise ModelError(f"the model repository {repository} (models.repository) is not a folder")
    files = {file for file in repository.glob("*/*/model.onnx") if file.parent.name.isdecimal()}
    if name in ("", ".", "..") or "/" in name:
        raise ModelError(f"'{name}' (-m) is not a model's name")
    versions = {int(file.parent.name): file for file in files if file.parent.parent.name == name}
    if not versions:
        available = ", ".join(sorted({file.parent.parent.name for file in files})) or "none"
        raise ModelError(
            f"model {name} (-m) is missing: no {repository / name}/<version number>/model.onnx; "
            f"available models: {available}"
        )
    return versions[max(versions)]


def choose_model(settings: Settings) -> tuple[ModelFile, str]:
    """Return the model to compute with, and its precision.

    Parameters
    ----------
    settings : Settings
        Repository, name and precision.

    Returns
    -------
    file : ModelFile
        The int8 sibling if there is one and the settings allow it, else the named model.
    precision : str
        ``int8`` for a sibling, else ``fp32``.

    Raises
    ------
    ModelError
        The model is missing or cannot be read.
    """
    return _choose(settings.models.repository, settings.model_name, settings.inference.precision)


def forget_choice() -> None:
    """Read the files anew next time: others may take their place, and the content is large."""
    _choose.cache_clear()


@lru_cache(maxsize=1)  # the first line of the log names the model, and then the engine opens it
def _choose(repository: Path | None, name: str, precision: str) -> tuple[ModelFile, str]:
    named = _read(find_model(repository, name))
    if precision == "int8" and (sibling := _int8_sibling(named)) is not None:
        log.debug("model %s is computed in int8: %s", name, sibling.path)
        return sibling, "int8"
    return named, "fp32"


def _int8_sibling(named: ModelFile) -> ModelFile | None:
    """Return the int8 model that was made from a model, or None.

    It is in the folder next to the model's, whose name ends in ``_int8``. Its metadata say which file it was made from.
    If that file was replaced by another model, the sibling does not belong to it and is not used.
    """
    folder = named.path.parents[1]
    name = f"{folder.name}{INT8}"
    if not (folder.parent / name).is_dir():
        return None
    sibling = _read(find_model(folder.parent, name))
    made_from = next((entry.value for entry in sibling.model.metadata_props if entry.key == QUANTISED_FROM), None)
    if made_from != named.sha256:
        log.warning("%s was not made from %s; the latter is used, in its own precision", sibling.path, named.path)
        return None
    return sibling


def _read(path: Path) -> ModelFile:
    try:
        if path.stat().st_size > _LARGEST_ONNX:
            raise ModelError(f"{path} is not an ONNX model: it has more than {human(_LARGEST_ONNX)}")
        content = read_regular(path, _LARGEST_ONNX)
        if content is None:
            raise ModelError(f"{path} is not a regular file")
        model = onnx.load_model_from_string(content)
        if not model.graph.output:
            raise ModelError(f"{path} is not an ONNX model: it has no output")
        digest = hashlib.sha256(content)
        _read_external(model, path, digest)
    except OSError as error:
        raise ModelError(f"{error.filename} cannot be read: {error.strerror}") from error
    except DecodeError as error:
        raise ModelError(f"{path} is not an ONNX model: {' '.join(str(error).split())}") from error
    return ModelFile(path, model, digest.hexdigest())


def _read_external(model: onnx.ModelProto, path: Path, digest: hashlib._Hash) -> None:
    """Add the files that hold tensors of a model to its hash, as far as tensors are in them."""
    by_file: dict[str, list[ExternalTensor]] = {}
    for one in external_data.external_tensors(model, path):
        by_file.setdefault(one.file, []).append(one)
    left = external_data.LARGEST
    for name, tensors in sorted(by_file.items()):
        with ExternalFile(path.parent, name) as file:
            end = max(file.size if one.length is None else one.offset + one.length for one in tensors)
            if end > file.size:
                raise ModelError(f"{file.path} is shorter than {path} says: {file.size} bytes instead of {end}")
            left -= end
            if left < 0:
                raise ModelError(f"{path}: the weights take more than {human(external_data.LARGEST)}")
            for chunk in file.chunks(0, end):
                digest.update(chunk)
