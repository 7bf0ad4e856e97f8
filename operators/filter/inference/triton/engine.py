"""The Triton engine: the same maps, computed by one or several inference servers.

A request that fails is repeated, at any server that works, with growing and jittered pauses: a server may be killed and
started again in the middle of a run. What cannot be cured by waiting (no such model, a model that does not fit) ends
the run at once. Before a new connection is used the server is asked what model it has: if that is not the one
that was found first, the run ends rather than mix the answers of two models.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import random
import time
from collections.abc import Sequence

import numpy as np

from nuclei_segmentation.operators.filter.inference.canary import fit_model
from nuclei_segmentation.operators.filter.inference.contract import Array
from nuclei_segmentation.operators.filter.inference.engine import Engine, ModelInfo
from nuclei_segmentation.operators.filter.inference.triton import kserve, memory_segments
from nuclei_segmentation.operators.filter.inference.triton.kserve import Connection, Garbled, Refused, Stale, Unanswered
from nuclei_segmentation.operators.filter.inference.triton.memory_segments import SegmentSpan
from nuclei_segmentation.operators.filter.inference.triton.served import BUSY, NotReady, NotTriton, Served, examine
from nuclei_segmentation.operators.filter.inference.triton.servers import Closed, Pool, Server
from nuclei_segmentation.operators.filter.inference.triton.sharing import Sharing
from nuclei_segmentation.shared.batches import Pixels
from nuclei_segmentation.shared.errors import InferenceUnavailable, ModelError
from nuclei_segmentation.shared.settings import Settings

log = logging.getLogger("nuclei")

#: Seconds between the attempts of one request: doubled each time, jittered by a quarter. Eight retries last a minute.
PAUSE_FIRST, PAUSE_LAST = 0.25, 30.0

#: Seconds for a question about server or model; a server that hangs is found out sooner than by an inference.
_QUESTION = 5.0

_BATCH = 8

#: Most bytes of one request; newer servers take 64 MiB.
_BODY_LIMIT = 60 << 20


class TritonEngine(Engine):
    """Asks Triton servers.

    Parameters
    ----------
    settings : Settings
        Servers, model, tile size, batch, deadline, retries.

    Raises
    ------
    UsageError
        An address is none.
    InferenceUnavailable
        No server answers, however often asked.
    ModelError
        The model is missing or unfit, or the servers have different ones.
    """

    def __init__(self, settings: Settings) -> None:
        self._name = settings.model_name
        self._named = f" ({settings.triton_variable})" if settings.triton_variable else ""
        self._inference = settings.inference
        self._pool = Pool([Server(address) for address in settings.triton_servers], settings.inference.in_flight)
        self._ids = itertools.count(1)
        self._sharing: Sharing | None = None
        self.in_flight = settings.inference.in_flight * len(self._pool.servers)
        try:
            self._served = self._first_look()
            self._outputs = [spec.name for spec in self._served.outputs]
            self._plan, channels = fit_model(
                settings, self._served.inputs, self._served.outputs, self._served.parameters.get("channels"), self._call
            )
            self.info = ModelInfo(
                name=self._name,
                engine="triton",
                identity=self._served.identity,
                channels=channels,
                halo=_whole(self._served, "halo"),
                batch=self._batch(settings),
                mpp=_mpp_range(self._served),
                grid=_whole(self._served, "grid"),
            )
            if settings.inference.shared_memory:
                self._sharing = Sharing(
                    self._pool.servers,
                    self._plan,
                    self.info.batch,
                    settings.inference,
                    self._send,
                    self._post,
                )
                self._prepare(self._sharing)
        except BaseException:
            self.close()
            raise

    def infer(self, pixels: Pixels) -> Pixels:
        """Return the maps of some tiles; see `Engine.infer`."""
        return self._plan.run(pixels, self.info.batch, self._call)

    def memory_needed(self, tile: int, workers: int) -> int:
        """Return the bytes of requests and replies under way; see `Engine.memory_needed`.

        Files in shared memory are counted as well where tiles go through them: they are not anonymous, but a container
        is charged for them.
        """
        item = np.dtype(self._plan.input.dtype).itemsize
        answer = sum((output.channels or 1) * np.dtype(output.spec.dtype).itemsize for output in self._plan.outputs)
        # The request is held up to three times while it is encoded, the reply twice while it is read.
        bodies = workers * self.info.batch * tile * tile * (9 * item + 2 * answer + len(self.info.channels))
        return bodies + (0 if self._sharing is None else self._sharing.most_bytes)

    def close(self) -> None:
        """Close all connections; requests under way end with `InferenceUnavailable`.

        Waits for no server, but for half a second at most for those that share memory to let go of it.
        """
        self._pool.close()
        if self._sharing is not None:
            self._sharing.close()

    def _batch(self, settings: Settings) -> int:
        most = _BODY_LIMIT // (settings.tile_size**2 * 3 * np.dtype(self._plan.input.dtype).itemsize)
        if self._served.max_batch is not None:
            most = min(most, self._served.max_batch)
        wanted = settings.inference.batch
        if wanted > most:
            log.info("inference.batch is %d; the server takes %d", wanted, max(1, most))
        return self._plan.limit(max(1, min(wanted or _BATCH, most)))

    def _first_look(self) -> Served:
        """Examine all servers until at least one is ready; the others are left out, and must agree with it later."""
        start = time.monotonic()
        for attempt in range(self._inference.retries + 1):
            if attempt:
                self._pause(attempt)
            found: Served | None = None
            reason = ""
            for server in self._pool.servers:
                try:
                    with server.connection() as connection:
                        asked = time.monotonic()
                        served = examine(connection, self._name, min(_QUESTION, self._inference.deadline))
                except (Unanswered, NotReady, Garbled) as error:
                    reason = f"{server.address}: {error}"
                    self._pool.failed(server, str(error))
                    continue
                except NotTriton as error:
                    raise InferenceUnavailable(
                        f"what listens at {server.address}{self._named} is no Triton HTTP server: {error}; "
                        "give the HTTP port, by default 8000"
                    ) from error
                except ModelError as error:
                    raise ModelError(f"Triton at {server.address}: {error}") from error
                self._pool.worked(server, asked)
                if found is not None and served.identity != found.identity:
                    raise _differs(self._name, server)
                found = served
            if found is not None:
                return found
        addresses = ", ".join(server.address for server in self._pool.servers)
        raise InferenceUnavailable(
            f"no Triton server answers at {addresses}{self._named}, asked {self._inference.retries + 1} times in "
            f"{time.monotonic() - start:.0f} s; {reason}. Is it running, and is this its HTTP port?"
        )

    def _prepare(self, sharing: Sharing) -> None:
        """Try to share memory before there is work, whose speed is measured; later where a server is away now."""
        for server in self._pool.servers:
            if server.down_since is None:
                with contextlib.suppress(Unanswered, Garbled, NotReady, Refused), server.connection() as connection:
                    if not connection.checked:
                        self._check_same(server, connection)
                    sharing.prepare(server, connection)

    def _call(self, array: Array) -> Sequence[Array]:
        """Run one request, at whichever server, as often as it takes.

        Raises
        ------
        InferenceUnavailable
            `retries` are used up, or the engine was closed.
        ModelError
            The model refuses the request, or is another one than it was.
        """
        failures = refusals = 0
        try:
            while True:
                with self._pool.server() as server:
                    asked = time.monotonic()
                    try:
                        with server.connection() as connection:
                            if server.down_since is not None or not connection.checked:
                                self._check_same(server, connection)
                            answer = self._ask(server, connection, array)
                    except Stale:
                        continue  # each connection can be so but once
                    except (Unanswered, Garbled, NotReady) as error:
                        reason = str(error)
                    except Refused as error:
                        reason = str(error)
                        if error.status != 500 and error.status not in BUSY:
                            refusals += 1
                            if refusals > 1:
                                raise ModelError(
                                    f"Triton at {server.address} refuses a request to model {self._name}: {reason}"
                                ) from error
                    else:
                        self._pool.worked(server, asked)
                        return answer
                    self._pool.failed(server, reason)
                failures += 1
                if failures > self._inference.retries:
                    raise InferenceUnavailable(
                        f"Triton at {server.address}{self._named} failed {failures} times, last: {reason}. Work done "
                        "so far is kept; run again when the server is well"
                    )
                if not self._pool.some_work():
                    self._pause(failures)
        except Closed as error:
            raise InferenceUnavailable("the inference engine was closed") from error

    def _ask(self, server: Server, connection: Connection, array: Array) -> list[Array]:
        answer = None if self._sharing is None else self._sharing.infer(server, connection, array)
        return self._post(connection, array) if answer is None else answer

    def _post(self, connection: Connection, array: Array) -> list[Array]:
        return kserve.infer(
            connection, self._name, self._id(), self._source, array, self._outputs, self._inference.deadline
        )

    def _send(
        self, connection: Connection, shape: Sequence[int], source: SegmentSpan, results: Sequence[SegmentSpan]
    ) -> list[memory_segments.Written]:
        wanted = list(zip(self._outputs, results, strict=True))
        return memory_segments.infer(
            connection, self._name, self._id(), self._source, shape, source, wanted, self._inference.deadline
        )

    def _id(self) -> str:
        return str(next(self._ids))

    @property
    def _source(self) -> tuple[str, str]:
        return self._served.inputs[0].name, self._served.datatype

    def _check_same(self, server: Server, connection: Connection) -> None:
        """Make sure that the model found first is there; not there is taken for not yet there."""
        try:
            served = examine(connection, self._name, min(_QUESTION, self._inference.deadline))
        except (NotTriton, ModelError) as error:
            # It was there before; whoever starts the server may load the model a little later.
            raise NotReady(str(error)) from error
        if served.identity != self._served.identity:
            raise _differs(self._name, server)
        server.about = served.about
        connection.checked = True

    def _pause(self, attempt: int) -> None:
        seconds = min(PAUSE_LAST, PAUSE_FIRST * 2.0 ** min(attempt - 1, 20))
        self._pool.pause(seconds * random.uniform(0.75, 1.25))  # noqa: S311 - spreads clients, hides nothing


def _differs(name: str, server: Server) -> ModelError:
    return ModelError(
        f"Triton at {server.address} serves another {name} than was found before (version, tensors or configuration); "
        "all servers must serve the same model for the whole run"
    )


def _whole(served: Served, key: str) -> int | None:
    text = served.parameters.get(key)
    if text is None:
        return None
    if not text.isdecimal():
        raise ModelError(f"parameter {key} in the model's config.pbtxt must be a whole number, not '{text}'")
    return int(text)


def _mpp_range(served: Served) -> tuple[float, float] | None:
    low, high = served.parameters.get("mpp_min"), served.parameters.get("mpp_max")
    if low is None or high is None:
        return None
    try:
        return float(low), float(high)
    except ValueError as error:
        raise ModelError(f"parameters mpp_min and mpp_max in config.pbtxt must be numbers: {error}") from error
