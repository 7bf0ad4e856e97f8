"""Waiting for the stage before this one."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from nuclei_segmentation.shared.errors import WaitedTooLong
from nuclei_segmentation.shared.runtime.progress import duration
from nuclei_segmentation.shared.settings.environment import NO_SYNC_LOCK

log = logging.getLogger("nuclei")

SAY_SECONDS = 10.0
POLL_SECONDS = 0.05
STEP_SECONDS = 1.0
"""As much as one step of waiting counts at most: a machine or container that was paused did not wait."""


class WaitLimit:
    """How long a stage waits for what it reads.

    Parameters
    ----------
    limit : float or None
        Seconds without progress after which to give up; None: do not wait at all.
    """

    def __init__(self, limit: float | None) -> None:
        self._limit = limit
        self._idle = 0.0  # seconds waited since there was progress; time in which this stage had work does not count
        self._said = time.monotonic()
        self.waited = 0.0
        """Seconds spent on waiting so far."""

    @property
    def waits(self) -> bool:
        """Whether there is any waiting."""
        return self._limit is not None

    def progress(self) -> None:
        """Note that there was some."""
        self._idle = 0.0
        self._said = time.monotonic()

    def wait(self, for_what: Callable[[], str]) -> None:
        """Let some time pass.

        Parameters
        ----------
        for_what : callable
            Says what is missing: "the manifest of the tile store in /input".

        Raises
        ------
        WaitedTooLong
            Nothing happened for `limit` seconds.
        """
        assert self._limit is not None, "who does not wait must not be asked to"
        if self._idle >= self._limit:
            raise WaitedTooLong(
                f"waited {duration(self._idle)} without any progress for the {for_what()}; look at the stage "
                "before this one, then run this again: it goes on from where it was (`wait.limit` is how long to wait)"
            )
        now = time.monotonic()
        if now - self._said >= SAY_SECONDS:
            self._said = now
            log.info("waiting for the %s (%s=TRUE turns waiting off)", for_what(), NO_SYNC_LOCK)
        time.sleep(POLL_SECONDS)
        passed = time.monotonic() - now
        self.waited += passed
        self._idle += min(passed, STEP_SECONDS)
