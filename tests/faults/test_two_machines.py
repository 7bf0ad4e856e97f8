"""Two machines and one folder: who was taken for dead wakes up, and breaks nothing."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nuclei_segmentation.shared.errors import LockLost
from nuclei_segmentation.shared.runtime.waiting import WaitLimit
from nuclei_segmentation.shared.store import StoreFolder, StoreReader
from nuclei_segmentation.shared.store.manifest import is_complete, read_manifest
from tests.helpers import machines
from tests.helpers.command import ROOT, Run, environment
from tests.helpers.outputs import FILES, digest, names, size_of_journal
from tests.helpers.stores import Maker


def kept(folder: Path, document: str) -> object:
    """Return the run that a file of a result names."""
    return json.loads((folder / document).read_text())["run" if document == "config.meta" else "key"]


def test_a_run_that_slept_is_taken_over_with_its_work_and_ends_when_it_wakes_up(
    run: Run, arguments: list[str], tmp_path: Path
) -> None:
    small = [*arguments, "-t", "48"]
    assert run(*small, "--output-path", tmp_path / "straight").code == 0
    out = tmp_path / "out"
    with machines.started(**machines.on("a", *small)) as first:
        while first.poll() is None and size_of_journal(out) < 2000:
            time.sleep(0.002)
        first.send_signal(signal.SIGSTOP)
        time.sleep(1.1)  # it is silent for as long as it said that it may be
        second = subprocess.run(**machines.on("b", *small), capture_output=True, text=True, check=False)
        done = digest(out), kept(out, "config.meta")
        first.send_signal(signal.SIGCONT)
        _, told = first.communicate(timeout=120)
    assert second.returncode == 0, second.stderr
    assert f"process {first.pid} on" in second.stderr
    assert "its lock is taken over" in second.stderr
    assert "already inferred" in second.stderr
    assert first.returncode == 19, told
    assert [line for line in told.splitlines() if " ERROR " in line and "took" in line], told
    assert (digest(out), kept(out, "config.meta")) == done
    assert done[0] == digest(tmp_path / "straight")
    assert names(out) == FILES
    assert "already done" in run(*small).err


@pytest.mark.parametrize("name", ["config_render.json", "image.tif", "config.meta"])
def test_a_run_that_slept_between_its_look_at_the_lock_and_a_rename(
    run: Run, arguments: list[str], dark_config: Path, tmp_path: Path, name: str
) -> None:
    """The other run has another key: none of its files is replaced."""
    out, config = tmp_path / "out", tmp_path / "config"
    config.mkdir()
    (config / "config.yaml").write_text((dark_config / "config.yaml").read_text() + "overwrite: true\n")
    other = [*arguments, "--config-path", config, "-t", "128"]
    with machines.started(**machines.on("a", *arguments, stop=name)) as first:
        machines.wait_until_stopped(first.pid)
        time.sleep(1.1)
        second = subprocess.run(**machines.on("b", *other), capture_output=True, text=True, check=False)
        before = {path.name: path.read_bytes() for path in out.iterdir()}
        first.send_signal(signal.SIGCONT)
        _, told = first.communicate(timeout=120)
    assert second.returncode == 0, second.stderr
    assert first.returncode == 19, told
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert names(out) == FILES


def test_files_of_two_runs_are_noticed_and_the_image_is_made_again(
    run: Run, arguments: list[str], dark_config: Path, tmp_path: Path
) -> None:
    """As if a rename had come late."""
    one, other, config = tmp_path / "one", tmp_path / "other", tmp_path / "config"
    config.mkdir()
    (config / "config.yaml").write_text((dark_config / "config.yaml").read_text() + "overlay: {color: [255, 0, 0]}\n")
    red = [*arguments, "--config-path", config]
    assert run(*arguments, "--output-path", one).code == 0
    assert run(*red, "--output-path", other).code == 0
    assert digest(one) != digest(other)
    for number, files in enumerate((["image.tif"], ["summary.json"], ["config.meta"], ["image.tif", "summary.json"])):
        out = tmp_path / f"out{number}"
        shutil.copytree(one, out)
        for name in files:
            shutil.copy(other / name, out / name)
        wanted, line = (other, red) if files == ["config.meta"] else (one, arguments)
        again = run(*line, "--output-path", out)
        assert again.code == 0, again.err
        assert "is made again" in again.err
        assert digest(out) == digest(wanted)
        assert kept(out, "config.meta") == kept(out, "summary.json") == kept(wanted, "config.meta")


SCRIPT = """
import os, signal, sys
from pathlib import Path
import numpy as np
from tests.helpers import machines
from tests.helpers.stores import Maker
from nuclei_segmentation.shared.runtime.waiting import WaitLimit
from nuclei_segmentation.shared.store import StoreFolder
machines.settle("a")
maker = Maker(Path(sys.argv[1]), shared=False)
with StoreFolder(maker.folder) as held:
    held.claim("tiles", "key", "", overwrite=False, files=maker.files())
    with maker.write(held) as store:
        for item in range(maker.n):
            if item == int(sys.argv[2]):
                with store._committing:
                    store._commit()
                os.kill(os.getpid(), signal.SIGSTOP)
            store.put([item], maker.value(item)[np.newaxis])
        store.finish({"damaged": 0})
"""


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("items", [0, 2])
def test_a_store_whose_writer_slept(
    tmp_path: Path, items: int, overwrite: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while the next stage reads it; with another key the store is replaced."""
    maker = Maker(tmp_path / "store", shared=False)
    machines.settle("b", monkeypatch)
    for name, value in machines.SILENCE.items():
        monkeypatch.setenv(name, value)
    line = [sys.executable, "-c", SCRIPT, str(maker.folder), str(items)]
    with machines.started(args=line, cwd=ROOT, env=environment(**machines.SILENCE)) as a:
        machines.wait_until_stopped(a.pid)
        time.sleep(1.1)
        begun = read_manifest(maker.folder)
        assert begun is not None
        with StoreReader(maker.folder, begun, WaitLimit(60)) as reader:
            assert reader.count == items
            key = "other" if overwrite else "key"
            assert maker.make(key=key, overwrite=overwrite) == (maker.n if overwrite else maker.n - items)
            if not overwrite:
                reader.wait_until_complete()
                assert reader.count == maker.n
        ledger = (maker.folder / "ledger").read_bytes()
        a.send_signal(signal.SIGCONT)
        _, told = a.communicate(timeout=120)
    assert a.returncode == 1
    assert LockLost.__name__ in told
    assert (maker.folder / "ledger").read_bytes() == ledger
    manifest = read_manifest(maker.folder)
    assert manifest is not None
    assert manifest.key == key
    assert is_complete(maker.folder, manifest)
    assert maker.make(key=key) == 0, "already done"
    assert not (maker.folder / ".run").exists()


def test_a_store_that_lost_its_folder_while_it_was_begun_removes_nothing(tmp_path: Path) -> None:
    maker = Maker(tmp_path / "store", shared=False)

    def begin() -> None:
        with StoreFolder(maker.folder) as held:
            held.claim("tiles", "key", "", overwrite=False, files=maker.files())
            (maker.folder / ".run" / "lock").unlink()
            maker.make()
            maker.write(held)

    with pytest.raises(LockLost):
        begin()
    assert maker.make() == 0, "already done"
