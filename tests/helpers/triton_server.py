"""Starts a real Triton server for a test, and kills, stops and restarts it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from nuclei_segmentation.operators.filter.inference.embedded.model_files import choose_model
from nuclei_segmentation.shared.settings import Settings
from tests.helpers.command import ROOT

VENV = ROOT / ".venv-triton"
SHIPPED = ROOT / "models" / "segmentation_unet_nuclei" / "config.pbtxt"


Tensor = tuple[str, str, Sequence[int]]


def is_installed() -> bool:
    return (VENV / "backends" / "python" / "triton_python_backend_stub").exists()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def tensor(name: str, kind: str, dims: Sequence[int]) -> str:
    return f'{{ name: "{name}", data_type: {kind}, dims: [ {", ".join(map(str, dims))} ] }}'


def add_model(
    repository: Path,
    name: str,
    onnx: Path,
    source: Tensor,
    results: Sequence[Tensor],
    max_batch: int = 0,
    **parameters: object,
) -> None:
    """Add a model to a repository; `source` and each of `results` are (name, TYPE_…, dims)."""
    lines = [
        f'name: "{name}"',
        'backend: "python"',
        f"max_batch_size: {max_batch}",
        f"input [ {tensor(*source)} ]",
        f"output [ {', '.join(tensor(*result) for result in results)} ]",
        "instance_group [ { kind: KIND_CPU, count: 1 } ]",
        *(f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}' for key, value in parameters.items()),
    ]
    _add(repository, name, onnx, "\n".join(lines) + "\n")


def add_shipped_model(repository: Path, onnx: Path | None = None, name: str = "segmentation_unet_nuclei") -> None:
    """Add a model to a repository, with the shipped configuration except for the backend and `name`.

    By default it is the file that the embedded engine uses, so that both must give the same bytes.
    """
    text = SHIPPED.read_text()
    for key, value in (("backend", "python"), ("name", name)):
        text, changed = re.subn(rf'(?m)^{key}: *"[^"]*"', f'{key}: "{value}"', text)
        assert changed == 1, f"the shipped config.pbtxt must have one line for {key}"
    _add(repository, name, onnx or choose_model(Settings())[0].path, text)


def _add(repository: Path, name: str, onnx: Path, config: str) -> None:
    folder = Path(repository) / name
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(config)
    shutil.copy(ROOT / "tests" / "triton" / "model.py", folder / "1")
    shutil.copy(onnx, folder / "1" / "model.onnx")


class TritonServer:
    """A real server on 127.0.0.1; `address` stays the same when it restarts."""

    def __init__(self, repository: Path, log: Path, *options: str) -> None:
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self._repository, self._log, self._options = Path(repository), Path(log), options
        self._prefix = f"nuclei-test-{self.port}-"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, wait: bool = True) -> None:
        site = next((VENV / "lib").glob("python3.*/site-packages"))
        # With another libpython3.11 than the interpreter's own, the stub fails in strange ways. So its folder is named.
        environment = {
            "PATH": f"{VENV / 'bin'}:{os.environ['PATH']}",
            "LD_LIBRARY_PATH": f"{self._library_folder()}:{site / 'nvidia_pytriton.libs'}",
        }
        command: list[str | Path] = [
            site / "pytriton" / "tritonserver" / "bin" / "tritonserver",
            f"--model-repository={self._repository}",
            f"--backend-directory={VENV / 'backends'}",
            f"--backend-config=python,shm-region-prefix-name={self._prefix}",
            "--http-address=127.0.0.1",
            f"--http-port={self.port}",
            "--allow-grpc=false",
            "--allow-metrics=false",
            "--exit-timeout-secs=2",
            "--strict-readiness=false",
            "--exit-on-error=false",
            *self._options,
        ]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        if wait:
            self._wait_ready()

    def _library_folder(self) -> str:
        # The virtual environment's Python may not be the one that runs the tests.
        code = "import sysconfig; print(sysconfig.get_config_var('LIBDIR'))"
        python = VENV / "bin" / "python"
        if python.resolve() == Path(sys.executable).resolve():
            return str(sysconfig.get_config_var("LIBDIR"))
        return subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.strip()

    def _wait_ready(self) -> None:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            if self._running.poll() is not None:
                break
            try:
                with urllib.request.urlopen(f"http://{self.address}/v2/health/ready", timeout=1):
                    return
            except (OSError, urllib.error.URLError):
                time.sleep(0.05)
        raise RuntimeError("the test server does not start:\n" + self._log.read_text()[-3000:])

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "not started"
        return self._process

    def kill(self) -> None:
        """Kill it (SIGKILL) with the processes of its models, and remove what that leaves in /dev/shm."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None
        for left in Path("/dev/shm").glob(f"{self._prefix}*"):
            left.unlink(missing_ok=True)

    def restart(self) -> None:
        self.kill()
        self.start()

    def hang(self) -> None:
        os.kill(self._running.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self._running.pid, signal.SIGCONT)

    def kill_models(self) -> None:
        """Kill the models' processes. This server does not restart them, and still reports that it is ready."""
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                name, parent = stat.read_text().rsplit(")", 1)
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(parent.split()[1]) == self._running.pid and "triton_python" in name:
                os.kill(int(stat.parent.name), signal.SIGKILL)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
