"""A proxy between client and server that records every request, and replies to some of them itself."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Proxy:
    """A proxy in front of the server at `port`.

    `reply(path, body)` returns a status and content to reply in the server's place, or None. `requests` has the path
    and body of every request, `inferences` the bodies of all inferences.
    """

    def __init__(self, port, reply=lambda path, body: None):
        self.requests = []
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, *_):
                pass

            def setup(self):
                super().setup()
                self.upstream = http.client.HTTPConnection("127.0.0.1", port)

            def finish(self):
                self.upstream.close()
                with contextlib.suppress(OSError):  # the client has already closed it
                    super().finish()

            def do_GET(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                proxy.requests.append((self.path, body))
                own = reply(self.path, body)
                if own is not None:
                    status, content = own
                    content, headers = json.dumps(content).encode(), {}
                else:
                    try:
                        self.upstream.request(self.command, self.path, body, dict(self.headers))
                        with self.upstream.getresponse() as response:
                            status, content, headers = response.status, response.read(), response.headers
                    except (OSError, http.client.HTTPException):
                        self.close_connection = True  # as the server did
                        return
                self.send_response(status)
                for name in ("Inference-Header-Content-Length", "Content-Type"):
                    if name in headers:
                        self.send_header(name, headers[name])
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_POST = do_GET  # noqa: N815 - the library's name

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, request, client_address):
                pass  # clients break connections on purpose

        self._server = Server(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @property
    def inferences(self):
        return [body for path, body in self.requests if path.endswith("/infer")]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
