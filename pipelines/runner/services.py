"""The services of a run: they start with it, operators wait until they answer, and they end with it."""

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
from nuclei_segmentation.shared.runtime.threads import start

POLL_SECONDS = 0.25
_LISTENS = "0A"
"""The state of a listening socket in ``/proc/net/tcp``."""

Show = Callable[[str], None]
"""Shows a line to the user."""


class Unanswered(InferenceUnavailable):
    """A service ended, or did not answer in time.

    Parameters
    ----------
    service : str
        Name of the service, and of its log.
    message : str
        What is wrong.
    """

    def __init__(self, service: str, message: str) -> None:
        self.service = service
        super().__init__(message)


class Services:
    """Services that run while this context lasts.

    Parameters
    ----------
    services : Sequence of Service
        The services of the pipeline.
    done : Collection of str
        Operators that need not run. A service that only they use is not started.
    log : callable
        Returns the log file of a service.
    launch : Launch
        Starts a service.
    service_wait : float
        Seconds until a service must answer.
    show : Show
        Shows a line to the user.
    stop_requests : callable, optional
        Returns how often the user has asked for the end. Twice: services are killed at once.
    """

    def __init__(
        self,
        services: Sequence[Service],
        done: Collection[str],
        log: Callable[[str], Path],
        launch: Launch,
        service_wait: float,
        show: Show,
        stop_requests: Callable[[], int] = lambda: 0,
    ) -> None:
        self._services = [service for service in services if not set(done).issuperset(service.users)]
        self._log, self._launch, self._service_wait, self._show = log, launch, service_wait, show
        self._stop_requests = stop_requests
        uses_port = any(PORT in word for service in self._services for word in service.line)
        self._port = _free_port() if uses_port else 0
        self._running: list[_RunningService] = []

    def __enter__(self) -> Self:
        try:
            for service in self._services:
                self._await_network()
                self._show(f"service {service.name}: starts")
                step = self.with_port(Step(service.name, (), service.line, container=service.container))
                running = self._launch(step, self._log(service.name))
                started = _RunningService(service, running, self._port, self._service_wait, self._show)
                self._running.append(started)
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _await_network(self) -> None:
        """Wait for the container of the first service, whose network the others join."""
        for first in self._running[:1]:
            while not self._stop_requests() and first.starting():
                time.sleep(POLL_SECONDS)

    def with_port(self, step: Step) -> Step:
        """Return a step in which the port of this run's server stands for `PORT`."""
        return replace(step, line=tuple(self._with_port(word) for word in step.line)) if self._port else step

    def _with_port(self, word: str) -> str:
        found = word.endswith((f"=127.0.0.1:{PORT}", f"-port={PORT}"))
        return f"{word.removesuffix(PORT)}{self._port}" if found else word

    def ready(self, step: Step) -> bool:
        """Return whether all services of a step answer.

        Raises
        ------
        Unanswered
            One of them has ended, or has not answered in time.
        """
        return all(running.ready() for running in self._running if step.name in running.service.users)

    def _close(self) -> None:
        deadline = time.monotonic() + GRACE_SECONDS
        for group in (self._running[1:], self._running[:1]):  # the network of the first goes last
            for running in group:
                running.terminate()
            for running in group:
                running.close(deadline, self._stop_requests)


class _RunningService:
    """A service that was started. One thread waits for its first answer, another for its end."""

    def __init__(self, service: Service, running: Running, port: int, service_wait: float, show: Show) -> None:
        self.service, self._running = service, running
        self._port, self._service_wait, self._show = port, service_wait, show
        self._start = time.monotonic()
        self._answered, self._closed = threading.Event(), threading.Event()
        self._code: int | None = None
        self._wait_thread = threading.Thread(target=self._wait, name=f"wait for {service.name}", daemon=True)
        self._probe_thread = threading.Thread(target=self._probe, name=f"probe {service.name}", daemon=True)
        start(self._wait_thread)
        start(self._probe_thread)

    def starting(self) -> bool:
        """Return whether its container does not run yet, but may do so soon."""
        if not self.service.container or self._code is not None or time.monotonic() - self._start > self._service_wait:
            return False
        done = _engine(self.service.line[0], "inspect", "--format", "{{.State.Running}}", self.service.container)
        return done.stdout.strip() != "true"

    def ready(self) -> bool:
        """Return whether it has answered. Once is enough: an operator notices by itself if the service is gone."""
        name, waited = self.service.name, time.monotonic() - self._start
        if self._answered.is_set():
            return True
        if self._code is not None:
            raise Unanswered(name, f"service {name} ended with exit code {self._code} before it answered")
        if waited > self._service_wait:
            raise Unanswered(
                name, f"service {name} has not answered for {duration(waited)}; --service-wait TIME sets the limit"
            )
        return False

    def terminate(self) -> None:
        """Ask it to end."""
        self._closed.set()
        self._running.terminate()

    def close(self, deadline: float, stop_requests: Callable[[], int]) -> None:
        """Wait for its end, and kill it at the deadline, or at the user's second request."""
        while self._wait_thread.is_alive() and time.monotonic() < deadline and stop_requests() < 2:
            self._wait_thread.join(POLL_SECONDS)
        self._running.kill()  # even if it has ended: an engine keeps a container while another is in its network
        self._wait_thread.join()
        self._probe_thread.join()  # last: a server may keep a request open for as long as it lives

    def _wait(self) -> None:
        self._code = code = self._running.wait().code
        if self._answered.is_set() and not self._closed.is_set():  # its users see only that nobody answers
            self._show(f"service {self.service.name}: ended with exit code {code}")

    def _probe(self) -> None:
        answers = _listening if self.service.container else _healthy
        while not self._closed.wait(POLL_SECONDS) and self._code is None:
            if answers(self.service, self._port):
                self._show(f"service {self.service.name}: answers after {duration(time.monotonic() - self._start)}")
                self._answered.set()
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

    Its network cannot be reached from here. So the container prints the kernel's table of sockets, with `cat`, which
    every image with a shell has. Without `cat` nothing can be known, and the service counts as ready: its users must
    wait for it by themselves.
    """
    done = _engine(service.line[0], "exec", service.container, "cat", "/proc/net/tcp", "/proc/net/tcp6")
    if done.returncode in (126, 127):  # there is no `cat`
        return True
    rows = [line.split() for line in done.stdout.splitlines()]
    ports = {int(row[1].rpartition(":")[2], 16) for row in rows if len(row) > 3 and row[3] == _LISTENS}
    return done.returncode in (0, 1) and ports.issuperset(service.ports)


def _engine(*line: str) -> subprocess.CompletedProcess[str]:
    """Run a command of an engine on a container, which may not exist."""
    return subprocess.run(  # noqa: S603 - no shell, fixed words
        line, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
