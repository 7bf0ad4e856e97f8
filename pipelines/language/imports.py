"""Operators and services that are kept in files of their own.

Source: published client tests and the page *service*: ``import`` has ``path`` and ``args``, the name given where it
is imported wins. Ours, since the page *import* is not public: paths are relative to the importing file and stay in
the definition's folder; they have no placeholders; arguments must be declared under the imported file's
``parameters``; everything that stands beside ``import`` replaces what the file has under that name.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from nuclei_segmentation.pipelines.language import versions
from nuclei_segmentation.pipelines.language.cursor import Cursor, required
from nuclei_segmentation.pipelines.language.files import Files
from nuclei_segmentation.pipelines.language.findings import shown
from nuclei_segmentation.pipelines.language.model import Import, Parameter
from nuclei_segmentation.pipelines.language.names import bad_name
from nuclei_segmentation.pipelines.language.templates import Scope, has_placeholder

MOST_IMPORTS = 256
"""Most imports of one definition, each time counted that one is followed."""

_OF_DOCUMENT = ("api-version", "parameters", "import")


@dataclass(slots=True)
class Imports:
    """Follows the imports of one definition.

    Attributes
    ----------
    files : Files
        Reads them.
    version : versions.Version
        Of the definition.
    """

    files: Files
    version: versions.Version
    _followed: int = field(default=0)

    def flatten(
        self, here: Cursor, what: str, known: tuple[str, ...], chain: tuple[str, ...] = ()
    ) -> tuple[Cursor, dict[str, Cursor], Import | None] | None:
        """Return the fields of an operator or service, with those of the file that it is imported from.

        Parameters
        ----------
        here : Cursor
            What may have an ``import``.
        what : str
            It is, for messages: ``an operator``.
        known : tuple of str
            Fields that it may have.
        chain : tuple of str, optional
            Keys of the files that led here.

        Returns
        -------
        tuple or None
            Where complaints about the whole belong, the fields, and where they were taken from; None if nothing can
            be said.
        """
        fields = here.fields(what, known)
        if fields is None:
            return None
        if "parameters" in fields and not chain:  # those of an imported document are in its scope already
            given = parameters(fields["parameters"])
            scope = here.scope.within({one.name: one.default for one in given})
            fields = {name: value.within(scope) for name, value in fields.items()}
        if "import" not in fields:
            return here, fields, None
        found = self._follow(fields["import"], what, known, chain or (self.files.root_key,))
        if found is None:
            return None
        there, inner, taken = found
        return there, {**inner, **{name: value for name, value in fields.items() if name not in _OF_DOCUMENT}}, taken

    def _follow(
        self, here: Cursor, what: str, known: tuple[str, ...], chain: tuple[str, ...]
    ) -> tuple[Cursor, dict[str, Cursor], Import] | None:
        fields = here.fields("an import", ("path", "args"))
        at = required(here, fields, "path", "an import") if fields is not None else None
        path = at.text("the path of a file") if at is not None else None
        if fields is None or at is None or path is None:
            return None
        if has_placeholder(getattr(at.node, "text", "")):
            at.error("import", "the path of an import has no placeholders", "write the path out")
            return None
        self._followed += 1
        if self._followed > MOST_IMPORTS:
            at.error("import", f"more than {MOST_IMPORTS} imports", "a definition has a handful")
            return None
        found = self.files.imported(at.document.name, path, at.place)
        if found is None:
            return None
        key, document = found
        if key in chain:
            at.error("import-cycle", f"{shown(path)} imports itself, by way of others or directly", "remove one import")
            return None
        if document is None or document.root is None:
            return None
        root = Cursor(document.root, document, "", here.scope, here.reading)
        arguments = self._arguments(fields.get("args"))
        inside = self._scope(root, here, fields.get("args"), arguments)
        flat = self.flatten(replace(root, scope=inside), what, known, (*chain, key))
        if flat is None:
            return None
        there, inner, _ = flat
        self._version(root)
        return there, inner, Import(document.name, arguments)

    def _arguments(self, here: Cursor | None) -> dict[str, str | None]:
        pairs = here.pairs("arguments") if here is not None else []
        return {name: value.text("an argument's value") for name, value in pairs}

    def _scope(self, root: Cursor, importer: Cursor, args: Cursor | None, arguments: Mapping[str, str | None]) -> Scope:
        """Return what the imported document sees: its own parameters, with the values that were given."""
        at = root.under("parameters")
        declared = {one.name: one.default for one in parameters(at)} if at is not None and not at.null else {}
        for name, value in args.pairs("arguments") if args is not None else []:
            if name not in declared:
                near = difflib.get_close_matches(name, list(declared)[:200], n=1)
                listed = ", ".join(list(declared)[:8]) or "none"
                value.reading.findings.add(
                    value.key_place,
                    "undeclared",
                    f"the imported file declares no parameter {shown(name)}",
                    f"did you mean {near[0]}?" if near else f"it declares: {listed}",
                )
        for name, default in declared.items():
            if default is None and name not in arguments:
                importer.error(
                    "no-value", f"the imported file wants {shown(name)}", f"add it under `args`: {name}: ..."
                )
        return Scope({**declared, **{name: arguments[name] for name in arguments if name in declared}}, None,
                     importer.scope.budget)  # fmt: skip

    def _version(self, root: Cursor) -> None:
        at = root.under("api-version")
        if at is None or at.null:
            if at is None or not at.broken:
                root.error("missing", "an imported document must have `api-version`", "add `api-version: ...` here")
            return
        version = versions.api_version(at)
        if version is not None and (version >= versions.TYPED) != (self.version >= versions.TYPED):
            kinds = ("untyped", "typed")
            mine, other = kinds[version >= versions.TYPED], kinds[self.version >= versions.TYPED]
            at.error("api-version", f"{mine} ({versions.show(version)}), but its importer is {other}",
                     f"the version of the importer, {versions.show(self.version)}")  # fmt: skip


def parameters(here: Cursor) -> tuple[Parameter, ...]:
    """Return the declared parameters.

    Source: page *template*: names with default values. Numbers are taken as they are written, as NVIDIA's own pathology
    pipeline has them. Ours: without a default, a value must be given.
    """
    found: list[Parameter] = []
    for name, value in here.pairs("parameters"):
        if wrong := bad_name(name):
            value.reading.findings.add(value.key_place, "bad-name", f"{shown(name)} is no parameter's name", wrong)
        if has_placeholder(getattr(value.node, "text", "")):
            value.error("placeholder", "a default with a placeholder", "a plain value: defaults refer to nothing")
            found.append(Parameter(name, None))
        else:
            found.append(Parameter(name, None if value.null else value.text("a parameter's default")))
    return tuple(found)
