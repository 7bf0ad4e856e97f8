"""Waiting for the previous stage."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from nuclei_segmentation.shared.errors import WaitedTooLong
from nuclei_segmentation.shared.runtime.progress import duration
from nuclei_segmentation.shared.settings.environment import NO_SYNC_LOCK

log = logging.getLogger(__name__)

LOG_SECONDS = 10.0
"""How often a log line says what is waited for."""
POLL_SECONDS = 0.05
STEP_SECONDS = 1.0
"""The most that one step of waiting counts: a machine or container that was paused has not waited."""


class WaitLimit:
    """Limits how long a stage waits for its input.

    Parameters
    ----------
    limit : float or None
        Seconds without progress after which to give up; None if the stage does not wait at all.

    Attributes
    ----------
    waited : float
        Seconds spent waiting so far.
    """

    def __init__(self, limit: float | None) -> None:
        self._limit = limit
        self._idle = 0.0  # seconds waited since the last progress, without the time in which this stage had work
        self._logged = time.monotonic()
        self.waited = 0.0

    @property
    def waits(self) -> bool:
        """Whether the stage waits at all."""
        return self._limit is not None

    def progress(self) -> None:
        """Note that the previous stage has made progress."""
        self._idle = 0.0
        self._logged = time.monotonic()

    def wait(self, for_what: Callable[[], str]) -> None:
        """Wait a short time.

        Parameters
        ----------
        for_what : callable
            Returns what the stage waits for, without the article: "tile store in /input".

        Raises
        ------
        WaitedTooLong
            There was no progress for `limit` seconds.
        """
        assert self._limit is not None, "a stage that does not wait must not call this"
        if self._idle >= self._limit:
            raise WaitedTooLong(
                f"waited {duration(self._idle)} without any progress for the {for_what()}; check the stage "
                "before this one, then run the same command again: it resumes where it stopped (`wait.limit` sets how "
                "long to wait)"
            )
        now = time.monotonic()
        if now - self._logged >= LOG_SECONDS:
            self._logged = now
            log.info("waiting for the %s (%s=TRUE turns waiting off)", for_what(), NO_SYNC_LOCK)
        time.sleep(POLL_SECONDS)
        passed = time.monotonic() - now
        self.waited += passed
        self._idle += min(passed, STEP_SECONDS)
