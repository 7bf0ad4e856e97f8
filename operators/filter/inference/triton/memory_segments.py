"""Triton's system shared memory extension: its messages, and nothing of who uses them when.

A segment is a file in ``/dev/shm`` that the server maps under a name. A request then says where in it the tensors are,
and its body carries no byte of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

import numpy as np
import tritonclient.http as triton

from nuclei_segmentation.operators.filter.inference.triton.kserve import (
    Connection,
    Garbled,
    Refused,
    ask,
    numpy_dtype,
    send,
)

_PATH = "/v2/systemsharedmemory"

#: From this version on (release 24.09) a server knows which segments its requests use, and does not unmap those. An
#: older one dies if a segment is unregistered while a request that its client gave up is still under way.
_SAFE_SINCE = (2, 50)


@dataclass(frozen=True, slots=True)
class SegmentSpan:
    """Bytes `offset` to `offset` + `size` of a registered segment."""

    segment: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Segment:
    """What a server has mapped: its name for it, the key (the file's name after a slash), and the size in bytes."""

    name: str
    key: str
    size: int


#: Dtype and shape of an output that was written into shared memory.
Written = tuple[np.dtype[np.generic], tuple[int, ...]]


def why_not(about: Mapping[str, object]) -> str | None:
    """Return why a server's shared memory cannot be used, as far as it tells without trying; None if it can.

    Parameters
    ----------
    about : Mapping of str to object
        What the server tells of itself; see `Served.about`.
    """
    extensions, version = about.get("extensions"), str(about.get("version"))
    if not isinstance(extensions, list) or "system_shared_memory" not in extensions:
        return "the server does not have the extension"
    numbers = version.split(".")[:2]
    if not all(map(str.isdecimal, numbers)) or tuple(map(int, numbers)) < _SAFE_SINCE:
        wanted = ".".join(map(str, _SAFE_SINCE))
        return f"the server's version is {version}; before {wanted} it may die when a segment is withdrawn"
    return None


def segments(connection: Connection, seconds: float) -> list[Segment]:
    """Return all that a server has mapped, whoever asked for it.

    Raises
    ------
    Unanswered, Garbled, Refused
        See `kserve.ask`.
    """
    told = ask(connection, f"{_PATH}/status", seconds)
    try:
        # without any segment the answer may be empty
        return [Segment(str(one["name"]), str(one["key"]), int(one["byte_size"])) for one in told or ()]
    except (KeyError, TypeError, ValueError) as error:
        raise Garbled(f"the server's list of segments lacks something ({error!r})") from error


def register(connection: Connection, segment: Segment, seconds: float) -> None:
    """Have a server map a file, from its beginning: any other offset is counted twice by version 2.51.

    Raises
    ------
    Refused
        It does not allow that, cannot open the file, or has the name or the key already.
    Unanswered, Garbled
        See `kserve.ask`.
    """
    content = {"key": segment.key, "offset": 0, "byte_size": segment.size}
    ask(connection, f"{_PATH}/region/{quote(segment.name, safe='')}/register", seconds, content)


def unregister(connection: Connection, name: str, seconds: float) -> None:
    """Have a server let go of a segment, known to it or not.

    Raises
    ------
    Refused
        A request uses it. (Newer servers accept, and let go of it when that has ended.)
    Unanswered, Garbled
        See `kserve.ask`.
    """
    ask(connection, f"{_PATH}/region/{quote(name, safe='')}/unregister", seconds, {})


def unknown(error: Refused) -> bool:
    """Tell whether an inference was refused for its segments, which a restarted server does not know any more."""
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
        Its name.
    request_id : str
        Sent along; the answer must bear it.
    source : tuple of str
        Name and datatype of the input.
    shape, span : Sequence of int, SegmentSpan
        The input's.
    results : Sequence of tuple
        Names of the outputs, and where they are to be written.
    seconds : float
        Deadline.

    Returns
    -------
    list of Written
        For each of `results` the dtype and shape of what now stands at the beginning of its span.

    Raises
    ------
    Unanswered
        No complete answer in time. The server may still write into the spans.
    Refused
        The status is not 200.
    Garbled
        The answer is to another request, or tells of tensors that do not fit into the spans.
    """
    tensor = triton.InferInput(source[0], list(shape), source[1])
    tensor.set_shared_memory(span.segment, span.size, span.offset)
    wanted = []
    for name, where in results:
        output = triton.InferRequestedOutput(name)
        output.set_shared_memory(where.segment, where.size, where.offset)
        wanted.append(output)
    head, _ = send(connection, model, request_id, tensor, wanted, seconds)
    try:
        found = {output["name"]: output for output in head["outputs"]}
        told = []
        for name, where in results:
            kind = np.dtype(numpy_dtype(found[name]["datatype"]))
            sides = tuple(int(side) for side in found[name]["shape"])
            if kind.itemsize * math.prod(sides) > where.size or "data" in found[name]:
                raise Garbled(f"output '{name}' of shape {list(sides)} is not in the {where.size} bytes set aside")
            told.append((kind, sides))
    except (KeyError, TypeError, ValueError) as error:
        raise Garbled(f"the answer lacks something ({type(error).__name__}: {error})") from error
    return told
