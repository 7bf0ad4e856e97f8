"""Containers, what they ask for, and the services and models that operators use."""

from __future__ import annotations

from collections.abc import Mapping

from nuclei_segmentation.pipelines.language.cursor import Cursor, once, required
from nuclei_segmentation.pipelines.language.findings import Place, shown
from nuclei_segmentation.pipelines.language.model import MIB, Connection, Container, Model, Requests
from nuclei_segmentation.pipelines.language.names import (
    bad_connection,
    bad_image,
    bad_name,
    bad_path,
    bad_tag,
    bad_variable,
)

_CONTAINER = ("image", "tag", "command")
_REQUESTS = ("cpu", "memory", "gpu")
_CONNECTIONS = ("http", "volume")

MOST_CORES, MOST_GPUS, MOST_MEMORY = 4096, 1024, 64 * MIB
"""More than any machine has; memory in MB."""
PORTS = (1024, 65535)


def container(here: Cursor) -> Container | None:
    """Return a container; None if it has no image that can be read.

    Source: page *container*: image required, tag ``latest`` unless given, command an array. Tags are text even where
    they look like numbers: ``18.04``.
    """
    fields = here.fields("a container", _CONTAINER)
    if fields is None:
        return None
    at = required(here, fields, "image", "a container")
    image = at.text("an image's name", bad_image) if at is not None else None
    tag = fields["tag"].text("an image's tag", bad_tag) if "tag" in fields else "latest"
    words = fields["command"].items("the words of a command") if "command" in fields else []
    command = [word.text("a word of the command") for word in words]
    if image is None or tag is None or None in command:
        return None
    return Container(image, tag, tuple(word for word in command if word is not None))


def requests(here: Cursor | None) -> Requests:
    """Return what is requested; what is not stated has the defaults of 0.8.1.

    Source: page *requests*: whole numbers; memory in MB, which we take as 2**20 bytes, since Kubernetes' Mi is what
    it became.
    """
    fields = here.fields("requests", _REQUESTS) if here is not None else None
    if fields is None:
        return Requests()
    cpu = fields["cpu"].whole("a number of cores", 1, MOST_CORES) if "cpu" in fields else None
    memory = fields["memory"].whole("a number of megabytes", 1, MOST_MEMORY) if "memory" in fields else None
    gpu = fields["gpu"].whole("a number of GPUs", 0, MOST_GPUS) if "gpu" in fields else None
    default = Requests()
    return Requests(
        default.cpu_millis if cpu is None else cpu * 1000,
        default.memory_bytes if memory is None else memory * MIB,
        default.gpu if gpu is None else gpu,
        frozenset(name for name, value in (("cpu", cpu), ("memory", memory), ("gpu", gpu)) if value is not None),
    )


def variables(here: Cursor | None) -> Mapping[str, str]:
    """Return environment variables; numbers are taken as they are written, nothing as an empty text."""
    found: dict[str, str] = {}
    for name, value in here.pairs("variables") if here is not None else []:
        if wrong := bad_variable(name):
            value.reading.findings.add(value.key_place, "bad-name", f"{shown(name)} is no variable's name", wrong)
        text = "" if value.null else value.text("a variable's value")
        if text is not None:
            found[name] = text
    return found


def models(here: Cursor | None) -> tuple[Model, ...]:
    """Return the models that Triton must load. Source: the model repository's pages: a list of names."""
    found: dict[str, Place] = {}
    names: list[Model] = []
    for item in here.items("models") if here is not None else []:
        fields = item.fields("a model", ("name",))
        at = required(item, fields, "name", "a model") if fields is not None else None
        name = at.text("a model's name", bad_name) if at is not None else None
        if at is None or name is None:
            continue
        once(found, name.lower(), at, f"model {shown(name)}")
        names.append(Model(name))
    return tuple(names)


def connections(here: Cursor | None) -> tuple[Connection, ...]:
    """Return how a service is reached.

    Source: pages *service* and *connections*: ``http`` with name and port from 1024 to 65535; ``volume`` with name
    and path, known from a published definition only. The grammar lets the port away, NVIDIA's sizing tool does not:
    we warn.
    """
    fields = here.fields("connections", _CONNECTIONS) if here is not None else None
    found: list[Connection] = []
    taken: dict[str, Place] = {}
    for kind, needs in (("http", "port"), ("volume", "path")):
        for item in fields[kind].items(f"{kind} connections") if fields is not None and kind in fields else []:
            parts = item.fields(f"a connection by {kind}", ("name", needs))
            at = required(item, parts, "name", "a connection") if parts is not None else None
            name = at.text("a connection's name", bad_connection) if at is not None else None
            port = path = None
            if parts is not None and needs not in parts:
                item.warn("connection", f"a connection by {kind} without {needs}", f"add `{needs}: ...`: tools need it")
            elif parts is not None and kind == "http":
                port = parts["port"].whole("a port", *PORTS)
            elif parts is not None:
                path = parts["path"].text("a path in the container", bad_path)
            if at is None or name is None:
                continue
            once(taken, name.lower(), at, f"connection {shown(name)}")
            found.append(Connection(kind, name, port, path))
    return tuple(found)
