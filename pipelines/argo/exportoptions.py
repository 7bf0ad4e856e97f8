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
class Export:
    """What the command line asks for.

    Attributes
    ----------
    file : pathlib.Path
        The definition.
    output : pathlib.Path or None
        Takes the workflow; None for the standard output.
    values : Mapping of str to str
        Of parameters.
    cluster : Cluster
        That the workflow is for.
    lenient : bool
        Unknown names in the definition are warnings.
    triton_image : str
        Of a Triton server for operators that list `models`; '' for none.
    """

    file: Path
    output: Path | None
    values: Mapping[str, str]
    cluster: Cluster
    lenient: bool
    triton_image: str = ""

    @classmethod
    def of(cls, given: argparse.Namespace) -> Self:
        """Return what a command line asks for."""
        cluster = Cluster(
            given.payload_claim, given.work_claim, given.models_claim or "", given.config_map or "",
            given.registry or "", given.triton or "", given.shards, given.user,
            frozenset(name.lower() for name in given.unrestricted),
        )  # fmt: skip
        return cls(given.file, given.output, dict(given.values), cluster, given.lenient, given.triton_image or "")


# fmt: off
def options(parser: argparse.ArgumentParser) -> None:
    """Add the options that no other command has."""
    add, known = parser.add_argument, Cluster()
    add("-o", type=_output, dest="output", metavar="FILE", help="takes the workflow (default: the standard output)")
    add("--shards", type=_number(1, MOST), default=known.shards, metavar="N",
        help="into how many filter is divided (default: %(default)s); a parameter of the workflow, too")
    add("--payload-claim", type=_volume, default=known.payload, metavar="CLAIM",
        help="PersistentVolumeClaim with the slides, which are only read (default: %(default)s)")
    add("--work-claim", type=_volume, default=known.work, metavar="CLAIM",
        help="that with room for what operators write, and for the result (default: %(default)s)")
    add("--models-claim", type=_volume, metavar="CLAIM",
        help=f"that with the models of the definition's Triton servers (default: {MODELS_CLAIM}, if it has any). "
        "For a cluster of one node, each CLAIM may be an absolute path: a folder of the node")
    add("--config-map", type=_name, metavar="NAME",
        help="ConfigMap with config.yaml, for operators of this project")
    add("--registry", type=_registry, metavar="NAME", help="put before images that name no registry")
    add("--triton", type=_address, metavar="HOST:PORT",
        help="Triton server for operators that list models; a parameter of the workflow, too")
    add("--triton-image", metavar="NAME:TAG",
        help="start a Triton server for operators that list models, from this image")
    add("--user", type=_number(1, 2**31 - 1), default=known.user, metavar="ID",
        help="user and group that containers run as (default: %(default)s)")
    add("--unrestricted", action="append", default=[], metavar="NAME",
        help="operator or service that runs as its image wants: any user, a writable root")
# fmt: on


def _output(text: str) -> Path | None:
    if not text:
        raise argparse.ArgumentTypeError("a path is missing")
    return None if text == "-" else Path(text)


def _name(text: str) -> str:
    if not _KUBERNETES.fullmatch(text) or len(text) > 253:
        raise argparse.ArgumentTypeError(f"{text!r} is no name of Kubernetes: small letters, digits, '-' and '.'")
    return text


def _volume(text: str) -> str:
    if not text.startswith("/"):
        return _name(text)
    if ".." in text.split("/") or not text.isprintable():
        raise argparse.ArgumentTypeError(f"{text!r} is no path that Kubernetes takes: no '..', no control characters")
    return text


def _registry(text: str) -> str:
    if not IMAGE.fullmatch(text.rstrip("/")):
        raise argparse.ArgumentTypeError(f"{text!r} is no registry, such as registry.example/team")
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
