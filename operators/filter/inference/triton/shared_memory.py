"""Passes tiles to a server on the same machine, and its outputs back, through shared memory.

A request then says where the tensors are, and has none of their bytes. Tiles that another stage left in a file in
shared memory are used where they are. Others are copied once, into a slot. The server writes its outputs into the slot.

None of this is taken for granted. Each server is tried with a tile whose maps are known. If it refuses, or maps the
memory of another machine, it gets its tiles in HTTP bodies as any server does, and the result is the same.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from nuclei_segmentation.operators.filter.inference.tensor_plan import Array, TensorPlan
from nuclei_segmentation.operators.filter.inference.trial import trial_tile
from nuclei_segmentation.operators.filter.inference.triton import memory_segments
from nuclei_segmentation.operators.filter.inference.triton.connection import Connection, Garbled, Unanswered
from nuclei_segmentation.operators.filter.inference.triton.kserve import Refused
from nuclei_segmentation.operators.filter.inference.triton.mapped_files import MappedFile, MappedFiles, inode_of
from nuclei_segmentation.operators.filter.inference.triton.memory_segments import Segment, SegmentSpan
from nuclei_segmentation.operators.filter.inference.triton.served_model import BUSY
from nuclei_segmentation.operators.filter.inference.triton.servers import Server
from nuclei_segmentation.operators.filter.inference.triton.slots import Layout, Slot, is_slot, remove_leftovers
from nuclei_segmentation.shared.errors import ModelError
from nuclei_segmentation.shared.settings import InferenceSettings
from nuclei_segmentation.shared.settings.address import Address

log = logging.getLogger(__name__)

#: Most seconds for a request about segments, which a server answers without any work.
_QUERY_DEADLINE = 5.0

#: Most seconds that closing takes, for all servers together.
_CLOSE_LIMIT = 0.5

#: How often one request is sent while the server does not know its segments. Once for each restart is normal.
_ATTEMPTS = 3
_SINCE_26_04 = "from release 26.04 on, start the server with --allow-client-shm=true"

#: The names of segments that are files with tiles begin with this; the file's inode follows.
_TILES_PREFIX = "nuclei-store-"

#: Sends a request through segments: connection, input's shape and place, outputs' places; see `memory_segments.infer`.
SendThroughSegments = Callable[
    [Connection, Sequence[int], SegmentSpan, Sequence[SegmentSpan]], list[memory_segments.Written]
]

#: Sends a request with its tensors in HTTP bodies: connection, input; see `kserve.infer`.
SendInBodies = Callable[[Connection, Array], list[Array]]


class _Unusable(Exception):
    """Memory cannot be shared with a server; the message says why."""


class SharedMemory:
    """The memory that an engine shares with its servers.

    Parameters
    ----------
    servers : Sequence of Server
        All servers of the engine.
    plan : TensorPlan
        How the model is used.
    batch : int
        Most tiles per request.
    inference : InferenceSettings
        Deadline, and most requests under way at one server.
    send_through_segments : SendThroughSegments
        Runs one inference through shared memory.
    send_in_bodies : SendInBodies
        Runs one inference through HTTP bodies.
    """

    def __init__(
        self,
        servers: Sequence[Server],
        plan: TensorPlan,
        batch: int,
        inference: InferenceSettings,
        send_through_segments: SendThroughSegments,
        send_in_bodies: SendInBodies,
    ) -> None:
        layout, files = Layout.of(plan, batch), MappedFiles()
        self._of_servers: Mapping[Server, _ServerMemory] = {}
        if layout is not None:
            remove_leftovers()
            self._of_servers = {
                server: _ServerMemory(server, plan, layout, files, inference, send_through_segments, send_in_bodies)
                for server in servers
            }

    @property
    def most_bytes(self) -> int:
        """Most bytes of all slots: one for each request under way, and as many that late outputs may still reach."""
        return sum(memory.most_bytes for memory in self._of_servers.values())

    def prepare(self, server: Server, connection: Connection) -> None:
        """Try whether memory can be shared with a server. Otherwise the first `infer` tries it.

        Parameters
        ----------
        server : Server
            The server.
        connection : Connection
            To the server.

        Raises
        ------
        Unanswered, Garbled, Refused, ModelError
            The server fails, which says nothing about sharing.
        """
        if (memory := self._of_servers.get(server)) is not None:
            memory.prepare(connection)

    def infer(self, server: Server, connection: Connection, array: Array) -> list[Array] | None:
        """Run one inference through shared memory.

        Parameters
        ----------
        server : Server
            The server.
        connection : Connection
            To the server.
        array : numpy.ndarray
            The input, contiguous.

        Returns
        -------
        list of numpy.ndarray or None
            The outputs. None if shared memory cannot be used; the request is then still to be sent.

        Raises
        ------
        Unanswered, Garbled, Refused, ModelError
            See `kserve.infer`.
        """
        memory = self._of_servers.get(server)
        return None if memory is None else memory.infer(connection, array)

    def close(self) -> None:
        """Remove all slots, and unregister all segments at the servers that answer in time."""
        until = time.monotonic() + _CLOSE_LIMIT
        for memory in self._of_servers.values():
            memory.close(until)


class _ServerMemory:
    """The memory that is shared with one server; for the parameters see `SharedMemory`."""

    def __init__(
        self,
        server: Server,
        plan: TensorPlan,
        layout: Layout,
        files: MappedFiles,
        inference: InferenceSettings,
        send_through_segments: SendThroughSegments,
        send_in_bodies: SendInBodies,
    ) -> None:
        self._server, self._plan, self._layout, self._files = server, plan, layout, files
        self._send_through_segments, self._send_in_bodies = send_through_segments, send_in_bodies
        self._in_flight = inference.in_flight
        self._query_deadline = min(_QUERY_DEADLINE, inference.deadline)
        self._tried = self._disabled = self._closed = self._full = False
        self._trial = threading.Lock()
        self._lock = threading.Lock()
        self._slots: set[Slot] = set()
        self._idle: list[Slot] = []
        #: Slots of requests that were given up. They are discarded but still registered, since the server may still
        #: write into them.
        self._retired: list[Slot] = []
        #: Names of segments that the server may have, since it was asked to map them.
        self._requested: set[str] = set()
        #: Names of segments that the server has.
        self._registered: set[str] = set()
        #: Names of segments, files with tiles, that the server does not map.
        self._refused: set[str] = set()

    @property
    def most_bytes(self) -> int:
        """See `SharedMemory.most_bytes`."""
        return 0 if self._disabled else 2 * self._in_flight * self._layout.size

    def prepare(self, connection: Connection) -> None:
        """See `SharedMemory.prepare`."""
        if not self._tried:
            with self._trial:
                if not self._tried:
                    self._try(connection)

    def infer(self, connection: Connection, array: Array) -> list[Array] | None:
        """See `SharedMemory.infer`."""
        self.prepare(connection)
        if self._disabled:
            return None
        try:
            return self._infer(connection, array)
        except _Unusable as error:
            self._disable(str(error))
            return None

    def close(self, until: float) -> None:
        """See `SharedMemory.close`; it ends at `until` (monotonic) at the latest."""
        with self._lock:
            self._closed = True
            slots, self._slots, self._idle = self._slots, set(), []
            names, self._requested = self._requested, set()
        for slot in slots:
            slot.discard()
        if not names or self._server.down_since is not None:
            return
        connection = Connection(self._server.host, self._server.port)
        with contextlib.suppress(Unanswered, Garbled):
            while names and (left := until - time.monotonic()) > 0:
                for name in list(names):
                    with contextlib.suppress(Refused):  # the last request is still under way
                        memory_segments.unregister(connection, name, left)
                        names.remove(name)
                if names:
                    time.sleep(min(0.05, left))
        connection.disconnect()

    def _try(self, connection: Connection) -> None:
        """Infer one tile both ways and compare. Failures that have nothing to do with sharing are raised."""
        try:
            with _as_unusable():
                if (reason := memory_segments.reason_against(self._server.metadata)) is not None:
                    raise _Unusable(reason)
                self._unregister_leftovers(connection)
                slot = self._take_slot(connection)
            if slot is None:
                return  # it was closed meanwhile
            # If the server writes nothing, or elsewhere, the slot's old content must not pass for its outputs.
            slot.memory[:] = np.frombuffer(os.urandom(slot.size), np.uint8)
            self._return_slot(slot)
            array = self._plan.encode(trial_tile(self._plan.tile))
            expected = self._plan.decode(self._send_in_bodies(connection, array), 1)
            with _as_unusable():
                outputs = self._infer(connection, array)
                maps = None if outputs is None else self._plan.decode(outputs, 1)
            # On a GPU, two inferences of a tile may differ in the last bit.
            if maps is None or np.abs(maps.astype(np.int16) - expected).max() > 1:
                raise _Unusable("the maps of a trial tile are wrong")
            log.debug("Triton at %s: tiles travel through shared memory", self._server.address)
        except _Unusable as error:
            self._disable(str(error))
        self._tried = True

    def _disable(self, reason: str) -> None:
        with self._lock:
            if self._disabled:
                return
            self._disabled = True
            idle, self._idle = self._idle, []
            self._slots -= set(idle)
        for slot in idle:
            slot.discard()
        level = logging.INFO if Address(self._server.host, self._server.port).is_loopback else logging.DEBUG
        log.log(
            level, "Triton at %s: tiles travel in HTTP, not through shared memory: %s", self._server.address, reason
        )

    def _infer(self, connection: Connection, array: Array) -> list[Array] | None:
        slot = self._take_slot(connection)
        if slot is None:
            return None
        try:
            outputs = self._infer_with(slot, connection, array)
        except BaseException as error:
            # The server has finished with the slot if it replied. That a gateway gave up waiting is no such reply.
            if isinstance(error, _Unusable) or (isinstance(error, Refused) and error.status not in BUSY):
                self._return_slot(slot)
            else:
                self._retire_slot(slot)
            raise
        self._return_slot(slot)
        return outputs

    def _infer_with(self, slot: Slot, connection: Connection, array: Array) -> list[Array]:
        spans = self._layout.spans(slot.name, array.shape)
        copied = False
        for attempt in range(_ATTEMPTS):
            self._register_slot(connection, slot)
            source = self._span_in_file(connection, array)
            if source is None:
                source = SegmentSpan(slot.name, 0, array.nbytes)
                if not copied:
                    slot.memory[: array.nbytes] = array.reshape(-1).view(np.uint8)
                    copied = True
            try:
                written = self._send_through_segments(connection, array.shape, source, spans)
            except Refused as error:
                if not memory_segments.segment_unknown(error):
                    raise
                reason = str(error)
                with self._lock:
                    self._registered -= {slot.name, source.segment}
                    if attempt and source.segment != slot.name:
                        self._refused.add(source.segment)  # another process may keep unregistering it
                continue
            # Copied, since the slot is used again.
            return [
                np.frombuffer(slot.memory, dtype, math.prod(shape), span.offset).reshape(shape).copy()
                for (dtype, shape), span in zip(written, spans, strict=True)
            ]
        raise _Unusable(f"the server does not find segments that it has registered: {reason}")

    def _register_slot(self, connection: Connection, slot: Slot) -> None:
        if slot.name in self._registered:
            return
        try:
            self._register(connection, Segment(slot.name, f"/{slot.name}", slot.size))
        except Refused as error:
            if error.status in BUSY:
                raise
            raise _Unusable(f"{error} ({_SINCE_26_04})") from error

    def _span_in_file(self, connection: Connection, array: Array) -> SegmentSpan | None:
        """Return where the server finds an array that is in shared memory already; None if it does not find it."""
        found = self._files.find(array)
        if found is None:
            return None
        file, offset = found
        name = f"{_TILES_PREFIX}{file.inode}"
        if name not in self._registered and name not in self._refused:
            try:
                self._register_file(connection, name, file)
            except Refused as error:
                with self._lock:
                    self._refused.add(name)
                log.debug("Triton at %s: tiles of %s are copied: %s", self._server.address, file.name, error)
        # If the file has grown since, the server knows only its old size.
        if name in self._refused or offset + array.nbytes > file.size:
            return None
        return SegmentSpan(name, offset, array.nbytes)

    def _register_file(self, connection: Connection, name: str, file: MappedFile) -> None:
        key = f"/{file.name}"
        registered = memory_segments.segments(connection, self._query_deadline)
        if any(segment.key == key and segment.name != name for segment in registered):
            # Version 2.51 would use a file descriptor that it has closed, which may be any file by now.
            raise Refused(400, "the server has the file under another name")
        self._register(connection, Segment(name, key, file.size))
        if not file.has_its_name:
            memory_segments.unregister(connection, name, self._query_deadline)
            raise Refused(400, "another file has its name now")

    def _register(self, connection: Connection, segment: Segment) -> None:
        with self._lock:
            self._requested.add(segment.name)  # even if it fails, since only the reply may have been lost
        try:
            memory_segments.register(connection, segment, self._query_deadline)
        except Refused:
            # The server may have it already: from another thread, another process on the same store, or a lost reply.
            if segment not in memory_segments.segments(connection, self._query_deadline):
                raise
        with self._lock:
            self._registered.add(segment.name)

    def _unregister_leftovers(self, connection: Connection) -> None:
        """Make the server unmap what dead processes registered. What is still in use stays."""
        for segment in memory_segments.segments(connection, self._query_deadline):
            inode = inode_of(segment.key.removeprefix("/"))
            registered_inode = segment.name.removeprefix(_TILES_PREFIX)
            stale_tiles = segment.name.startswith(_TILES_PREFIX) and registered_inode != str(inode)
            if stale_tiles or (is_slot(segment.name) and inode is None):
                with contextlib.suppress(Refused):
                    memory_segments.unregister(connection, segment.name, self._query_deadline)

    def _take_slot(self, connection: Connection) -> Slot | None:
        """Return an idle or a new slot; None if there is none and none can be made."""
        for slot in tuple(self._retired):
            with contextlib.suppress(Refused):  # a request still uses it
                memory_segments.unregister(connection, slot.name, self._query_deadline)
                with self._lock, contextlib.suppress(ValueError):
                    self._retired.remove(slot)
                    self._requested.discard(slot.name)
        with self._lock:
            if self._idle:
                return self._idle.pop()
            if self._full or self._closed or len(self._retired) >= self._in_flight:
                return None
            try:
                slot = Slot(self._layout.size)
            except OSError as error:
                self._full = True
                reason = f"no file of {self._layout.size} bytes in shared memory: {error.strerror}"
                if not self._slots:
                    raise _Unusable(reason) from error
            else:
                self._slots.add(slot)
                return slot
        log.info("Triton at %s: some tiles travel in HTTP: %s", self._server.address, reason)
        return None

    def _return_slot(self, slot: Slot) -> None:
        with self._lock:
            if self._closed:
                return
            if not self._disabled:
                self._idle.append(slot)
                return
            self._slots.discard(slot)
        slot.discard()

    def _retire_slot(self, slot: Slot) -> None:
        """Never use a slot again, since the server may write late outputs into it at any time."""
        with self._lock:
            if self._closed:
                return
            self._slots.discard(slot)
            self._registered.discard(slot.name)
            self._retired.append(slot)
        slot.discard()


@contextlib.contextmanager
def _as_unusable() -> Iterator[None]:
    """Turn errors into `_Unusable`, except those of a server that is not ready or does not answer."""
    try:
        yield
    except Refused as error:
        if error.status in BUSY:
            raise
        raise _Unusable(str(error)) from error
    except (Garbled, ModelError) as error:
        raise _Unusable(str(error)) from error
