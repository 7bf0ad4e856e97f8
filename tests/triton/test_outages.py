"""Servers that fail in the middle of a run."""

import http.server
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from nuclei_segmentation.operators.filter.inference import open_engine
from nuclei_segmentation.shared.errors import InferenceUnavailable
from tests.helpers.nets import random_tiles
from tests.helpers.triton_server import TritonServer, add_shipped_model, free_port


@pytest.fixture(scope="module")
def lone_repository(onnx_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lone")
    add_shipped_model(folder, onnx_file)
    return folder


@pytest.fixture
def lone(lone_repository, tmp_path):
    """A server only for this test, which may kill it."""
    with TritonServer(lone_repository, tmp_path / "server.log") as running:
        yield running


@pytest.fixture
def expected(settings_for):
    with open_engine(settings_for()) as engine:
        return engine.infer(random_tiles(8))


def stream(engine, threads, stop, results):
    """Keep inferring the same tiles from several threads until `stop` is set."""
    tiles = random_tiles(8)

    def work():
        while not stop.is_set():
            results.append(engine.infer(tiles))

    pool = ThreadPoolExecutor(threads)
    return [pool.submit(work) for _ in range(threads)]


def wait_for(results, count):
    until = time.monotonic() + 30
    while len(results) < count and time.monotonic() < until:
        time.sleep(0.02)
    assert len(results) >= count


def test_kill_and_restart_in_a_stream_of_requests(lone, settings_for, expected, caplog):
    caplog.set_level(logging.INFO)
    stop, results = threading.Event(), []
    with open_engine(settings_for(lone.address, batch=2)) as engine:
        futures = stream(engine, 3, stop, results)
        wait_for(results, 3)
        lone.kill()
        time.sleep(0.5)
        before = len(results)
        lone.start()
        wait_for(results, before + 6)
        stop.set()
        for future in futures:
            future.result(timeout=30)
    for result in results:
        np.testing.assert_array_equal(result, expected)
    lines = [record.getMessage() for record in caplog.records]
    assert sum("trying again" in line for line in lines) == 1
    assert sum("is back after" in line for line in lines) == 1


def test_two_servers_one_killed(lone, server, settings_for, expected):
    stop, results = threading.Event(), []
    with open_engine(settings_for(lone.address, server.address, batch=2)) as engine:
        futures = stream(engine, 3, stop, results)
        wait_for(results, 3)
        lone.kill()
        wait_for(results, len(results) + 6)
        stop.set()
        for future in futures:
            future.result(timeout=30)
    for result in results:
        np.testing.assert_array_equal(result, expected)


def test_hanging_server(lone, settings_for):
    impatient = open_engine(settings_for(lone.address, deadline=1.0, retries=1))
    patient = open_engine(settings_for(lone.address, deadline=300.0))
    lone.hang()
    with impatient, pytest.raises(InferenceUnavailable, match="no answer within 1 s"):
        impatient.infer(random_tiles(1))
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(patient.infer, random_tiles(1))
        time.sleep(0.2)
        start = time.monotonic()
        patient.close()
        with pytest.raises(InferenceUnavailable):
            future.result()
        assert time.monotonic() - start < 30
    lone.resume()


def test_dead_model_process(lone, settings_for):
    """This server does not restart the process, replies 500 for ever, and says that the model is ready."""
    with open_engine(settings_for(lone.address, retries=2)) as engine:
        lone.kill_models()
        with pytest.raises(InferenceUnavailable, match=r"failed 3 times, last: \[500\].*Stub process.*is not healthy"):
            engine.infer(random_tiles(1))


def test_slower_than_the_deadline(server, settings_for):
    with pytest.raises(InferenceUnavailable, match=r"no answer within 0\.5 s"):
        open_engine(settings_for(server.address, name="slow", deadline=0.5, retries=1))


def test_nothing_listens(settings_for):
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(InferenceUnavailable, match=f"no Triton server answers at {address} .NVIDIA_CLARA_TRTISURI"):
        open_engine(settings_for(address, retries=1))


def test_something_else_listens(settings_for, tmp_path):
    class Silent(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Silent) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        with pytest.raises(InferenceUnavailable, match=r"is not a Triton HTTP server: it answers \[404\]"):
            open_engine(settings_for(f"127.0.0.1:{other.server_address[1]}"))
        other.shutdown()
