"""A stand-in for NVIDIA's Python module ``clara``, for tests only: put on the path by them, never installed.

NVIDIA's module is on no public index, so this was written from what its public documentation says of it; every such
fact, and where it stands there, is in docs/clara.md. It is strict where the documentation is, so that a misuse fails a
test. It proves that this project keeps to the documentation as far as that goes, not that it runs on NVIDIA's module.

Documented, and enforced here:

- ``from clara import Driver, Error, Payload``; ``Driver(execute_handler=...)``, ``start()``, ``wait_for_completion()``;
  handlers prepare(driver), execute(driver, payload), cleanup(driver) in that order, each once, each optional, true for
  success; ``job_id`` (a UUID), ``job_name``, a stage name, application data;
- ``Payload.input_entries``, ``output_entries``: collections of entries with name and path, of which one name at most is
  empty; ``fastio_context``;
- a FastIO context is good only while execute runs; ``create(size)`` gives memory that is the process's own until
  ``publish(id)``; others ``get(id)`` it; it is mapped before it is written and unmapped after; ``release`` drops the
  reference, ``free`` also lets nobody get it any more; a reference deleted by Python is released; all are given back
  before execute returns (the documentation of the C interface says so).

Guessed, since no public text says it:

- the keyword names besides ``execute_handler``; the property ``stage``;
- that an exception in a handler, or a false result, faults the job and `wait_for_completion` returns all the same;
- how ``NVIDIA_CLARA_INPUTPATHS`` and ``NVIDIA_CLARA_OUTPUTPATHS`` separate several entries (here: a comma);
- that `map` takes no arguments and returns a buffer; that mapping or publishing twice, publishing under an id that is
  taken, getting an unknown id and unmapping under a view are errors; that what was got is mapped read-only (the
  documentation says so of typed inputs only; a reader has no reason to write);
- the arguments of ``set_type_and_dimensions``, here a NumPy name and a list, all positive, that fit the memory;
- where the memory lies: here in /dev/shm, in files named for ``CLARA_STANDIN_ID``, which the tests set and clear.

``CLARA_STANDIN_FAULT`` makes it misbehave in one of the ways that `FAULTS` names; every call is noted, a line each, in
the file that ``CLARA_STANDIN_LOG`` names.
"""

from __future__ import annotations

import ctypes
import json
import math
import mmap
import os
import threading
import traceback
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

FAULTS = {
    "": "works",
    "no-library": "cannot be imported: its library in C is missing",
    "no-driver": "has no Driver, as another package of that name",
    "refuses": "fails to start",
    "breaks": "fails after execute",
    "never": "ends without execute",
    "blocks": "never comes back from waiting for inputs, which is a call in C",
    "thread": "calls execute in a thread of its own, and waits for it in C",
    "no-context": "has no FastIO context",
    "full": "cannot allocate memory",
    "address": "maps to an address instead of a buffer",
}
FAULT = os.environ.get("CLARA_STANDIN_FAULT", "")
assert FAULT in FAULTS, FAULT

if FAULT == "no-library":
    raise OSError("libnvclara.so: cannot open shared object file: No such file or directory")


class Error(Exception):
    """Anything that the documentation forbids."""


def _note(what: str, **facts: object) -> None:
    if log := os.environ.get("CLARA_STANDIN_LOG"):
        with Path(log).open("a") as file:
            file.write(json.dumps({"call": what, "process": os.getpid(), **facts}) + "\n")


class PayloadEntry:
    """A folder of the payload; the name may be empty."""

    def __init__(self, name: str, path: str) -> None:
        self.name, self.path = name, path


class PayloadCollection:
    """Entries; all that is promised of it is that one can go through them."""

    def __init__(self, text: str) -> None:
        parts = [part.rpartition(":") for part in text.split(",") if part]
        self._entries = [PayloadEntry(name, path) for name, _, path in parts]
        if sum(not entry.name for entry in self._entries) > 1:
            raise Error("more than one entry without a name")

    def __iter__(self) -> Iterator[PayloadEntry]:
        return iter(self._entries)


class FastIOAllocation:
    """A reference to memory. Made by a context only."""

    def __init__(self, context: FastIOContext, path: Path, size: int, *, mine: bool) -> None:
        self._context, self._path, self._size, self._mine = context, path, size, mine
        self._published = not mine
        self._file = os.open(path, os.O_RDWR)
        self._memory: mmap.mmap | None = None
        self._view: memoryview | None = None
        self._released = False
        context._references.append(self)

    @property
    def _id(self) -> str:
        return self._path.name

    def set_type_and_dimensions(self, element_type: str, dimensions: list[int]) -> None:
        self._alive()
        if self._published:
            raise Error("described after it was published")
        size = math.prod(dimensions) * np.dtype(element_type).itemsize
        if not dimensions or min(dimensions) < 1 or size > self._size:
            raise Error(f"{dimensions} of {element_type} are not within {self._size} bytes")
        _note("set_type_and_dimensions", type=element_type, dimensions=dimensions)

    def map(self) -> memoryview | int:
        self._alive()
        if self._memory is not None:
            raise Error("mapped twice")
        _note("map", id=self._id, mine=self._mine)
        if FAULT == "address":
            self._memory = mmap.mmap(self._file, self._size)
            return ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        self._memory = mmap.mmap(self._file, self._size, access=mmap.ACCESS_WRITE if self._mine else mmap.ACCESS_READ)
        self._view = memoryview(self._memory)
        return self._view

    def unmap(self) -> None:
        self._alive()
        if self._memory is None:
            raise Error("unmapped without having been mapped")
        try:
            if self._view is not None:
                self._view.release()
            self._memory.close()
        except BufferError as error:
            raise Error("unmapped while somebody looks at it") from error
        self._memory = self._view = None
        _note("unmap", id=self._id)

    def publish(self, identifier: str) -> None:
        self._alive()
        if self._published:
            raise Error("published twice")
        if not isinstance(identifier, str) or not identifier or "/" in identifier:
            raise Error(f"{identifier!r} is no identifier")
        path = self._context._place / identifier
        if path.exists():
            raise Error(f"{identifier} is taken")
        self._path = self._path.rename(path)
        self._published = True
        _note("publish", id=identifier)

    def release(self) -> None:
        self._alive()
        self._give_back()
        _note("release", id=self._id)

    def free(self) -> None:
        self._alive()
        self._give_back()
        self._path.unlink(missing_ok=True)
        _note("free", id=self._id)

    def __del__(self) -> None:
        if not self._released:
            self._give_back()

    def _give_back(self) -> None:
        if self._memory is not None:
            raise Error("given back while it is mapped")
        self._released = True
        os.close(self._file)
        if not self._published:
            self._path.unlink()
            self._published = True

    def _alive(self) -> None:
        self._context._valid()
        if self._released:
            raise Error("used after it was given back")


class FastIOContext:
    """Memory that the operators of a job share."""

    def __init__(self) -> None:
        self._place = Path("/dev/shm") / f"clara-standin-{os.environ['CLARA_STANDIN_ID']}"
        self._ended = False
        self._references: list[FastIOAllocation] = []

    def create(self, size: int) -> FastIOAllocation:
        self._valid()
        if FAULT == "full":
            raise Error("out of shared memory")
        if not isinstance(size, int) or size < 1:
            raise Error(f"{size!r} is no size")
        self._place.mkdir(exist_ok=True)
        path = self._place / f"private-{uuid.uuid4()}"
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        os.posix_fallocate(file, 0, size)
        os.close(file)
        _note("create", size=size)
        return FastIOAllocation(self, path, size, mine=True)

    def get(self, identifier: str) -> FastIOAllocation:
        self._valid()
        path = self._place / identifier
        if identifier.startswith("private-") or not path.is_file():
            raise Error(f"nothing was published as {identifier}")
        _note("get", id=identifier)
        return FastIOAllocation(self, path, path.stat().st_size, mine=False)

    def _valid(self) -> None:
        if self._ended:
            raise Error("the context is used after execute")

    def _end(self) -> None:
        held = [reference._id for reference in self._references if not reference._released]
        self._ended = True
        if held:
            raise Error(f"execute has returned without giving back {held}")


class Payload:
    """What execute is given."""

    def __init__(self) -> None:
        self.input_entries = PayloadCollection(os.environ.get("NVIDIA_CLARA_INPUTPATHS", ""))
        self.output_entries = PayloadCollection(os.environ.get("NVIDIA_CLARA_OUTPUTPATHS", ""))
        self.fastio_context = None if FAULT == "no-context" else FastIOContext()


class Driver:
    """Calls the handlers. Inputs are ready at once: the tests start the stages in turn, as the Pod Manager would."""

    def __init__(
        self,
        prepare_handler: Callable[[Driver], Any] | None = None,
        execute_handler: Callable[[Driver, Payload], Any] | None = None,
        cleanup_handler: Callable[[Driver], Any] | None = None,
        notification_handler: Callable[..., Any] | None = None,
        application_data: object = None,
    ) -> None:
        self._prepare, self._execute, self._cleanup = prepare_handler, execute_handler, cleanup_handler
        self.application_data = application_data
        self._started = self._completed = False

    @property
    def job_id(self) -> uuid.UUID:
        return uuid.uuid5(uuid.NAMESPACE_DNS, os.environ["CLARA_STANDIN_ID"])

    @property
    def job_name(self) -> str:
        return "stand-in"

    @property
    def stage(self) -> str:
        return "stage"

    def start(self) -> None:
        if self._started:
            raise Error("started twice")
        self._started = True
        if FAULT == "refuses":
            raise Error("no Pod Manager answers")
        _note("start")
        if self._prepare is not None:
            self._prepare(self)

    def wait_for_completion(self) -> None:
        if not self._started or self._completed:
            raise Error("not started, or completed already")
        self._completed = True
        if FAULT == "blocks":
            _block()
        if FAULT != "never" and self._execute is not None:
            if FAULT == "thread":
                lock = ctypes.create_string_buffer(64)
                libc.pthread_mutex_lock(lock)
                threading.Thread(target=lambda: (self._run(), libc.pthread_mutex_unlock(lock)), daemon=True).start()
                libc.pthread_mutex_lock(lock)
            else:
                self._run()
        if self._cleanup is not None:
            self._cleanup(self)
        if FAULT == "breaks":
            raise Error("the Pod Manager has gone")

    def _run(self) -> None:
        payload = Payload()
        try:
            good = bool(self._execute(self, payload))
        except BaseException:  # as a library in C does with an exception from a callback
            traceback.print_exc()
            good = False
        if payload.fastio_context is not None:
            payload.fastio_context._end()
        _note("executed", good=good)


libc = ctypes.CDLL(None)


def _block() -> None:
    """Lock a lock twice, in C: nothing ends that, and no Python runs meanwhile in this thread."""
    lock = ctypes.create_string_buffer(64)
    libc.pthread_mutex_lock(lock)
    _note("blocks")
    libc.pthread_mutex_lock(lock)


if FAULT == "no-driver":
    del Driver
