"""What is known of NVIDIA's sizing tool, ``cpost``: the Docker commands that it runs, word for word.

Source: NVIDIA/clara-pipeline-operator-sizing-tool, `build_operator_cmd` and `start_triton`. Container tests compare
these commands with what the tool executes. Operators made for Clara rely on the same names of variables, so they are
used for all engines.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from nuclei_segmentation.shared.settings.environment import NO_SYNC_LOCK

TRITON_HTTP_VARIABLES = ("NVIDIA_TRITON_HTTPURI", "CLARA_TRITON_URI", "NVIDIA_CLARA_TRTISURI")
"""Variables in which an operator that lists `models` finds the HTTP address of Triton."""
TRITON_GRPC_VARIABLE = "NVIDIA_TRITON_GRPCURI"
"""The variable with Triton's gRPC address."""
TRITON_HTTP_PORT, TRITON_GRPC_PORT = 8000, 8001

SERVICE_DATA = "$(NVIDIA_CLARA_SERVICE_DATA_PATH)"
"""Stands in a service's command for the folder in which Clara mounts the folder ``models``. Here it is the root."""

TRITON_ADDRESS = "TRITON_IP"
"""Stands for the address of a Triton server, which the tool knows only once the server runs."""
TRITON_IMAGE = "nvcr.io/nvidia/tritonserver:20.07-v1-py3"
"""The server that the tool starts for operators that list `models`."""

_MODELS = "/models"
_RUN_OPERATOR = ("docker", "run", "-d", "--rm", "--env", f"{NO_SYNC_LOCK}=1")
_RUN_TRITON = ("docker", "run", "--gpus=1", "--rm", "-d", "-p8000:8000", "-p8001:8001", "-p8002:8002")


def is_triton(service: str) -> bool:
    """Return whether the tool takes a service of this name for a Triton server. It starts no other services."""
    return "trtis" in service or "triton" in service


def triton_variables(address: str) -> dict[str, str]:
    """Return the variables of an operator that lists `models`; `address` is that of Triton, without a port."""
    http = dict.fromkeys(TRITON_HTTP_VARIABLES, f"{address}:{TRITON_HTTP_PORT}")
    return {**http, TRITON_GRPC_VARIABLE: f"{address}:{TRITON_GRPC_PORT}"}


def operator_command(
    image: str,
    command: Sequence[str],
    variables: Iterable[tuple[str, str]],
    mounts: Iterable[tuple[Path, str]],
) -> tuple[str, ...]:
    """Return the tool's command for an operator.

    Parameters
    ----------
    image : str
        Name and tag.
    command : Sequence of str
        The operator's own command; empty for that of the image.
    variables : Iterable of tuple of str
        Names and values, in the tool's order. A name may occur twice.
    mounts : Iterable of tuple of (pathlib.Path, str)
        Folders of this machine, and their paths in the container.

    Returns
    -------
    tuple of str
        The words of a ``docker run``.
    """
    words = [word for name, value in variables for word in ("--env", f"{name}={value}")]
    words += [word for folder, path in mounts for word in ("-v", f"{folder}:{path}")]
    return (*_RUN_OPERATOR, *words, image, *command)


def triton_command(models: Path, image: str, command: Sequence[str]) -> tuple[str, ...]:
    """Return the tool's command for a Triton server.

    Parameters
    ----------
    models : pathlib.Path
        The folder with the models.
    image : str
        Name and tag.
    command : Sequence of str
        The server's own command.

    Returns
    -------
    tuple of str
        The words of a ``docker run``.
    """
    return (*_RUN_TRITON, "-v", f"{models}:{_MODELS}", image, *map(without_service_data, command))


def serve_models(names: Iterable[str], repository: str = _MODELS) -> tuple[str, ...]:
    """Return the command of a Triton server that loads some models and no others.

    Parameters
    ----------
    names : Iterable of str
        The models.
    repository : str, optional
        The folder with the models, as the server's container sees it.

    Returns
    -------
    tuple of str
        The words of the command.
    """
    loads = (f"--load-model={name}" for name in names)
    return ("tritonserver", f"--model-repository={repository}", "--model-control-mode=explicit", *loads)


def without_service_data(word: str) -> str:
    """Return a word with `SERVICE_DATA` replaced by the root folder, where models are mounted here."""
    return word.replace(SERVICE_DATA, "")
