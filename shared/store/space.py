"""Checks that an array fits into shared memory, which counts as memory of the container."""

from __future__ import annotations

from nuclei_segmentation.shared.errors import NoSpace
from nuclei_segmentation.shared.runtime.resources import free_bytes, human, memory_left
from nuclei_segmentation.shared.store.array import SHARED


def check_shared(needed: int, reusable: int) -> None:
    """Refuse an array that would not fit. Reserving memory beyond the container's limit would kill the process.

    Parameters
    ----------
    needed : int
        Bytes that the array takes.
    reusable : int
        Bytes of an older store, which is removed first.

    Raises
    ------
    NoSpace
        Shared memory, or the memory that this process may use, has less space.
    """
    advice = "or turn it off (`store: {shm: false}`)"
    if not SHARED.is_dir():
        raise NoSpace(f"there is no shared memory ({SHARED}) here; share it (--ipc=host), {advice}")
    free = free_bytes(SHARED) + reusable
    if free < needed:
        raise NoSpace(
            f"{SHARED} has {human(free)} free, the store needs {human(needed)}; enlarge it (--shm-size), {advice}"
        )
    left = memory_left()
    if left is not None and left + reusable < needed:
        raise NoSpace(
            f"the container may use {human(left + reusable)} more memory, the store in {SHARED} needs {human(needed)}; "
            f"raise its limit, {advice}"
        )
