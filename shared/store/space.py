"""Whether an array fits into shared memory. What lies there takes memory, and is charged to the container."""

from __future__ import annotations

from nuclei_segmentation.shared.errors import NoSpace
from nuclei_segmentation.shared.runtime.resources import free_bytes, human, memory_left
from nuclei_segmentation.shared.store.array import SHARED


def check_shared(needed: int, ours: int) -> None:
    """Refuse what would not fit: reserving memory beyond the container's limit would end the process, not fail.

    Parameters
    ----------
    needed : int
        Bytes.
    ours : int
        Bytes that an older store has there, which goes first.

    Raises
    ------
    NoSpace
        Shared memory, or the memory that this process may use, has less.
    """
    advice = "or turn it off (`store: {shm: false}`)"
    if not SHARED.is_dir():
        raise NoSpace(f"there is no shared memory ({SHARED}) here; share it (--ipc=host), {advice}")
    free = free_bytes(SHARED) + ours
    if free < needed:
        raise NoSpace(
            f"{SHARED} has {human(free)} free, the store needs {human(needed)}; enlarge it (--shm-size), {advice}"
        )
    left = memory_left()
    if left is not None and left + ours < needed:
        raise NoSpace(
            f"the container may take {human(left + ours)} more of memory, the store in {SHARED} needs {human(needed)}; "
            f"raise its limit, {advice}"
        )
