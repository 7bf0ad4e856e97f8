"""Reads definitions: checks them, or resolves them into a pipeline that can be run."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nuclei_segmentation.pipelines.language import versions
from nuclei_segmentation.pipelines.language.cursor import Cursor, Reading, required
from nuclei_segmentation.pipelines.language.files import Files
from nuclei_segmentation.pipelines.language.findings import DefinitionError, Finding, Findings, shown
from nuclei_segmentation.pipelines.language.graph import join
from nuclei_segmentation.pipelines.language.imports import Imports, parameters
from nuclei_segmentation.pipelines.language.model import Parameter, Pipeline
from nuclei_segmentation.pipelines.language.names import bad_name
from nuclei_segmentation.pipelines.language.operators import draft
from nuclei_segmentation.pipelines.language.templates import Scope

_PIPELINE = ("api-version", "name", "description", "orchestrator", "parameters", "pull-secrets", "operators")


@dataclass(frozen=True, slots=True)
class Report:
    """What a check found.

    Attributes
    ----------
    file : str
        As it was named.
    findings : tuple of Finding
        By place; the file's own before those of files that it imports.
    pipeline : Pipeline or None
        None if there are errors.
    parameters : tuple of Parameter
        That the file declares.
    unreadable : bool
        The file itself could not be read.
    """

    file: str
    findings: tuple[Finding, ...]
    pipeline: Pipeline | None
    parameters: tuple[Parameter, ...] = ()
    unreadable: bool = False

    @property
    def errors(self) -> int:
        """How many findings are errors."""
        return sum(1 for finding in self.findings if finding.severity == "error")

    @property
    def warnings(self) -> int:
        """How many findings are warnings."""
        return len(self.findings) - self.errors


@dataclass(frozen=True, slots=True)
class Definition:
    """A definition in a file, with what it imports.

    Attributes
    ----------
    path : pathlib.Path
        Of the file.
    lenient : bool
        Whether names that the language does not know are warnings.
    """

    path: Path
    lenient: bool = False

    def check(self) -> Report:
        """Check everything, with the parameters' defaults. Parameters without one are taken to have a right value."""
        return self._read({}, complete=False)

    def resolve(self, arguments: Mapping[str, str]) -> Pipeline:
        """Return the pipeline with every parameter's value in place.

        Parameters
        ----------
        arguments : Mapping of str to str
            Values of parameters; the others have their defaults.

        Raises
        ------
        DefinitionError
            The definition is wrong, an argument is not declared, a parameter has no value, or a value does not fit.
        """
        report = self._read(arguments, complete=True)
        if report.pipeline is None:
            raise DefinitionError(report.findings)
        return report.pipeline

    def _read(self, arguments: Mapping[str, str], *, complete: bool) -> Report:
        findings = Findings()
        reading = Reading(findings, self.lenient, complete)
        files = Files(self.path, findings)
        document = files.root
        pipeline: Pipeline | None = None
        declared: tuple[Parameter, ...] = ()
        if document is not None and document.root is not None:
            root = Cursor(document.root, document, "", Scope({}), reading)
            pipeline, declared = _pipeline(root, files, arguments)
        found = findings.sorted(files.root_name)
        return Report(files.root_name, found, None if findings.errors else pipeline, declared, files.unreadable)


def _pipeline(
    root: Cursor, files: Files, arguments: Mapping[str, str]
) -> tuple[Pipeline | None, tuple[Parameter, ...]]:
    findings = root.reading.findings
    fields = root.fields("a pipeline", _PIPELINE)
    if fields is None:
        return None, ()
    declared = parameters(fields["parameters"]) if "parameters" in fields else ()
    _refuse_undeclared(fields.get("parameters", root), declared, arguments)
    values = {one.name: arguments.get(one.name, one.default) for one in declared}
    scope = root.scope.within(values)
    fields = {name: value.within(scope) for name, value in fields.items()}
    at = required(root, fields, "api-version", "a pipeline")
    version = versions.api_version(at) if at is not None else None
    at = required(root, fields, "name", "a pipeline")
    name = at.text("a pipeline's name", bad_name) if at is not None else None
    description = fields["description"].text("a description") if "description" in fields else ""
    rules = version or _guess(fields.get("operators"))
    manager = versions.orchestrator(fields.get("orchestrator"), rules)
    secrets = fields["pull-secrets"].items("pull-secrets") if "pull-secrets" in fields else []
    names = [secret.text("a secret's name") for secret in secrets]
    at = required(root, fields, "operators", "a pipeline")
    items = at.items("operators") if at is not None else []
    if at is not None and at.empty_list:
        at.error("missing", "a pipeline without operators", "at least one operator")
    imports = Imports(files, rules)
    drafts = [one for one in (draft(item, imports) for item in items) if one is not None]
    operators = join(drafts, findings)
    if version is None or not name or len(operators) != len(items) or None in names:
        return None, declared
    known = {key: value for key, value in values.items() if value is not None}
    secret_names = tuple(one for one in names if one is not None)
    shown_version = versions.show(version)
    return (
        Pipeline(name, shown_version, manager, operators, declared, known, secret_names, description or ""),
        declared,
    )


def _guess(operators: Cursor | None) -> versions.Version:
    """Return the version to check by where none is stated that can be read: whether there are types decides."""
    for operator in operators.parts() if operators is not None else []:
        for name in ("input", "output"):
            ports = operator.under(name)
            for port in ports.parts() if ports is not None else []:
                if port.under("type") is not None or port.under("element-type") is not None:
                    return versions.NEWEST
    return versions.CLARA


def _refuse_undeclared(at: Cursor, declared: tuple[Parameter, ...], arguments: Mapping[str, str]) -> None:
    """Source: page *template*: an argument that is no declared parameter is illegal."""
    names = [one.name for one in declared]
    for name in arguments:
        if name not in names:
            near = difflib.get_close_matches(name.upper(), names, n=1)
            listed = ", ".join(names) if names else "none"
            at.reading.findings.add(at.key_place, "undeclared", f"no parameter {shown(name)} is declared",
                                    f"did you mean {near[0]}?" if near else f"declared: {listed}")  # fmt: skip
