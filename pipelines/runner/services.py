"""The services of a run: started with it, waited for by who uses them, ended with it."""

from __future__ import annotations

import http.client
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from nuclei_segmentation.pipelines.runner.launch import Launch, Running
from nuclei_segmentation.pipelines.runner.schedule import GRACE_SECONDS
from nuclei_segmentation.pipelines.runner.step import PORT, Service, Step
from nuclei_segmentation.shared.errors import InferenceUnavailable
from nuclei_segmentation.shared.runtime.progress import duration

POLL_SECONDS = 0.25
_LISTENS = "0A"
"""A socket's state in ``/proc/net/tcp``."""

Say = Callable[[str], None]


class Unanswered(InferenceUnavailable):
    """A service ended, or did not answer in time.

    Parameters
    ----------
    service : str
        Its name, which is that of its log too.
    message : str
        What is wrong.
    """

    def __init__(self, service: str, message: str) -> None:
        self.service = service
        super().__init__(message)


class Services:
    """Some services, which run while this context lasts.

    Parameters
    ----------
    services : Sequence of Service
        To start.
    done : Collection of str
        Operators that need not run, and so need no service.
    log : callable
        Returns the file that takes what a service prints.
    launch : Launch
        Starts one.
    service_wait : float
        Seconds that a service has until it answers.
    say : Say
        Takes a line for the user.
    stops : callable, optional
        How often the user has asked for an end. Twice: services are not waited for.
    """

    def __init__(
        self,
        services: Sequence[Service],
        done: Collection[str],
        log: Callable[[str], Path],
        launch: Launch,
        service_wait: float,
        say: Say,
        stops: Callable[[], int] = lambda: 0,
    ) -> None:
        self._services = [one for one in services if not set(done).issuperset(one.users)]
        self._log, self._launch, self._service_wait, self._say = log, launch, service_wait, say
        self._stops = stops
        self._port = _free_port() if any(PORT in word for one in self._services for word in one.line) else 0
        self._watched: list[_Watched] = []

    def __enter__(self) -> Self:
        try:
            for one in self._services:
                self._await_network()
                self._say(f"service {one.name}: starts")
                step = self.fill(Step(one.name, (), one.line, container=one.container))
                running = self._launch(step, self._log(one.name))
                self._watched.append(_Watched(one, running, self._port, self._service_wait, self._say))
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _await_network(self) -> None:
        """Wait for the container of the first service: the others are put into its network."""
        for first in self._watched[:1]:
            while not self._stops() and first.starts():
                time.sleep(POLL_SECONDS)

    def fill(self, step: Step) -> Step:
        """Return a step whose words name the port that was chosen."""
        return replace(step, line=tuple(self._fill(word) for word in step.line)) if self._port else step

    def _fill(self, word: str) -> str:
        end = next((one for one in (f"=127.0.0.1:{PORT}", f"-port={PORT}") if word.endswith(one)), "")
        return f"{word.removesuffix(PORT)}{self._port}" if end else word

    def ready(self, step: Step) -> bool:
        """Return whether all services of a step answer.

        Raises
        ------
        Unanswered
            One of them has ended, or takes too long.
        """
        return all(one.ready() for one in self._watched if step.name in one.service.users)

    def _close(self) -> None:
        until = time.monotonic() + GRACE_SECONDS
        for group in (self._watched[1:], self._watched[:1]):  # the others are in the network of the first
            for one in group:
                one.terminate()
            for one in group:
                one.close(until, self._stops)


class _Watched:
    """A service that was started, and a thread each that waits for its answer and for its end."""

    def __init__(self, service: Service, running: Running, port: int, service_wait: float, say: Say) -> None:
        self.service, self.running = service, running
        self._port, self._service_wait, self._say = port, service_wait, say
        self._start = time.monotonic()
        self._answers, self._closed = threading.Event(), threading.Event()
        self._code: int | None = None
        self._ends = threading.Thread(target=self._wait, name=f"wait for {service.name}", daemon=True)
        self._asks = threading.Thread(target=self._ask, name=f"ask {service.name}", daemon=True)
        self._ends.start()
        self._asks.start()

    def starts(self) -> bool:
        """Return whether its container is not there yet, but may still come."""
        if not self.service.container or self._code is not None or time.monotonic() - self._start > self._service_wait:
            return False
        done = _asked(self.service.line[0], "inspect", "--format", "{{.State.Running}}", self.service.container)
        return done.stdout.strip() != "true"

    def ready(self) -> bool:
        """Return whether it answers; it did once is enough, since who uses it notices by itself when it is gone."""
        name, waited = self.service.name, time.monotonic() - self._start
        if self._answers.is_set():
            return True
        if self._code is not None:
            raise Unanswered(name, f"service {name} ended with exit code {self._code} before it answered")
        if waited > self._service_wait:
            raise Unanswered(
                name, f"service {name} has not answered for {duration(waited)}; --service-wait is how long"
            )
        return False

    def terminate(self) -> None:
        """Ask it to end."""
        self._closed.set()
        self.running.terminate()

    def close(self, until: float, stops: Callable[[], int]) -> None:
        """Wait for its end, and end it if it takes too long, or the user is tired of it."""
        while self._ends.is_alive() and time.monotonic() < until and stops() < 2:
            self._ends.join(POLL_SECONDS)
        self.running.kill()  # if it has ended, too: an engine keeps a container while another is in its network
        self._ends.join()
        self._asks.join()  # last: a server may keep who asks it waiting for as long as it lives

    def _wait(self) -> None:
        self._code = code = self.running.wait().code
        if self._answers.is_set() and not self._closed.is_set():  # who uses it only sees that nobody answers
            self._say(f"service {self.service.name}: ended with exit code {code}")

    def _ask(self) -> None:
        asks = _listening if self.service.container else _healthy
        while not self._closed.wait(POLL_SECONDS) and self._code is None:
            if asks(self.service, self._port):
                self._say(f"service {self.service.name}: answers after {duration(time.monotonic() - self._start)}")
                self._answers.set()
                return


def _healthy(_: Service, port: int) -> bool:
    """Return whether a Triton server on this machine is ready."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/v2/health/ready")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _listening(service: Service, _: int) -> bool:
    """Return whether a container listens at all its ports.

    Its network cannot be reached from here, but it can be asked for the kernel's table of it; an image that has a shell
    has `cat`. Where there is none, nothing can be known, and who uses the service must be patient.
    """
    done = _asked(service.line[0], "exec", service.container, "cat", "/proc/net/tcp", "/proc/net/tcp6")
    if done.returncode in (126, 127):  # there is no `cat`
        return True
    rows = [line.split() for line in done.stdout.splitlines()]
    ports = {int(row[1].rpartition(":")[2], 16) for row in rows if len(row) > 3 and row[3] == _LISTENS}
    return done.returncode in (0, 1) and ports.issuperset(service.ports)


def _asked(*line: str) -> subprocess.CompletedProcess[str]:
    """Ask an engine something about a container, which may not be there."""
    return subprocess.run(  # noqa: S603 - words of ours
        line, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
