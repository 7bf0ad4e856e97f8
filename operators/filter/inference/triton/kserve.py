"""The inference protocol that Triton speaks: NVIDIA's client makes and reads the messages, our connections carry them.

Why not the client's own connections: they are bound to one thread by gevent, hang or mix up answers after a fork, have
time-outs for each read but none for a request, and cannot be closed while a server hangs. Ours may be used and aborted
from any thread and hold their deadline. The tests hold the answers over both against each other.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
import tritonclient.http as triton

from nuclei_segmentation.operators.filter.inference.contract import Array
from nuclei_segmentation.shared.settings.address import Address

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_DATATYPES = {"UINT8": "uint8", "FP16": "float16", "FP32": "float32"}
_HEADER_LENGTH = "Inference-Header-Content-Length"

#: Seconds for a connection; the rest of a request's time is for the model.
CONNECT_LIMIT = 5.0

#: Most bytes of a request's body that are copied behind its head.
_PACKET = 16 << 10

#: Most bytes of an answer to a question about the server or a model.
_QUESTION_LIMIT = 16 << 20


class Unanswered(Exception):
    """No answer, or half of one: refused, reset, too late. Worth a retry, since an inference has no side effects."""


class Stale(Unanswered):
    """A connection from an earlier request was found closed. The server may be well, or be another one by now."""


class Refused(Exception):
    """The server answered with an error.

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


class Garbled(Exception):
    """The answer is not of the protocol, not complete, or not to this request."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A HTTP answer: status, headers (names in lower case) and body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def numpy_dtype(datatype: str) -> str:
    """Translate the protocol's name of a type to NumPy's; unknown names pass for the contract to refuse."""
    return _DATATYPES.get(datatype, datatype)


class _TimedSocket(socket.socket):
    """A socket on which all reads together have one deadline; `sendall` has that already."""

    until = math.inf

    def arm(self) -> None:
        """Give the next operation what time is left."""
        left = self.until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.settimeout(left)

    def recv_into(self, buffer: WriteableBuffer, nbytes: int = 0, flags: int = 0) -> int:
        """Read, within what time is left."""
        self.arm()
        return super().recv_into(buffer, nbytes, flags)


class Connection:
    """One connection to a server, kept alive between requests. One request at a time; `abort` from any thread.

    Parameters
    ----------
    host, port : str, int
        Where the server listens.

    Attributes
    ----------
    checked : bool
        For the user of the connection to set: that the server behind it is the right one. Forgotten when it breaks.
    """

    def __init__(self, host: str, port: int) -> None:
        self.checked = False
        self._rested = False
        self._address = Address(host, port)
        self._socket: _TimedSocket | None = None
        self._lock = threading.Lock()
        self._aborted = False

    def request(
        self,
        method: str,
        path: str,
        seconds: float,
        *,
        body: Sequence[bytes | memoryview] = (),
        headers: Mapping[str, str] | None = None,
        limit: int = _QUESTION_LIMIT,
    ) -> Reply:
        """Send a request and return the answer, whatever its status.

        Parameters
        ----------
        method, path : str
            Of HTTP.
        seconds : float
            Deadline for all of it.
        body : Sequence of bytes or memoryview, optional
            Sent one after another, as they are.
        headers : Mapping of str to str or None, optional
            Beside the length.
        limit : int, optional
            Most bytes of the answer.

        Raises
        ------
        Stale
            The connection was used before and is closed now.
        Unanswered
            No complete answer in time.
        Garbled
            Not HTTP, or longer than `limit`.
        """
        try:
            reply = self._exchange(method, path, time.monotonic() + seconds, body, headers or {}, limit)
            self._rested = False
            return reply
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError) as error:
            kind = Stale if self._rested else Unanswered
            self.drop()
            raise kind("the connection was closed without an answer") from error
        except TimeoutError as error:
            self.drop()
            raise Unanswered(f"no answer within {seconds:g} s") from error
        except http.client.IncompleteRead as error:
            self.drop()
            raise Unanswered("the answer broke off") from error
        except http.client.HTTPException as error:
            self.drop()
            raise Garbled(f"the answer is not HTTP ({type(error).__name__})") from error
        except (OSError, ValueError) as error:
            # ValueError: the socket's file was closed under the reader by `abort`.
            self.drop()
            raise Unanswered(_reason(error)) from error
        except BaseException:
            self.drop()  # what is left of the answer would be taken for the next one
            raise

    def drop(self) -> None:
        """Close; the next request connects anew."""
        with self._lock:
            if self._socket is not None:
                self._socket.close()
            self._socket = None
            self.checked = self._rested = False

    def rest(self) -> None:
        """Lie idle: a server may close the connection meanwhile, or be restarted; that tells nothing of its health."""
        self._rested = self._socket is not None

    def abort(self) -> None:
        """Close for good, from any thread; a request under way fails at once."""
        with self._lock:
            self._aborted = True
            if self._socket is not None:
                try:
                    self._socket.shutdown(socket.SHUT_RDWR)
                except OSError:
                    return  # not connected any more, which is what is wanted

    def _exchange(
        self,
        method: str,
        path: str,
        until: float,
        body: Sequence[bytes | memoryview],
        headers: Mapping[str, str],
        limit: int,
    ) -> Reply:
        sock = self._connect(until)
        sock.until = until
        length = sum(memoryview(part).nbytes for part in body)
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self._address}", "Accept-Encoding: identity"]
        lines += [f"{name}: {value}" for name, value in (*headers.items(), ("Content-Length", length))]
        parts = ["\r\n".join([*lines, "", ""]).encode("ascii"), *body]
        if length <= _PACKET:
            parts = [b"".join(parts)]  # sent apart, the two would wake the server twice
        for part in parts:
            sock.arm()
            sock.sendall(part)
        with contextlib.closing(http.client.HTTPResponse(sock, method=method)) as response:
            response.begin()
            content = response.read(limit + 1)
            if len(content) > limit:
                raise Garbled(f"the answer is longer than {limit} bytes")
            if response.length:
                raise http.client.IncompleteRead(content, response.length)
            if response.will_close:
                self.drop()
            return Reply(response.status, {name.lower(): value for name, value in response.getheaders()}, content)

    def _connect(self, until: float) -> _TimedSocket:
        if self._socket is None:
            left = max(0.001, until - time.monotonic())
            plain = socket.create_connection(self._address, min(CONNECT_LIMIT, left))
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock = _TimedSocket(plain.family, plain.type, plain.proto, plain.detach())
            with self._lock:
                if self._aborted:
                    sock.close()
                    raise ConnectionAbortedError("closed")
                self._socket = sock
        return self._socket


def ask(connection: Connection, path: str, seconds: float, content: Mapping[str, object] | None = None) -> Any:  # noqa: ANN401 - JSON is anything
    """Ask for something that is answered in JSON, with GET, or where there is `content` with POST.

    Raises
    ------
    Unanswered, Garbled
        See `Connection.request`; also where the answer is not JSON.
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
        return json.loads(reply.body)
    except ValueError as error:
        raise Garbled(f"the answer to {path} is not JSON") from error


def model_path(name: str, rest: str = "") -> str:
    """Return the path of a model's resource."""
    return f"/v2/models/{quote(name, safe='')}{rest}"


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
        Its name.
    request_id : str
        Sent along; the answer must bear it.
    source : tuple of str
        Name and datatype of the input.
    array : numpy.ndarray
        Its content, contiguous.
    results : Sequence of str
        Names of the outputs.
    seconds : float
        Deadline.

    Returns
    -------
    list of numpy.ndarray
        The outputs, read-only, in the order of `results`, of the dtypes and shapes that the server says.

    Raises
    ------
    Unanswered
        No complete answer in time.
    Refused
        The status is not 200.
    Garbled
        The answer is to another request, or its bytes do not make up the tensors that it announces.
    """
    tensor = triton.InferInput(source[0], list(array.shape), source[1])
    # As `set_data_from_numpy` does, which copies the bytes; joining them to the message would be another copy.
    tensor._parameters["binary_data_size"] = array.nbytes
    wanted = [triton.InferRequestedOutput(name) for name in results]
    content = array.reshape(-1).view(np.uint8).data
    limit = _QUESTION_LIMIT + 64 * array.nbytes
    head, result = send(connection, model, request_id, tensor, wanted, seconds, [content], limit)
    try:
        found = {output["name"]: result.as_numpy(output["name"]) for output in head["outputs"]}
        return [found[name] for name in results]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _lacking(error) from error


def send(
    connection: Connection,
    model: str,
    request_id: str,
    tensor: triton.InferInput,
    wanted: Sequence[triton.InferRequestedOutput],
    seconds: float,
    content: Sequence[memoryview] = (),
    limit: int = _QUESTION_LIMIT,
) -> tuple[Mapping[str, Any], triton.InferResult]:
    """Send a request for an inference in the words of NVIDIA's client; return the answer's JSON, and all of it.

    The input's bytes are `content`, or in shared memory. For the rest see `infer`.
    """
    head, _ = triton.InferenceServerClient.generate_request_body([tensor], wanted, request_id)
    headers = {"Content-Type": "application/octet-stream", _HEADER_LENGTH: str(len(head))}
    path = model_path(model, "/infer")
    reply = connection.request("POST", path, seconds, body=[head, *content], headers=headers, limit=limit)
    if reply.status != 200:
        raise Refused(reply.status, _error_text(reply))
    try:
        return _read(reply, request_id)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _lacking(error) from error


def _read(reply: Reply, request_id: str) -> tuple[Mapping[str, Any], triton.InferResult]:
    told = reply.headers.get(_HEADER_LENGTH.lower())
    header = len(reply.body) if told is None else int(told)
    result = triton.InferenceServerClient.parse_response_body(reply.body, header_length=header)
    head = result.get_response()
    if head.get("id") != request_id:
        raise Garbled(f"the answer is to request {head.get('id')!r}, not {request_id!r}")
    left = len(reply.body) - header
    for output in head["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        if size is None:
            continue  # in shared memory
        # the client believes the sizes; a server with the wrong NumPy sends none of the bytes that it announces
        shape = output["shape"]
        needed = math.prod(shape) * np.dtype(numpy_dtype(output["datatype"])).itemsize
        if size != needed or size > left:
            name = output["name"]
            raise Garbled(f"output '{name}' came with {min(size, left)} bytes; its shape {shape} needs {needed}")
        left -= size
    return head, result


def _lacking(error: Exception) -> Garbled:
    return Garbled(f"the answer lacks something ({type(error).__name__}: {error})")


def _error_text(reply: Reply) -> str:
    try:
        return " ".join(str(json.loads(reply.body)["error"]).split())
    except (ValueError, KeyError, TypeError):
        return http.client.responses.get(reply.status, "no reason given")


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
