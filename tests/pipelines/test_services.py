"""Services of runs: a real Triton server that is found on the machine, and small servers that fail."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import sysconfig
from dataclasses import replace
from pathlib import Path

import pytest

from nuclei_segmentation.pipelines.runner import services
from nuclei_segmentation.pipelines.runner.step import PORT, Service
from tests.helpers.command import ROOT, environment
from tests.helpers.jobs import Job, left
from tests.helpers.pipelines import pipelines
from tests.helpers.triton_server import VENV, add_shipped_model, is_installed

pytestmark = pytest.mark.slow  # each test runs whole operators

SERVER = """
import http.server, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_): pass
time.sleep(float(sys.argv[2]))
print("listens", flush=True)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1].split("=")[1])), Handler).serve_forever()
"""
SLOW = """
import signal, socket, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
server = socket.create_server(("127.0.0.1", int(sys.argv[1].split("=")[1])))
asks, _ = server.accept()
asks.sendall(b"HTTP/1.1 ")
while True:
    asks.sendall(b"2")
    time.sleep(0.5)
"""
TWICE = "[os.kill(os.getppid(), 2) or __import__('time').sleep(1) for _ in 'ab']"
ASK = "import urllib.request as u; u.urlopen('http://{}/v2/health/ready')"


def served(job: Job, script: str, *words: str) -> None:
    """Give a job a service, and an operator that asks it."""
    line = (sys.executable, "-c", script, f"--http-port={PORT}", *words, str(job.folders.job))
    ask = f'"{sys.executable}" -c "{ASK.format("${ADDRESS}")}" && touch $1/result'
    job.step("first", "true")
    job.step("asks", ask, "first")
    asks = replace(job.plan.steps[1], line=("env", f"ADDRESS=127.0.0.1:{PORT}", *job.plan.steps[1].line))
    job.plan = replace(job.plan, steps=(job.plan.steps[0], asks), services=(Service("server", line, ("asks",)),))


def test_who_uses_a_service_starts_when_it_answers(job: Job) -> None:
    served(job, SERVER, "1.5")
    assert job.run() == 0
    assert (job.folders.output / "result").exists()
    said = [line.split(" after")[0] for line in job.shown]
    assert said.index("first: starts") < said.index("service server: answers") < said.index("asks: starts")
    assert not left(job.folders.job)


def test_a_service_that_ends(job: Job) -> None:
    served(job, "import sys; print('no memory'); sys.exit(3)")
    assert job.run() == 16
    assert job.shown[-2:] == ["service server ended with exit code 3 before it answered", "  no memory"]
    assert job.table()["asks"] == "not run"


def test_a_service_that_does_not_answer(job: Job) -> None:
    served(job, SERVER, "100")
    job.options = replace(job.options, service_wait=1.0)
    assert job.run() == 16
    assert "has not answered for" in job.shown[-1]
    assert not left(job.folders.job)


def test_a_service_is_not_started_for_what_is_done(job: Job) -> None:
    served(job, SERVER, "0")
    job.step("last", "exit 5", "asks")
    job.plan = replace(job.plan, results=())
    assert job.run() == 5
    assert job.run() == 5
    assert not [line for line in job.shown if line.startswith("service")]


@pytest.mark.skipif(not is_installed(), reason="no Triton server here: make triton")
@pytest.mark.parametrize("how", ["service", "models"])
def test_a_triton_server_that_is_found_on_the_machine(
    how: str, small_slide: Path, expected: bytes, tmp_path: Path
) -> None:
    models, programs, out = tmp_path / "models", tmp_path / "bin", tmp_path / "out"
    add_shipped_model(models)
    programs.mkdir()
    site = next((VENV / "lib").glob("python3.*/site-packages"))
    real = site / "pytriton" / "tritonserver" / "bin" / "tritonserver"
    libraries = f"{sysconfig.get_config_var('LIBDIR')}:{site / 'nvidia_pytriton.libs'}"
    program = programs / "tritonserver"
    program.write_text(
        f"#!/bin/bash\nexport PATH={VENV / 'bin'}:$PATH LD_LIBRARY_PATH={shlex.quote(libraries)}\n"
        f'exec {shlex.quote(str(real))} --backend-directory={VENV / "backends"} "$@"\n'
    )
    program.chmod(0o755)
    definition = ROOT / "pipelines" / f"nuclei-segmentation{'' if how == 'service' else '-fastio'}.yaml"
    line = pipelines("run", definition, "--input", small_slide.parent, "--output", out, "--models", models)
    path = f"{programs}:{os.environ['PATH']}"
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=240, env=environment(PATH=path))
    assert done.returncode == 0, done.stderr
    assert f"filter: served by {program}, with the models in {models}" in done.stderr
    log = (out / ".job" / "logs" / "filter.log").read_text()
    assert "by segmentation_unet_nuclei (triton)" in log
    assert (out / "image.tif").read_bytes() == expected
    assert not left(models)


def test_a_service_that_ends_while_it_is_used(job: Job) -> None:
    once = SERVER.replace(".serve_forever()", ".handle_request(); time.sleep(0.5); sys.exit(4)")
    served(job, once, "0")
    job.step("last", "sleep 2", "first")
    assert job.run() == 1
    assert "service server: ended with exit code 4" in job.shown


def test_a_second_signal_does_not_wait_for_a_service(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "GRACE_SECONDS", 1000.0)
    served(job, f"import os, signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {TWICE}" + SERVER, "100")
    assert job.run() == 130
    assert not left(job.folders.job)


def test_a_service_that_never_stops_answering(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "GRACE_SECONDS", 0.5)
    served(job, SLOW)
    job.options = replace(job.options, service_wait=3.0)
    assert job.run() == 16
    assert not left(job.folders.job)
