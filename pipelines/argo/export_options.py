"""The options of the command ``argo``."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from nuclei_segmentation.pipelines.argo.cluster import MODELS_CLAIM, Cluster
from nuclei_segmentation.pipelines.language.names import IMAGE
from nuclei_segmentation.shared.errors import UsageError
from nuclei_segmentation.shared.settings.address import Address
from nuclei_segmentation.shared.settings.shard import MOST

_KUBERNETES = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What the command line asks for.

    Attributes
    ----------
    file : pathlib.Path
        The definition.
    output : pathlib.Path or None
        The file to write; None for the standard output.
    values : Mapping of str to str
        Values of parameters.
    cluster : Cluster
        The cluster that the workflow is for.
    lenient : bool
        Whether unknown names in the definition are warnings.
    triton_image : str
        Image of a Triton server for operators that list `models`; '' for none.
    """

    file: Path
    output: Path | None
    values: Mapping[str, str]
    cluster: Cluster
    lenient: bool
    triton_image: str = ""

    @classmethod
    def from_arguments(cls, parsed: argparse.Namespace) -> Self:
        """Return what a parsed command line asks for."""
        cluster = Cluster(
            parsed.payload_claim, parsed.work_claim, parsed.models_claim or "", parsed.config_map or "",
            parsed.registry or "", parsed.triton or "", parsed.shards, parsed.user,
            frozenset(name.lower() for name in parsed.unrestricted),
        )  # fmt: skip
        return cls(parsed.file, parsed.output, dict(parsed.values), cluster, parsed.lenient, parsed.triton_image or "")


# fmt: off
def add_options(command: argparse.ArgumentParser) -> None:
    """Add the options that no other command has."""
    add, default = command.add_argument, Cluster()
    add("-o", type=_output, dest="output", metavar="FILE", help="the file to write (default: the standard output)")
    add("--shards", type=_number(1, MOST), default=default.shards, metavar="N",
        help="number of shards of filter (default: %(default)s); also a parameter of the workflow")
    add("--payload-claim", type=_volume, default=default.payload, metavar="CLAIM",
        help="PersistentVolumeClaim with the slides, which are only read (default: %(default)s)")
    add("--work-claim", type=_volume, default=default.work, metavar="CLAIM",
        help="PersistentVolumeClaim with room for what operators write and for the result (default: %(default)s)")
    add("--models-claim", type=_volume, metavar="CLAIM",
        help=f"PersistentVolumeClaim with the models of Triton servers (default: {MODELS_CLAIM}, if a server needs "
        "it). On a cluster of one node, each CLAIM may be an absolute path: a folder of the node")
    add("--config-map", type=_name, metavar="NAME",
        help="ConfigMap with config.yaml, for operators of this project")
    add("--registry", type=_registry, metavar="NAME", help="put in front of images that name no registry")
    add("--triton", type=_address, metavar="HOST:PORT",
        help="Triton server for operators that list models; also a parameter of the workflow")
    add("--triton-image", metavar="NAME:TAG",
        help="start a Triton server from this image for operators that list models")
    add("--user", type=_number(1, 2**31 - 1), default=default.user, metavar="ID",
        help="user and group that containers run as (default: %(default)s)")
    add("--unrestricted", action="append", default=[], metavar="NAME",
        help="operator or service that may run as any user, with a writable root, as its image wants")
# fmt: on


def _output(text: str) -> Path | None:
    if not text:
        raise argparse.ArgumentTypeError("a path is missing")
    return None if text == "-" else Path(text)


def _name(text: str) -> str:
    if not _KUBERNETES.fullmatch(text) or len(text) > 253:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a name in Kubernetes: lower-case letters, digits, '-' and '.'"
        )
    return text


def _volume(text: str) -> str:
    if not text.startswith("/"):
        return _name(text)
    if ".." in text.split("/") or not text.isprintable():
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a path that Kubernetes accepts: no '..', no control characters"
        )
    return text


def _registry(text: str) -> str:
    if not IMAGE.fullmatch(text.rstrip("/")):
        raise argparse.ArgumentTypeError(f"{text!r} is not a registry such as registry.example/team")
    return text.rstrip("/")


def _address(text: str) -> str:
    try:
        return str(Address.parse(text))
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _number(least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,10}", text) or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} to {most}")
        return int(text)

    return read
