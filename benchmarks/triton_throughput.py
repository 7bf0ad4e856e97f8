"""Throughput to a real Triton server with a trivial model: the engine compared with a minimal client."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
import tritonclient.http as triton

from benchmarks.models import NAME
from benchmarks.slides import CACHE, pattern
from benchmarks.table import Row
from benchmarks.timing import Usage, alternate, used
from nuclei_segmentation.operators.filter.inference import Engine, open_engine
from nuclei_segmentation.shared.batches import Pixels
from nuclei_segmentation.shared.settings import InferenceSettings, Settings
from tests.helpers.triton_server import TritonServer, is_installed

TILE = 256
BATCH = 8
THREADS = 4
"""Requests in flight, as by default."""

_FOLDER = Path("/dev/shm")
_STORED = 32
"""Batches in the store; they are sent repeatedly."""

_CONFIG = f"""name: "{NAME}"
backend: "python"
max_batch_size: 32
input [ {{ name: "tiles", data_type: TYPE_UINT8, dims: [ -1, -1, 3 ] }} ]
output [ {{ name: "masks", data_type: TYPE_UINT8, dims: [ -1, -1, 1 ] }} ]
instance_group [ {{ kind: KIND_CPU, count: 1 }} ]
"""
_MODEL = '''import numpy as np
import triton_python_backend_utils as pb


class TritonPythonModel:
    """Returns the first colour."""

    def execute(self, requests):
        responses = []
        for request in requests:
            tiles = pb.get_input_tensor_by_name(request, "tiles").as_numpy()
            maps = np.ascontiguousarray(tiles[..., :1])
            responses.append(pb.InferenceResponse([pb.Tensor("masks", maps)]))
        return responses
'''


def rows(*, quick: bool) -> list[Row]:
    """Send the same tiles in HTTP bodies, copied into shared memory, and from a store in shared memory.

    Parameters
    ----------
    quick : bool
        Whether to send fewer requests, in fewer rounds.
    """
    if not is_installed():
        return [Row("Triton throughput", "no Triton server here: run `make triton`", "", None, None)]
    requests = 200 if quick else 400
    best = measure(requests, rounds=3 if quick else 7)

    def rate(name: str) -> str:
        usage: Usage = best[name]
        return f"{requests * BATCH / usage.wall:.0f} tiles/s ({usage.cpu / requests * 1e3:.2f} CPU ms a request)"

    def row(text: str, ours: str, reference: str, target: float) -> Row:
        return Row(text, rate(ours), f"{reference} {rate(reference)}", best[reference].wall / best[ours].wall, target)

    return [
        row("Triton throughput, HTTP bodies", "http", "baseline http", 0.9),
        row("  tiles copied into shared memory", "slot", "baseline slot", 0.9),
        row("  tiles of a store in shared memory", "store", "baseline store", 0.9),
        row("  copied tiles, compared with HTTP bodies", "slot", "http", 1.5),
        row("  tiles of a store, compared with HTTP bodies", "store", "http", 1.5),
    ]


def measure(requests: int, rounds: int) -> dict[str, Usage]:
    """Return the best times of each way to send tiles, by its name.

    Parameters
    ----------
    requests : int
        How many batches to send in each round.
    rounds : int
        How often.
    """
    with ExitStack() as stack:
        server = stack.enter_context(TritonServer(_repository(), CACHE / "triton.log"))
        stored = stack.enter_context(_store())
        tiles = np.array(stored)
        http, shared = (
            stack.enter_context(open_engine(_settings(server.address, shared_memory=way))) for way in (False, True)
        )
        baseline = stack.enter_context(_baseline_client(server, stored))
        tasks: dict[str, Callable[[], None]] = {
            "http": partial(_ours, http, tiles, requests),
            "baseline http": partial(_threads, partial(baseline.send, tiles), requests),
            "slot": partial(_ours, shared, tiles, requests),
            "baseline slot": partial(_threads, partial(baseline.copy, tiles), requests),
            "store": partial(_ours, shared, stored, requests),
            "baseline store": partial(_threads, baseline.refer, requests),
        }
        for engine in (http, shared):
            if not np.array_equal(engine.infer(stored[:BATCH]), tiles[:BATCH, ..., :1]):
                raise RuntimeError("the server returned other maps than expected")
        for work in tasks.values():
            work()  # connections, registrations, page tables
        return alternate({name: partial(used, work) for name, work in tasks.items()}, rounds)


def _repository() -> Path:
    """Return a model repository for the server's Python backend."""
    repository = CACHE / "triton"
    shutil.rmtree(repository, ignore_errors=True)
    (repository / NAME / "1").mkdir(parents=True)
    (repository / NAME / "config.pbtxt").write_text(_CONFIG)
    (repository / NAME / "1" / "model.py").write_text(_MODEL)
    return repository


def _settings(address: str, *, shared_memory: bool) -> Settings:
    return Settings(
        tile_size=TILE,
        triton_servers=(address,),
        model_name=NAME,
        inference=InferenceSettings(batch=BATCH, in_flight=THREADS, shared_memory=shared_memory),
    )


@contextmanager
def _store() -> Iterator[Pixels]:
    """Provide tiles in a NumPy file in shared memory, like the tile store of load."""
    path = _FOLDER / f"bench-nuclei-{os.getpid()}-tiles.npy"
    try:
        tiles = np.lib.format.open_memmap(path, "w+", np.uint8, (_STORED * BATCH, TILE, TILE, 3))
        image = pattern()[0]
        for tile_id in range(len(tiles)):
            top, left = (tile_id * 37) % (image.shape[0] - TILE), (tile_id * 91) % (image.shape[1] - TILE)
            tiles[tile_id] = image[top : top + TILE, left : left + TILE]
        yield np.load(path, mmap_mode="r")
    finally:
        path.unlink(missing_ok=True)


def _batch(number: int) -> slice:
    """Return the tile ids of a request's batch."""
    start = number % _STORED * BATCH
    return slice(start, start + BATCH)


def _threads(work: Callable[[int, Iterator[int]], None], requests: int) -> None:
    """Do the work in threads; they share the numbers of the requests, each of which is used once."""
    numbers = iter(range(requests))
    failed: list[BaseException] = []

    def guarded(thread: int) -> None:
        try:
            work(thread, numbers)
        except BaseException as error:
            failed.append(error)
            raise

    threads = [threading.Thread(target=guarded, args=(thread,)) for thread in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


def _ours(engine: Engine, tiles: Pixels, requests: int) -> None:
    def work(_: int, numbers: Iterator[int]) -> None:
        for number in numbers:
            engine.infer(tiles[_batch(number)])

    _threads(work, requests)


class _BaselineClient:
    """A minimal client that sends the same messages as the engine, without deadlines, retries or checks.

    Parameters
    ----------
    server : TritonServer
        The server.
    stored : numpy.ndarray
        (n, TILE, TILE, 3) uint8: the store in shared memory.
    """

    def __init__(self, server: TritonServer, stored: Pixels) -> None:
        assert isinstance(stored, np.memmap)
        assert stored.filename is not None
        self._connections = [http.client.HTTPConnection("127.0.0.1", server.port) for _ in range(THREADS)]
        self._ids = count()
        self._offset = int(stored.offset)
        self._path = _FOLDER / f"bench-nuclei-{os.getpid()}"
        self._input_bytes, self._output_bytes = BATCH * TILE * TILE * 3, BATCH * TILE * TILE
        self._area = np.memmap(self._path, np.uint8, "w+", shape=(THREADS, self._input_bytes + self._output_bytes))
        # The engine registers the store as well, and Triton takes a file only once: this is a second hard link.
        self._link = self._path.with_name(f"{self._path.name}-link.npy")
        self._link.hardlink_to(stored.filename)
        for connection in self._connections:
            connection.connect()
            connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._register("baseline", self._path, self._area.nbytes)
        self._register("baseline-tiles", self._link, self._offset + stored.nbytes)

    def send(self, tiles: Pixels, thread: int, numbers: Iterator[int]) -> None:
        """Send tiles in HTTP bodies, as a thread of `_threads`."""
        for number in numbers:
            pixels = tiles[_batch(number)]
            tensor = triton.InferInput("tiles", list(pixels.shape), "UINT8")
            tensor.set_data_from_numpy(pixels)
            output = triton.InferRequestedOutput("masks")
            self._infer(thread, tensor, output).as_numpy("masks")

    def copy(self, tiles: Pixels, thread: int, numbers: Iterator[int]) -> None:
        """Send tiles by copying them into shared memory, as a thread of `_threads`."""
        for number in numbers:
            self._area[thread, : self._input_bytes] = tiles[_batch(number)].reshape(-1)
            self._infer_shared(thread, "baseline", thread * self._area.shape[1])

    def refer(self, thread: int, numbers: Iterator[int]) -> None:
        """Send the offsets of tiles in the store, as a thread of `_threads`."""
        for number in numbers:
            self._infer_shared(
                thread, "baseline-tiles", self._offset + _batch(number).start * (self._input_bytes // BATCH)
            )

    def close(self) -> None:
        """Unregister the shared memory, and remove its files."""
        for name in ("baseline", "baseline-tiles"):
            self._post(0, f"/v2/systemsharedmemory/region/{name}/unregister", b"{}", {})
        for connection in self._connections:
            connection.close()
        self._path.unlink()
        self._link.unlink()

    def _infer_shared(self, thread: int, region: str, offset: int) -> Pixels:
        tensor = triton.InferInput("tiles", [BATCH, TILE, TILE, 3], "UINT8")
        tensor.set_shared_memory(region, self._input_bytes, offset)
        output = triton.InferRequestedOutput("masks")
        output.set_shared_memory("baseline", self._output_bytes, thread * self._area.shape[1] + self._input_bytes)
        self._infer(thread, tensor, output)
        return np.array(self._area[thread, self._input_bytes :]).reshape(BATCH, TILE, TILE, 1)

    def _infer(self, thread: int, tensor: triton.InferInput, output: triton.InferRequestedOutput) -> triton.InferResult:
        body, header = triton.InferenceServerClient.generate_request_body([tensor], [output], str(next(self._ids)))
        headers = {} if header is None else {"Inference-Header-Content-Length": str(header)}
        response, length = self._post(thread, f"/v2/models/{NAME}/infer", body, headers)
        return triton.InferenceServerClient.parse_response_body(response, header_length=length)

    def _register(self, name: str, path: Path, size: int) -> None:
        body = json.dumps({"key": f"/{path.name}", "offset": 0, "byte_size": size}).encode()
        self._post(0, f"/v2/systemsharedmemory/region/{name}/register", body, {})

    def _post(self, thread: int, path: str, body: bytes, headers: dict[str, str]) -> tuple[bytes, int]:
        connection = self._connections[thread]
        connection.request("POST", path, body, headers)
        with connection.getresponse() as response:
            content = response.read()
            if response.status != 200:
                raise RuntimeError(f"{response.status}: {content[:200]!r}")
            return content, int(response.headers.get("Inference-Header-Content-Length", len(content)))


@contextmanager
def _baseline_client(server: TritonServer, stored: Pixels) -> Iterator[_BaselineClient]:
    client = _BaselineClient(server, stored)
    try:
        yield client
    finally:
        client.close()
