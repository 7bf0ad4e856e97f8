"""File systems that lack a service, do half of what was asked, or fail; and real ones in user space."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile

from nuclei_segmentation.shared.runtime.lock import FolderLock
from tests.helpers.command import NAME
from tests.helpers.faults import CHANGES, SECOND, SHORT, Calls, Fault, Machine
from tests.helpers.mounts import KINDS, mounted
from tests.helpers.nets import dark_model

NAMES = {"config.meta", "config_render.json", "image.tif", "summary.json"}


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    with Machine() as one:
        yield one


@pytest.fixture(scope="module")
def root(crop: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a slide of six tiles in ``in``, and a configuration in ``config``. Faults are confined to it."""
    folder = tmp_path_factory.mktemp("root")
    (folder / "in").mkdir()
    tifffile.imwrite(
        folder / "in" / "tiny.tif", crop[80:200, 480:670], tile=(64, 64), photometric="rgb", compression="jpeg",
        compressionargs={"level": 90}, resolution=(20000, 20000), resolutionunit="CENTIMETER", metadata=None,
    )  # fmt: skip
    (folder / "in" / "config_render.json").write_text("{}")
    dark_model(folder / "config" / "models" / NAME / "1" / "model.onnx")
    models = folder / "config" / "models"
    (folder / "config" / "config.yaml").write_text(f"models: {{repository: {models}}}\nmask: none\n")
    return folder


@pytest.fixture
def out(root: Path) -> Iterator[Path]:
    folder = root / "out"
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def line(command: str, source: Path, output: Path, root: Path) -> list[str | Path]:
    places = ["--input-path", source, "--output-path", output, "--config-path", root / "config"]
    return [command, *places, "-t", "64", "-w", "1"]


def content(folder: Path) -> dict[str, str]:
    """Return hashes of the files of a result that are the same each time."""
    kept = ("image.tif", "config_render.json", "config.meta", "tiles.npy", "masks.npy", "index.npy")
    paths = (folder / name for name in kept)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths if path.exists()}


def stages(machine: Machine, root: Path, folder: Path, fault: Fault | None) -> list[dict[str, str]]:
    """Run the four commands, each of which must succeed; return the contents of their output folders."""
    stores, found = folder / "stores", []
    stores.mkdir(parents=True)
    (stores / "slide").symlink_to(root / "in")
    runs = [
        ("segmentation", root / "in", folder / "out"), ("load", root / "in", stores / "tiles"),
        ("filter", stores, stores / "masks"), ("stitch", stores, folder / "stitched"),
    ]  # fmt: skip
    for command, source, output in runs:
        done = machine.run(*line(command, source, output, root), fault=fault)
        assert done.code == 0, done.err
        assert done.fired or fault is None, "the fault did not happen"
        found.append(content(output))
    return found


@pytest.fixture(scope="module")
def expected(machine: Machine, root: Path) -> list[dict[str, str]]:
    return stages(machine, root, root / "undisturbed", None)


@pytest.mark.parametrize(
    ("calls", "number", "words"),
    [
        (Calls.SYNC_FOLDER, errno.EINVAL, "cannot force the names in a folder to the disk (Invalid argument)"),
        (Calls.SYNC_FOLDER, errno.EOPNOTSUPP, "cannot force the names in a folder to the disk"),
        (Calls.SYNC_FOLDER, errno.ENOSYS, "cannot force the names in a folder to the disk"),
        (Calls.SYNC, errno.EINVAL, "cannot force files to the disk"),
        (Calls.LOCK, errno.ENOSYS, "has no file locks (Function not implemented)"),
        (Calls.LOCK, errno.ENOLCK, "has no file locks"),
        (Calls.LOCK, errno.EOPNOTSUPP, "has no file locks"),
        (Calls.RESERVE, errno.EOPNOTSUPP, "cannot reserve space"),
        (Calls.RESERVE, errno.EINVAL, "cannot reserve space"),
    ],
)
def test_without_a_service_the_run_goes_on_with_one_warning(
    machine: Machine, root: Path, out: Path, expected: list[dict[str, str]], calls: Calls, number: int, words: str
) -> None:
    done = machine.run(*line("segmentation", root / "in", out, root), fault=Fault(root, calls, number))
    assert done.code == 0, done.err
    assert done.fired
    assert len(done.warnings) == 1, done.err
    assert words in done.warnings[0]
    assert "the run goes on, but" in done.warnings[0]
    assert content(out) == expected[0]
    assert {path.name for path in out.iterdir()} == NAMES


def test_without_any_of_them_all_stages_go_on(
    machine: Machine, root: Path, tmp_path_factory: pytest.TempPathFactory, expected: list[dict[str, str]]
) -> None:
    lacking = Calls.SYNC | Calls.SYNC_FOLDER | Calls.LOCK | Calls.RESERVE
    assert stages(machine, root, root / "bare", Fault(root, lacking, errno.EOPNOTSUPP)) == expected


def test_a_folder_that_may_be_written_but_not_read(machine: Machine, root: Path, out: Path) -> None:
    """Names can be made there, but it cannot be opened to force them to the disk. Only other users than root see it."""
    for number in range(1, 60):
        fault = Fault(out, Calls.OPEN, errno.EACCES, number)
        done = machine.run(*line("segmentation", root / "in", out, root), fault=fault)
        if any("cannot be read, and so cannot be forced to the disk" in warning for warning in done.warnings):
            assert done.code == 0, done.err
            return
        assert done.fired, "no folder was opened"
        shutil.rmtree(out)


@pytest.mark.parametrize("calls", [Calls.SYNC_FOLDER, Calls.SYNC, Calls.RESERVE])
def test_an_error_of_such_a_service_is_still_one(machine: Machine, root: Path, out: Path, calls: Calls) -> None:
    done = machine.run(*line("segmentation", root / "in", out, root), fault=Fault(root, calls, errno.EIO))
    assert done.code == 13, done.err
    assert "Input/output error" in done.errors[0]
    assert not (out / "config.meta").exists()


def test_short_reads_and_writes(machine: Machine, root: Path, expected: list[dict[str, str]]) -> None:
    """Every call reads or writes half, as on network file systems and nearly full disks."""
    assert stages(machine, root, root / "short", Fault(root, Calls.READ | Calls.WRITE, 0, SHORT)) == expected


def test_interrupted_calls(machine: Machine, root: Path, expected: list[dict[str, str]]) -> None:
    """Every second call ends with EINTR. ONNX Runtime opens the model itself, and gives up: it is left out."""
    every = Calls.READ | Calls.WRITE | Calls.SYNC | Calls.SYNC_FOLDER | Calls.LOCK | Calls.RESERVE | Calls.TRUNCATE
    folder = root / "interrupted"
    assert stages(machine, root, folder, Fault(folder, every | Calls.OPEN, errno.EINTR, SECOND)) == expected


def unfinished(machine: Machine, root: Path, out: Path) -> None:
    """Leave what a run leaves that has inferred everything, and failed when it forced the image to the disk."""
    for number in range(1, 20):  # the files that are forced to the disk before the image come first
        fault = Fault(out / ".run", Calls.SYNC, errno.EIO, number)
        done = machine.run(*line("segmentation", root / "in", out, root), fault=fault)
        assert done.code == 13, done.err
        if "image.tif" in done.errors[0]:
            assert list(out.glob(".run/*/maps"))
            return
    raise AssertionError("the image was never forced to the disk")


@pytest.mark.parametrize(
    ("calls", "resumed"), [(Calls.READ, True), (Calls.OPEN, False), (CHANGES, False)], ids=["reads", "opens", "changes"]
)
def test_an_error_at_the_nth_call(
    machine: Machine, root: Path, out: Path, expected: list[dict[str, str]], calls: Calls, resumed: bool
) -> None:
    """Whichever it is: one line with the cause, or the right bytes; and the next run finishes."""
    arguments = line("segmentation", root / "in", out, root)
    if resumed:
        unfinished(machine, root, out)
        shutil.copytree(out, root / "unfinished")
    for number in range(1, 1000):
        done = machine.run(*arguments, fault=Fault(root, calls, errno.EIO, number))
        if not done.fired:
            break
        assert done.code in (0, 2, 10, 11, 12, 13, 15), f"call {number}: {done.err}"
        assert len(done.errors) == (done.code != 0), f"call {number}: {done.err}"
        assert "Traceback" not in done.err
        if done.code:
            assert not (out / "config.meta").exists() or content(out) == expected[0], f"call {number}"
            if number % 8 == 0:
                done = machine.run(*arguments)
                assert done.code == 0, f"after call {number}: {done.err}"
        if done.code == 0:
            assert content(out) == expected[0], f"call {number}: other bytes"
        shutil.rmtree(out, ignore_errors=True)
        if resumed:
            shutil.copytree(root / "unfinished", out)
    assert number > 20


@pytest.mark.parametrize(
    ("number", "code", "words"),
    [
        (errno.ENOSPC, 14, "no space left for"),
        (errno.EDQUOT, 14, "the disk quota is used up"),
        (errno.EFBIG, 14, "would be larger than a file may be on this file system"),
        (errno.EROFS, 13, "Read-only file system; use another output folder"),
        (errno.EIO, 13, "Input/output error; its disk, or the way to it, may be failing"),
        (errno.EACCES, 13, "Permission denied; check its permissions"),
    ],
)
def test_a_refusal_is_named_as_what_it_is(
    machine: Machine, root: Path, out: Path, number: int, code: int, words: str
) -> None:
    fault = Fault(out, Calls.WRITE | Calls.RESERVE, number)
    done = machine.run(*line("segmentation", root / "in", out, root), fault=fault)
    assert done.code == code, done.err
    assert len(done.errors) == 1
    assert words in done.errors[0]
    assert ("permissions" in done.errors[0]) == (number == errno.EACCES)


def test_a_system_that_allows_no_more_threads(machine: Machine, root: Path, out: Path) -> None:
    for number in range(1, 20):
        done = machine.run(
            *line("segmentation", root / "in", out, root), fault=Fault(root, Calls.THREAD, errno.EAGAIN, number)
        )
        if not done.fired:
            break
        if done.code:  # OpenCV goes on with the threads that it has
            assert done.code == 70, done.err
            assert "the system allows no more threads" in done.errors[0]
            assert len(done.errors) == 1
            assert machine.run(*line("segmentation", root / "in", out, root)).code == 0
        shutil.rmtree(out, ignore_errors=True)
    assert number > 3


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_system_in_user_space(
    machine: Machine, root: Path, tmp_path: Path, expected: list[dict[str, str]], kind: str
) -> None:
    """The same bytes; one run at a time; and nothing is left beside the result."""
    with mounted(kind, tmp_path) as folder:
        out = folder / "out"
        arguments = line("segmentation", root / "in", out, root)
        out.mkdir()
        with FolderLock(out / ".run", out):
            done = machine.run(*arguments)
            assert done.code == 13, done.err
            assert "in use by another run" in done.err
        done = machine.run(*arguments)
        assert done.code == 0, done.err
        assert content(out) == expected[0]
        assert {path.name for path in out.iterdir()} == NAMES
        assert "already done" in machine.run(*arguments).err


def test_a_killed_run_without_file_locks_does_not_block_the_next(machine: Machine, root: Path, out: Path) -> None:
    """Its process is known to be gone; so the next run need not wait for a minute of silence."""
    dead = os.spawnlp(os.P_NOWAIT, "true", "true")
    os.waitpid(dead, 0)
    (out / ".run").mkdir(parents=True)
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    space = Path("/proc/self/ns/pid").readlink()
    holder = f'{{"process": {{}}, "host": "here", "boot": "{boot}", "namespace": "{space}"}}'
    arguments = line("segmentation", root / "in", out, root)
    (out / ".run" / "lock").write_text(holder.replace("{}", str(os.getpid())))
    done = machine.run(*arguments, fault=Fault(root, Calls.LOCK, errno.ENOSYS))
    assert done.code == 13, done.err
    assert f"in use by another run (process {os.getpid()} on here, last active" in done.errors[0]
    (out / ".run" / "lock").write_text(holder.replace("{}", str(dead)))
    done = machine.run(*arguments, fault=Fault(root, Calls.LOCK, errno.ENOSYS))
    assert done.code == 0, done.err
