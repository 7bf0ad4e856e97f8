"""Several servers used as one: which gets the next request, which is left out, and when it is tried again."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from nuclei_segmentation.operators.filter.inference.triton.connection import Connection
from nuclei_segmentation.shared.settings.address import Address

log = logging.getLogger(__name__)

#: Seconds after which a server that failed is tried again while others work. They double with each failure.
_PROBE_FIRST, _PROBE_LAST = 1.0, 30.0


class PoolClosed(Exception):
    """The pool was closed, perhaps while a thread waited for a server."""


class Server:
    """A server, its idle connections, and whether it works.

    Parameters
    ----------
    address : str
        ``host:port``; ``http://`` in front of it is allowed.

    Attributes
    ----------
    host : str
        Where the server listens.
    port : int
        Its HTTP port.
    address : str
        ``host:port``.
    under_way : int
        Requests under way; kept by `ServerPool`.
    down_since : float or None
        When its outage began (`time.monotonic`), or None if it works; kept by `ServerPool`.
    failures : int
        Failures in this outage; kept by `ServerPool`.
    probe_at : float
        When to try it again; kept by `ServerPool`.
    metadata : Mapping of str to object
        See `ServedModel.server_metadata`. Set by whoever checks a connection.

    Raises
    ------
    UsageError
        The address is not ``host:port``.
    """

    def __init__(self, address: str) -> None:
        self.host, self.port = parsed = Address.parse(address)
        self.address = str(parsed)
        self.under_way = 0
        self.down_since: float | None = None
        self.failures = 0
        self.probe_at = 0.0
        self.metadata: Mapping[str, object] = {}
        self._idle: list[Connection] = []
        self._all: set[Connection] = set()
        self._closed = False
        self._lock = threading.Lock()

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """Lend a connection, an idle one if there is one."""
        with self._lock:
            connection = self._idle.pop() if self._idle else Connection(self.host, self.port)
            self._all.add(connection)
            if self._closed:
                connection.shut_down()
        try:
            yield connection
        finally:
            with self._lock:
                if self._closed:
                    connection.disconnect()
                else:
                    connection.set_idle()
                    self._idle.append(connection)

    def close(self) -> None:
        """Close all connections at once; requests under way fail."""
        with self._lock:
            self._closed = True
            idle, everything = self._idle, self._all
            self._idle, self._all = [], set()
        for connection in everything:
            connection.shut_down()
        for connection in idle:
            connection.disconnect()


class ServerPool:
    """Lends servers in turn.

    Parameters
    ----------
    servers : Sequence of Server
        At least one.
    in_flight : int
        Most requests under way at one server.

    Attributes
    ----------
    servers : tuple of Server
        All of them.
    """

    def __init__(self, servers: Sequence[Server], in_flight: int) -> None:
        self.servers = tuple(servers)
        self._in_flight = in_flight
        self._turn = 0
        self._closed = False
        self._changed = threading.Condition()

    @contextmanager
    def server(self) -> Iterator[Server]:
        """Lend the server whose turn it is; wait while all have enough requests.

        A server that failed is left out while others work, except for one request at growing intervals. If no server
        works, all are lent in turn.

        Raises
        ------
        PoolClosed
            `close` was called.
        """
        with self._changed:
            while True:
                if self._closed:
                    raise PoolClosed
                chosen = self._choose()
                if chosen is not None:
                    break
                self._changed.wait()
            chosen.under_way += 1
        try:
            yield chosen
        finally:
            with self._changed:
                chosen.under_way -= 1
                self._changed.notify_all()

    def any_works(self) -> bool:
        """Tell whether any server works, as far as is known."""
        with self._changed:
            return any(server.down_since is None for server in self.servers)

    def failed(self, server: Server, reason: str) -> None:
        """Note that a server failed. The first failure of an outage is logged.

        Parameters
        ----------
        server : Server
            The server.
        reason : str
            What happened, for the log.
        """
        now = time.monotonic()
        with self._changed:
            if self._closed:
                return  # `close` broke the connection
            first = server.down_since is None
            if first:
                server.down_since = now
                server.failures = 0
            server.failures += 1
            server.probe_at = now + min(_PROBE_LAST, _PROBE_FIRST * 2.0 ** min(server.failures - 1, 10))
            others = any(other.down_since is None for other in self.servers)
            self._changed.notify_all()
        if first:
            consequence = "other servers continue" if others else "trying again"
            log.warning("Triton at %s: %s; %s", server.address, reason, consequence)

    def worked(self, server: Server, sent_at: float) -> None:
        """Note that a server answered. The end of an outage is logged.

        Parameters
        ----------
        server : Server
            The server.
        sent_at : float
            When the request was sent (`time.monotonic`).
        """
        with self._changed:
            since = server.down_since
            if since is None or sent_at < since:
                return  # a reply to a request from before the outage does not end it
            server.down_since = None
            self._changed.notify_all()
        log.info("Triton at %s is back after %.1f s", server.address, time.monotonic() - since)

    def pause(self, seconds: float) -> None:
        """Wait until a server works, but not longer than some seconds.

        Parameters
        ----------
        seconds : float
            How long.

        Raises
        ------
        PoolClosed
            `close` was called.
        """
        until = time.monotonic() + seconds
        with self._changed:
            while not self._closed and all(server.down_since is not None for server in self.servers):
                left = until - time.monotonic()
                if left <= 0:
                    return
                self._changed.wait(left)
            if self._closed:
                raise PoolClosed

    def close(self) -> None:
        """Wake all waiting threads and close all connections. This takes no time, whatever the servers do."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for server in self.servers:
            server.close()

    def _choose(self) -> Server | None:
        self._turn += 1
        turn = self._turn % len(self.servers)
        order = self.servers[turn:] + self.servers[:turn]
        working = [server for server in order if server.down_since is None]
        if working:
            now = time.monotonic()
            for server in order:
                if server.down_since is not None and server.probe_at <= now and not server.under_way:
                    return server
        free = [server for server in working or order if server.under_way < self._in_flight]
        return min(free, key=lambda server: server.under_way, default=None)
