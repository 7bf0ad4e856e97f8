"""A pipeline that was read: what a program that runs or translates it needs.

All names are as written; they are compared without case. Every text has its parameters' values in place. `places` say
where the parts of an object stand, for messages; they do not count when objects are compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from nuclei_segmentation.pipelines.language.findings import Place

Places = Mapping[str, Place]
MIB = 1024 * 1024
DYNAMIC = -1
"""In a shape: known when the data are there. What is written as 0 or -1."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A value that may be given when the pipeline is run; `default` is None where one must be given."""

    name: str
    default: str | None


@dataclass(frozen=True, slots=True)
class Import:
    """Where an operator or a service was taken from.

    Attributes
    ----------
    file : str
        Path of the file.
    arguments : Mapping of str to str or None
        That its placeholders were given.
    """

    file: str
    arguments: Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class Container:
    """An image and what it runs; without `command`, its own entry point."""

    image: str
    tag: str
    command: tuple[str, ...] = ()

    @property
    def reference(self) -> str:
        """``image:tag``."""
        return f"{self.image}:{self.tag}"


@dataclass(frozen=True, slots=True)
class Requests:
    """What must be free before an operator starts, and what it may take.

    Attributes
    ----------
    cpu_millis : int
        Thousandths of a logical core.
    memory_bytes : int
        More ends the operator.
    gpu : int
        Devices for itself alone.
    given : frozenset of str
        Which of ``cpu``, ``memory`` and ``gpu`` the definition states; the rest are Clara's defaults.
    """

    cpu_millis: int = 2000
    memory_bytes: int = 1024 * MIB
    gpu: int = 0
    given: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class DataType:
    """What passes between operators of a typed pipeline.

    Attributes
    ----------
    kind : str
        ``stream`` (files in a folder) or ``array`` (shared memory); strings and primitives are arrays.
    element : str
        Of a stream, free text; of an array, a type's long name such as ``uint8``.
    shape : tuple of int
        Of an array; `DYNAMIC` where it is open.
    """

    kind: str
    element: str
    shape: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"{self.kind} of {self.element}" + (f" {list(self.shape)}" if self.kind == "array" else "")


@dataclass(frozen=True, slots=True)
class Output:
    """What an operator writes.

    Attributes
    ----------
    name : str
        '' for the only output of an operator, if it has none.
    path : str or None
        Folder in the container; None for shared memory.
    type : DataType or None
        None in an untyped pipeline.
    """

    name: str
    path: str | None
    type: DataType | None = None
    places: Places = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Input:
    """What an operator reads.

    Attributes
    ----------
    source : str or None
        Name of the operator that it comes from, as that operator writes it; None: the pipeline's payload.
    output : str
        The output of that operator; '' for its unnamed one.
    name : str
        As written here: the output's name, or a name for what comes from the payload.
    path : str or None
        Folder in the container; None for shared memory.
    type : DataType or None
        None in an untyped pipeline.
    """

    source: str | None
    output: str
    name: str
    path: str | None
    type: DataType | None = None
    places: Places = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Connection:
    """How an operator reaches a service.

    Attributes
    ----------
    kind : str
        ``http`` or ``volume``.
    name : str
        Environment variable of the operator that holds the address ``host:port``, or the folder.
    port : int or None
        Of ``http``: where the service listens; None if that is not said.
    path : str or None
        Of ``volume``: folder in the container, if said.
    """

    kind: str
    name: str
    port: int | None = None
    path: str | None = None


@dataclass(frozen=True, slots=True)
class Service:
    """A container that runs while operators use it. Equal image, tag and command: the same service."""

    name: str
    container: Container
    connections: tuple[Connection, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    requests: Requests = Requests()
    description: str = ""
    imported: Import | None = None
    places: Places = field(default_factory=dict, compare=False, repr=False)

    @property
    def identity(self) -> Container:
        """What makes two services the same one."""
        return self.container


@dataclass(frozen=True, slots=True)
class Model:
    """A model that Triton must have loaded before the operator starts."""

    name: str


@dataclass(frozen=True, slots=True)
class Operator:
    """One container of the pipeline."""

    name: str
    container: Container
    inputs: tuple[Input, ...] = ()
    outputs: tuple[Output, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    requests: Requests = Requests()
    models: tuple[Model, ...] = ()
    services: tuple[Service, ...] = ()
    description: str = ""
    imported: Import | None = None
    places: Places = field(default_factory=dict, compare=False, repr=False)

    @property
    def upstream(self) -> tuple[str, ...]:
        """Names of the operators that must have ended before this one starts, each once."""
        return tuple(dict.fromkeys(item.source for item in self.inputs if item.source is not None))


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A whole definition.

    Attributes
    ----------
    operators : tuple of Operator
        In topological order; where that leaves a choice, in the order of the file.
    arguments : Mapping of str to str
        Every parameter with the value that is used.
    """

    name: str
    api_version: str
    orchestrator: str
    operators: tuple[Operator, ...]
    parameters: tuple[Parameter, ...] = ()
    arguments: Mapping[str, str] = field(default_factory=dict)
    pull_secrets: tuple[str, ...] = ()
    description: str = ""

    @property
    def typed(self) -> bool:
        """Whether inputs and outputs have types."""
        return self.version >= (0, 5, 0)

    @property
    def version(self) -> tuple[int, ...]:
        """`api_version` as numbers."""
        return tuple(int(part) for part in self.api_version.split("."))

    @property
    def services(self) -> tuple[Service, ...]:
        """The services of all operators, each once (by identity), as the first operator has it."""
        found: dict[Container, Service] = {}
        for operator in self.operators:
            for one in operator.services:
                found.setdefault(one.identity, one)
        return tuple(found.values())

    def operator(self, name: str) -> Operator:
        """Return an operator by its name, whatever the case.

        Raises
        ------
        KeyError
            There is none.
        """
        for one in self.operators:
            if one.name.lower() == name.lower():
                return one
        raise KeyError(name)
