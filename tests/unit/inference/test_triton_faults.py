"""Failing servers: what is retried, what ends the run, and with which message."""

import logging
import re
import socket
import socketserver
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from nuclei_segmentation.operators.filter.inference import open_engine
from nuclei_segmentation.operators.filter.inference.triton import engine as triton
from nuclei_segmentation.operators.filter.inference.triton import kserve
from nuclei_segmentation.operators.filter.inference.triton.connection import Connection, Garbled, Unanswered
from nuclei_segmentation.shared.errors import InferenceUnavailable, ModelError, UsageError
from nuclei_segmentation.shared.settings import InferenceSettings, Settings
from nuclei_segmentation.shared.settings.address import Address
from tests.helpers.fake_triton import FakeTriton

T = 16


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch):
    monkeypatch.setattr(triton, "PAUSE_FIRST", 0.02)
    monkeypatch.setattr(triton, "PAUSE_LAST", 0.1)


def settings(*servers, **inference):
    addresses = tuple(getattr(server, "address", server) for server in servers)
    inference = {"deadline": 0.3, "retries": 4, **inference}
    return Settings(
        tile_size=T,
        triton_servers=addresses,
        triton_variable="CLARA_TRITON_URI",
        model_name="m",
        inference=InferenceSettings(**inference),
    )


def tiles(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, T, T, 3), dtype=np.uint8)


def check(engine, count=5, seed=0):
    pixels = tiles(count, seed)
    np.testing.assert_array_equal(engine.infer(pixels), 255 - pixels[..., :2])


FAULTS = [500, 502, 503, 504, 429]
FAULTS += ["reset", "hang", "half", "trickle", "wrong id", "empty", "lies", "no outputs", "bad json", "not http"]
FAULTS += ["deep json", "deep id"]


@pytest.mark.parametrize("fault", FAULTS)
def test_passing_faults_are_overcome(fault, caplog):
    caplog.set_level(logging.INFO)
    with FakeTriton({2: fault, 4: fault, 5: fault}) as server, open_engine(settings(server)) as engine:
        check(engine)
        check(engine, seed=1)
        assert len(set(server.ids)) == len(server.ids)
    lines = [record.getMessage() for record in caplog.records]
    # One line for each outage. The reset of a used connection is no outage, unless the next connection is reset too.
    outages = 1 if fault == "reset" else 2
    assert sum("trying again" in line for line in lines) == outages
    assert sum("is back after" in line for line in lines) == outages


@pytest.mark.parametrize("fault", [500, "reset", "empty", "wrong id"])
def test_lasting_faults_end_after_the_retries(fault):
    with FakeTriton() as server, open_engine(settings(server, retries=2)) as engine:
        server.always = fault
        with pytest.raises(InferenceUnavailable, match=r"CLARA_TRITON_URI.* failed 3 times") as caught:
            check(engine)
        assert caught.value.exit_code == 16
        # The reset of a connection that was used before does not count.
        assert server.inferences == 1 + 3 + (fault == "reset")


@pytest.mark.parametrize("status", [400, 404, 413])
def test_refusals_are_not_repeated_for_long(status):
    with FakeTriton() as server, open_engine(settings(server, retries=8)) as engine:
        server.always = status
        with pytest.raises(ModelError, match=f"fault {status}"):
            check(engine)
        assert server.inferences == 1 + 2


def test_a_model_that_is_being_loaded_again_is_waited_for():
    faults = {2: "not ready", 4: "not ready"}
    with FakeTriton(faults) as server, open_engine(settings(server, retries=20)) as engine:
        check(engine)
        check(engine, seed=1)


def test_the_deadline_is_for_the_whole_request():
    with FakeTriton() as server, open_engine(settings(server, retries=0)) as engine:
        server.always = "trickle"
        start = time.monotonic()
        with pytest.raises(InferenceUnavailable, match=r"no answer within 0\.3 s"):
            check(engine)
        assert time.monotonic() - start < 30, "the answer trickles in for ten minutes"


def test_a_server_that_starts_late_is_waited_for():
    with FakeTriton(busy=3) as server, open_engine(settings(server)) as engine:
        check(engine)


def test_nothing_listens():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(InferenceUnavailable, match="no Triton server answers at") as caught:
            open_engine(settings(address, retries=2))
    assert address in str(caught.value)
    assert "CLARA_TRITON_URI" in str(caught.value)
    assert "asked 3 times" in str(caught.value)


def test_a_restart_with_another_version_ends_the_run():
    with FakeTriton() as server:
        engine = open_engine(settings(server))
    with engine, FakeTriton(port=server.port, versions=("2",)), pytest.raises(ModelError, match="serves another m"):
        check(engine)


def test_a_restart_with_the_same_model_is_overcome():
    with FakeTriton() as server:
        engine = open_engine(settings(server, retries=50))
        check(engine)
    restarted = []
    timer = threading.Timer(0.5, lambda: restarted.append(FakeTriton(port=server.port)))
    timer.start()
    with engine:
        check(engine)
    timer.join()
    restarted[0].stop()


def test_two_servers_share_the_work_and_one_may_die():
    with FakeTriton() as one, FakeTriton() as two, open_engine(settings(one, two, batch=1)) as engine:
        assert engine.in_flight == 8
        check(engine, 20)
        assert min(one.inferences, two.inferences) >= 8
        one.stop()
        for seed in range(5):
            check(engine, 20, seed)


def test_a_failing_server_costs_little_while_another_works():
    with FakeTriton() as one, FakeTriton() as two, open_engine(settings(one, two, batch=1, retries=1)) as engine:
        one.always = 500
        before = one.inferences
        check(engine, 50)
        assert one.inferences - before <= 2


def test_a_server_that_comes_back_is_used_again(monkeypatch):
    monkeypatch.setattr("nuclei_segmentation.operators.filter.inference.triton.servers._PROBE_FIRST", 0.05)
    with FakeTriton() as one, FakeTriton() as two, open_engine(settings(one, two, batch=1)) as engine:
        one.always = 503
        check(engine, 4)
        one.always = None
        time.sleep(0.1)
        before = one.inferences
        check(engine, 10)
        assert one.inferences - before >= 4


def test_one_of_two_is_missing_at_the_start():
    with FakeTriton() as one, FakeTriton() as two:
        two.stop()
        with open_engine(settings(one, two)) as engine:
            check(engine)


def test_servers_must_have_the_same_model():
    with FakeTriton() as one, FakeTriton(versions=("7",)) as two, pytest.raises(ModelError, match="serves another m"):
        open_engine(settings(one, two))


def test_no_more_requests_at_once_than_allowed():
    with FakeTriton(always="slow") as server:
        engine = open_engine(settings(server, in_flight=2, batch=1))
        with engine, ThreadPoolExecutor(6) as pool:
            for future in [pool.submit(check, engine, 1, seed) for seed in range(8)]:
                future.result()
    assert server.most_under_way == 2


def test_many_threads_get_their_own_maps():
    with FakeTriton({7: "reset", 19: 500, 20: "half"}) as server:
        engine = open_engine(settings(server, batch=2))
        with engine, ThreadPoolExecutor(4) as pool:
            for future in [pool.submit(check, engine, 3, seed) for seed in range(30)]:
                future.result()


def test_close_does_not_wait_for_a_hanging_server():
    with FakeTriton() as server:
        engine = open_engine(settings(server, deadline=300.0))
        server.always = "hang"
        with ThreadPoolExecutor(2) as pool:
            futures = [pool.submit(engine.infer, tiles(1)) for _ in range(2)]
            time.sleep(0.2)
            start = time.monotonic()
            engine.close()
            for future in futures:
                with pytest.raises(InferenceUnavailable, match="closed"):
                    future.result()
        assert time.monotonic() - start < 30
        with pytest.raises(InferenceUnavailable, match="closed"):
            engine.infer(tiles(1))


def test_the_batch_is_that_of_the_settings_as_far_as_the_server_accepts_it():
    for max_batch, batch, expected in ((8, 0, 8), (4, 0, 4), (4, 16, 4), (32, 0, 8), (32, 16, 16), (0, 0, 8)):
        with FakeTriton(max_batch=max_batch) as server, open_engine(settings(server, batch=batch)) as engine:
            assert engine.info.batch == expected
            check(engine, 9)


def test_the_parameters_of_the_configuration_are_used():
    parameters = {"channels": "boundary,nucleus", "mpp_min": "0.2", "mpp_max": "0.6", "halo": "96", "grid": "16"}
    with FakeTriton(parameters=parameters) as server, open_engine(settings(server)) as engine:
        info = engine.info
        pixels = tiles(2)
        np.testing.assert_array_equal(engine.infer(pixels), 255 - pixels[..., 1::-1])
    assert (info.channels, info.mpp, info.halo, info.grid) == (("nucleus", "boundary"), (0.2, 0.6), 96, 16)
    assert re.fullmatch("triton:[0-9a-f]{64}", info.identity)
    for wrong in ({"halo": "wide"}, {"mpp_min": "a", "mpp_max": "b"}):
        with FakeTriton(parameters=wrong) as server, pytest.raises(ModelError, match="config"):
            open_engine(settings(server))


@pytest.mark.parametrize("prefix", ["", "http://"])
def test_addresses_with_a_port_are_parsed(prefix):
    assert Address.parse(f"{prefix}gpu-1.local:8000") == ("gpu-1.local", 8000)
    assert Address.parse(f"{prefix}[::1]:8000/") == ("::1", 8000)


def test_addresses_on_this_machine():
    here = ("localhost:1", "127.0.0.1:1", "127.8.8.8:1", "[::1]:1")
    assert all(Address.parse(text).is_loopback for text in here)
    assert not any(Address.parse(text).is_loopback for text in ("gpu:1", "10.0.0.1:1", "[fe80::1]:1"))


@pytest.mark.parametrize("text", ["gpu", "gpu:", "gpu:0", "gpu:99999", ":8000", "a b:1", "grpc://gpu:8001", "gpu:1/x"])
def test_junk_for_an_address(text):
    with pytest.raises(UsageError, match="is not host:port"):
        open_engine(settings(text))


def test_https_is_named():
    with pytest.raises(UsageError, match="https is not spoken"):
        open_engine(settings("https://gpu:8000"))


def test_an_idle_connection_closed_by_the_server_is_no_failure(caplog):
    with FakeTriton() as server, open_engine(settings(server, retries=0)) as engine:
        for connection in list(server.connections):
            connection.shutdown(socket.SHUT_RDWR)
        time.sleep(0.05)
        check(engine)
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert not [record for record in warnings if "without names" not in record.getMessage()]


def test_a_gateway_that_accepts_connections_and_closes_them_is_a_failure():
    """So does a gateway whose server is gone. A stale connection is retried once; after that it is a new one."""

    class Closing(socketserver.BaseRequestHandler):
        def handle(self):
            self.request.recv(1 << 16)

    class Gateway(socketserver.TCPServer):
        allow_reuse_address = True

    with FakeTriton() as server:
        engine = open_engine(settings(server, retries=2))
    with engine, Gateway(("127.0.0.1", server.port), Closing) as gateway:
        threading.Thread(target=gateway.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        with pytest.raises(InferenceUnavailable, match="failed 3 times, last: the connection was closed"):
            check(engine)
        gateway.shutdown()


def test_connection_time_is_bounded():
    # The backlog of a socket that never accepts fills up, and the next connection hangs.
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        port = deaf.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            start = time.monotonic()
            with pytest.raises(Unanswered):
                Connection("127.0.0.1", port).request("GET", "/v2", 0.3)
            assert time.monotonic() - start < 30


@pytest.mark.parametrize("status", [200, 500])
def test_an_answer_that_is_nested_too_deeply_is_garbled(status):
    """To a question of another kind than an inference, whose JSON the client does not read."""

    class Deep(BaseHTTPRequestHandler):
        def do_GET(self):
            body = b'{"error": ' + b"[" * 200_000
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Deep) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            expected = kserve.Refused if status == 500 else Garbled
            with pytest.raises(expected, match="Internal Server Error" if status == 500 else "is not JSON"):
                kserve.query(Connection(*server.server_address), "/v2", 5.0)
        finally:
            server.shutdown()
