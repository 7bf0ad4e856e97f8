"""How a pipeline is to be run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Engine = Literal["process", "podman", "docker"]
ENGINES: tuple[Engine, ...] = ("process", "podman", "docker")


IMAGES_USER = (1000, 1000)
"""The user and group of this project's images."""


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
    user : tuple of int or None
        User and group that containers are to run as, if the caller says so.
    caller : tuple of int
        User and group of the caller.
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
    user: tuple[int, int] | None = None
    caller: tuple[int, int] = (1000, 1000)
    environment: Mapping[str, str] = field(default_factory=dict)
    pod: bool = False
    memory: Path | None = None
    cores: int = 1024
    gpus: bool = True
    tritonserver: str = ""
    triton_image: str = ""

    @property
    def container_user(self) -> tuple[int, int]:
        """User and group that containers run as.

        They are root only if that is asked for. If the caller is root, whoever called sudo takes its place, or else the
        user of this project's images.
        """
        if self.user is not None or self.caller[0]:
            return self.user or self.caller
        by_sudo = [self.environment.get(name, "") for name in ("SUDO_UID", "SUDO_GID")]
        if all(re.fullmatch(r"[1-9][0-9]{0,9}", text) for text in by_sudo):
            return int(by_sudo[0]), int(by_sudo[1])
        return IMAGES_USER
