"""Staged runs: three processes at the same time compared with a fused run, and the cost of stores."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np

from benchmarks.models import BUNDLED, idle_repository
from benchmarks.runs import settings_for
from benchmarks.slides import CACHE, ROOT, generated, pattern
from benchmarks.table import Row
from benchmarks.timing import Usage, alternate, now, used
from nuclei_segmentation.operators.load import command as load_command
from nuclei_segmentation.shared.batches import Pixels
from nuclei_segmentation.shared.runtime.files import write_all
from nuclei_segmentation.shared.runtime.resources import usable_cpus
from nuclei_segmentation.shared.settings import Settings, WaitSettings
from nuclei_segmentation.shared.settings.environment import NO_SYNC_LOCK
from nuclei_segmentation.shared.store import ArrayMetadata, Manifest, SlideMetadata, StoreWriter, ledger

TILE = 256
BATCH = 8


def rows(*, quick: bool) -> list[Row]:
    """Measure the three stages, the writing of a store, and the share of checksums and ledger in load.

    Parameters
    ----------
    quick : bool
        Whether to use smaller slides and fewer tiles.
    """
    return [_streaming(3_000 if quick else 6_000), _writing(500 if quick else 4_000), _bookkeeping(quick=quick)]


def _streaming(side: int) -> Row:
    """Start load, filter and stitch at the same time, as fresh processes, and compare with a fused run."""
    slide = generated(side, side).path
    with _folder() as folder, tempfile.TemporaryDirectory() as config:
        Path(config, "config.yaml").write_text(f"models: {{repository: {BUNDLED}}}\n")

        def fused() -> Usage:
            return _timed(folder, lambda: [_start("segmentation", slide, folder / "fused", config)])

        def staged() -> Usage:
            inputs = folder / "in"

            def start() -> list[subprocess.Popen[bytes]]:
                inputs.mkdir()
                (inputs / slide.name).hardlink_to(slide)
                (inputs / "tiles").symlink_to(folder / "t")
                (inputs / "masks").symlink_to(folder / "m")
                return [
                    _start("load", slide, folder / "t", config),
                    _start("filter", folder / "t", folder / "m", config),
                    _start("stitch", inputs, folder / "out", config),
                ]

            return _timed(folder, start)

        best = alternate({"fused": fused, "staged": staged}, rounds=2)
    fused_seconds, staged_seconds = best["fused"].wall, best["staged"].wall
    return Row(
        f"three stages at once, {side} px",
        f"{staged_seconds:.1f} s",
        f"fused {fused_seconds:.1f} s",
        staged_seconds / fused_seconds,
        1.25,
        False,
    )


def _writing(tiles: int) -> Row:
    """Write tiles into a store in shared memory, and the same bytes into a plain file that was just allocated."""
    image = pattern()[0]
    batch = np.stack([image[:TILE, column * TILE : (column + 1) * TILE] for column in range(BATCH)])
    with _folder(Path("/dev/shm")) as folder:
        best = alternate(
            {
                "store": lambda: _into_store(folder / "store", batch, tiles),
                "plain": lambda: _into_file(folder / "plain", batch, tiles),
            },
            rounds=5,
        )
    size = tiles * batch[0].nbytes / 1e9
    store, plain = best["store"].wall, best["plain"].wall
    return Row(
        "store writing, tmpfs", f"{size / store:.1f} GB/s", f"plain copy {size / plain:.1f} GB/s", plain / store, 0.8
    )


def _bookkeeping(*, quick: bool) -> Row:
    """Measure the share of the CPU time of load that checksums and ledger take."""
    slide = generated(*((8_000, 8_000) if quick else (20_000, 20_000)))
    spent = [0.0]
    lock = threading.Lock()

    def timed(real: Callable[..., object]) -> Callable[..., object]:
        def work(*arguments: object) -> object:
            start = time.thread_time()
            try:
                return real(*arguments)
            finally:
                passed = time.thread_time() - start
                with lock:
                    spent[0] += passed

        return work

    with _folder() as folder:
        settings = replace(
            settings_for(slide.path, idle_repository()), output_path=folder / "store", wait=WaitSettings(None)
        )
        with (
            mock.patch("nuclei_segmentation.shared.store.writer.checksum", timed(ledger.checksum)),
            mock.patch.object(ledger.LedgerWriter, "append", timed(ledger.LedgerWriter.append)),
            contextlib.redirect_stdout(io.StringIO()),
        ):
            total = used(lambda: load_command.run(settings)).cpu
    return Row(
        "checksums and ledger in load",
        f"{spent[0]:.2f} CPU s",
        f"load {total:.2f} CPU s",
        spent[0] / total,
        0.05,
        at_least=False,
    )


def _into_store(folder: Path, batch: Pixels, tiles: int) -> Usage:
    (folder / ".run").mkdir(parents=True)
    shape = (tiles, TILE, TILE, 3)
    manifest = Manifest(
        kind="tiles",
        generation="",
        run="",
        key="",
        source="",
        slide=SlideMetadata("", "", TILE * tiles, TILE, None, None),
        tile=TILE,
        overlap=0,
        n=tiles,
        mask="none",
        arrays={"tiles": ArrayMetadata("", shape, "uint8")},
    )
    index = np.stack([np.zeros(tiles, np.int32), np.arange(tiles, dtype=np.int32)], axis=1)
    try:
        work = folder / ".run"
        with StoreWriter(folder, work, manifest, {"index": index}, {}, shared=False, check=lambda: None) as store:

            def put(first: int) -> None:
                store.put(list(range(first, first + BATCH)), batch)

            start = now()
            _in_threads(put, tiles)
            store.finish({})
            return now() - start
    finally:
        shutil.rmtree(folder)


def _into_file(path: Path, batch: Pixels, tiles: int) -> Usage:
    file = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        os.posix_fallocate(file, 0, tiles * batch[0].nbytes)
        start = now()
        _in_threads(lambda first: write_all(file, batch.data.cast("B"), first * batch[0].nbytes), tiles)
        return now() - start
    finally:
        os.close(file)
        path.unlink()


def _in_threads(work: Callable[[int], None], tiles: int) -> None:
    """Call `work` with the first tile of each batch, in as many threads as there are processors."""
    count = usable_cpus()

    def some(number: int) -> None:
        for first in range(number * BATCH, tiles - BATCH + 1, count * BATCH):
            work(first)

    threads = [threading.Thread(target=some, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _start(command: str, source: Path, output: Path, config: str) -> subprocess.Popen[bytes]:
    kept = {name: value for name, value in os.environ.items() if "TRI" not in name and name != NO_SYNC_LOCK}
    default = Settings()
    return subprocess.Popen(
        [
            sys.executable, str(ROOT / "operators" / "main.py"), command, "-d", "ERROR", "-t", str(default.tile_size),
            "--input-path", str(source), "--output-path", str(output), "--config-path", config,
        ],
        stdout=subprocess.DEVNULL, env=kept,
    )  # fmt: skip


def _timed(folder: Path, start: Callable[[], list[subprocess.Popen[bytes]]]) -> Usage:
    shutil.rmtree(folder)
    folder.mkdir()
    began = time.perf_counter()
    processes = start()
    codes = [process.wait() for process in processes]
    if any(codes):
        raise RuntimeError(f"the stages ended with the exit codes {codes}")
    return Usage(time.perf_counter() - began, 0.0)


@contextlib.contextmanager
def _folder(parent: Path = CACHE) -> Iterator[Path]:
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="staged-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
