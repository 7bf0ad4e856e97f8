"""Operators and services that are kept in files of their own.

Source: published client tests and the page *service*: ``import`` has ``path`` and ``args``; the name given where it
is imported wins. Ours, since the page *import* is not public: paths are relative to the importing file, stay in the
definition's folder and have no placeholders; arguments must be declared under the imported file's ``parameters``;
every key next to ``import`` replaces that key of the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from nuclei_segmentation.pipelines.language.cursor import Cursor, required
from nuclei_segmentation.pipelines.language.files import Files
from nuclei_segmentation.pipelines.language.findings import shown
from nuclei_segmentation.pipelines.language.model import Import, Parameter
from nuclei_segmentation.pipelines.language.names import bad_name
from nuclei_segmentation.pipelines.language.suggestions import listed, suggest
from nuclei_segmentation.pipelines.language.templates import Scope
from nuclei_segmentation.pipelines.language.versions import TYPED, Version, read_version, version_text

MAX_IMPORTS = 256
"""Imports of one definition. A file that is imported several times counts as often."""

_NOT_REPLACED = ("api-version", "parameters", "import")
"""Keys of the imported file that keys next to ``import`` do not replace."""


@dataclass(frozen=True, slots=True)
class Flattened:
    """An operator or service, with the values from the file that it is imported from.

    Attributes
    ----------
    source : Cursor
        The mapping that must have the keys: in the imported file, if there is one.
    fields : dict of str to Cursor
        The values by key, without null values.
    imported : Import or None
        The file that it was imported from.
    """

    source: Cursor
    fields: dict[str, Cursor]
    imported: Import | None


@dataclass(slots=True)
class Imports:
    """Follows the imports of one definition.

    Attributes
    ----------
    files : Files
        Reads the files.
    version : (int, int, int)
        The version of the definition.
    """

    files: Files
    version: Version
    _followed: int = field(default=0)

    def flatten(
        self, cursor: Cursor, what: str, known: tuple[str, ...], chain: tuple[str, ...] = ()
    ) -> Flattened | None:
        """Return the values of an operator or service, with those of the file that it is imported from.

        Parameters
        ----------
        cursor : Cursor
            The operator or service, which may have an ``import``.
        what : str
            Its name for messages: ``an operator``.
        known : tuple of str
            Keys that it may have.
        chain : tuple of str, optional
            Keys, as of `Files.imported`, of the files whose imports led here.

        Returns
        -------
        Flattened or None
            None if it is not a mapping, or the import cannot be followed.
        """
        fields = cursor.fields(what, known)
        if fields is None:
            return None
        if "parameters" in fields and not chain:  # those of an imported file are in its scope already
            declared = read_parameters(fields["parameters"])
            scope = cursor.scope.within({parameter.name: parameter.default for parameter in declared})
            fields = {key: value.with_scope(scope) for key, value in fields.items()}
        if "import" not in fields:
            return Flattened(cursor, fields, None)
        inner = self._follow(fields["import"], what, known, chain or (self.files.root_key,))
        if inner is None:
            return None
        replaced = {key: value for key, value in fields.items() if key not in _NOT_REPLACED}
        return Flattened(inner.source, {**inner.fields, **replaced}, inner.imported)

    def _follow(self, cursor: Cursor, what: str, known: tuple[str, ...], chain: tuple[str, ...]) -> Flattened | None:
        fields = cursor.fields("an import", ("path", "args"))
        field = required(cursor, fields, "path", "an import") if fields is not None else None
        path = field.text("the path of a file") if field is not None else None
        if fields is None or field is None or path is None:
            return None
        if field.has_placeholder:
            field.error("import", "the path of an import cannot have placeholders", "write the path out")
            return None
        self._followed += 1
        if self._followed > MAX_IMPORTS:
            field.error("import", f"the definition has more than {MAX_IMPORTS} imports", "remove some")
            return None
        found = self.files.imported(field.document.name, path, field.place)
        if found is None:
            return None
        key, document = found
        if key in chain:
            field.error("import-cycle", f"{shown(path)} imports itself, directly or through other files",
                        "remove one of the imports")  # fmt: skip
            return None
        if document is None or document.root is None:
            return None
        args = fields.get("args")
        arguments = _arguments(args)
        root = Cursor(document.root, document, "", cursor.scope, cursor.context)
        root = root.with_scope(_scope(root, cursor, args, arguments))
        inner = self.flatten(root, what, known, (*chain, key))
        if inner is None:
            return None
        self._check_version(root)
        return Flattened(inner.source, inner.fields, Import(document.name, arguments))

    def _check_version(self, root: Cursor) -> None:
        field = root.peek("api-version")
        if field is None or field.null:
            if field is None or not field.broken:
                root.error("missing", "an imported file must have `api-version`", "add `api-version: ...` here")
            return
        version = read_version(field)
        if version is not None and (version >= TYPED) != (self.version >= TYPED):
            kinds = ("untyped", "typed")
            field.error("api-version", f"this file is {kinds[version >= TYPED]} (api-version {version_text(version)}), "
                        f"but the pipeline is {kinds[self.version >= TYPED]}",
                        f"use the pipeline's api-version, {version_text(self.version)}")  # fmt: skip


def _arguments(cursor: Cursor | None) -> dict[str, str | None]:
    pairs = cursor.pairs("arguments") if cursor is not None else []
    return {name: value.text("the value of an argument") for name, value in pairs}


def _scope(root: Cursor, importing: Cursor, args: Cursor | None, arguments: Mapping[str, str | None]) -> Scope:
    """Return what the imported file sees: its own parameters, with the values of the arguments."""
    field = root.peek("parameters")
    declared: dict[str, str | None] = {}
    if field is not None and not field.null:
        declared = {parameter.name: parameter.default for parameter in read_parameters(field)}
    for name, value in args.pairs("arguments") if args is not None else []:
        if name not in declared:
            otherwise = f"it declares {listed(list(declared))}" if declared else "remove it: the file declares none"
            value.key_finding("undeclared", f"the imported file declares no parameter {shown(name)}",
                              suggest(name, declared, otherwise))  # fmt: skip
    for name, default in declared.items():
        if default is None and name not in arguments:
            importing.error("no-value", f"the imported file needs a value for its parameter {shown(name)}",
                            f"add `{name}: ...` under `args`")  # fmt: skip
    given = {name: arguments[name] for name in arguments if name in declared}
    return Scope({**declared, **given}, None, importing.scope.budget)


def read_parameters(cursor: Cursor) -> tuple[Parameter, ...]:
    """Return the declared parameters.

    Source: page *template*: names with default values. Numbers keep the form in which they are written, as in NVIDIA's
    own pathology pipeline. Ours: without a default, a value must be given.
    """
    found: list[Parameter] = []
    for name, value in cursor.pairs("parameters"):
        if expected := bad_name(name):
            value.key_finding("bad-name", f"{shown(name)} is not valid as a parameter name", expected)
        if value.has_placeholder:
            value.error("placeholder", "a default cannot have placeholders", "write a plain value")
            found.append(Parameter(name, None))
        else:
            found.append(Parameter(name, None if value.null else value.text("the default of a parameter")))
    return tuple(found)
