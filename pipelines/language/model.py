"""A pipeline that was read: what a program that runs or translates it needs.

All names are as written; they are compared without case. Placeholders have been replaced by values. `places` are the
places of an object's values by key, and of the object itself under ''. They are for messages, and are ignored when
objects are compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from nuclei_segmentation.pipelines.language.findings import Place

Places = Mapping[str, Place]
MIB = 1024 * 1024
DYNAMIC = -1
"""A dimension of any size, written as 0 or -1. Its size is known only when the data exists."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A value that may be given when the pipeline is run.

    Attributes
    ----------
    name : str
        Its name.
    default : str or None
        None if a value must be given.
    """

    name: str
    default: str | None


@dataclass(frozen=True, slots=True)
class Import:
    """Where an operator or a service was imported from.

    Attributes
    ----------
    file : str
        The path of the file.
    arguments : Mapping of str to str or None
        The values of its parameters, by name; None where a value is not known yet.
    """

    file: str
    arguments: Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class Container:
    """An image and what it runs.

    Attributes
    ----------
    image : str
        The image's name, perhaps with its registry.
    tag : str
        The image's tag.
    command : tuple of str
        The words of the command. Empty: the image's entry point.
    """

    image: str
    tag: str
    command: tuple[str, ...] = ()

    @property
    def reference(self) -> str:
        """``image:tag``."""
        return f"{self.image}:{self.tag}"


@dataclass(frozen=True, slots=True)
class Requests:
    """What must be free before an operator starts, and the most that it may use.

    Attributes
    ----------
    cpu_millis : int
        Thousandths of a logical core.
    memory_bytes : int
        An operator that uses more is ended.
    gpu : int
        GPUs for the operator alone.
    given : frozenset of str
        Those of ``cpu``, ``memory`` and ``gpu`` that the definition states. The others have Clara's defaults.
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
        ``stream`` (files in a folder) or ``array`` (shared memory). Strings and primitives are arrays.
    element : str
        For a stream, free text; for an array, the long name of a type, such as ``uint8``.
    shape : tuple of int
        The dimensions of an array; `DYNAMIC` for one of any size. Empty for a stream.
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
        '' for an operator's only output, if it has no name.
    path : str or None
        The folder in the container; None for shared memory.
    type : DataType or None
        None in an untyped pipeline.
    places : Mapping of str to Place
        The places of its values.
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
        The name of the operator that it reads from, as that operator writes it. None: the pipeline's payload.
    output : str
        The output of that operator; '' for one without a name.
    name : str
        As written here: the output's name, or a name for what comes from the payload.
    path : str or None
        The folder in the container; None for shared memory.
    type : DataType or None
        None in an untyped pipeline.
    places : Mapping of str to Place
        The places of its values.
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
        The operator's environment variable that holds the address ``host:port``, or the folder.
    port : int or None
        For ``http``: the port on which the service listens, if it is given.
    path : str or None
        For ``volume``: the folder in the container, if it is given.
    """

    kind: str
    name: str
    port: int | None = None
    path: str | None = None


@dataclass(frozen=True, slots=True)
class Service:
    """A container that runs while operators use it.

    Attributes
    ----------
    name : str
        Unique in its operator.
    container : Container
        What it runs.
    connections : tuple of Connection
        How operators reach it.
    variables : Mapping of str to str
        Its environment variables.
    requests : Requests
        What it needs.
    description : str
        '' if there is none.
    imported : Import or None
        Where it was imported from, if it was.
    places : Mapping of str to Place
        The places of its values.
    """

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
        """Services with the same image, tag and command are one service, whatever their names."""
        return self.container


@dataclass(frozen=True, slots=True)
class Model:
    """A model that Triton must have loaded before the operator starts.

    Attributes
    ----------
    name : str
        Its name in the model repository.
    """

    name: str


@dataclass(frozen=True, slots=True)
class Operator:
    """One container of the pipeline.

    Attributes
    ----------
    name : str
        Unique in the pipeline.
    container : Container
        What it runs.
    inputs : tuple of Input
        What it reads, in the order of the file.
    outputs : tuple of Output
        What it writes, in the order of the file.
    variables : Mapping of str to str
        Its environment variables.
    requests : Requests
        What it needs.
    models : tuple of Model
        The models that Triton loads for it.
    services : tuple of Service
        The services that it uses.
    description : str
        '' if there is none.
    imported : Import or None
        Where it was imported from, if it was.
    places : Mapping of str to Place
        The places of its values.
    """

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
        """The names of the operators that must end before this one starts, each once."""
        return tuple(dict.fromkeys(item.source for item in self.inputs if item.source is not None))


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A complete definition.

    Attributes
    ----------
    name : str
        Its name.
    api_version : str
        The version of the language, such as ``0.4.0``.
    orchestrator : str
        ``Clara`` or ``Argo``.
    operators : tuple of Operator
        In topological order; where that leaves a choice, in the order of the file.
    parameters : tuple of Parameter
        The parameters that the file declares.
    arguments : Mapping of str to str
        The values that are used, by the parameter's name.
    pull_secrets : tuple of str
        The names of the secrets with which images are pulled.
    description : str
        '' if there is none.
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
            for service in operator.services:
                found.setdefault(service.identity, service)
        return tuple(found.values())

    def operator(self, name: str) -> Operator:
        """Return an operator by its name, whatever the case.

        Raises
        ------
        KeyError
            No operator has this name.
        """
        for operator in self.operators:
            if operator.name.lower() == name.lower():
                return operator
        raise KeyError(name)
