"""Starts operators as processes or containers, and ends them together with everything that they started."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from nuclei_segmentation.pipelines.runner.memory_sampler import MemorySampler
from nuclei_segmentation.pipelines.runner.step import Step
from nuclei_segmentation.shared.runtime.folder import create_file

UNKNOWN_EXIT_CODE = 125
"""Used if the engine ended before it reported the exit code of a container. Docker uses it for its own failures."""


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a process or container ended.

    Attributes
    ----------
    code : int
        The exit code; after a signal, 128 plus the signal's number.
    peak_memory : int or None
        In bytes; None if it is unknown.
    """

    code: int
    peak_memory: int | None = None


class Running(Protocol):
    """An operator or service that was started."""

    def wait(self) -> ExitStatus:
        """Wait until it and everything that it started has ended."""

    def terminate(self) -> None:
        """Ask it to end."""

    def kill(self) -> None:
        """End it at once."""


Launch = Callable[[Step, Path], Running]
"""Starts a step that prints to a file."""


class Process:
    """An operator as a process, in a process group of its own: Ctrl-C on a terminal reaches only the runner.

    Parameters
    ----------
    step : Step
        What to start.
    log : pathlib.Path
        The file for its standard output and standard error.

    Raises
    ------
    OSError
        It cannot be started, or the file cannot be written.
    """

    def __init__(self, step: Step, log: Path) -> None:
        # A new file: a process of an earlier run, whose runner was killed, may still write to the old one.
        with os.fdopen(create_file(log), "wb") as stream:
            self._child = subprocess.Popen(  # noqa: S603 - no shell; `process_commands` says which words are allowed
                step.line, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, start_new_session=True
            )
        self._lock = threading.Lock()
        self._ended = False

    def wait(self) -> ExitStatus:
        """Wait until it has ended, and end what it started and left running."""
        number = self._child.pid
        os.waitid(os.P_PID, number, os.WEXITED | os.WNOWAIT)  # its number stays its own until `wait4`
        with self._lock:
            self._send(signal.SIGKILL)
            _, status, usage = os.wait4(number, 0)
            self._ended = True
        code = os.waitstatus_to_exitcode(status)
        self._child.returncode = code
        return ExitStatus(code if code >= 0 else 128 - code, usage.ru_maxrss * 1024)

    def terminate(self) -> None:
        """See `Running.terminate`."""
        with self._lock:
            self._send(signal.SIGTERM)

    def kill(self) -> None:
        """See `Running.kill`."""
        with self._lock:
            self._send(signal.SIGKILL)

    def _send(self, number: int) -> None:
        if not self._ended:
            os.killpg(self._child.pid, number)


class ContainerProcess(Process):
    """An operator as a container: the process is the engine's, which passes SIGTERM on to the container.

    Parameters
    ----------
    step : Step
        What to start.
    log : pathlib.Path
        The file for its standard output and standard error.

    Raises
    ------
    OSError
        It cannot be started, or the file cannot be written.
    """

    def __init__(self, step: Step, log: Path) -> None:
        self._engine, self._name = step.line[0], step.container
        self._remove()  # an earlier run, whose runner was killed, may have left it
        super().__init__(step, log)
        self._sampler = MemorySampler(self._engine, self._name)

    def wait(self) -> ExitStatus:
        """Wait until the container is gone. Its memory is sampled: that of the engine's process says nothing."""
        code = super().wait().code
        self._sampler.stop()
        self._remove()
        return ExitStatus(code, self._sampler.peak)

    def kill(self) -> None:
        """End it at once. The container comes first: nobody would end it without the engine's process."""
        self._remove()
        super().kill()

    def _remove(self) -> None:
        for words in (("kill",), ("rm", "--force")):  # `rm` alone asks the container to end, and waits
            _call_engine(self._engine, *words, self._name)


class DetachedContainer:
    """An operator as a container that runs apart from the engine's process. The engine removes it when it has ended.

    Parameters
    ----------
    step : Step
        What to start, with docker.
    log : pathlib.Path
        The file for its standard output and standard error, or for docker's message if it cannot be started.

    Raises
    ------
    OSError
        There is no such engine, or the file cannot be written.
    """

    _EVENTS_SECONDS = 600
    """Events are asked for from so long before the start, since docker's clock may be another machine's."""

    def __init__(self, step: Step, log: Path) -> None:
        self._engine = step.line[0]
        begin = time.time() - self._EVENTS_SECONDS
        with os.fdopen(create_file(log), "wb") as stream:
            done = subprocess.run(  # noqa: S603 - no shell
                step.line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stream, text=True, check=False
            )
            self._start_code, self._name = done.returncode, done.stdout.strip()
            if self._start_code:
                return
            self._sampler = MemorySampler(self._engine, self._name)
            self._log = self._start("logs", "--follow", self._name, stdout=stream, stderr=stream)
        # The container may have ended and be gone: the daemon still has the event.
        self._end = self._start(
            "events", "--since", f"{begin:.3f}", "--filter", f"container={self._name}", "--filter", "event=die",
            "--format", "{{.Actor.Attributes.exitCode}}", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def wait(self) -> ExitStatus:
        """See `Running.wait`."""
        if self._start_code:
            return ExitStatus(self._start_code)
        assert self._end.stdout is not None
        code = self._end.stdout.readline().strip()
        self._end.kill()
        self._end.wait()
        self._end.stdout.close()
        self._log.wait()
        self._sampler.stop()
        return ExitStatus(int(code) if code else UNKNOWN_EXIT_CODE, self._sampler.peak)

    def terminate(self) -> None:
        """See `Running.terminate`."""
        self._signal("--signal", "TERM")

    def kill(self) -> None:
        """See `Running.kill`."""
        self._signal()

    def _signal(self, *options: str) -> None:
        if not self._start_code:
            _call_engine(self._engine, "kill", *options, self._name)

    def _start(self, *words: str, stdout: IO[bytes] | int, stderr: IO[bytes] | int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603 - no shell, fixed words
            [self._engine, *words], stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, start_new_session=True
        )


def _call_engine(*line: str) -> None:
    """Have an engine do something with a container. If the container is gone, nothing needs to be done."""
    null = subprocess.DEVNULL
    subprocess.run(line, check=False, stdin=null, stdout=null, stderr=null)  # noqa: S603 - no shell, fixed words


def launch(step: Step, log: Path) -> Running:
    """Start a step as a process or as a container.

    Parameters
    ----------
    step : Step
        What to start.
    log : pathlib.Path
        The file for its standard output and standard error.

    Raises
    ------
    OSError
        It cannot be started, or the file cannot be written.
    """
    if step.detached:
        return DetachedContainer(step, log)
    return ContainerProcess(step, log) if step.container else Process(step, log)
