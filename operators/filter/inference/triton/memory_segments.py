"""The messages of Triton's system shared memory extension.

A segment is a file in ``/dev/shm`` that the server maps under a name. A request then says where in it the tensors are,
and its body has none of their bytes. When segments are used is decided elsewhere (`shared_memory`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

import numpy as np
import tritonclient.http as triton

from nuclei_segmentation.operators.filter.inference.triton.connection import Connection, Garbled
from nuclei_segmentation.operators.filter.inference.triton.kserve import Refused, incomplete, numpy_dtype, query, send

_PATH = "/v2/systemsharedmemory"

#: From this version on (release 24.09) a server knows which segments its requests use, and does not unmap those. An
#: older one crashes if a segment is unregistered while a request that its client gave up is still under way.
_SAFE_SINCE = (2, 50)


@dataclass(frozen=True, slots=True)
class SegmentSpan:
    """Bytes `offset` to `offset` + `size` of a registered segment."""

    segment: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Segment:
    """A file that a server has mapped.

    Attributes
    ----------
    name : str
        The server's name for the segment.
    key : str
        The file's name after a slash.
    size : int
        Bytes.
    """

    name: str
    key: str
    size: int


#: Dtype and shape of an output that the server has written into a segment.
Written = tuple[np.dtype[np.generic], tuple[int, ...]]


def reason_against(server_metadata: Mapping[str, object]) -> str | None:
    """Return why a server's shared memory cannot be used; None if its metadata show no reason.

    Parameters
    ----------
    server_metadata : Mapping of str to object
        See `ServedModel.server_metadata`.
    """
    extensions, version = server_metadata.get("extensions"), str(server_metadata.get("version"))
    if not isinstance(extensions, list) or "system_shared_memory" not in extensions:
        return "the server does not have the extension"
    numbers = version.split(".")[:2]
    if not all(map(str.isdecimal, numbers)) or tuple(map(int, numbers)) < _SAFE_SINCE:
        needed = ".".join(map(str, _SAFE_SINCE))
        return f"the server's version is {version}; before {needed} it may crash when a segment is unregistered"
    return None


def segments(connection: Connection, seconds: float) -> list[Segment]:
    """Return all segments of a server, including those of other clients.

    Parameters
    ----------
    connection : Connection
        To the server.
    seconds : float
        Deadline.

    Raises
    ------
    Unanswered, Garbled, Refused
        See `kserve.query`.
    """
    # Without any segment the reply may be empty.
    entries = query(connection, f"{_PATH}/status", seconds) or ()
    try:
        return [Segment(str(entry["name"]), str(entry["key"]), int(entry["byte_size"])) for entry in entries]
    except (KeyError, TypeError, ValueError) as error:
        raise Garbled(f"the server's list of segments is incomplete ({error!r})") from error


def register(connection: Connection, segment: Segment, seconds: float) -> None:
    """Make a server map a file. The segment begins with the file, because version 2.51 counts any other offset twice.

    Parameters
    ----------
    connection : Connection
        To the server.
    segment : Segment
        The file, and the name for it.
    seconds : float
        Deadline.

    Raises
    ------
    Refused
        The server does not allow that, cannot open the file, or has the name or the key already.
    Unanswered, Garbled
        See `kserve.query`.
    """
    content = {"key": segment.key, "offset": 0, "byte_size": segment.size}
    query(connection, f"{_PATH}/region/{quote(segment.name, safe='')}/register", seconds, content)


def unregister(connection: Connection, name: str, seconds: float) -> None:
    """Make a server unmap a segment. It need not have one of that name.

    Parameters
    ----------
    connection : Connection
        To the server.
    name : str
        The segment's name.
    seconds : float
        Deadline.

    Raises
    ------
    Refused
        A request uses the segment. (Newer servers accept, and unmap it when the request ends.)
    Unanswered, Garbled
        See `kserve.query`.
    """
    query(connection, f"{_PATH}/region/{quote(name, safe='')}/unregister", seconds, {})


def segment_unknown(error: Refused) -> bool:
    """Tell whether an inference was refused because the server, perhaps after a restart, does not have its segments."""
    return error.status in (400, 404, 500) and "shared memory" in error.message.lower()


def infer(
    connection: Connection,
    model: str,
    request_id: str,
    source: tuple[str, str],
    shape: Sequence[int],
    span: SegmentSpan,
    results: Sequence[tuple[str, SegmentSpan]],
    seconds: float,
) -> list[Written]:
    """Run one inference whose tensors are all in registered segments.

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
    shape : Sequence of int
        The input's shape.
    span : SegmentSpan
        Where the input is.
    results : Sequence of tuple
        Names of the outputs, and where the server should write them.
    seconds : float
        Deadline.

    Returns
    -------
    list of Written
        For each of `results`, the dtype and shape of what is now at the beginning of its span.

    Raises
    ------
    Unanswered
        No complete reply in time. The server may still write into the spans.
    Refused
        The status is not 200.
    Garbled
        The reply belongs to another request, or describes tensors that do not fit into the spans.
    """
    tensor = triton.InferInput(source[0], list(shape), source[1])
    tensor.set_shared_memory(span.segment, span.size, span.offset)
    requested = []
    for name, target in results:
        output = triton.InferRequestedOutput(name)
        output.set_shared_memory(target.segment, target.size, target.offset)
        requested.append(output)
    head, _ = send(connection, model, request_id, tensor, requested, seconds)
    try:
        outputs = {output["name"]: output for output in head["outputs"]}
        written = []
        for name, target in results:
            dtype = np.dtype(numpy_dtype(outputs[name]["datatype"]))
            sides = tuple(int(side) for side in outputs[name]["shape"])
            if dtype.itemsize * math.prod(sides) > target.size or "data" in outputs[name]:
                raise Garbled(f"output '{name}' of shape {list(sides)} is not in the {target.size} bytes set aside")
            written.append((dtype, sides))
    except (KeyError, TypeError, ValueError) as error:
        raise incomplete(error) from error
    return written
