"""Runs commands on a file system whose calls fail: at the N-th time, every time, or not at all but half done.

`faults.c`, preloaded, stands before the system calls on files below one folder, whoever makes them: Python, ONNX
Runtime, the inside of the standard library. The process that is started here imports the program once, and forks for
every attempt, so that an attempt costs no start-up.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
import tempfile
import traceback
from dataclasses import dataclass
from enum import IntFlag
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.command import ROOT, environment

SOURCE = Path(__file__).with_suffix(".c")
EVERY, SECOND, SHORT = -1, -2, -3


class Calls(IntFlag):
    """The kinds of system calls, as `faults.c` numbers them."""

    READ = 1
    WRITE = 2
    SYNC = 4
    SYNC_FOLDER = 8
    LOCK = 16
    RESERVE = 32
    TRUNCATE = 64
    OPEN = 128
    NAME = 256
    THREAD = 512


CHANGES = Calls.WRITE | Calls.SYNC | Calls.SYNC_FOLDER | Calls.RESERVE | Calls.TRUNCATE | Calls.NAME


@dataclass(frozen=True)
class Fault:
    """What fails: calls of some kinds on files below a folder, by an error number; see `faults.c` for `when`."""

    folder: Path
    calls: Calls
    error: int = 0
    when: int = EVERY


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended: exit code (or minus a signal), standard error, and how many calls failed."""

    code: int
    err: str
    fired: int

    @property
    def errors(self) -> list[str]:
        return [line for line in self.err.splitlines() if " ERROR " in line]

    @property
    def warnings(self) -> list[str]:
        return [line for line in self.err.splitlines() if " WARNING " in line]


@cache
def library() -> Path:
    """Compile `faults.c`, once."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        if os.environ.get("CI"):
            pytest.fail("there is no C compiler; .ci/run installs gcc")
        pytest.skip("there is no C compiler")
    path = Path(tempfile.mkdtemp(prefix="faults-")) / "faults.so"
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", path, SOURCE, "-ldl"], check=True)
    return path


class Machine:
    """A process that makes attempts; to be used in a ``with`` block."""

    def __init__(self) -> None:
        variables = environment(
            LD_PRELOAD=str(library()), NVIDIA_CLARA_NOSYNCLOCK="1", OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.helpers.faults"], cwd=ROOT, env=variables, text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )  # fmt: skip

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def run(self, *arguments: str | Path, fault: Fault | None = None) -> Outcome:
        """Run a command line, undisturbed or with a fault."""
        job: dict[str, Any] = {"arguments": list(map(str, arguments)), "fault": None}
        if fault is not None:
            job["fault"] = [str(fault.folder), int(fault.calls), fault.error, fault.when]
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(job), file=self._process.stdin, flush=True)
        return Outcome(**json.loads(self._process.stdout.readline()))


def _attempt(job: dict[str, Any], log: Path) -> dict[str, Any]:
    from nuclei_segmentation.operators.commands import run

    hears, tells = os.pipe()
    child = os.fork()
    if child:
        os.close(tells)
        with os.fdopen(hears) as stream:
            fired = stream.read()
        _, status = os.waitpid(child, 0)
        return {"code": os.waitstatus_to_exitcode(status), "err": log.read_text(), "fired": int(fired or 0)}
    code, shim = 1, ctypes.CDLL(None)
    leave = os._exit

    def end(code: int) -> None:  # the program itself leaves this way, too
        os.write(tells, b"%d" % shim.faults_fired())
        leave(code)

    os._exit = end  # type: ignore[assignment] # it does not return either
    try:
        number = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        os.dup2(number, 1)
        os.dup2(number, 2)
        if job["fault"]:
            folder, calls, error, when = job["fault"]
            shim.faults.argtypes = (ctypes.c_char_p, ctypes.c_int, ctypes.c_int, ctypes.c_long)
            shim.faults(folder.encode(), calls, error, when)
        code = run(job["arguments"])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        end(code)
    raise AssertionError


def main() -> None:
    """Make attempts: a JSON object on a line of the standard input says which, another tells the outcome."""
    import nuclei_segmentation.operators.filter.command
    import nuclei_segmentation.operators.filter.inference.embedded.engine
    import nuclei_segmentation.operators.load.command
    import nuclei_segmentation.operators.segmentation.run
    import nuclei_segmentation.operators.stitch.command  # noqa: F401 - imported once, before the forks

    with tempfile.TemporaryDirectory() as folder:
        for line in sys.stdin:
            sys.stdout.write(f"{json.dumps(_attempt(json.loads(line), Path(folder) / 'log'))}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
