"""What a run is observed by while it lasts: wall time, peak memory, and the warnings that it logs."""

from __future__ import annotations

import logging
import time
from types import TracebackType
from typing import Self

from nuclei_segmentation.shared.runtime.resources import MemoryPeak

LOGGER = "nuclei_segmentation"
"""The logger that all loggers of this program are below."""


class Recorder(logging.Handler):
    """Records a run; to be used in a ``with`` block."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.warnings: list[str] = []
        self._start = time.perf_counter()
        self._memory = MemoryPeak()

    @property
    def seconds(self) -> float:
        """Wall time since the recorder was made."""
        return time.perf_counter() - self._start

    @property
    def peak_memory(self) -> int:
        """Bytes of anonymous memory at the highest."""
        return self._memory.peak

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the text of a warning, once."""
        text = record.getMessage()
        if text not in self.warnings:
            self.warnings.append(text)

    def __enter__(self) -> Self:
        self._memory.__enter__()
        logging.getLogger(LOGGER).addHandler(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        logging.getLogger(LOGGER).removeHandler(self)
        self._memory.__exit__(kind, error, trace)
