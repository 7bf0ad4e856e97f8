"""A real Docker daemon that touches nothing but its own folder, and leaves nothing."""

from __future__ import annotations

import json
import os
import resource
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.helpers.container_engine import ROOT, Engine

PLACE = ROOT / ".cache" / "docker"
VENV = ROOT / ".venv-cpost"
CLIENT = PLACE / "root" / "usr" / "bin" / "docker"
GROUPS = Path("/sys/fs/cgroup")

TAGS = ["latest", tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]]
NAMESPACES = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
"""The daemon's network, mounts and processes are its own: what the machine has is not seen, and all goes when it ends.

Without a network of its own, ``--bridge=none`` would remove a bridge that the machine's own Docker has.
"""
WITH_ME = ["setpriv", "--pdeathsig", "KILL"]
"""Also if this process is killed."""
HIDDEN = "mount -t tmpfs none /run && exec dockerd --config-file "
"""A containerd of the machine listens in /run; the daemon would use it."""


def missing() -> str:
    """Return why no daemon can be had here; '' if one can."""
    if not (CLIENT.exists() and (VENV / ".made-of").exists()):
        return "NVIDIA's sizing tool and Docker are not there: tests/containers/cpost/setup.sh makes them"
    if os.geteuid() != 0:
        return "a Docker daemon of our own needs root"
    return ""


@dataclass(frozen=True)
class Daemon:
    """A daemon that runs; `folder` is its own, and holds its socket."""

    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def environment(self) -> dict[str, str]:
        """For clients, which see nothing of the user's own Docker."""
        ours = {
            "DOCKER_HOST": f"unix://{self.folder}/socket",
            "DOCKER_CONFIG": str(self.folder),
            "DOCKER_BUILDKIT": "0",
        }
        return {name: value for name, value in os.environ.items() if not name.startswith("DOCKER_")} | ours

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def call(self, *arguments: str, stdin: bytes | None = None, timeout: float = 240) -> str:
        done = subprocess.run(
            [CLIENT, *arguments], input=stdin, capture_output=True, check=False, timeout=timeout, env=self.environment
        )
        assert done.returncode == 0, f"docker {shlex.join(arguments)}\n{done.stdout!r}\n{done.stderr!r}"
        return done.stdout.decode().strip()

    def adopt(self, engine: Engine, name: str, tags: Sequence[str]) -> None:
        """Take an image over from another engine, to be run by root as the sizing tool needs it.

        If it is there already, it is not taken again.
        """
        number = engine.call("image", "inspect", "--format", "{{.Id}}", f"{name}:{tags[0]}").out.strip()
        if self.call("images", "--quiet", "--filter", f"label=adopted={number}", f"{name}:{tags[0]}"):
            return
        with subprocess.Popen(
            [engine.program, "save", f"{name}:{tags[0]}"], stdout=subprocess.PIPE, env=os.environ | engine.environment
        ) as saving:
            loaded = subprocess.run(
                [CLIENT, "load"], stdin=saving.stdout, capture_output=True, text=True, check=False, env=self.environment
            )
        assert (saving.returncode, loaded.returncode) == (0, 0), loaded.stderr
        source = loaded.stdout.split("Loaded image:")[1].strip()  # Podman puts localhost/ before it
        recipe = f"FROM {source}\nUSER 0\nLABEL adopted={number}\n"
        names = [word for tag in tags for word in ("--tag", f"{name}:{tag}")]
        self.call("build", "--quiet", *names, "-", stdin=recipe.encode())
        self.call("image", "prune", "--force")  # what it replaces


@contextmanager
def daemon() -> Iterator[Daemon]:
    """Start a daemon and end it, with all that it started.

    Its images stay, in `PLACE`.
    """
    before = _traces()
    folder = Path(tempfile.mkdtemp(prefix="nuclei-"))  # a socket's path must be short
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]  # who lacks CAP_SYS_RESOURCE can give no more
    settings = {
        "data-root": str(PLACE / "data"), "exec-root": str(folder / "exec"), "pidfile": str(folder / "pid"),
        "deprecated-key-path": str(folder / "key.json"),
        "hosts": [f"unix://{folder}/socket"], "storage-driver": "overlay2",
        "bridge": "none", "iptables": False, "ip6tables": False, "ip-forward": False, "userland-proxy": False,
        "exec-opts": ["native.cgroupdriver=cgroupfs"],
        "default-ulimits": {"nofile": {"Name": "nofile", "Hard": files, "Soft": files}},
    }  # fmt: skip
    (folder / "daemon.json").write_text(json.dumps(settings))
    root = PLACE / "root" / "usr"
    line = [*WITH_ME, *NAMESPACES, "catatonit", "--", "sh", "-c", HIDDEN + shlex.quote(str(folder / "daemon.json"))]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            line, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            env=os.environ | {"PATH": f"{root}/sbin:{root}/bin:{os.environ['PATH']}"},
        )  # fmt: skip
    started = Daemon(folder, process)
    try:
        until = time.monotonic() + 60
        while subprocess.run([CLIENT, "version"], capture_output=True, check=False, env=started.environment).returncode:
            if process.poll() is not None or time.monotonic() > until:
                pytest.fail("dockerd does not start:\n" + started.log[-3000:])
            time.sleep(0.1)
        yield started
    finally:
        with suppress(ProcessLookupError):  # it did not start
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()  # and so everything in its namespaces
            process.wait()
        for path in sorted(_traces() - before, reverse=True):
            with suppress(OSError):  # in use by another Docker
                path.rmdir()
        shutil.rmtree(folder)


def _traces() -> set[Path]:
    """Return what Docker makes elsewhere, and leaves behind: control groups, and folders of containerd."""
    found = [path for pattern in ("*/docker", "*/docker/*") for path in GROUPS.glob(pattern)]
    found += [path for pattern in ("containerd", "containerd/*") for path in Path("/opt").glob(pattern)]
    return {path for path in found if path.is_dir()}


def need_docker() -> None:
    if not (GROUPS / "cpuacct").is_dir():
        pytest.skip("this machine has no control groups of version 1; the tool waits for ever for them")
    reason = missing()
    if reason and os.environ.get("CI"):
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)
