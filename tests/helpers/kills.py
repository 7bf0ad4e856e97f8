"""Kills a command at its N-th step on the disk, N = 1, 2, 3, …, and runs it again each time.

A step is a call that writes, forces, names or removes something. A write that is killed has written half of its bytes.
Every attempt is a fork of this process, which has imported everything and has no threads: it costs no start-up.

Run as a script: a JSON object on the standard input says what to do, one on the standard output what was found.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nuclei_segmentation.operators.filter.command
import nuclei_segmentation.operators.filter.inference.embedded.engine
import nuclei_segmentation.operators.load.command
import nuclei_segmentation.operators.segmentation.run
import nuclei_segmentation.operators.stitch.command  # noqa: F401 - imported once, before the forks
from nuclei_segmentation.operators.commands import run
from nuclei_segmentation.operators.stitch.pyramid import disk_space
from nuclei_segmentation.shared.store import ledger, release_shared_memory, writer
from nuclei_segmentation.shared.store.manifest import is_complete, read_manifest

CALLS = (
    "pwrite", "write", "fsync", "fdatasync", "rename", "replace", "unlink", "ftruncate", "posix_fallocate", "mkdir",
    "rmdir",
)  # fmt: skip
LIMIT = 2000


class Steps:
    """Counts steps, and kills the process at the one that was chosen."""

    def __init__(self, fatal: int) -> None:
        self.fatal, self.count = fatal, 0

    def next(self, half: Callable[[], object] | None = None) -> None:
        self.count += 1
        if self.count == self.fatal:
            if half is not None:
                half()
            os.kill(os.getpid(), signal.SIGKILL)

    def install(self) -> None:
        """Wrap what the program writes with; before any of its threads begin."""
        for name in CALLS:
            setattr(os, name, self._wrapped(getattr(os, name), name))
        opened = os.open
        steps = self

        def open_(path: Any, flags: int, *rest: Any, **named: Any) -> int:
            if flags & os.O_CREAT:
                steps.next()
            return opened(path, flags, *rest, **named)

        class Raw(io.FileIO):
            def write(self, data: Any) -> int:
                steps.next(lambda: super(Raw, self).write(bytes(data)[: len(data) // 2]))
                return super().write(data)

        plain = io.open

        def open_file(file: Any, mode: str = "r", buffering: int = -1, *rest: Any, **named: Any) -> Any:
            if isinstance(file, int) or not set(mode) & set("wax+"):
                return plain(file, mode, buffering, *rest, **named)
            steps.next()
            buffered = io.BufferedWriter(Raw(file, mode.replace("b", "").replace("t", "")))
            return buffered if "b" in mode else io.TextIOWrapper(buffered, "utf-8")

        written = disk_space._ReservedFile.write

        def write(self: Any, data: Any) -> int:
            steps.next(lambda: written(self, bytes(data)[: len(data) // 2]))
            return written(self, data)

        os.open, io.open, disk_space._ReservedFile.write = open_, open_file, write  # type: ignore[assignment, method-assign]

    def _wrapped(self, call: Callable[..., Any], name: str) -> Callable[..., Any]:
        def step(*arguments: Any, **named: Any) -> Any:
            half = None
            if name in ("pwrite", "write"):
                file, data, *place = arguments
                part = memoryview(data).cast("B")[: len(memoryview(data).cast("B")) // 2]
                half = lambda: call(file, part, *place)  # noqa: E731
            self.next(half)
            return call(*arguments, **named)

        return step


def attempt(arguments: list[str], fatal: int, log: Path) -> int:
    """Run the command in a fork; return its exit code, or -9."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status)
    code = 1
    try:
        number = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        os.dup2(number, 1)
        os.dup2(number, 2)
        writer.COMMIT_BYTES = 1  # every tile is named in the ledger as soon as it is there
        writer.COMMIT_SECONDS = 60.0  # and at no other time: the steps are the same each time
        if fatal:
            Steps(fatal).install()
        code = run(arguments)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def content(folder: Path) -> str:
    """Return a hash of all that a finished folder says, but for what differs from run to run: the generation."""
    digest = hashlib.sha256()
    names = sorted(path.name for path in folder.iterdir())
    manifest = read_manifest(folder)
    digest.update(json.dumps(names).encode())
    for name in names:
        if name not in ("manifest.json", "ledger", "COMPLETE", "summary.json"):  # times differ
            digest.update((folder / name).read_bytes())
    if manifest is not None:
        digest.update((folder / manifest.arrays[manifest.kind].file).read_bytes())
        digest.update(json.dumps([manifest.key, manifest.n, manifest.run]).encode())
    return digest.hexdigest()


def visible(folder: Path) -> dict[str, str]:
    """Return hashes of what is declared to be whole: the image's files, and a store's arrays if it is complete."""
    if not folder.exists():
        return {}
    paths = {name: folder / name for name in ("image.tif", "config_render.json", "config.meta")}
    manifest = read_manifest(folder)
    if manifest is not None and is_complete(folder, manifest):
        paths |= {name: folder / facts.file for name, facts in manifest.arrays.items()}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in paths.items() if path.exists()}


def recorded(folder: Path) -> tuple[str, int]:
    """Return the generation of the store in a folder, and how many whole records its ledger has."""
    manifest = read_manifest(folder)
    path = folder / ledger.FILE
    if manifest is None or not path.exists():
        return "", 0
    return manifest.generation, len(ledger.parse(path.read_bytes()[ledger.HEADER :]))


def main() -> None:
    job = json.load(sys.stdin)
    arguments, output, log = job["arguments"], Path(job["output"]), Path(job["log"])
    beside = Path(job["beside"]) if job["beside"] else None  # what lies where the output folder does, to be replaced
    within = output.parent if beside is not None else output
    kept = [(Path(path), Path(path).read_bytes()) for path in job["restore"]]

    def fresh() -> None:
        for path, data in kept:  # what the command gives back when it is done
            if not path.exists() or path.read_bytes() != data:
                path.write_bytes(data)
        if output.exists() and (manifest := read_manifest(output)) is not None:
            release_shared_memory(manifest)
        if within.exists():
            shutil.rmtree(within)
        if beside is not None:
            shutil.copytree(beside, within)

    problems: list[str] = []

    def expect(holds: bool, what: str) -> None:
        if not holds:
            problems.append(f"killed at step {number}: {what}\n{log.read_text()[-2000:]}")

    number = 0
    fresh()
    code = attempt(arguments, 0, log)
    expect(code == 0, f"exit {code} of a run that nobody disturbed")
    expected, whole, (_, n) = content(output), visible(output), recorded(output)
    resumed = 0
    for number in range(1, LIMIT):
        fresh()
        code = attempt(arguments, number, log)
        if code != -signal.SIGKILL:
            expect(code == 0, f"exit {code}")
            break
        expect(visible(output).items() <= whole.items(), "something half-written has a final name")
        generation, there = recorded(output)
        resumed = max(resumed, there)
        code = attempt(arguments, 0, log)
        expect(code == 0, f"exit {code} of the next run")
        expect(code != 0 or content(output) == expected, "other bytes")
        left = [path for other in within.iterdir() if other != output for path in other.iterdir()] if beside else []
        expect(not left, f"what was replaced is not quite gone: {left}")
        again, records = recorded(output)
        expect(generation != again or generation == "" or records == n, f"{records} records of {n} tiles")
        expect(generation in ("", again) or there == 0, f"{there} tiles were thrown away")
        if len(problems) > 3:
            break
    expect(output.exists() and content(output) == expected, "other bytes at the end")
    fresh()
    json.dump({"steps": number, "resumed": resumed, "tiles": n, "problems": problems}, sys.stdout)


if __name__ == "__main__":
    main()
