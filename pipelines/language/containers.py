"""Containers, what they request, and the services and models that operators use."""

from __future__ import annotations

from collections.abc import Mapping

from nuclei_segmentation.pipelines.language.cursor import Cursor, refuse_duplicate, required
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
_CONNECTIONS = {"http": ("port", "an HTTP connection"), "volume": ("path", "a volume connection")}
"""What a connection of each kind needs besides its name, and its name for messages."""

MAX_CORES, MAX_GPUS, MAX_MEMORY = 4096, 1024, 64 * MIB
"""More than any machine has; memory in MB."""
PORTS = (1024, 65535)


def read_container(cursor: Cursor) -> Container | None:
    """Return a container; None if it has no image, or a part that cannot be read.

    Source: page *container*: image required, tag ``latest`` unless given, command an array. Tags are text even where
    they look like numbers: ``18.04``.
    """
    fields = cursor.fields("a container", _CONTAINER)
    if fields is None:
        return None
    field = required(cursor, fields, "image", "a container")
    image = field.text("an image name", bad_image) if field is not None else None
    tag = fields["tag"].text("an image tag", bad_tag) if "tag" in fields else "latest"
    words = fields["command"].items("the words of a command") if "command" in fields else []
    command = [word.text("a word of the command") for word in words]
    if image is None or tag is None or None in command:
        return None
    return Container(image, tag, tuple(word for word in command if word is not None))


def read_requests(cursor: Cursor | None) -> Requests:
    """Return what is requested; the rest has the defaults of Clara 0.8.1.

    Source: page *requests*: whole numbers; memory in MB, which we take as 2**20 bytes: it became Mi in
    Kubernetes.
    """
    fields = cursor.fields("`requests`", _REQUESTS) if cursor is not None else None
    if fields is None:
        return Requests()
    cpu = fields["cpu"].integer("a number of cores", 1, MAX_CORES) if "cpu" in fields else None
    memory = fields["memory"].integer("a number of megabytes", 1, MAX_MEMORY) if "memory" in fields else None
    gpu = fields["gpu"].integer("a number of GPUs", 0, MAX_GPUS) if "gpu" in fields else None
    default = Requests()
    return Requests(
        default.cpu_millis if cpu is None else cpu * 1000,
        default.memory_bytes if memory is None else memory * MIB,
        default.gpu if gpu is None else gpu,
        frozenset(name for name, value in (("cpu", cpu), ("memory", memory), ("gpu", gpu)) if value is not None),
    )


def read_variables(cursor: Cursor | None) -> Mapping[str, str]:
    """Return environment variables. Numbers keep the form in which they are written; a null value is an empty text."""
    found: dict[str, str] = {}
    for name, value in cursor.pairs("variables") if cursor is not None else []:
        if expected := bad_variable(name):
            value.key_finding("bad-name", f"{shown(name)} is not valid as the name of a variable", expected)
        text = "" if value.null else value.text("the value of a variable")
        if text is not None:
            found[name] = text
    return found


def variable_places(cursor: Cursor | None) -> dict[str, Place]:
    """Return where each environment variable stands, by ``variables.NAME``."""
    pairs = cursor.pairs("variables") if cursor is not None and not cursor.null else []
    return {f"variables.{name}": value.key_place for name, value in pairs}


def read_models(cursor: Cursor | None) -> tuple[Model, ...]:
    """Return the models that Triton must load. Source: the model repository's pages: a list of names."""
    seen: dict[str, Place] = {}
    models: list[Model] = []
    for item in cursor.items("models") if cursor is not None else []:
        fields = item.fields("a model", ("name",))
        field = required(item, fields, "name", "a model") if fields is not None else None
        name = field.text("a model name", bad_name) if field is not None else None
        if field is None or name is None:
            continue
        refuse_duplicate(seen, name.lower(), field, f"model {shown(name)}")
        models.append(Model(name))
    return tuple(models)


def read_connections(cursor: Cursor | None) -> tuple[Connection, ...]:
    """Return the connections by which operators reach a service.

    Source: pages *service* and *connections*: ``http`` with name and port from 1024 to 65535; ``volume`` with name
    and path, known from a published definition only. The grammar makes the port optional, NVIDIA's sizing tool does
    not: we warn.
    """
    groups = cursor.fields("`connections`", tuple(_CONNECTIONS)) if cursor is not None else None
    if groups is None:
        return ()
    connections: list[Connection] = []
    seen: dict[str, Place] = {}
    for kind, (needed, what) in _CONNECTIONS.items():
        for item in groups[kind].items(f"{kind} connections") if kind in groups else []:
            fields = item.fields(what, ("name", needed))
            field = required(item, fields, "name", what) if fields is not None else None
            name = field.text("a connection name", bad_connection) if field is not None else None
            port = path = None
            if fields is not None and needed not in fields:
                item.warn("connection", f"{what} without `{needed}`", f"add `{needed}: ...`: NVIDIA's tools need it")
            elif fields is not None and kind == "http":
                port = fields["port"].integer("a port", *PORTS)
            elif fields is not None:
                path = fields["path"].text("a path in the container", bad_path)
            if field is None or name is None:
                continue
            refuse_duplicate(seen, name.lower(), field, f"connection {shown(name)}")
            connections.append(Connection(kind, name, port, path))
    return tuple(connections)
