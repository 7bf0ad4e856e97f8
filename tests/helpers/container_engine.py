"""Podman or Docker, whichever runs here, and the operators' images started the way a careful site starts them."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.helpers.command import ROOT, Done

PREPARED = ROOT / ".cache" / "containers" / "env"
"""What setup.sh made here, if it was called."""

USER = (1000, 1000) if os.geteuid() == 0 else (os.getuid(), os.getgid())

Mounts = Sequence[tuple[Path, str]]
"""Folders, and where the container sees them: ``/input:ro``."""


@dataclass(frozen=True)
class Engine:
    """`program` is podman or docker; `environment` is added to this process's."""

    program: str
    environment: dict[str, str]

    @classmethod
    def find(cls) -> Engine | None:
        """Return the engine that `make images` uses, or None if none answers."""
        asked = os.environ.get("CONTAINER_ENGINE")
        prepared = dict(part.split("=", 1) for part in shlex.split(PREPARED.read_text())) if PREPARED.is_file() else {}
        for program in [asked] if asked else ["podman", "docker"]:
            engine = cls(program, prepared if program == "podman" else {})
            if shutil.which(program) and engine.call("info", check=False).code == 0:
                return engine
        return None

    def call(self, *arguments: str, check: bool = True, stdin: str | None = None, timeout: float = 240) -> Done:
        done = subprocess.run(
            [self.program, *arguments], input=stdin, capture_output=True, text=True, check=False, timeout=timeout,
            env=os.environ | self.environment,
        )  # fmt: skip
        if check:
            assert done.returncode == 0, f"{self.program} {shlex.join(arguments)}\n{done.stdout}\n{done.stderr}"
        return Done(done.returncode, done.stdout, done.stderr)

    def hardened(self, mounts: Mounts = (), network: str = "none", **variables: str) -> list[str]:
        """Return options: no privileges, nothing writable but what is mounted, no network but `network`."""
        options = ["--read-only", "--cap-drop", "all", "--security-opt", "no-new-privileges", "--memory", "2g"]
        if self.program == "podman":
            options += ["--read-only-tmpfs=false"]  # as with docker: not even /tmp
        options += ["--user", f"{USER[0]}:{USER[1]}", "--network", network]
        for folder, place in mounts:
            options += ["-v", f"{folder}:{place}"]
        for name, value in variables.items():
            options += ["-e", f"{name}={value}"]
        return options

    def run(self, image: str, *options: str, command: Sequence[str] = (), stdin: str | None = None) -> Done:
        """Run a container to its end; it is gone afterwards, also if it takes too long."""
        name = new_name()
        interactive = ["-i"] if stdin is not None else []
        try:
            return self.call(
                "run", "--rm", "--name", name, *interactive, *options, image, *command, check=False, stdin=stdin
            )
        except subprocess.TimeoutExpired:
            self.call("rm", "-f", name, check=False)
            raise

    @contextmanager
    def started(self, image: str, *options: str, command: Sequence[str] = ()) -> Iterator[str]:
        """Start a container and give its name; it is removed in the end."""
        name = new_name()
        self.call("run", "-d", "--name", name, *options, image, *command)
        try:
            yield name
        finally:
            with suppress(subprocess.TimeoutExpired):
                self.call("rm", "-f", name, check=False)

    def wait(self, name: str) -> Done:
        """Wait for a started container to end, and return its exit code and what it wrote."""
        code = int(self.call("wait", name).out.split()[-1])
        logs = self.call("logs", name)
        return Done(code, logs.out, logs.err)


def new_name() -> str:
    return f"nuclei-test-{uuid.uuid4().hex[:10]}"


def folder(path: Path) -> Path:
    """Make a folder that the containers' user may write to."""
    path.mkdir(parents=True)
    os.chown(path, *USER)
    return path
