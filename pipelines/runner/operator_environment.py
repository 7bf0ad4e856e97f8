"""The environment variables that operators get, and those that a definition may set.

A definition may be a stranger's. Two kinds of variables are never its own to set: addresses of servers, to which an
operator sends the slide, and, for an operator that runs as a process of this machine, all that this project's operators
do not read. Libraries read hundreds of variables, and some of these name a file of code to load.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from nuclei_segmentation.pipelines.language.findings import DefinitionError, Finding, Place, shown
from nuclei_segmentation.pipelines.language.model import Operator, Pipeline
from nuclei_segmentation.shared.clara.sizing_tool import TRITON_GRPC_VARIABLE, TRITON_HTTP_VARIABLES
from nuclei_segmentation.shared.errors import UsageError
from nuclei_segmentation.shared.settings.environment import NO_SYNC_LOCK, RUN_ID, SHARD, STORE_SHM, TRITON

ADDRESSES = (*TRITON_HTTP_VARIABLES, TRITON_GRPC_VARIABLE)
"""Variables that hold the address of a server."""

OWN = (NO_SYNC_LOCK, RUN_ID, STORE_SHM, SHARD)
"""The other variables that this project's operators read."""

PRIVATE = (*ADDRESSES, *OWN)
"""Variables that an operator must not inherit from the caller."""

_USE_CONTAINERS = "use --engine podman or docker"


def run_variables(run: str, *, pod: bool, shared_memory: bool) -> dict[str, str]:
    """Return the variables that tell an operator about the run.

    Parameters
    ----------
    run : str
        The run's id.
    pod : bool
        Whether operators wait for one another by themselves.
    shared_memory : bool
        Whether the operator shares memory with others.
    """
    variables = {} if pod else {NO_SYNC_LOCK: "TRUE"}
    variables[RUN_ID] = run
    if shared_memory:
        variables[STORE_SHM] = "TRUE"
    return variables


def server_variables(operator: Operator, environment: Mapping[str, str]) -> tuple[dict[str, str], str]:
    """Return the addresses of an operator's servers, as far as the caller's environment has them.

    Parameters
    ----------
    operator : Operator
        The operator.
    environment : Mapping of str to str
        The caller's.

    Returns
    -------
    addresses : dict of str to str
        By the names of the operator's variables; empty where the environment has none.
    wanted : str
        The variable that names the first server; '' if the operator uses no server.
    """
    addresses: dict[str, str] = {}
    wanted = ""
    for service in operator.services:
        for connection in service.connections:
            if connection.kind != "http":
                continue
            wanted = wanted or connection.name
            if address := environment.get(connection.name, "").strip():
                addresses[connection.name] = address
    if operator.models:
        wanted = wanted or TRITON[0]
        triton = next((address for name in TRITON if (address := environment.get(name, "").strip())), "")
        if triton:
            addresses.update(dict.fromkeys(TRITON_HTTP_VARIABLES, triton))
            if grpc := environment.get(TRITON_GRPC_VARIABLE, "").strip():
                addresses[TRITON_GRPC_VARIABLE] = grpc
    return addresses, wanted


def check_variables(pipeline: Pipeline, servers: Mapping[str, Mapping[str, str]], *, processes: bool) -> None:
    """Refuse what a definition must not set.

    Parameters
    ----------
    pipeline : Pipeline
        The definition.
    servers : Mapping of str to Mapping
        For each operator the addresses that the run gives it: those of the caller, or of the run's own services.
    processes : bool
        Whether operators run as processes of this machine.

    Raises
    ------
    UsageError
        With a line for each variable, if the pipeline comes from a file.
    """
    found = [
        one for operator in pipeline.operators for one in _refused(operator, servers.get(operator.name, {}), processes)
    ]
    placed = [finding for _, finding in found if finding is not None]
    if placed:
        raise DefinitionError(placed)
    if found:
        raise UsageError("; ".join(text for text, _ in found))


def _refused(operator: Operator, servers: Mapping[str, str], processes: bool) -> Iterator[tuple[str, Finding | None]]:
    for name, value in operator.variables.items():
        place = operator.places.get(f"variables.{name}") or operator.places.get("variables")
        if name in ADDRESSES:
            if servers.get(name) != value:
                yield _refusal(
                    operator, place, f"the definition sets {name}, the address of a server",
                    "remove it: where a slide is sent is said by the caller's environment, or by a service of the run",
                )  # fmt: skip
        elif processes and name not in OWN:
            yield _refusal(
                operator, place, f"cannot run as a process: its variable {shown(name)} is none of {', '.join(OWN)}",
                f"remove it, or {_USE_CONTAINERS}",
            )  # fmt: skip
    for service in operator.services if processes else ():
        for connection in service.connections:
            if connection.kind == "http" and connection.name not in ADDRESSES:
                yield _refusal(
                    operator, service.places.get("connections"),
                    f"cannot run as a process: its connection {shown(connection.name)} is none of "
                    f"{', '.join(ADDRESSES)}",
                    _USE_CONTAINERS,
                )  # fmt: skip


def _refusal(operator: Operator, place: Place | None, message: str, expected: str) -> tuple[str, Finding | None]:
    """Return one refusal as text, and as a finding if its place is known."""
    text = f"{operator.name}: {message}"
    return f"{text}; {expected}", None if place is None else Finding(place, "error", "bad-value", text, expected)
