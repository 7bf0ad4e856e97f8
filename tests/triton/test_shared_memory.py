"""Tiles reach a real server through shared memory and in no HTTP body or, if that is impossible, in HTTP bodies."""

import errno
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from nuclei_segmentation.operators.filter.inference import open_engine
from nuclei_segmentation.operators.filter.inference.triton import slots
from nuclei_segmentation.shared.errors import InferenceUnavailable
from tests.helpers.nets import SIZE, random_tiles
from tests.helpers.triton_proxy import Proxy
from tests.helpers.triton_server import ROOT, TritonServer, add_shipped_model

SHM = Path("/dev/shm")
COUNT = 5
#: Bytes: more than the JSON of a request, less than the pixels of a tile.
JSON_LIMIT = 2000


@pytest.fixture(autouse=True)
def _nothing_is_left(monkeypatch):
    """No test may leave a slot. Names of its own keep it apart from whatever else runs on the machine."""
    monkeypatch.setattr(slots, "PREFIX", f"nuclei-test-{uuid.uuid4().hex}-")
    yield
    assert not own_slots()


@pytest.fixture
def lone(onnx_file, tmp_path):
    """A server only for this test, which may kill it."""
    add_shipped_model(tmp_path / "repository", onnx_file)
    with TritonServer(tmp_path / "repository", tmp_path / "server.log") as running:
        yield running


@pytest.fixture
def expected(settings_for):
    with open_engine(settings_for()) as engine:
        return engine.infer(random_tiles(COUNT))


@pytest.fixture
def store():
    """A tile store as another stage would leave it: a NumPy file in shared memory."""
    path = SHM / f"test-nuclei-{uuid.uuid4().hex}-tiles.npy"
    tiles = np.lib.format.open_memmap(path, "w+", np.uint8, (COUNT, SIZE, SIZE, 3))
    tiles[:] = random_tiles(COUNT)
    tiles.flush()
    yield path
    path.unlink(missing_ok=True)


def own_slots():
    return set(SHM.glob(f"{slots.PREFIX}*{slots.SUFFIX}"))


def segments(server):
    with urllib.request.urlopen(f"http://{server.address}/v2/systemsharedmemory/status") as reply:
        return {segment["name"]: segment["key"] for segment in json.loads(reply.read() or b"[]")}


def after_the_trial(proxy):
    """Return the inferences after the two with pixels in their bodies, which try the model and the shared memory."""
    large = [place for place, body in enumerate(proxy.inferences) if len(body) > JSON_LIMIT]
    assert large == [0, 1]
    return [json.loads(body) for body in proxy.inferences[3:]]


def sources(requests):
    return [request["inputs"][0]["parameters"] for request in requests]


def fallbacks(caplog):
    return [record for record in caplog.records if "travel in HTTP" in record.getMessage()]


@pytest.mark.parametrize("batch", [1, 2, 8])
def test_no_pixel_in_a_body_and_the_same_bytes(server, settings_for, expected, batch, caplog):
    caplog.set_level(logging.INFO)
    with Proxy(server.port) as proxy:
        with open_engine(settings_for(proxy.address, batch=batch)) as engine:
            np.testing.assert_array_equal(engine.infer(random_tiles(COUNT)), expected)
            np.testing.assert_array_equal(engine.infer(random_tiles(COUNT)[:1]), expected[:1])
            assert own_slots()
        requests = after_the_trial(proxy)
        assert len(requests) == -(-COUNT // batch) + 1
        assert all(source["shared_memory_region"].endswith("-exchange") for source in sources(requests))
        assert all("shared_memory_region" in request["outputs"][0]["parameters"] for request in requests)
    assert not fallbacks(caplog)
    assert not any(name.startswith("nuclei-") for name in segments(server))


@pytest.mark.parametrize("mode", ["r", "r+"])
def test_tiles_in_shared_memory_are_read_where_they_are(server, settings_for, expected, store, mode):
    tiles = np.load(store, mmap_mode=mode)
    with Proxy(server.port) as proxy:
        with open_engine(settings_for(proxy.address, batch=2)) as engine:
            np.testing.assert_array_equal(engine.infer(tiles), expected)
            np.testing.assert_array_equal(engine.infer(tiles[3:4]), expected[3:4])
            assert store.name in [key.removeprefix("/") for key in segments(server).values()]
        found = sources(after_the_trial(proxy))
    head, tile = tiles.offset, SIZE * SIZE * 3
    assert head > 0
    assert [source["shared_memory_offset"] for source in found] == [head + n * tile for n in (0, 2, 4, 3)]
    assert len({source["shared_memory_region"] for source in found}) == 1
    assert not found[0]["shared_memory_region"].endswith("-exchange")
    assert not any(name.startswith("nuclei-") for name in segments(server))


def test_arrays_other_than_the_mapped_file_go_through_a_slot(server, settings_for, expected, store):
    tiles = np.load(store, mmap_mode="r")
    changed = np.load(store, mmap_mode="c")
    changed[0] = 255 - changed[0]
    with open_engine(settings_for()) as engine:
        inverted = engine.infer(np.asarray(changed[:1]))
    with Proxy(server.port) as proxy:
        with open_engine(settings_for(proxy.address)) as engine:
            np.testing.assert_array_equal(engine.infer(tiles[::2]), expected[::2])
            np.testing.assert_array_equal(engine.infer(changed[:1]), inverted)
        assert all(s["shared_memory_region"].endswith("-exchange") for s in sources(after_the_trial(proxy)))


def test_another_file_under_the_name_of_a_store(server, settings_for, expected, store):
    tiles = np.load(store, mmap_mode="r")
    with open_engine(settings_for(server.address)) as engine:
        np.testing.assert_array_equal(engine.infer(tiles), expected)
        store.unlink()
        other = np.lib.format.open_memmap(store, "w+", np.uint8, tiles.shape)
        other[:] = random_tiles(COUNT)[::-1]
        np.testing.assert_array_equal(engine.infer(tiles), expected)
        np.testing.assert_array_equal(engine.infer(other), expected[::-1])


def test_two_engines_on_one_store(server, settings_for, expected, store):
    tiles = np.load(store, mmap_mode="r")
    with open_engine(settings_for(server.address, batch=2)) as one:
        np.testing.assert_array_equal(one.infer(tiles), expected)
        with Proxy(server.port) as proxy:
            with open_engine(settings_for(proxy.address, batch=2)) as two:
                np.testing.assert_array_equal(two.infer(tiles), expected)
            found = {source["shared_memory_region"] for source in sources(after_the_trial(proxy))}
            assert [name.endswith("-exchange") for name in found] == [False]
        # the other engine has unregistered the segment
        np.testing.assert_array_equal(one.infer(tiles), expected)


@pytest.mark.parametrize(("name", "output"), [("planar", "sigmoid"), ("logit", "logit")])
def test_channels_first_floats_without_batches(server, settings_for, nets_folder, store, name, output):
    with open_engine(settings_for(name=name, output=output, repository=nets_folder)) as engine:
        expected = engine.infer(random_tiles(COUNT))
    with Proxy(server.port) as proxy:
        with open_engine(settings_for(proxy.address, name=name, output=output)) as engine:
            np.testing.assert_array_equal(engine.infer(np.load(store, mmap_mode="r")), expected)
        assert len(after_the_trial(proxy)) == COUNT


def test_from_many_threads(server, settings_for, expected, store):
    stored, tiles = np.load(store, mmap_mode="r"), random_tiles(COUNT)
    with Proxy(server.port) as proxy:
        engine = open_engine(settings_for(proxy.address, batch=2, in_flight=3))
        with engine, ThreadPoolExecutor(5) as pool:
            for result in list(pool.map(engine.infer, [stored, tiles] * 10)):
                np.testing.assert_array_equal(result, expected)
            assert len(own_slots()) <= 3
        after_the_trial(proxy)


def test_shared_memory_can_be_switched_off(server, settings_for, expected):
    with Proxy(server.port) as proxy:
        with open_engine(settings_for(proxy.address, shared_memory=False)) as engine:
            np.testing.assert_array_equal(engine.infer(random_tiles(COUNT)), expected)
            needed = engine.memory_needed(SIZE, 4)
        assert not any("systemsharedmemory" in path for path, _ in proxy.requests)
    with open_engine(settings_for(server.address)) as engine:
        assert engine.memory_needed(SIZE, 4) == needed + 2 * 4 * 8 * SIZE * SIZE * (3 + 2)
    with Proxy(server.port, refuse) as proxy, open_engine(settings_for(proxy.address)) as engine:
        assert engine.memory_needed(SIZE, 4) == needed


@pytest.mark.parametrize("stored", [False, True])
def test_a_server_that_restarts_gets_the_segments_again(lone, settings_for, expected, store, caplog, stored):
    caplog.set_level(logging.INFO)
    tiles = np.load(store, mmap_mode="r") if stored else random_tiles(COUNT)
    stop, results = threading.Event(), []

    def work():
        while not stop.is_set():
            results.append(engine.infer(tiles))

    def wait_for(count):
        until = time.monotonic() + 60
        while len(results) < count and time.monotonic() < until and not any(f.done() for f in futures):
            time.sleep(0.02)
        assert len(results) >= count

    with Proxy(lone.port) as proxy:
        engine = open_engine(settings_for(proxy.address, batch=2))
        with engine, ThreadPoolExecutor(3) as pool:
            futures = [pool.submit(work) for _ in range(3)]
            try:
                wait_for(6)
                lone.kill()
                time.sleep(0.3)
                before = len(results)
                lone.start()
                wait_for(before + 12)
            finally:
                stop.set()
            for future in futures:
                future.result(timeout=60)
            assert any(name.endswith("-exchange") for name in segments(lone))
        assert [body for body in proxy.inferences if len(body) > JSON_LIMIT] == proxy.inferences[:2]
    for result in results:
        np.testing.assert_array_equal(result, expected)
    lines = [record.getMessage() for record in caplog.records]
    assert sum("trying again" in line for line in lines) == 1
    assert not fallbacks(caplog)


def test_segments_that_another_client_unregisters(server, settings_for, expected):
    with open_engine(settings_for(server.address, retries=0)) as engine:
        for _ in range(3):
            np.testing.assert_array_equal(engine.infer(random_tiles(COUNT)), expected)
            url = f"http://{server.address}/v2/systemsharedmemory/unregister"
            urllib.request.urlopen(urllib.request.Request(url, b"{}")).close()


def refuse(path, _):
    return (400, {"error": "shared memory is switched off"}) if path.endswith("/register") else None


def pretend(path, body):
    """Reply like a server with another memory, which accepts everything and writes elsewhere."""
    if path.endswith("/register"):
        return 200, {}
    if path.endswith("/infer") and b"shared_memory_region" in body:
        request = json.loads(body)
        shape = [*request["inputs"][0]["shape"][:3], 2]
        return 200, {"id": request["id"], "outputs": [{"name": "masks", "datatype": "UINT8", "shape": shape}]}
    return None


def old(path, _):
    return (200, {"version": "2.49.0", "extensions": ["system_shared_memory"]}) if path == "/v2" else None


def without(path, _):
    return (200, {"version": "2.51.0", "extensions": []}) if path == "/v2" else None


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (
            refuse,
            "shared memory is switched off (from release 26.04 on, start the server with --allow-client-shm=true)",
        ),
        (pretend, "the maps of a trial tile are wrong"),
        (old, "version is 2.49.0"),
        (without, "does not have the extension"),
    ],
)
def test_a_server_that_does_not_share_gets_http_bodies(server, settings_for, expected, store, caplog, reply, reason):
    caplog.set_level(logging.DEBUG)
    with Proxy(server.port, reply) as proxy, open_engine(settings_for(proxy.address, retries=0)) as engine:
        for tiles in (random_tiles(COUNT), np.load(store, mmap_mode="r")):
            np.testing.assert_array_equal(engine.infer(tiles), expected)
        assert not own_slots()
        assert [len(body) > COUNT * SIZE * SIZE * 3 for body in proxy.inferences[-2:]] == [True, True]
    (line,) = fallbacks(caplog)
    assert reason in line.getMessage()
    assert proxy.address in line.getMessage()
    assert line.levelno == logging.INFO


def test_a_server_that_forgets_segments_gets_http_bodies(server, settings_for, expected, caplog):
    caplog.set_level(logging.INFO)

    def forget(path, body):
        if forgetful and path.endswith("/infer") and b"shared_memory_region" in body:
            return 404, {"error": "Unable to find shared memory region: 'x'"}
        return None

    forgetful = []
    with Proxy(server.port, forget) as proxy, open_engine(settings_for(proxy.address, retries=0)) as engine:
        np.testing.assert_array_equal(engine.infer(random_tiles(COUNT)), expected)
        forgetful.append(True)
        np.testing.assert_array_equal(engine.infer(random_tiles(COUNT)), expected)
        np.testing.assert_array_equal(engine.infer(random_tiles(COUNT)), expected)
    assert len(fallbacks(caplog)) == 1


@pytest.mark.parametrize("slots_that_fit", [0, 1])
def test_too_little_shared_memory(server, settings_for, expected, monkeypatch, caplog, slots_that_fit):
    """Mocked, since a test must not fill the shared memory of the machine."""
    caplog.set_level(logging.INFO)
    real, left = os.posix_fallocate, [None] * slots_that_fit

    def full(*arguments):
        if not left:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        left.pop()
        real(*arguments)

    monkeypatch.setattr(os, "posix_fallocate", full)
    engine = open_engine(settings_for(server.address, batch=1))
    with engine, ThreadPoolExecutor(4) as pool:
        for result in list(pool.map(engine.infer, [random_tiles(COUNT)] * 8)):
            np.testing.assert_array_equal(result, expected)
    (line,) = fallbacks(caplog)
    assert "No space left on device" in line.getMessage()


def test_no_shared_memory_at_all(server, settings_for, expected, monkeypatch, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(slots, "FOLDER", tmp_path / "absent")
    with open_engine(settings_for(server.address)) as engine:
        np.testing.assert_array_equal(engine.infer(random_tiles(COUNT)), expected)
    assert len(fallbacks(caplog)) == 1


def test_late_outputs_do_not_change_others(lone, settings_for, expected):
    with open_engine(settings_for(lone.address, deadline=2.0, retries=0)) as engine:
        np.testing.assert_array_equal(engine.infer(random_tiles(COUNT)), expected)
        (first,) = own_slots()
        lone.hang()
        with pytest.raises(InferenceUnavailable, match="no answer within 2 s"):
            engine.infer(255 - random_tiles(COUNT))
        lone.resume()
        for _ in range(20):
            np.testing.assert_array_equal(engine.infer(random_tiles(COUNT)), expected)
        (second,) = own_slots()
        assert second != first
        assert first.name not in segments(lone)


def test_slots_that_late_outputs_may_reach_count_for_the_limit(server, settings_for, expected):
    """The proxy plays the server, which says that it still uses what it should unregister."""
    held, used, over = threading.Event(), threading.Event(), threading.Event()

    def reply(path, body):
        if path.endswith("/infer") and held.is_set():
            over.wait()  # and is passed on to the server when no client waits for it any more
        if path.endswith("/unregister") and used.is_set():
            return 500, {"error": "Cannot unregister shared memory region, it is currently in use."}
        return None

    with Proxy(server.port, reply) as proxy:
        engine = open_engine(settings_for(proxy.address, deadline=2.0, retries=0, in_flight=2))
        with engine:
            held.set()
            used.set()
            for _ in range(2):
                with pytest.raises(InferenceUnavailable):
                    engine.infer(random_tiles(COUNT))
            assert not own_slots()
            held.clear()
            np.testing.assert_array_equal(engine.infer(random_tiles(COUNT)), expected)
            assert len(proxy.inferences[-1]) > JSON_LIMIT
            used.clear()
            np.testing.assert_array_equal(engine.infer(random_tiles(COUNT)), expected)
            assert len(proxy.inferences[-1]) < JSON_LIMIT
        over.set()
    assert not any(name.startswith("nuclei-") for name in segments(server))


def test_close_does_not_wait_for_a_hanging_server(lone, settings_for):
    engine = open_engine(settings_for(lone.address, deadline=300.0))
    engine.infer(random_tiles(1))
    lone.hang()
    start = time.monotonic()
    engine.close()
    assert time.monotonic() - start < 30
    assert not own_slots()
    lone.resume()


KILLED = """
import sys
import numpy as np
from nuclei_segmentation.operators.filter.inference import open_engine
from nuclei_segmentation.operators.filter.inference.triton import slots
from nuclei_segmentation.shared.settings import Settings

slots.PREFIX = sys.argv[3]
settings = Settings(triton_servers=(sys.argv[1],))
engine = open_engine(settings)
engine.infer(np.load(sys.argv[2], mmap_mode="r"))
print("inferred", flush=True)
sys.stdin.read()
"""


def test_leftovers_of_a_killed_process_are_removed(server, settings_for, expected, store):
    command = [sys.executable, "-c", KILLED, server.address, str(store), slots.PREFIX]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "inferred\n"
        (left,) = own_slots()
        with open_engine(settings_for(server.address)) as engine:
            engine.infer(random_tiles(1))
            assert left in own_slots(), "its process is still running"
        process.send_signal(signal.SIGKILL)
    assert own_slots() == {left}
    assert left.name in segments(server)
    other = store.with_name(f"test-nuclei-{uuid.uuid4().hex}-tiles.npy")
    store.rename(other)
    try:
        with open_engine(settings_for(server.address)) as engine:
            np.testing.assert_array_equal(engine.infer(random_tiles(COUNT)), expected)
            assert left not in own_slots()
            assert set(segments(server)) == {slot.name for slot in own_slots()}
    finally:
        other.rename(store)
