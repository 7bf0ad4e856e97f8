"""How a Triton server describes a model, and the requests that find it out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nuclei_segmentation.operators.filter.inference.tensor_plan import TensorSpec
from nuclei_segmentation.operators.filter.inference.triton.connection import Connection, Garbled
from nuclei_segmentation.operators.filter.inference.triton.kserve import Refused, model_path, numpy_dtype, query
from nuclei_segmentation.shared.errors import ModelError

#: Statuses of a server that is not ready yet, or of a gateway in front of it.
BUSY = (408, 429, 502, 503, 504)

#: The parts of a model's configuration that can change its outputs. Instances and queues cannot.
_IDENTIFYING = ("platform", "backend", "input", "output", "parameters", "default_model_filename", "optimization")


class NotTriton(Exception):
    """Something other than a Triton server listens there."""


class NotReady(Exception):
    """The server is there, but not ready, or the model is not loaded at the moment."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model as a server describes it.

    Attributes
    ----------
    inputs : tuple of TensorSpec
        With the batch axis, if there is one.
    outputs : tuple of TensorSpec
        With the batch axis, if there is one.
    datatype : str
        Of the input, as the protocol names it.
    max_batch : int or None
        Most tiles per request; None if the configuration sets no limit.
    metadata : Mapping of str to str
        The parameters of the configuration; see `model_metadata`.
    identity : str
        A hash of everything in the description that can change the outputs.
    server_metadata : Mapping of str to object
        The server's version and extensions.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    datatype: str
    max_batch: int | None
    metadata: Mapping[str, str]
    identity: str
    server_metadata: Mapping[str, Any]


def describe_model(connection: Connection, model: str, seconds: float) -> ServedModel:
    """Check that a server is a Triton server and that the model is ready, and return the model's description.

    Parameters
    ----------
    connection : Connection
        To the server.
    model : str
        The model's name.
    seconds : float
        Deadline of each request.

    Raises
    ------
    Unanswered
        Nothing listens there, or it hangs.
    NotTriton
        Something else listens there.
    NotReady
        The server is starting, or is loading the model.
    Garbled
        The description is incomplete.
    ModelError
        The server does not have the model, or could not load it.
    """
    server_metadata = _server_metadata(connection, seconds)
    try:
        query(connection, model_path(model, "/ready"), seconds)
    except Refused as error:
        if error.status in BUSY:
            raise NotReady(f"the server is not ready: {error}") from error
        raise _why_not_ready(connection, model, seconds) from error
    try:
        metadata = query(connection, model_path(model), seconds)
        config = query(connection, model_path(model, "/config"), seconds)
    except Refused as error:
        # It was ready a moment ago.
        raise NotReady(f"the server does not describe the model: {error}") from error
    try:
        return _served_model(server_metadata, metadata, config)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Garbled(f"the server's description of the model is incomplete ({error!r})") from error


def _server_metadata(connection: Connection, seconds: float) -> Mapping[str, Any]:
    try:
        metadata = query(connection, "/v2", seconds)
    except Refused as error:
        if error.status in BUSY:
            raise NotReady(f"the server is not ready: {error}") from error
        raise NotTriton(f"it answers {error}") from error
    except Garbled as error:
        raise NotTriton(str(error)) from error
    if not isinstance(metadata, dict) or "extensions" not in metadata:
        raise NotTriton("it does not describe itself as Triton does")
    return metadata


def _why_not_ready(connection: Connection, model: str, seconds: float) -> Exception:
    try:
        index = query(connection, "/v2/repository/index", seconds, {})
        states = {entry["name"]: (entry.get("state", ""), entry.get("reason", "")) for entry in index}
    except Refused as error:
        return NotReady(f"the model is not ready, and the server does not say why: {error}")
    except (KeyError, TypeError, AttributeError) as error:
        return Garbled(f"the server's list of models is incomplete ({error!r})")
    if model not in states:
        available = ", ".join(sorted(states)) or "none"
        return ModelError(f"the server has no model {model} (-m); available models: {available}")
    state, reason = states[model]
    if state in ("LOADING", "READY") or reason == "unloading":
        return NotReady(f"model {model} is {(reason or state).lower()}")
    if state == "UNAVAILABLE" and reason not in ("", "unloaded"):
        return ModelError(f"the server could not load model {model}: {' '.join(reason.split())}")
    return ModelError(f"model {model} is in the server's repository but not loaded; load it there")


def _served_model(
    server_metadata: Mapping[str, Any], metadata: Mapping[str, Any], config: Mapping[str, Any]
) -> ServedModel:
    identifying = {
        "metadata": {key: metadata[key] for key in ("name", "versions", "platform", "inputs", "outputs")},
        "config": {key: config.get(key) for key in _IDENTIFYING},
    }
    max_batch = int(config.get("max_batch_size", 0))
    return ServedModel(
        inputs=tuple(map(_spec, metadata["inputs"])),
        outputs=tuple(map(_spec, metadata["outputs"])),
        datatype=metadata["inputs"][0]["datatype"] if metadata["inputs"] else "",
        max_batch=max_batch or None,
        metadata={key: str(value["string_value"]) for key, value in config.get("parameters", {}).items()},
        identity="triton:" + hashlib.sha256(json.dumps(identifying, sort_keys=True).encode()).hexdigest(),
        server_metadata=server_metadata,
    )


def _spec(tensor: Mapping[str, Any]) -> TensorSpec:
    shape = tuple(None if int(side) < 0 else int(side) for side in tensor["shape"])
    return TensorSpec(str(tensor["name"]), numpy_dtype(str(tensor["datatype"])), shape)
