"""The environment variables that the program reads: their names, and how their values are understood.

Every error of a value names the variable that holds it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from nuclei_segmentation.shared.errors import UsageError
from nuclei_segmentation.shared.settings.address import Address
from nuclei_segmentation.shared.settings.shard import EXPECTS, Shard

NO_SYNC_LOCK = "NVIDIA_CLARA_NOSYNCLOCK"
"""True: the stage runs alone. Nothing is waited for, and no driver is used."""
TRITON = ("NVIDIA_CLARA_TRTISURI", "NVIDIA_TRITON_HTTPURI", "CLARA_TRITON_URI")
"""Name the Triton servers; the first one that is set counts."""
RUN_ID = "NUCLEI_RUN_ID"
"""Names the run that a stage belongs to."""
SHARD = "NUCLEI_SHARD"
"""Which share of the tiles filter infers."""
OUTPUTS = "NUCLEI_OUTPUTS"
"""Which files of nuclei are written, as `outputs` of config.yaml; "none" for none."""
STORE_SHM = "NUCLEI_STORE_SHM"
"""As `store.shm` of config.yaml, which wins: for containers that share memory and are given no file."""
LOCK_SILENCE = "NUCLEI_LOCK_SILENCE"
"""After how many seconds without a sign of life the run of another machine has lost its output folder."""

_LOCK_SECONDS = (1.0, 3600.0)
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


class TritonServers(NamedTuple):
    """Servers, and the variable that names them; both empty where there are none."""

    addresses: tuple[str, ...] = ()
    variable: str = ""


def is_true(environment: Mapping[str, str], variable: str) -> bool:
    """Tell whether a variable is set to true.

    Parameters
    ----------
    environment : Mapping of str to str
        As `os.environ`.
    variable : str
        The variable's name. Unset or empty is false.

    Raises
    ------
    UsageError
        It is neither true nor false.
    """
    text = environment.get(variable, "").strip()
    if text.lower() not in (*_TRUE, *_FALSE, ""):
        raise UsageError(f"{variable}: {text!r:.60} is neither TRUE nor FALSE (nor 1, 0, yes, no, on, off)")
    return text.lower() in _TRUE


def runs_alone(environment: Mapping[str, str]) -> bool:
    """Tell whether a stage runs alone; whatever is not true counts as not, as for the original operator."""
    return environment.get(NO_SYNC_LOCK, "").strip().lower() in _TRUE


def triton_servers(environment: Mapping[str, str]) -> TritonServers:
    """Return the Triton servers that the environment names.

    Parameters
    ----------
    environment : Mapping of str to str
        As `os.environ`.

    Raises
    ------
    UsageError
        An address is not ``host:port``.
    """
    for variable in TRITON:
        text = environment.get(variable, "").strip()
        if not text:
            continue
        try:
            addresses = tuple(str(Address.parse(part.strip())) for part in text.split(",") if part.strip())
        except UsageError as error:
            raise UsageError(f"{variable}: {error}") from None
        if addresses:
            return TritonServers(addresses, variable)
    return TritonServers()


def run_id(environment: Mapping[str, str]) -> str:
    """Return the run that a stage belongs to; empty where it is not named."""
    return environment.get(RUN_ID, "").strip()


def lock_silence(environment: Mapping[str, str]) -> float:
    """Return after how many seconds without a sign of life a lock of another machine counts as abandoned; 60 if unset.

    Parameters
    ----------
    environment : Mapping of str to str
        As `os.environ`.

    Raises
    ------
    UsageError
        It is no number of seconds from 1 to 3600.
    """
    text = environment.get(LOCK_SILENCE, "").strip()
    least, most = _LOCK_SECONDS
    try:
        seconds = float(text or 60)
    except ValueError:
        seconds = math.nan
    if not least <= seconds <= most:
        raise UsageError(f"{LOCK_SILENCE}: {text!r:.60} is not a number of seconds from {least:g} to {most:g}")
    return seconds


def shard(environment: Mapping[str, str]) -> Shard | None:
    """Return the shard that filter infers; None for all tiles.

    Parameters
    ----------
    environment : Mapping of str to str
        As `os.environ`.

    Raises
    ------
    UsageError
        The variable names no shard.
    """
    text = environment.get(SHARD, "").strip()
    found = Shard.parse(text)
    if text and found is None:
        raise UsageError(f"{SHARD}: {text!r:.60} is not {EXPECTS}")
    return found
