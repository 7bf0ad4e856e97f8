"""The environment variables that operators get."""

from __future__ import annotations

from collections.abc import Mapping

from nuclei_segmentation.pipelines.language.model import Operator
from nuclei_segmentation.shared.clara.sizing_tool import TRITON_GRPC_VARIABLE, TRITON_HTTP_VARIABLES
from nuclei_segmentation.shared.settings.environment import NO_SYNC_LOCK, RUN_ID, SHARD, STORE_SHM, TRITON

PRIVATE = (*TRITON_HTTP_VARIABLES, TRITON_GRPC_VARIABLE, NO_SYNC_LOCK, RUN_ID, STORE_SHM, SHARD)
"""Variables that an operator must not inherit from the caller."""


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
