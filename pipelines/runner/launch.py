"""Starts operators as processes or containers, and ends them with everything that they started."""

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

from nuclei_segmentation.pipelines.runner.footprint import Footprint
from nuclei_segmentation.pipelines.runner.step import Step

LOST = 125
"""Exit code of an operator whose own is not known, since the engine has gone away; Docker's own for its failures."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How an operator ended.

    Attributes
    ----------
    code : int
        Its exit code; of one that a signal ended, 128 and the signal's number.
    memory : int or None
        Its peak, in bytes; None if that is not known.
    """

    code: int
    memory: int | None = None


class Running(Protocol):
    """An operator that was started."""

    def wait(self) -> Ended:
        """Wait until it has ended, and nothing of it is left."""

    def terminate(self) -> None:
        """Ask it to end."""

    def kill(self) -> None:
        """End it."""


Launch = Callable[[Step, Path], Running]
"""Starts a step whose output goes to a file."""


class Process:
    """An operator as a process, in a group of its own: Ctrl-C on a terminal reaches it through the runner only.

    Parameters
    ----------
    step : Step
        What to start.
    log : pathlib.Path
        Takes its standard output and error.

    Raises
    ------
    OSError
        It cannot be started, or the file cannot be written.
    """

    def __init__(self, step: Step, log: Path) -> None:
        log.unlink(missing_ok=True)  # a run that was killed may have left somebody who still writes to it
        with log.open("wb") as stream:
            self._child = subprocess.Popen(  # noqa: S603 - words, no shell; `pipelines.runner.local` says what they may be
                step.line, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, start_new_session=True
            )
        self._lock = threading.Lock()
        self._gone = False

    def wait(self) -> Ended:
        """Wait until it has ended; what it started and left running is ended too."""
        number = self._child.pid
        os.waitid(os.P_PID, number, os.WEXITED | os.WNOWAIT)  # until it is waited for, nobody else gets its number
        with self._lock:
            self._send(signal.SIGKILL)
            _, status, usage = os.wait4(number, 0)
            self._gone = True
        code = os.waitstatus_to_exitcode(status)
        self._child.returncode = code
        return Ended(code if code >= 0 else 128 - code, usage.ru_maxrss * 1024)

    def terminate(self) -> None:
        """Ask it to end."""
        with self._lock:
            self._send(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        with self._lock:
            self._send(signal.SIGKILL)

    def _send(self, number: int) -> None:
        if not self._gone:
            os.killpg(self._child.pid, number)


class Box(Process):
    """An operator as a container: the process is the engine's, which passes SIGTERM on to what runs in there.

    Parameters
    ----------
    step, log : Step, pathlib.Path
        See `Process`.

    Raises
    ------
    OSError
        See `Process`.
    """

    def __init__(self, step: Step, log: Path) -> None:
        self._engine, self._name = step.line[0], step.container
        self._remove()  # a run that was killed may have left it
        super().__init__(step, log)
        self._footprint = Footprint(self._engine, self._name)

    def wait(self) -> Ended:
        """Wait until the container is gone. Its memory is what was seen of it: the engine's own says nothing."""
        code = super().wait().code
        self._footprint.stop()
        self._remove()
        return Ended(code, self._footprint.peak)

    def kill(self) -> None:
        """End it. The container first: without the engine's process nobody would."""
        self._remove()
        super().kill()

    def _remove(self) -> None:
        for words in (("kill",), ("rm", "--force")):  # `rm` alone asks first, and waits
            _quietly(self._engine, *words, self._name)


class Detached:
    """An operator as a container that the engine runs by itself, and removes when it has ended.

    Parameters
    ----------
    step : Step
        What to start; of docker.
    log : pathlib.Path
        Takes its standard output and error, or what docker says if it cannot be started.

    Raises
    ------
    OSError
        There is no such engine, or the file cannot be written.
    """

    _EARLIER_SECONDS = 600
    """Docker's clock may be that of another machine."""

    def __init__(self, step: Step, log: Path) -> None:
        self._engine = step.line[0]
        begin = time.time() - self._EARLIER_SECONDS
        with log.open("wb") as stream:
            done = subprocess.run(  # noqa: S603 - words, no shell
                step.line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stream, text=True, check=False
            )
        self._code, self._name = done.returncode, done.stdout.strip()
        if self._code:
            return
        self._footprint = Footprint(self._engine, self._name)
        with log.open("ab") as stream:
            self._log = self._ask("logs", "--follow", self._name, stdout=stream, stderr=stream)
        # it may have ended and be gone: the daemon still knows that it has, and how
        self._end = self._ask(
            "events", "--since", f"{begin:.3f}", "--filter", f"container={self._name}", "--filter", "event=die",
            "--format", "{{.Actor.Attributes.exitCode}}", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def wait(self) -> Ended:
        """Wait until it has ended."""
        if self._code:
            return Ended(self._code)
        assert self._end.stdout is not None
        code = self._end.stdout.readline().strip()
        self._end.kill()
        self._end.wait()
        self._end.stdout.close()
        self._log.wait()
        self._footprint.stop()
        return Ended(int(code) if code else LOST, self._footprint.peak)

    def terminate(self) -> None:
        """Ask it to end."""
        self._tell("kill", "--signal", "TERM")

    def kill(self) -> None:
        """End it."""
        self._tell("kill")

    def _tell(self, *words: str) -> None:
        if not self._code:
            _quietly(self._engine, *words, self._name)

    def _ask(self, *words: str, stdout: IO[bytes] | int, stderr: IO[bytes] | int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603 - words of ours
            [self._engine, *words], stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, start_new_session=True
        )


def _quietly(*line: str) -> None:
    """Tell an engine something about a container that may be gone already, which is well."""
    nothing = subprocess.DEVNULL
    subprocess.run(line, check=False, stdin=nothing, stdout=nothing, stderr=nothing)  # noqa: S603 - words of ours


def launch(step: Step, log: Path) -> Running:
    """Start a step as what it is."""
    if step.detached:
        return Detached(step, log)
    return Box(step, log) if step.container else Process(step, log)
