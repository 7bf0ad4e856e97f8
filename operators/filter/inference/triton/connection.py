"""HTTP connections to a server, with a deadline for each request, which any thread may shut down.

NVIDIA's client has connections of its own, but gevent binds them to one thread, they hang or mix up replies after a
fork, their time-outs are for each read and not for a request, and they cannot be closed while a server hangs. A test
compares the replies over both.
"""

from __future__ import annotations

import contextlib
import http.client
import math
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nuclei_segmentation.shared.settings.address import Address

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

#: Most seconds for connecting; the rest of a request's time is for the model.
CONNECT_LIMIT = 5.0

#: Most bytes of a request's body that are copied after its head, so that both go in one packet.
_PACKET = 16 << 10

#: Most bytes of a reply without tensors.
REPLY_LIMIT = 16 << 20


class Unanswered(Exception):
    """No reply, or part of one: refused, reset, too late. Worth a retry, because an inference has no side effects."""


class Stale(Unanswered):
    """The server has closed an idle connection. It may be well, or another server by now."""


class Garbled(Exception):
    """The reply does not follow the protocol, is not complete, or belongs to another request."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP reply.

    Attributes
    ----------
    status : int
        The HTTP status.
    headers : Mapping of str to str
        By name, in lower case.
    body : bytes
        The content.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


class _TimedSocket(socket.socket):
    """A socket with one deadline for all reads together; `sendall` has one deadline anyway."""

    until = math.inf

    def set_time_left(self) -> None:
        """Limit the next operation to the time that is left until the deadline."""
        left = self.until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.settimeout(left)

    def recv_into(self, buffer: WriteableBuffer, nbytes: int = 0, flags: int = 0) -> int:
        """Read, but not beyond the deadline."""
        self.set_time_left()
        return super().recv_into(buffer, nbytes, flags)


class Connection:
    """A connection to a server, kept open between requests. It takes one request at a time.

    Parameters
    ----------
    host : str
        Where the server listens.
    port : int
        Its HTTP port.

    Attributes
    ----------
    checked : bool
        Set by the user of the connection: the server behind it has the right model. False again when it breaks.
    """

    def __init__(self, host: str, port: int) -> None:
        self.checked = False
        self._was_idle = False
        self._address = Address(host, port)
        self._socket: _TimedSocket | None = None
        self._lock = threading.Lock()
        self._shut_down = False

    def request(
        self,
        method: str,
        path: str,
        seconds: float,
        *,
        body: Sequence[bytes | memoryview] = (),
        headers: Mapping[str, str] | None = None,
        limit: int = REPLY_LIMIT,
    ) -> Reply:
        """Send a request and return the reply, whatever its status.

        Parameters
        ----------
        method : str
            The HTTP method.
        path : str
            The path of the URL.
        seconds : float
            Deadline for the whole request.
        body : Sequence of bytes or memoryview, optional
            Parts of the content, sent one after another.
        headers : Mapping of str to str or None, optional
            Headers other than the length.
        limit : int, optional
            Most bytes of the reply's body.

        Returns
        -------
        Reply
            The complete reply.

        Raises
        ------
        Stale
            The connection was used before and has been closed.
        Unanswered
            No complete reply in time.
        Garbled
            The reply is not HTTP, or is longer than `limit`.
        """
        try:
            reply = self._exchange(method, path, time.monotonic() + seconds, body, headers or {}, limit)
            self._was_idle = False
            return reply
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError) as error:
            kind = Stale if self._was_idle else Unanswered
            self.disconnect()
            raise kind("the connection was closed without an answer") from error
        except TimeoutError as error:
            self.disconnect()
            raise Unanswered(f"no answer within {seconds:g} s") from error
        except http.client.IncompleteRead as error:
            self.disconnect()
            raise Unanswered("the answer broke off") from error
        except http.client.HTTPException as error:
            self.disconnect()
            raise Garbled(f"the answer is not HTTP ({type(error).__name__})") from error
        except (OSError, ValueError) as error:
            # ValueError: `shut_down` closed the socket's file during the read.
            self.disconnect()
            raise Unanswered(_reason(error)) from error
        except BaseException:
            self.disconnect()  # the rest of the reply would be taken for the next one
            raise

    def disconnect(self) -> None:
        """Close the connection. The next request connects again."""
        with self._lock:
            if self._socket is not None:
                self._socket.close()
            self._socket = None
            self.checked = self._was_idle = False

    def set_idle(self) -> None:
        """Note that no request follows at once. If the server closes the connection meanwhile, it may still be well."""
        self._was_idle = self._socket is not None

    def shut_down(self) -> None:
        """Close the connection for good, from any thread. A request under way fails at once."""
        with self._lock:
            self._shut_down = True
            if self._socket is not None:
                with contextlib.suppress(OSError):  # it is no longer connected
                    self._socket.shutdown(socket.SHUT_RDWR)

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
            parts = [b"".join(parts)]  # two packets would wake the server twice
        for part in parts:
            sock.set_time_left()
            sock.sendall(part)
        with contextlib.closing(http.client.HTTPResponse(sock, method=method)) as response:
            response.begin()
            content = response.read(limit + 1)
            if len(content) > limit:
                raise Garbled(f"the answer is longer than {limit} bytes")
            if response.length:
                raise http.client.IncompleteRead(content, response.length)
            if response.will_close:
                self.disconnect()
            return Reply(response.status, {name.lower(): value for name, value in response.getheaders()}, content)

    def _connect(self, until: float) -> _TimedSocket:
        if self._socket is None:
            left = max(0.001, until - time.monotonic())
            plain = socket.create_connection(self._address, min(CONNECT_LIMIT, left))
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock = _TimedSocket(plain.family, plain.type, plain.proto, plain.detach())
            with self._lock:
                if self._shut_down:
                    sock.close()
                    raise ConnectionAbortedError("closed")
                self._socket = sock
        return self._socket


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
