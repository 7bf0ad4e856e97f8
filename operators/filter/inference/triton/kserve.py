"""The inference protocol that Triton speaks, KServe v2. NVIDIA's client writes and reads the messages."""

from __future__ import annotations

import http.client
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import numpy as np
import tritonclient.http as triton

from nuclei_segmentation.operators.filter.inference.tensor_plan import Array
from nuclei_segmentation.operators.filter.inference.triton.connection import (
    REPLY_LIMIT,
    Connection,
    Garbled,
    Reply,
)
from nuclei_segmentation.shared.runtime.outside import parse_json

_DATATYPES = {"UINT8": "uint8", "FP16": "float16", "FP32": "float32"}
_LONGEST_REASON = 1000  # characters of a server's reason that are shown
_HEADER_LENGTH = "Inference-Header-Content-Length"


class Refused(Exception):
    """The server replied with an error.

    Parameters
    ----------
    status : int
        The HTTP status.
    message : str
        The server's reason.
    """

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        self.message = message
        super().__init__(f"[{status}] {message}")


def numpy_dtype(datatype: str) -> str:
    """Translate the protocol's name of a type to NumPy's. Other names stay, for `make_plan` to refuse."""
    return _DATATYPES.get(datatype, datatype)


def query(connection: Connection, path: str, seconds: float, content: Mapping[str, object] | None = None) -> Any:  # noqa: ANN401 - JSON is anything
    """Send a request whose reply is JSON.

    Parameters
    ----------
    connection : Connection
        To the server.
    path : str
        The path of the URL.
    seconds : float
        Deadline.
    content : Mapping of str to object or None, optional
        Sent with POST, as JSON; without it the request is a GET.

    Returns
    -------
    object
        What the JSON says; None if the reply is empty.

    Raises
    ------
    Unanswered
        No complete reply in time.
    Garbled
        The reply is not HTTP or not JSON.
    Refused
        The status is not 200.
    """
    if content is None:
        reply = connection.request("GET", path, seconds)
    else:
        reply = connection.request("POST", path, seconds, body=[json.dumps(content).encode()])
    if reply.status != 200:
        raise Refused(reply.status, _error_text(reply))
    if not reply.body:
        return None
    try:
        return parse_json(reply.body)
    except ValueError as error:
        raise Garbled(f"the answer to {path} is not JSON") from error


def model_path(name: str, resource: str = "") -> str:
    """Return the URL path of a model.

    Parameters
    ----------
    name : str
        The model's name.
    resource : str, optional
        What follows, with a slash: ``/infer``.
    """
    return f"/v2/models/{quote(name, safe='')}{resource}"


def infer(
    connection: Connection,
    model: str,
    request_id: str,
    source: tuple[str, str],
    array: Array,
    results: Sequence[str],
    seconds: float,
) -> list[Array]:
    """Run one inference.

    Parameters
    ----------
    connection : Connection
        To the server.
    model : str
        The model's name.
    request_id : str
        Sent with the request; the reply must have it too.
    source : tuple of str
        Name and datatype of the input.
    array : numpy.ndarray
        The input, contiguous.
    results : Sequence of str
        Names of the outputs.
    seconds : float
        Deadline.

    Returns
    -------
    list of numpy.ndarray
        The outputs, read-only, in the order of `results`, with the dtypes and shapes that the server reports.

    Raises
    ------
    Unanswered
        No complete reply in time.
    Refused
        The status is not 200.
    Garbled
        The reply belongs to another request, or its bytes do not make up the tensors that it announces.
    """
    tensor = triton.InferInput(source[0], list(array.shape), source[1])
    # `set_data_from_numpy` does this too, but copies the bytes. Joining them to the message would be another copy.
    tensor._parameters["binary_data_size"] = array.nbytes
    requested = [triton.InferRequestedOutput(name) for name in results]
    content = array.reshape(-1).view(np.uint8).data
    limit = REPLY_LIMIT + 64 * array.nbytes
    head, result = send(connection, model, request_id, tensor, requested, seconds, [content], limit)
    try:
        outputs = {output["name"]: result.as_numpy(output["name"]) for output in head["outputs"]}
        return [outputs[name] for name in results]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise incomplete(error) from error


def send(
    connection: Connection,
    model: str,
    request_id: str,
    tensor: triton.InferInput,
    requested: Sequence[triton.InferRequestedOutput],
    seconds: float,
    content: Sequence[memoryview] = (),
    limit: int = REPLY_LIMIT,
) -> tuple[Mapping[str, Any], triton.InferResult]:
    """Send the request for an inference, and check the reply.

    Parameters
    ----------
    connection : Connection
        To the server.
    model : str
        The model's name.
    request_id : str
        Sent with the request; the reply must have it too.
    tensor : tritonclient.http.InferInput
        The input.
    requested : Sequence of tritonclient.http.InferRequestedOutput
        The outputs.
    seconds : float
        Deadline.
    content : Sequence of memoryview, optional
        The input's bytes, unless they are in shared memory.
    limit : int, optional
        Most bytes of the reply's body.

    Returns
    -------
    head : Mapping of str to object
        The JSON of the reply.
    result : tritonclient.http.InferResult
        The whole reply.

    Raises
    ------
    Unanswered, Refused, Garbled
        See `infer`.
    """
    head, _ = triton.InferenceServerClient.generate_request_body([tensor], requested, request_id)
    headers = {"Content-Type": "application/octet-stream", _HEADER_LENGTH: str(len(head))}
    path = model_path(model, "/infer")
    reply = connection.request("POST", path, seconds, body=[head, *content], headers=headers, limit=limit)
    if reply.status != 200:
        raise Refused(reply.status, _error_text(reply))
    try:
        return _read(reply, request_id)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:  # the client parses JSON, too
        raise incomplete(error) from error


def incomplete(error: Exception) -> Garbled:
    """Return the error for a reply that lacks something, from the one that showed it."""
    return Garbled(f"the answer is incomplete ({type(error).__name__}: {error})")


def _read(reply: Reply, request_id: str) -> tuple[Mapping[str, Any], triton.InferResult]:
    length = reply.headers.get(_HEADER_LENGTH.lower())
    header = len(reply.body) if length is None else int(length)
    result = triton.InferenceServerClient.parse_response_body(reply.body, header_length=header)
    head = result.get_response()
    if head.get("id") != request_id:
        raise Garbled(f"the answer is to request {head.get('id')!r}, not {request_id!r}")
    left = len(reply.body) - header
    for output in head["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        if size is None:
            continue  # in shared memory
        # The client trusts the sizes. A server with the wrong NumPy sends none of the bytes that it announces.
        shape = output["shape"]
        needed = math.prod(shape) * np.dtype(numpy_dtype(output["datatype"])).itemsize
        if size != needed or size > left:
            name = output["name"]
            raise Garbled(f"output '{name}' came with {min(size, left)} bytes; its shape {shape} needs {needed}")
        left -= size
    return head, result


def _error_text(reply: Reply) -> str:
    try:
        return " ".join(str(parse_json(reply.body)["error"])[:_LONGEST_REASON].split())
    except (ValueError, KeyError, TypeError):
        return http.client.responses.get(reply.status, "no reason given")
