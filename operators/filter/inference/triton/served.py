"""What a Triton server tells of a model, and the order in which to ask for it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nuclei_segmentation.operators.filter.inference.contract import TensorSpec
from nuclei_segmentation.operators.filter.inference.triton.kserve import (
    Connection,
    Garbled,
    Refused,
    ask,
    model_path,
    numpy_dtype,
)
from nuclei_segmentation.shared.errors import ModelError

#: Statuses of a server, or of a gateway before it, that is not ready yet.
BUSY = (408, 429, 502, 503, 504)

#: What of a model's configuration can change its answers; instances and queues cannot.
_TELLING = ("platform", "backend", "input", "output", "parameters", "default_model_filename", "optimization")


class NotTriton(Exception):
    """Something else listens there."""


class NotReady(Exception):
    """The server is there, and the model is not yet, or not any more."""


@dataclass(frozen=True, slots=True)
class Served:
    """A model as a server describes it.

    Attributes
    ----------
    inputs, outputs : tuple of TensorSpec
        With the batch axis, if there is one.
    datatype : str
        The input's, in the protocol's words.
    max_batch : int or None
        Most tiles per request; None where the configuration sets no limit.
    parameters : Mapping of str to str
        Of the configuration: free text by name.
    identity : str
        A hash of all that can change the answers.
    about : Mapping of str to object
        What the server tells of itself: version, extensions.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    datatype: str
    max_batch: int | None
    parameters: Mapping[str, str]
    identity: str
    about: Mapping[str, Any]


def examine(connection: Connection, model: str, seconds: float) -> Served:
    """Ask a server, step by step, whether it is one, whether the model is ready, and what that is like.

    Parameters
    ----------
    connection : Connection
        To the server.
    model : str
        The model's name.
    seconds : float
        Deadline of each question.

    Raises
    ------
    Unanswered
        Nothing listens there, or hangs.
    NotTriton
        What listens there is something else.
    NotReady
        The model is being loaded.
    ModelError
        The server does not have the model, or could not load it.
    """
    about = _check_is_triton(connection, seconds)
    try:
        ask(connection, model_path(model, "/ready"), seconds)
    except Refused as error:
        if error.status in BUSY:
            raise NotReady(f"the server is not ready: {error}") from error
        raise _why_not_ready(connection, model, seconds) from error
    try:
        metadata = ask(connection, model_path(model), seconds)
        config = ask(connection, model_path(model, "/config"), seconds)
    except Refused as error:
        # It was ready a moment ago.
        raise NotReady(f"the server does not describe the model: {error}") from error
    try:
        return _served(about, metadata, config)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Garbled(f"the server's description of the model lacks something ({error!r})") from error


def _check_is_triton(connection: Connection, seconds: float) -> Mapping[str, Any]:
    try:
        server = ask(connection, "/v2", seconds)
    except Refused as error:
        if error.status in BUSY:
            raise NotReady(f"the server is not ready: {error}") from error
        raise NotTriton(f"it answers {error}") from error
    except Garbled as error:
        raise NotTriton(str(error)) from error
    if not isinstance(server, dict) or "extensions" not in server:
        raise NotTriton("it does not describe itself as Triton does")
    return server


def _why_not_ready(connection: Connection, model: str, seconds: float) -> Exception:
    try:
        index = ask(connection, "/v2/repository/index", seconds, {})
        states = {entry["name"]: (entry.get("state", ""), entry.get("reason", "")) for entry in index}
    except Refused as error:
        return NotReady(f"the model is not ready, and the server does not tell why: {error}")
    except (KeyError, TypeError, AttributeError) as error:
        return Garbled(f"the server's list of models lacks something ({error!r})")
    if model not in states:
        there = ", ".join(sorted(states)) or "none"
        return ModelError(f"the server has no model {model} (-m); models there: {there}")
    state, reason = states[model]
    if state in ("LOADING", "READY") or reason == "unloading":
        return NotReady(f"model {model} is {(reason or state).lower()}")
    if state == "UNAVAILABLE" and reason not in ("", "unloaded"):
        return ModelError(f"the server could not load model {model}: {' '.join(reason.split())}")
    return ModelError(f"model {model} is in the server's repository but not loaded; load it there")


def _served(about: Mapping[str, Any], metadata: Mapping[str, Any], config: Mapping[str, Any]) -> Served:
    telling = {
        "metadata": {key: metadata[key] for key in ("name", "versions", "platform", "inputs", "outputs")},
        "config": {key: config.get(key) for key in _TELLING},
    }
    max_batch = int(config.get("max_batch_size", 0))
    return Served(
        inputs=tuple(map(_spec, metadata["inputs"])),
        outputs=tuple(map(_spec, metadata["outputs"])),
        datatype=metadata["inputs"][0]["datatype"] if metadata["inputs"] else "",
        max_batch=max_batch or None,
        parameters={key: str(value["string_value"]) for key, value in config.get("parameters", {}).items()},
        identity="triton:" + hashlib.sha256(json.dumps(telling, sort_keys=True).encode()).hexdigest(),
        about=about,
    )


def _spec(tensor: Mapping[str, Any]) -> TensorSpec:
    shape = tuple(None if int(side) < 0 else int(side) for side in tensor["shape"])
    return TensorSpec(str(tensor["name"]), numpy_dtype(str(tensor["datatype"])), shape)
