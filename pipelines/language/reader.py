"""Reads definitions: checks them, or resolves them to a pipeline that can be run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nuclei_segmentation.pipelines.language.cursor import CheckContext, Cursor, required
from nuclei_segmentation.pipelines.language.files import Files
from nuclei_segmentation.pipelines.language.findings import DefinitionError, Finding, Findings, shown
from nuclei_segmentation.pipelines.language.graph import join
from nuclei_segmentation.pipelines.language.imports import Imports, read_parameters
from nuclei_segmentation.pipelines.language.model import Parameter, Pipeline
from nuclei_segmentation.pipelines.language.names import bad_name
from nuclei_segmentation.pipelines.language.operators import read_operator
from nuclei_segmentation.pipelines.language.suggestions import suggest
from nuclei_segmentation.pipelines.language.templates import Scope
from nuclei_segmentation.pipelines.language.versions import (
    CLARA,
    NEWEST,
    Version,
    read_orchestrator,
    read_version,
    version_text,
)

_PIPELINE = ("api-version", "name", "description", "orchestrator", "parameters", "pull-secrets", "operators")


@dataclass(frozen=True, slots=True)
class Report:
    """What a check found.

    Attributes
    ----------
    file : str
        The file's name as the user gave it.
    findings : tuple of Finding
        Sorted by place. Those of the file come before those of files that it imports.
    pipeline : Pipeline or None
        None if there are errors, or if a value that the pipeline needs has no default.
    parameters : tuple of Parameter
        The parameters that the file declares.
    unreadable : bool
        Whether the file itself could not be read.
    """

    file: str
    findings: tuple[Finding, ...]
    pipeline: Pipeline | None
    parameters: tuple[Parameter, ...] = ()
    unreadable: bool = False

    @property
    def errors(self) -> int:
        """The number of errors."""
        return sum(1 for finding in self.findings if finding.severity == "error")

    @property
    def warnings(self) -> int:
        """The number of warnings."""
        return len(self.findings) - self.errors


@dataclass(frozen=True, slots=True)
class Definition:
    """A definition in a file, with what it imports.

    Attributes
    ----------
    path : pathlib.Path
        The file.
    lenient : bool
        Whether unknown keys are warnings.
    """

    path: Path
    lenient: bool = False

    def check(self) -> Report:
        """Check everything, with the parameters' defaults. For one without a default, a right value is assumed."""
        return self._read({}, complete=False)

    def resolve(self, arguments: Mapping[str, str]) -> Pipeline:
        """Return the pipeline with every parameter's value in place.

        Parameters
        ----------
        arguments : Mapping of str to str
            Values of parameters, by name. The other parameters have their defaults.

        Raises
        ------
        DefinitionError
            The definition is wrong, an argument is not declared, a parameter has no value, or a value is not valid
            where it is used.
        """
        report = self._read(arguments, complete=True)
        if report.pipeline is None:
            raise DefinitionError(report.findings)
        return report.pipeline

    def _read(self, arguments: Mapping[str, str], *, complete: bool) -> Report:
        findings = Findings()
        context = CheckContext(findings, self.lenient, complete)
        files = Files(self.path, findings)
        document = files.root
        pipeline: Pipeline | None = None
        declared: tuple[Parameter, ...] = ()
        if document is not None and document.root is not None:
            root = Cursor(document.root, document, "", Scope({}), context)
            pipeline, declared = _pipeline(root, files, arguments)
        found = findings.sorted(files.root_name)
        return Report(files.root_name, found, None if findings.errors else pipeline, declared, files.unreadable)


def _pipeline(
    root: Cursor, files: Files, arguments: Mapping[str, str]
) -> tuple[Pipeline | None, tuple[Parameter, ...]]:
    fields = root.fields("a pipeline", _PIPELINE)
    if fields is None:
        return None, ()
    declared = read_parameters(fields["parameters"]) if "parameters" in fields else ()
    _refuse_undeclared(fields.get("parameters", root), declared, arguments)
    values = {parameter.name: arguments.get(parameter.name, parameter.default) for parameter in declared}
    scope = root.scope.within(values)
    fields = {key: value.with_scope(scope) for key, value in fields.items()}
    field = required(root, fields, "api-version", "a pipeline")
    version = read_version(field) if field is not None else None
    field = required(root, fields, "name", "a pipeline")
    name = field.text("a pipeline name", bad_name) if field is not None else None
    description = fields["description"].text("a description") if "description" in fields else ""
    assumed_version = version or _guess_version(fields.get("operators"))
    orchestrator = read_orchestrator(fields.get("orchestrator"), assumed_version)
    secrets = fields["pull-secrets"].items("pull-secrets") if "pull-secrets" in fields else []
    secret_names = [secret.text("the name of a secret") for secret in secrets]
    field = required(root, fields, "operators", "a pipeline")
    items = field.items("operators") if field is not None else []
    if field is not None and field.empty_list:
        field.error("missing", "the pipeline has no operators", "add at least one")
    imports = Imports(files, assumed_version)
    operators = join([read_operator(item, imports) for item in items], root.context.findings)
    if version is None or not name or len(operators) != len(items) or None in secret_names:
        return None, declared
    pipeline = Pipeline(
        name,
        version_text(version),
        orchestrator,
        operators,
        declared,
        {key: value for key, value in values.items() if value is not None},
        tuple(secret for secret in secret_names if secret is not None),
        description or "",
    )
    return pipeline, declared


def _guess_version(operators: Cursor | None) -> Version:
    """Return the version to check by if none can be read: the newest if an input or output has a type."""
    for operator in operators.peek_items() if operators is not None else []:
        for key in ("input", "output"):
            items = operator.peek(key)
            for item in items.peek_items() if items is not None else []:
                if item.peek("type") is not None or item.peek("element-type") is not None:
                    return NEWEST
    return CLARA


def _refuse_undeclared(cursor: Cursor, declared: tuple[Parameter, ...], arguments: Mapping[str, str]) -> None:
    """Source: page *template*: an argument whose name is not a declared parameter is illegal."""
    names = [parameter.name for parameter in declared]
    for name in arguments:
        if name not in names:
            otherwise = f"declared: {', '.join(names)}" if names else "the definition declares no parameters"
            cursor.key_finding("undeclared", f"parameter {shown(name)} is not declared",
                               suggest(name, names, otherwise))  # fmt: skip
