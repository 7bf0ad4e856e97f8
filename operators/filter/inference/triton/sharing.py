"""Tiles go to a server on the same machine through shared memory, and its answers come back that way.

A request then names places and carries no pixel. Tiles that lie in a file in shared memory already, written there by
another stage, stay where they are; others are copied once, into a slot. Answers are written into the slot.

None of this is taken for granted. Each server is tried with a tile whose answer is known; one that refuses, or that
looks into another machine's memory, gets its tiles in HTTP bodies as any server does, and the result is the same.
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

from nuclei_segmentation.operators.filter.inference.canary import canary_tile
from nuclei_segmentation.operators.filter.inference.contract import Array, Plan
from nuclei_segmentation.operators.filter.inference.triton import memory_segments
from nuclei_segmentation.operators.filter.inference.triton.kserve import Connection, Garbled, Refused, Unanswered
from nuclei_segmentation.operators.filter.inference.triton.memory_segments import Segment, SegmentSpan
from nuclei_segmentation.operators.filter.inference.triton.served import BUSY
from nuclei_segmentation.operators.filter.inference.triton.servers import Server
from nuclei_segmentation.operators.filter.inference.triton.slots import (
    Layout,
    Slot,
    Store,
    Stores,
    is_slot,
    number_of,
    remove_leftovers,
)
from nuclei_segmentation.shared.errors import ModelError
from nuclei_segmentation.shared.settings import InferenceSettings
from nuclei_segmentation.shared.settings.address import Address

log = logging.getLogger("nuclei")

#: Seconds for a question about segments: it is answered without any work.
_QUESTION = 5.0

#: Seconds that closing may take for all servers together.
_FAREWELL = 0.5

#: How often a server may have lost its segments before one request is answered; once for each restart is normal.
_ATTEMPTS = 3

_STORE = "nuclei-store-"

#: Sends a request: connection, input's shape and place, outputs' places; see `memory_segments.infer`.
Send = Callable[[Connection, Sequence[int], SegmentSpan, Sequence[SegmentSpan]], list[memory_segments.Written]]

#: Sends one whose tensors are in HTTP bodies: connection, input; see `kserve.infer`.
Post = Callable[[Connection, Array], list[Array]]


class _Withheld(Exception):
    """No memory is shared with a server; the message says why."""


class Sharing:
    """The memory that an engine shares with its servers.

    Parameters
    ----------
    servers : Sequence of Server
        All of them.
    plan, batch : Plan, int
        How the model is fed.
    inference : InferenceSettings
        Deadline, and most requests under way at one server.
    send, post : Send, Post
        Run one inference, either way.
    """

    def __init__(
        self,
        servers: Sequence[Server],
        plan: Plan,
        batch: int,
        inference: InferenceSettings,
        send: Send,
        post: Post,
    ) -> None:
        layout, stores = Layout.of(plan, batch), Stores()
        self._shares: Mapping[Server, _Share] = {}
        if layout is not None:
            remove_leftovers()
            self._shares = {server: _Share(server, plan, layout, stores, inference, send, post) for server in servers}

    @property
    def most_bytes(self) -> int:
        """Bytes that all files may take: one for each request under way, and as many for late answers."""
        return sum(share.most_bytes for share in self._shares.values())

    def prepare(self, server: Server, connection: Connection) -> None:
        """Try whether memory can be shared with a server; `infer` does it else.

        Raises
        ------
        Unanswered, Garbled, Refused, ModelError
            The server fails; nothing is known of sharing then.
        """
        if (share := self._shares.get(server)) is not None:
            share.prepare(connection)

    def infer(self, server: Server, connection: Connection, array: Array) -> list[Array] | None:
        """Run one inference through shared memory; see `kserve.infer`.

        Returns
        -------
        list of numpy.ndarray or None
            None where that is not possible; nothing has been asked then.
        """
        share = self._shares.get(server)
        return None if share is None else share.infer(connection, array)

    def close(self) -> None:
        """Remove all files, and have the servers let go of them; those that do not answer are not waited for."""
        until = time.monotonic() + _FAREWELL
        for share in self._shares.values():
            share.close(until)


class _Share:
    """What is shared with one server; for the parameters see `Sharing`."""

    def __init__(
        self,
        server: Server,
        plan: Plan,
        layout: Layout,
        stores: Stores,
        inference: InferenceSettings,
        send: Send,
        post: Post,
    ) -> None:
        self._server, self._plan, self._layout, self._stores = server, plan, layout, stores
        self._in_flight, self._send, self._post = inference.in_flight, send, post
        self._wait_limit = min(_QUESTION, inference.deadline)
        self._tried = self._withheld = self._closed = self._full = False
        self._trial = threading.Lock()
        self._lock = threading.Lock()
        self._slots: set[Slot] = set()
        self._idle: list[Slot] = []
        #: Slots that the server may still write to, since a request was given up; discarded, but registered there.
        self._retired: list[Slot] = []
        #: Segments that the server was asked to map, segments that it has, and stores that it does not take.
        self._asked: set[str] = set()
        self._registered: set[str] = set()
        self._refused: set[str] = set()

    @property
    def most_bytes(self) -> int:
        """See `Sharing.most_bytes`."""
        return 0 if self._withheld else 2 * self._in_flight * self._layout.size

    def prepare(self, connection: Connection) -> None:
        """See `Sharing.prepare`."""
        if not self._tried:
            with self._trial:
                if not self._tried:
                    self._try(connection)

    def infer(self, connection: Connection, array: Array) -> list[Array] | None:
        """See `Sharing.infer`."""
        self.prepare(connection)
        if self._withheld:
            return None
        try:
            return self._exchange(connection, array)
        except _Withheld as error:
            self._give_up(str(error))
            return None

    def close(self, until: float) -> None:
        """See `Sharing.close`; not later than `until` (monotonic)."""
        with self._lock:
            self._closed = True
            slots, self._slots, self._idle = self._slots, set(), []
            names, self._asked = self._asked, set()
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
        connection.drop()

    def _try(self, connection: Connection) -> None:
        """Have one tile inferred both ways. What fails for other reasons than sharing is left to the caller."""
        try:
            with _withholding():
                if (reason := memory_segments.why_not(self._server.about)) is not None:
                    raise _Withheld(reason)
                self._tidy(connection)
                slot = self._take(connection)
            if slot is None:
                return  # closed meanwhile
            # A server that writes nowhere, or elsewhere, shall not be believed for what was there before.
            slot.memory[:] = np.frombuffer(os.urandom(slot.size), np.uint8)
            self._give_back(slot)
            array = self._plan.encode(canary_tile(self._plan.tile))
            expected = self._plan.decode(self._post(connection, array), 1)
            with _withholding():
                answer = self._exchange(connection, array)
                found = None if answer is None else self._plan.decode(answer, 1)
            # a GPU may not answer the same twice to the last bit
            if found is None or np.abs(found.astype(np.int16) - expected).max() > 1:
                raise _Withheld("an answer through it is wrong")
            log.debug("Triton at %s: tiles travel through shared memory", self._server.address)
        except _Withheld as error:
            self._give_up(str(error))
        self._tried = True

    def _give_up(self, reason: str) -> None:
        with self._lock:
            if self._withheld:
                return
            self._withheld = True
            idle, self._idle = self._idle, []
            self._slots -= set(idle)
        for slot in idle:
            slot.discard()
        level = logging.INFO if Address(self._server.host, self._server.port).is_loopback else logging.DEBUG
        log.log(
            level, "Triton at %s: tiles travel in HTTP, not through shared memory: %s", self._server.address, reason
        )

    def _exchange(self, connection: Connection, array: Array) -> list[Array] | None:
        slot = self._take(connection)
        if slot is None:
            return None
        try:
            answer = self._through(slot, connection, array)
        except BaseException as error:
            # After an answer the server has ended with the slot; a gateway's word that it takes too long is none.
            if isinstance(error, _Withheld) or (isinstance(error, Refused) and error.status not in BUSY):
                self._give_back(slot)
            else:
                self._retire(slot)
            raise
        self._give_back(slot)
        return answer

    def _through(self, slot: Slot, connection: Connection, array: Array) -> list[Array]:
        spans = self._layout.spans(slot.name, array.shape)
        copied = False
        for attempt in range(_ATTEMPTS):
            self._register_slot(connection, slot)
            source = self._in_place(connection, array)
            if source is None:
                source = SegmentSpan(slot.name, 0, array.nbytes)
                if not copied:
                    slot.memory[: array.nbytes] = array.reshape(-1).view(np.uint8)
                    copied = True
            try:
                told = self._send(connection, array.shape, source, spans)
            except Refused as error:
                if not memory_segments.unknown(error):
                    raise
                reason = str(error)
                with self._lock:
                    self._registered -= {slot.name, source.segment}
                    if attempt and source.segment != slot.name:
                        self._refused.add(source.segment)  # another process may have withdrawn it in this moment
                continue
            # copied out, since the slot is used again
            return [
                np.frombuffer(slot.memory, kind, math.prod(shape), span.offset).reshape(shape).copy()
                for (kind, shape), span in zip(told, spans, strict=True)
            ]
        raise _Withheld(f"it does not find what was registered: {reason}")

    def _register_slot(self, connection: Connection, slot: Slot) -> None:
        if slot.name in self._registered:
            return
        try:
            self._register(connection, Segment(slot.name, f"/{slot.name}", slot.size))
        except Refused as error:
            if error.status in BUSY:
                raise
            raise _Withheld(str(error)) from error

    def _in_place(self, connection: Connection, array: Array) -> SegmentSpan | None:
        """Return where the server finds an array that lies in shared memory already; None if it does not."""
        found = self._stores.find(array)
        if found is None:
            return None
        store, offset = found
        name = f"{_STORE}{store.number}"
        if name not in self._registered and name not in self._refused:
            try:
                self._register_store(connection, name, store)
            except Refused as error:
                with self._lock:
                    self._refused.add(name)
                log.debug("Triton at %s: tiles of %s are copied: %s", self._server.address, store.name, error)
        # a file that has grown since is known to the server in its old size
        if name in self._refused or offset + array.nbytes > store.size:
            return None
        return SegmentSpan(name, offset, array.nbytes)

    def _register_store(self, connection: Connection, name: str, store: Store) -> None:
        key = f"/{store.name}"
        if any(one.key == key and one.name != name for one in memory_segments.segments(connection, self._wait_limit)):
            # 2.51 would take the descriptor that it closed, which may be any file by now
            raise Refused(400, "the server has the file under another name")
        self._register(connection, Segment(name, key, store.size))
        if not store.is_there:
            memory_segments.unregister(connection, name, self._wait_limit)
            raise Refused(400, "another file has its name now")

    def _register(self, connection: Connection, segment: Segment) -> None:
        with self._lock:
            self._asked.add(segment.name)  # whatever comes of it: the answer may be lost
        try:
            memory_segments.register(connection, segment, self._wait_limit)
        except Refused:
            # It may have it already: from another thread, another process on the same store, or a lost answer.
            if segment not in memory_segments.segments(connection, self._wait_limit):
                raise
        with self._lock:
            self._registered.add(segment.name)

    def _tidy(self, connection: Connection) -> None:
        """Have the server let go of what dead processes left with it; it keeps what is still in use."""
        for segment in memory_segments.segments(connection, self._wait_limit):
            number = number_of(segment.key.removeprefix("/"))
            store = segment.name.removeprefix(_STORE)
            ours = segment.name.startswith(_STORE) and store != str(number)
            if ours or (is_slot(segment.name) and number is None):
                with contextlib.suppress(Refused):
                    memory_segments.unregister(connection, segment.name, self._wait_limit)

    def _take(self, connection: Connection) -> Slot | None:
        """Return a slot that nobody uses; None where there is none and none can be made."""
        for slot in tuple(self._retired):
            with contextlib.suppress(Refused):  # a request still uses it
                memory_segments.unregister(connection, slot.name, self._wait_limit)
                with self._lock, contextlib.suppress(ValueError):
                    self._retired.remove(slot)
                    self._asked.discard(slot.name)
        with self._lock:
            if self._idle:
                return self._idle.pop()
            if self._full or self._closed or len(self._retired) >= self._in_flight:
                return None
            try:
                slot = Slot(self._layout.size)
            except OSError as error:
                self._full = True
                reason = f"a file of {self._layout.size} bytes in shared memory: {error.strerror}"
                if not self._slots:
                    raise _Withheld(reason) from error
            else:
                self._slots.add(slot)
                return slot
        log.info("Triton at %s: some tiles travel in HTTP: %s", self._server.address, reason)
        return None

    def _give_back(self, slot: Slot) -> None:
        with self._lock:
            if self._closed:
                return
            if not self._withheld:
                self._idle.append(slot)
                return
            self._slots.discard(slot)
        slot.discard()

    def _retire(self, slot: Slot) -> None:
        """Never use a slot again: the server may write its late answer at any time."""
        with self._lock:
            if self._closed:
                return
            self._slots.discard(slot)
            self._registered.discard(slot.name)
            self._retired.append(slot)
        slot.discard()


@contextlib.contextmanager
def _withholding() -> Iterator[None]:
    """Take what goes wrong for a reason not to share, but for a server that is not ready or does not answer."""
    try:
        yield
    except Refused as error:
        if error.status in BUSY:
            raise
        raise _Withheld(str(error)) from error
    except (Garbled, ModelError) as error:
        raise _Withheld(str(error)) from error
