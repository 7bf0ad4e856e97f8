"""A store's life in any order: made, gone on with, killed, read, completed, corrupted, made good."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from nuclei_segmentation.shared.errors import StoreError
from nuclei_segmentation.shared.runtime.waiting import WaitLimit
from nuclei_segmentation.shared.store import StoreFolder, StoreWriter
from nuclei_segmentation.shared.store.manifest import is_complete, read_manifest
from tests.helpers.stores import SHARED, Maker

N = 5
ITEMS = st.integers(0, N - 1)


class StoreLife(RuleBasedStateMachine):
    """What the ledger names is always there and right; what was committed is never lost, unless it was corrupted."""

    shared = False

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.arrays: set[Path] = set()  # in shared memory, that were ever ours
        self.copies = 0
        self.held: StoreFolder | None = None
        self.store: StoreWriter | None = None
        self.put: set[int] = set()  # ever, and since the last corruption
        self.committed: set[int] = set()
        self.corrupt = False

    @initialize(kind=st.sampled_from(["tiles", "masks"]))
    def begin(self, kind: str) -> None:
        self.maker = Maker(self.root / "0", self.shared, N, kind)

    def teardown(self) -> None:
        self.leave()
        shutil.rmtree(self.root)
        for path in self.arrays:
            path.unlink(missing_ok=True)

    def leave(self) -> None:
        if self.store is not None:
            self.store.close()
        if self.held is not None:
            self.held.close()
        self.store = self.held = None

    @precondition(lambda self: self.store is None)
    @rule(run=st.sampled_from(["", "a run"]))
    def open(self, run: str) -> None:
        self.held = StoreFolder(self.maker.folder)
        more = self.held.claim(self.maker.kind, "key", run, overwrite=True, files=self.maker.files())  # type: ignore[arg-type]
        if not more:
            assert self.committed == set(range(N))
            self.corrupt = False  # all was read again
            self.leave()
            assert self.maker.content()
            return
        before = read_manifest(self.maker.folder)
        self.store = self.maker.write(self.held)
        if self.shared:
            self.arrays.add(self.maker.array)
        there = set(self.store.entries)
        assert there <= self.put
        assert self.corrupt or self.committed <= there, "work was lost"
        self.put, self.committed = there, set(there)
        if before is None or before.generation != self.store.manifest.generation:
            self.corrupt = False  # all is made again; else what the ledger names is believed until it is complete

    @precondition(lambda self: self.store is not None)
    @rule(items=st.lists(ITEMS, unique=True))
    def append(self, items: list[int]) -> None:
        assert self.store is not None
        values = [self.maker.value(item) for item in items]
        self.store.put(items, np.stack(values) if values else np.empty((0, 16, 16, 3), np.uint8))
        self.put |= set(items)

    @precondition(lambda self: self.store is not None)
    @rule()
    def stop(self) -> None:
        """Leave it in good order, as on SIGTERM."""
        self.leave()
        self.committed = set(self.put)

    @precondition(lambda self: self.store is not None)
    @rule()
    def kill(self) -> None:
        """Go on with what the disk holds at this instant: that is what a killed process leaves."""
        self.copies += 1
        there = self.root / str(self.copies)
        shutil.copytree(self.maker.folder, there)
        self.leave()
        self.maker.folder = there

    @precondition(lambda self: self.store is not None and self.held is not None)
    @rule()
    def complete(self) -> None:
        assert self.store is not None
        assert self.held is not None
        missing = [item for item in range(N) if item not in self.put]
        self.append(missing)
        self.store.finish({"damaged": 0})
        self.held.finish()
        self.leave()
        self.put, self.committed = set(range(N)), set(range(N))
        assert not (self.maker.folder / ".run").exists()
        if not self.corrupt:
            assert self.maker.content().startswith(b"".join(self.maker.value(item).tobytes() for item in range(N)))

    @precondition(lambda self: (self.maker.folder / "ledger").exists())
    @rule(data=st.data())
    def corrupt_it(self, data: st.DataObject) -> None:
        self.leave()
        manifest = read_manifest(self.maker.folder) if not self.corrupt else None
        if manifest is None:
            return
        files = [path for path in self.maker.folder.iterdir() if path.is_file() and path.suffix != ".json"]
        named = {path.stem: path for path in [*files, self.maker.array]}
        named[self.maker.kind] = named.pop(self.maker.array.stem)
        path = named[data.draw(st.sampled_from(sorted(named)))]
        place = data.draw(st.integers(0, 9999)) * path.stat().st_size // 10000
        with path.open("r+b") as file:
            if data.draw(st.booleans()):
                file.truncate(place)
            else:
                file.seek(place)
                byte = file.read(1)[0]
                file.seek(place)
                file.write(bytes([byte ^ 1 << data.draw(st.integers(0, 7))]))
        self.corrupt = True

    @precondition(lambda self: self.corrupt and self.store is None)
    @rule()
    def read_what_is_corrupt(self) -> None:
        """It is refused, or the corruption changed nothing that counts."""
        manifest = read_manifest(self.maker.folder)
        assert manifest is not None
        try:
            whole = is_complete(self.maker.folder, manifest)
            content = self.maker.content() if whole else b""
        except StoreError:
            return
        if whole:
            expected = b"".join(self.maker.value(item).tobytes() for item in range(N))
            assert content.startswith(expected)

    @precondition(lambda self: not self.corrupt)
    @rule()
    def follow(self) -> None:
        """Read what is there so far, as the next stage does while this one works."""
        if read_manifest(self.maker.folder) is None:
            return
        with self.maker.reader(WaitLimit(60)) as reader:
            for item in range(N):
                if reader.has(item, item + 1):
                    assert item in self.put
                    np.testing.assert_array_equal(reader.read(item, item + 1)[0][0], self.maker.value(item))
                else:
                    assert item not in self.committed

    @invariant()
    def numpy_opens_it(self) -> None:
        if not self.corrupt and (manifest := read_manifest(self.maker.folder)) is not None:
            for facts in manifest.arrays.values():
                array = np.load(self.maker.folder / facts.file, mmap_mode="r", allow_pickle=False)
                assert array.shape == facts.shape

    @invariant()
    def nothing_lies_about(self) -> None:
        if self.store is None and self.held is None and self.maker.folder.exists():
            assert not [path for path in self.maker.folder.iterdir() if path.suffix == ".part"]
            assert sum(path.exists() for path in self.arrays) <= 1


class SharedStoreLife(StoreLife):
    shared = True


budget = settings(
    max_examples=int(os.environ.get("NUCLEI_EXAMPLES", "60")),
    stateful_step_count=20,
    deadline=None,
    phases=[Phase.generate],
)
StoreLife.TestCase.settings = SharedStoreLife.TestCase.settings = budget
TestOnDisk = StoreLife.TestCase
TestInSharedMemory = pytest.mark.skipif(not SHARED.is_dir(), reason="there is no /dev/shm here")(
    SharedStoreLife.TestCase
)
