"""Memory that is not there is refused before the work, with advice that holds."""

from __future__ import annotations

import errno
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nuclei_segmentation.shared.errors import NoSpace
from nuclei_segmentation.shared.runtime import memory, resources
from nuclei_segmentation.shared.runtime.memory import check_memory, memory_there
from nuclei_segmentation.shared.runtime.resources import MIB
from tests.helpers.command import command, environment


@pytest.fixture
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A control group that allows 400 MiB, of which 150 MiB are taken; this process holds 100 MiB of these."""
    folder = tmp_path / "groups"
    folder.mkdir()
    (folder / "memory.max").write_text(str(400 * MIB))
    (folder / "memory.current").write_text(str(150 * MIB))
    (folder / "memory.stat").write_text("anon 5\ninactive_file 0\nactive_file 0\n")
    monkeypatch.setattr(resources, "_CGROUPS", folder)
    monkeypatch.setattr(memory, "anonymous_memory", lambda: 100 * MIB)
    return folder


def needed(workers: int) -> int:
    return (200 + 50 * workers) * MIB


def test_what_this_process_holds_already_counts_as_there(group: Path) -> None:
    assert memory_there() == 350 * MIB
    check_memory(needed, 3)
    with pytest.raises(NoSpace, match=r"may use 350 MiB of memory, the run needs up to 400 MiB") as refused:
        check_memory(needed, 4)
    (fewer,) = re.findall(r"\(-w (\d+) needs up to 350 MiB\)", str(refused.value))
    check_memory(needed, int(fewer))


def test_where_not_even_one_worker_fits_nothing_false_is_advised(group: Path) -> None:
    with pytest.raises(NoSpace, match=r"raise the limit; one worker \(-w 1\) needs up to 1\.2 GiB$"):
        check_memory(lambda workers: needed(workers) + 1000 * MIB, 4)
    with pytest.raises(NoSpace, match=r"raise the limit$"):
        check_memory(lambda workers: 1000 * MIB, 4)


def test_without_a_limit_the_machine_is_one(group: Path) -> None:
    (group / "memory.max").write_text("max")
    total = re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())
    assert total is not None
    assert memory_there() >= int(total.group(1)) * 1024
    check_memory(needed, 4)
    with pytest.raises(NoSpace):
        check_memory(lambda workers: 1 << 60, 4)


@pytest.mark.parametrize("kind", [resource.RLIMIT_AS, resource.RLIMIT_DATA])
def test_limits_of_the_process_itself(kind: int) -> None:
    script = (
        "import resource; from nuclei_segmentation.shared.runtime.memory import check_memory\n"
        f"resource.setrlimit({kind}, (1 << 30, 1 << 30))\n"
        "check_memory(lambda workers: 256 << 20, 1); check_memory(lambda workers: 2 << 30, 1)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "NoSpace: this process may use 1" in done.stderr, done.stderr
    assert "the run needs up to 2.0 GiB" in done.stderr


def remove(group: Path) -> None:
    """Remove a control group; the kernel lets go of what ran in it a moment after it ended."""
    until = time.monotonic() + 30
    while True:
        try:
            return group.rmdir()
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > until:
                raise
            time.sleep(0.05)


def in_group(tmp_path: Path, controller: str, limits: dict[str, str]) -> Path:
    """Make a control group of version 1 or 2 with a limit; skip the test where that is not allowed."""
    for root in (Path("/sys/fs/cgroup") / controller, Path("/sys/fs/cgroup")):
        for name, limit in limits.items():
            folder = root / f"nuclei-test-{tmp_path.name}"
            try:
                folder.mkdir()
                (folder / name).write_text(limit)
            except OSError:
                if folder.exists():
                    folder.rmdir()
                continue
            return folder
    pytest.skip("control groups cannot be made here")


@pytest.mark.parametrize("mebibytes", [60, 150])
def test_a_container_with_too_little_memory(arguments: list[str], tmp_path: Path, mebibytes: int) -> None:
    """Otherwise the system would kill the run without a word, at once or in the middle of the work."""
    limit = str(mebibytes * MIB)
    group = in_group(tmp_path, "memory", {"memory.limit_in_bytes": limit, "memory.max": limit})
    shell = f'echo $$ > {group}/cgroup.procs && exec "$@"'
    try:
        done = subprocess.run(
            ["sh", "-c", shell, "sh", *command(*arguments)], capture_output=True, text=True, check=False,
            env=environment(),
        )  # fmt: skip
    finally:
        remove(group)
    assert done.returncode == 14, done.stderr
    assert done.stderr.count(" ERROR ") == 1
    assert "of memory, the run needs up to" in done.stderr
    assert not (tmp_path / "out" / "image.tif").exists()


def test_a_container_with_too_few_processes(arguments: list[str], tmp_path: Path) -> None:
    group = in_group(tmp_path, "pids", {"pids.max": "2"})
    shell = f'echo $$ > {group}/cgroup.procs && exec "$@"'
    try:
        done = subprocess.run(
            ["sh", "-c", shell, "sh", *command(*arguments)], capture_output=True, text=True, check=False,
            env=environment(),
        )  # fmt: skip
    finally:
        remove(group)
    assert done.returncode == 70, done.stderr
    assert "the system allows no more threads: raise the limit of processes" in done.stderr
    assert "internal error" not in done.stderr
