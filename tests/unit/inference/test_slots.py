"""Slots: files in shared memory, without a server."""

import errno
import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import numpy as np
import pytest

from nuclei_segmentation.operators.filter.inference.tensor_plan import TensorSpec, make_plan
from nuclei_segmentation.operators.filter.inference.triton import slots
from nuclei_segmentation.operators.filter.inference.triton.slots import Layout, Slot, remove_leftovers

SHM = Path("/dev/shm")


@pytest.fixture(autouse=True)
def _nothing_is_left(monkeypatch):
    """No test may leave a slot. Names of its own keep it apart from whatever else runs on the machine."""
    monkeypatch.setattr(slots, "PREFIX", f"nuclei-test-{uuid.uuid4().hex}-")
    yield
    assert not list(SHM.glob(f"{slots.PREFIX}*"))


KEEPER = """
import sys
from nuclei_segmentation.operators.filter.inference.triton import slots

slots.PREFIX = sys.argv[1]
print(slots.Slot(9).name, flush=True)
sys.stdin.read()
"""


def test_only_this_user_may_open_a_slot_until_it_is_discarded():
    slot = Slot(10_000)
    file = SHM / slot.name
    assert (file.stat().st_size, file.stat().st_mode & 0o777) == (10_000, 0o600)
    slot.memory[:] = 7
    assert file.read_bytes() == b"\7" * 10_000
    remove_leftovers()
    assert file.exists()
    slot.discard()
    assert not file.exists()
    slot.memory[:] = 8


def test_the_slot_of_a_killed_process_is_removed():
    command = [sys.executable, "-c", KEEPER, slots.PREFIX]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        left = SHM / process.stdout.readline().decode().strip()
        remove_leftovers()
        assert left.exists()
        process.send_signal(signal.SIGKILL)
    assert left.exists()
    remove_leftovers()
    assert not left.exists()


def test_too_little_memory_leaves_no_open_file(monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(OSError, match="No space"):
        Slot(1000)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_no_shared_memory(monkeypatch, tmp_path):
    monkeypatch.setattr(slots, "FOLDER", tmp_path / "absent")
    remove_leftovers()
    with pytest.raises(OSError, match="No such file"):
        Slot(1000)


@pytest.mark.parametrize(
    ("source", "results", "batch", "rows"),
    [
        (TensorSpec("i", "uint8", (None, None, None, 3)), [TensorSpec("o", "uint8", (None, None, None, 2))], 8, 8),
        (TensorSpec("i", "float32", (3, 64, 64)), [TensorSpec("o", "float32", (1, 64, 64))], 8, 1),
        (
            TensorSpec("i", "float16", (4, 3, 64, 64)),
            [TensorSpec("a", "uint8", (4, 64, 64)), TensorSpec("b", "float16", (4, 2, 64, 64))],
            8,
            4,
        ),
    ],
)
def test_the_tensors_of_a_request_fit_into_a_slot_without_overlap(source, results, batch, rows):
    plan = make_plan([source], results, 64)
    layout = Layout.of(plan, batch)
    array = plan.encode(np.zeros((min(rows, 3), 64, 64, 3), np.uint8))
    spans = layout.spans("x", array.shape)
    end = array.nbytes
    count = array.shape[0] if plan.batched else 1
    for span, spec in zip(spans, results, strict=True):
        maps = {"o": spec.shape.count(2) + 1, "a": 1, "b": 2}[spec.name]
        assert span.size == count * 64 * 64 * maps * np.dtype(spec.dtype).itemsize
        assert span.offset >= end
        assert span.offset % 8 == 0
        end = span.offset + span.size
    assert end <= layout.size


def test_outputs_of_unknown_size_have_no_layout():
    source, result = TensorSpec("i", "uint8", (None, None, None, 3)), TensorSpec("o", "uint8", (None, None, None, None))
    assert Layout.of(make_plan([source], [result], 64), 8) is None
