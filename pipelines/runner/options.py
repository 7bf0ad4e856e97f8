"""How a pipeline is to be run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Engine = Literal["process", "podman", "docker"]
ENGINES: tuple[Engine, ...] = ("process", "podman", "docker")


@dataclass(frozen=True, slots=True)
class Options:
    """How a pipeline is to be run.

    Attributes
    ----------
    payload : pathlib.Path
        The folder that the pipeline reads.
    output : pathlib.Path
        The folder that receives the result; it contains the job's folder.
    engine : Engine
        What runs the operators.
    compat : bool
        Whether to use the command lines of NVIDIA's sizing tool.
    config : pathlib.Path or None
        Folder with config.yaml for the operators, if any.
    models : pathlib.Path or None
        Folder with the models of Triton servers, if any.
    user : tuple of int
        User and group that containers run as.
    environment : Mapping of str to str
        The caller's environment; addresses of servers are taken from it.
    pod : bool
        Whether all operators start at once and wait for one another by themselves, as in Clara's pod.
    memory : pathlib.Path or None
        Folder of shared memory on this machine, if it has one.
    cores : int
        Cores of this machine.
    gpus : bool
        Whether containers get the GPUs that they request.
    tritonserver : str
        Path of the program on this machine; '' if it is not installed.
    triton_image : str
        Image of a Triton server for operators that list `models`; '' for none.
    """

    payload: Path
    output: Path
    engine: Engine = "process"
    compat: bool = False
    config: Path | None = None
    models: Path | None = None
    user: tuple[int, int] = (1000, 1000)
    environment: Mapping[str, str] = field(default_factory=dict)
    pod: bool = False
    memory: Path | None = None
    cores: int = 1024
    gpus: bool = True
    tritonserver: str = ""
    triton_image: str = ""
