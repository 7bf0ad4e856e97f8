"""The Triton engine: maps computed by one or several inference servers.

A request that fails is repeated at any server that works, after growing, random pauses, because a server may be killed
and restarted during a run. What waiting cannot cure (no such model, a model that does not fit) ends the run at once.
Before a new connection is used, its server must describe its model. If that is not the model found at the start, the
run ends, so that the maps of two models are never mixed.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import random
import time
from collections.abc import Sequence

import numpy as np

from nuclei_segmentation.operators.filter.inference.alternatives import Alternative, alternatives
from nuclei_segmentation.operators.filter.inference.engine import Engine, ModelInfo
from nuclei_segmentation.operators.filter.inference.model_metadata import mpp_range, whole_number
from nuclei_segmentation.operators.filter.inference.tensor_plan import Array
from nuclei_segmentation.operators.filter.inference.trial import fit_model
from nuclei_segmentation.operators.filter.inference.triton import kserve, memory_segments
from nuclei_segmentation.operators.filter.inference.triton.connection import Connection, Garbled, Stale, Unanswered
from nuclei_segmentation.operators.filter.inference.triton.kserve import Refused
from nuclei_segmentation.operators.filter.inference.triton.memory_segments import SegmentSpan
from nuclei_segmentation.operators.filter.inference.triton.served_model import (
    BUSY,
    NotReady,
    NotTriton,
    ServedModel,
    describe_model,
)
from nuclei_segmentation.operators.filter.inference.triton.servers import PoolClosed, Server, ServerPool
from nuclei_segmentation.operators.filter.inference.triton.shared_memory import SharedMemory
from nuclei_segmentation.shared.batches import Pixels
from nuclei_segmentation.shared.errors import InferenceUnavailable, ModelError
from nuclei_segmentation.shared.settings import Settings

log = logging.getLogger(__name__)

#: Seconds between the attempts of one request: doubled each time, varied by a quarter. Eight retries last a minute.
PAUSE_FIRST, PAUSE_LAST = 0.25, 30.0

#: Most seconds for a request about server or model, so that a hanging server is noticed sooner than by an inference.
_QUERY_DEADLINE = 5.0

_DEFAULT_BATCH = 8

#: Most bytes of one request. Newer servers accept 64 MiB.
_BODY_LIMIT = 60 << 20


class TritonEngine(Engine):
    """Sends tiles to Triton servers.

    Parameters
    ----------
    settings : Settings
        Servers, model, tile size, batch, deadline, retries.

    Raises
    ------
    UsageError
        The address of a server is not ``host:port``.
    InferenceUnavailable
        No server answers in any of the attempts.
    ModelError
        The model is missing or unfit, or the servers have different ones.
    """

    def __init__(self, settings: Settings) -> None:
        self._name = settings.model_name
        self._variable = f" ({settings.triton_variable})" if settings.triton_variable else ""
        self._inference = settings.inference
        self._query_deadline = min(_QUERY_DEADLINE, settings.inference.deadline)
        self._pool = ServerPool([Server(address) for address in settings.triton_servers], settings.inference.in_flight)
        self._request_numbers = itertools.count(1)
        self._shared_memory: SharedMemory | None = None
        self.in_flight = settings.inference.in_flight * len(self._pool.servers)
        try:
            self._model = self._find_model()
            metadata, source = self._model.metadata, f"config.pbtxt of model {self._name} on the server"
            self._outputs = [spec.name for spec in self._model.outputs]
            self._fitted = fit_model(settings, self._model.inputs, self._model.outputs, metadata, self._call)
            self._plan = self._fitted.plan
            self.info = ModelInfo(
                name=self._name,
                engine="triton",
                identity=self._model.identity,
                channels=self._fitted.channels,
                halo=whole_number(metadata, "halo", source),
                batch=self._batch(settings),
                mpp=mpp_range(metadata, source),
                grid=whole_number(metadata, "grid", source),
            )
            if settings.inference.shared_memory:
                self._shared_memory = SharedMemory(
                    self._pool.servers,
                    self._plan,
                    self.info.batch,
                    settings.inference,
                    self._send_through_segments,
                    self._send_in_bodies,
                )
                self._prepare(self._shared_memory)
        except BaseException:
            self.close()
            raise

    def infer(self, pixels: Pixels) -> Pixels:
        """See `Engine.infer`."""
        return self._plan.run(pixels, self.info.batch, self._call)

    def alternatives(self) -> Sequence[Alternative]:
        """See `Engine.alternatives`."""
        return alternatives(self._fitted, lambda plan, pixels: plan.run(pixels, self.info.batch, self._call))

    def memory_needed(self, tile: int, workers: int) -> int:
        """Return the bytes of requests and replies under way.

        Slots in shared memory count as well. They are not anonymous memory, but a container is charged for them.

        Parameters
        ----------
        tile : int
            Side of a tile in pixels.
        workers : int
            Calls of `infer` at once.

        Returns
        -------
        int
            Bytes.
        """
        item = np.dtype(self._plan.input.dtype).itemsize
        result = sum((output.channels or 1) * np.dtype(output.spec.dtype).itemsize for output in self._plan.outputs)
        # While a request is encoded there are up to three copies of it, while a reply is decoded there are two.
        bodies = workers * self.info.batch * tile * tile * (9 * item + 2 * result + len(self.info.channels))
        return bodies + (0 if self._shared_memory is None else self._shared_memory.most_bytes)

    def close(self) -> None:
        """Close all connections; requests under way end with `InferenceUnavailable`.

        This takes half a second at most, for the servers to unmap the memory that they share.
        """
        self._pool.close()
        if self._shared_memory is not None:
            self._shared_memory.close()

    def _batch(self, settings: Settings) -> int:
        most = _BODY_LIMIT // (settings.tile_size**2 * 3 * np.dtype(self._plan.input.dtype).itemsize)
        if self._model.max_batch is not None:
            most = min(most, self._model.max_batch)
        batch = settings.inference.batch
        if batch > most:
            log.info("inference.batch is %d, but the server accepts at most %d", batch, max(1, most))
        return self._plan.limit(max(1, min(batch or _DEFAULT_BATCH, most)))

    def _find_model(self) -> ServedModel:
        """Ask all servers until at least one has the model ready. Those that do not answer must agree with it later."""
        start = time.monotonic()
        attempts = self._inference.retries + 1
        for attempt in range(attempts):
            if attempt:
                self._pause(attempt)
            found: ServedModel | None = None
            reason = ""
            for server in self._pool.servers:
                try:
                    with server.connection() as connection:
                        sent_at = time.monotonic()
                        model = describe_model(connection, self._name, self._query_deadline)
                except (Unanswered, NotReady, Garbled) as error:
                    reason = f"{server.address}: {error}"
                    self._pool.failed(server, str(error))
                    continue
                except NotTriton as error:
                    raise InferenceUnavailable(
                        f"what listens at {server.address}{self._variable} is not a Triton HTTP server: {error}; "
                        "give its HTTP port, by default 8000"
                    ) from error
                except ModelError as error:
                    raise ModelError(f"Triton at {server.address}: {error}") from error
                self._pool.worked(server, sent_at)
                if found is not None and model.identity != found.identity:
                    raise _another_model(self._name, server)
                found = model
            if found is not None:
                return found
        addresses = ", ".join(server.address for server in self._pool.servers)
        times = "once" if attempts == 1 else f"{attempts} times"
        raise InferenceUnavailable(
            f"no Triton server answers at {addresses}{self._variable}, asked {times} in "
            f"{time.monotonic() - start:.0f} s; {reason}. Is it running, and is this its HTTP port?"
        )

    def _prepare(self, shared_memory: SharedMemory) -> None:
        """Try shared memory now, since the speed of later work is measured. Servers that are down are tried later."""
        for server in self._pool.servers:
            if server.down_since is None:
                with contextlib.suppress(Unanswered, Garbled, NotReady, Refused), server.connection() as connection:
                    if not connection.checked:
                        self._check_model(server, connection)
                    shared_memory.prepare(server, connection)

    def _call(self, array: Array) -> Sequence[Array]:
        """Run one inference, at any server, with retries.

        Raises
        ------
        InferenceUnavailable
            All `retries` failed, or the engine was closed.
        ModelError
            The server refuses the request, or its model has changed.
        """
        failures = refusals = 0
        try:
            while True:
                with self._pool.server() as server:
                    sent_at = time.monotonic()
                    try:
                        with server.connection() as connection:
                            if server.down_since is not None or not connection.checked:
                                self._check_model(server, connection)
                            outputs = self._infer_once(server, connection, array)
                    except Stale:
                        continue  # this happens only once for each connection
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
                        self._pool.worked(server, sent_at)
                        return outputs
                    self._pool.failed(server, reason)
                failures += 1
                if failures > self._inference.retries:
                    times = "once" if failures == 1 else f"{failures} times, last"
                    raise InferenceUnavailable(
                        f"Triton at {server.address}{self._variable} failed {times}: {reason}. Work done so far is "
                        "kept; run again when the server is well"
                    )
                if not self._pool.any_works():
                    self._pause(failures)
        except PoolClosed as error:
            raise InferenceUnavailable("the inference engine was closed") from error

    def _infer_once(self, server: Server, connection: Connection, array: Array) -> list[Array]:
        outputs = None if self._shared_memory is None else self._shared_memory.infer(server, connection, array)
        return self._send_in_bodies(connection, array) if outputs is None else outputs

    def _send_in_bodies(self, connection: Connection, array: Array) -> list[Array]:
        return kserve.infer(
            connection, self._name, self._request_id(), self._source, array, self._outputs, self._inference.deadline
        )

    def _send_through_segments(
        self, connection: Connection, shape: Sequence[int], span: SegmentSpan, results: Sequence[SegmentSpan]
    ) -> list[memory_segments.Written]:
        outputs = list(zip(self._outputs, results, strict=True))
        return memory_segments.infer(
            connection, self._name, self._request_id(), self._source, shape, span, outputs, self._inference.deadline
        )

    def _request_id(self) -> str:
        return str(next(self._request_numbers))

    @property
    def _source(self) -> tuple[str, str]:
        return self._model.inputs[0].name, self._model.datatype

    def _check_model(self, server: Server, connection: Connection) -> None:
        """Check that a server has the model found at the start. If it has no model, it may load it later."""
        try:
            model = describe_model(connection, self._name, self._query_deadline)
        except (NotTriton, ModelError) as error:
            # It was there before. After a restart the model may be loaded a little later.
            raise NotReady(str(error)) from error
        if model.identity != self._model.identity:
            raise _another_model(self._name, server)
        server.metadata = model.server_metadata
        connection.checked = True

    def _pause(self, attempt: int) -> None:
        seconds = min(PAUSE_LAST, PAUSE_FIRST * 2.0 ** min(attempt - 1, 20))
        self._pool.pause(seconds * random.uniform(0.75, 1.25))  # noqa: S311 - spreads clients, hides nothing


def _another_model(name: str, server: Server) -> ModelError:
    return ModelError(
        f"Triton at {server.address} serves another {name} than was found before (version, tensors or configuration); "
        "all servers must serve the same model for the whole run"
    )
