"""Starting threads, of which a container or a user may have a limited number."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from nuclei_segmentation.shared.errors import NucleiError


def start(thread: threading.Thread) -> None:
    """Start a thread.

    Parameters
    ----------
    thread : threading.Thread
        The thread.

    Raises
    ------
    NucleiError
        The system allows no more threads.
    """
    with starting_threads():
        thread.start()


@contextmanager
def starting_threads() -> Iterator[None]:
    """Run a block that starts threads, in this program or in a library.

    Raises
    ------
    NucleiError
        The system allows no more threads.
    """
    try:
        yield
    except RuntimeError as error:
        if "can't start new thread" not in str(error):
            raise
        raise NucleiError(
            "the system allows no more threads: raise the limit of processes (--pids-limit of a container, ulimit -u), "
            "or use fewer workers (-w)"
        ) from error
