"""Several servers as one: who is asked next, who is left out, and who is tried again."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from nuclei_segmentation.operators.filter.inference.triton.kserve import Connection
from nuclei_segmentation.shared.settings.address import Address

log = logging.getLogger("nuclei")

#: Seconds after which a server that failed is tried again while others work; it doubles with each failure.
_PROBE_FIRST, _PROBE_LAST = 1.0, 30.0


class Closed(Exception):
    """The pool was closed while somebody waited."""


class Server:
    """One address, its idle connections, and how it fares.

    Parameters
    ----------
    address : str
        ``host:port``; a ``http://`` before it is tolerated.

    Attributes
    ----------
    about : Mapping of str to object
        For the user of the server to set: what it told of itself when a connection to it was checked.

    Raises
    ------
    UsageError
        The address is none.
    """

    def __init__(self, address: str) -> None:
        self.host, self.port = where = Address.parse(address)
        self.address = str(where)
        self.under_way = 0
        self.down_since: float | None = None
        self.failures = 0
        self.probe_at = 0.0
        self.about: Mapping[str, object] = {}
        self._idle: list[Connection] = []
        self._all: set[Connection] = set()
        self._closed = False
        self._lock = threading.Lock()

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """Lend a connection; one that lay idle if there is one."""
        with self._lock:
            connection = self._idle.pop() if self._idle else Connection(self.host, self.port)
            self._all.add(connection)
            if self._closed:
                connection.abort()
        try:
            yield connection
        finally:
            with self._lock:
                if self._closed:
                    connection.drop()
                else:
                    connection.rest()
                    self._idle.append(connection)

    def close(self) -> None:
        """Close all connections at once; requests under way fail."""
        with self._lock:
            self._closed = True
            idle, everything = self._idle, self._all
            self._idle, self._all = [], set()
        for connection in everything:
            connection.abort()
        for connection in idle:
            connection.drop()


class Pool:
    """Hands out servers in turn.

    Parameters
    ----------
    servers : Sequence of Server
        At least one.
    in_flight : int
        Most requests under way at one server.
    """

    def __init__(self, servers: Sequence[Server], in_flight: int) -> None:
        self.servers = tuple(servers)
        self._in_flight = in_flight
        self._turn = 0
        self._closed = False
        self._changed = threading.Condition()

    @contextmanager
    def server(self) -> Iterator[Server]:
        """Lend the server whose turn it is; waits while all have enough to do.

        Servers that failed are left out while others work, but for one request each at growing intervals. If none
        works, they are handed out in turn.

        Raises
        ------
        Closed
            `close` was called.
        """
        with self._changed:
            while True:
                if self._closed:
                    raise Closed
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

    def some_work(self) -> bool:
        """Tell whether any server is believed to work."""
        with self._changed:
            return any(server.down_since is None for server in self.servers)

    def failed(self, server: Server, reason: str) -> None:
        """Note that a server failed; the first time in an outage is logged."""
        now = time.monotonic()
        with self._changed:
            if self._closed:
                return  # it was we who broke the connection
            first = server.down_since is None
            if first:
                server.down_since = now
                server.failures = 0
            server.failures += 1
            server.probe_at = now + min(_PROBE_LAST, _PROBE_FIRST * 2.0 ** min(server.failures - 1, 10))
            others = any(other.down_since is None for other in self.servers)
            self._changed.notify_all()
        if first:
            meanwhile = "others go on" if others else "trying again"
            log.warning("Triton at %s: %s; %s", server.address, reason, meanwhile)

    def worked(self, server: Server, asked: float) -> None:
        """Note that a server answered what it was asked at `asked` (monotonic); the end of an outage is logged."""
        with self._changed:
            since = server.down_since
            if since is None or asked < since:
                return  # an answer to a request from before the outage tells nothing
            server.down_since = None
            self._changed.notify_all()
        log.info("Triton at %s is back after %.1f s", server.address, time.monotonic() - since)

    def pause(self, seconds: float) -> None:
        """Wait, but not longer than until a server works.

        Raises
        ------
        Closed
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
                raise Closed

    def close(self) -> None:
        """Wake all who wait and close all connections; takes no time, whatever the servers do."""
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
