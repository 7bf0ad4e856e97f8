"""A server that speaks the protocol and fails on purpose, as a real one does too rarely."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

INPUT = {"name": "tiles", "datatype": "UINT8", "shape": [-1, -1, -1, 3]}
OUTPUT = {"name": "masks", "datatype": "UINT8", "shape": [-1, -1, -1, 2]}


class FakeTriton:
    """Returns (b, T, T, 2): 255 minus the first two channels.

    `faults` maps the n-th inference, counted from 1, to a fault: a status, or one of the words below. `always` is the
    fault of all others.
    """

    def __init__(self, faults=None, always=None, port=0, versions=("1",), parameters=None, max_batch=8, busy=0):
        self.faults, self.always, self.versions, self.busy = dict(faults or {}), always, versions, busy
        self.parameters, self.max_batch = parameters or {}, max_batch
        self.inferences, self.ids, self.ready = 0, [], True
        self.under_way = self.most_under_way = 0
        self.lock = threading.Lock()
        self.stopped = threading.Event()
        self.connections = set()
        fake = self

        class Handler(_Handler):
            server_state = fake

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, request, client_address):
                pass  # faults break connections on purpose

        self.server = Server(("127.0.0.1", port), Handler)
        self.port = self.server.server_address[1]
        self.address = f"127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def stop(self):
        """Close the port and every connection, as if the server were killed."""
        self.stopped.set()
        self.server.shutdown()
        self.server.server_close()
        with self.lock:
            for connection in self.connections:
                with contextlib.suppress(OSError):  # closed by the other side already
                    connection.shutdown(socket.SHUT_RDWR)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server_state: FakeTriton

    def log_message(self, *_):
        pass

    def setup(self):
        super().setup()
        with self.server_state.lock:
            self.server_state.connections.add(self.connection)

    def finish(self):
        with self.server_state.lock:
            self.server_state.connections.discard(self.connection)
        super().finish()

    def reply(self, content, status=200, headers=()):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        fake = self.server_state
        if fake.busy:
            fake.busy -= 1
            self.reply({"error": "starting"}, 503)
        elif self.path == "/v2":
            self.reply({"name": "triton", "version": "0", "extensions": []})
        elif self.path == "/v2/models/m/ready":
            self.reply(b"", 200 if fake.ready else 400)
        elif self.path == "/v2/models/m":
            metadata = {"name": "m", "versions": fake.versions, "platform": "fake"}
            self.reply({**metadata, "inputs": [INPUT], "outputs": [OUTPUT]})
        elif self.path == "/v2/models/m/config":
            parameters = {key: {"string_value": value} for key, value in fake.parameters.items()}
            self.reply({"max_batch_size": fake.max_batch, "parameters": parameters})
        else:
            self.reply({"error": "unknown model"}, 404)

    def do_POST(self):
        fake = self.server_state
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/v2/repository/index":
            state = "READY" if fake.ready else "LOADING"
            self.reply([{"name": "m", "version": "1", "state": state}])
            return
        with fake.lock:
            fake.inferences += 1
            fake.under_way += 1
            fake.most_under_way = max(fake.most_under_way, fake.under_way)
            fault = fake.faults.get(fake.inferences, fake.always)
        try:
            self.infer(body, fault)
        finally:
            with fake.lock:
                fake.under_way -= 1

    def infer(self, body, fault):
        fake = self.server_state
        length = int(self.headers["Inference-Header-Content-Length"])
        head = json.loads(body[:length])
        fake.ids.append(head["id"])
        shape = head["inputs"][0]["shape"]
        pixels = np.frombuffer(body[length:], np.uint8).reshape(shape)
        if isinstance(fault, int):
            self.reply({"error": f"fault {fault}"}, fault)
            return
        if fault == "not ready":
            fake.ready = False
            threading.Timer(0.3, lambda: setattr(fake, "ready", True)).start()
            self.reply({"error": "Request for unknown model: 'm' has no available versions"}, 400)
            return
        if fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            return
        if fault == "hang":
            fake.stopped.wait(300)
            return
        if fault == "not http":
            self.wfile.write(b"\x00\x00\x12\x04\x00\x00\x00\x00\x00")
            self.close_connection = True
            return
        maps = np.ascontiguousarray(255 - pixels[..., :2])
        data = b"" if fault == "empty" else maps.tobytes()
        output = {**OUTPUT, "shape": maps.shape, "parameters": {"binary_data_size": len(data)}}
        if fault == "lies":
            data = data[:-10]
        message = {"id": "another" if fault == "wrong id" else head["id"], "outputs": [output]}
        if fault == "no outputs":
            del message["outputs"]
        texts = {"bad json": b"{", "deep json": b"[" * 200_000, "deep id": b'{"id": ' + b"[" * 900 + b"]" * 900 + b"}"}
        text = texts.get(fault) or json.dumps(message).encode()
        if fault == "half":
            self.send_response(200)
            self.send_header("Content-Length", str(len(text + data)))
            self.send_header("Inference-Header-Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write((text + data)[: len(data) // 2])
            self.wfile.flush()
            self.close_connection = True
            return
        if fault == "trickle":
            self.send_response(200)
            self.send_header("Content-Length", "100000")
            self.end_headers()
            for _ in range(6000):
                time.sleep(0.1)
                self.wfile.write(b"x")
            return
        if fault == "slow":
            time.sleep(0.2)
        self.reply(text + data, headers=[("Inference-Header-Content-Length", str(len(text)))])
