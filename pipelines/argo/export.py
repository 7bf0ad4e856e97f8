"""The command ``argo``: writes a definition as a Workflow of Argo."""

from __future__ import annotations

import os
import re
import sys
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from nuclei_segmentation.pipelines.argo.export_options import ExportOptions
from nuclei_segmentation.pipelines.argo.exported_parameters import export_parameters
from nuclei_segmentation.pipelines.argo.workflow import remarks, workflow
from nuclei_segmentation.pipelines.language.check import ERRORS, USAGE
from nuclei_segmentation.pipelines.language.findings import DefinitionError
from nuclei_segmentation.pipelines.language.reader import Definition
from nuclei_segmentation.pipelines.messages import show, show_error
from nuclei_segmentation.pipelines.triton_service import with_triton_service
from nuclei_segmentation.shared.errors import NucleiError, OutputError
from nuclei_segmentation.shared.runtime.disk import writing
from nuclei_segmentation.shared.runtime.files import write_file
from nuclei_segmentation.shared.runtime.outside import harmless

_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9 ./:=_-]{2,}")
"""Strings that every YAML reader reads as strings without quotes, unless they are words of YAML itself."""


def export(options: ExportOptions) -> int:
    """Write the workflow, print on the standard error what the user should know, and return the exit code."""
    definition = Definition(options.file, options.lenient)
    try:
        exported = export_parameters(definition, options.values)
        if options.triton_image:
            exported = replace(exported, pipeline=with_triton_service(exported.pipeline, options.triton_image))
        text = f"{_head(exported.pipeline.name, options.file)}{dumped(workflow(exported, options.cluster))}"
        if options.output is None:
            sys.stdout.write(text)
        else:
            _write(options.output, text)
    except NucleiError as error:
        show_error(error)
        if isinstance(error, DefinitionError):
            return USAGE if definition.check().unreadable else ERRORS
        return error.exit_code
    for line in dict.fromkeys(remarks(exported.pipeline, options.cluster)):  # operators may share a service
        show(line)
    return 0


def dumped(document: Any) -> str:  # noqa: ANN401 - anything that YAML can represent
    """Return a document as YAML that readers of other makes understand in the same way."""
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=4096)


class _Dumper(yaml.SafeDumper):
    """Writes YAML without aliases, and with quotes around everything that might be read as a number."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ANN401 - of any type
        return True

    def text(self, data: str) -> yaml.ScalarNode:
        """Return the node for a string."""
        style = None if _PLAIN.fullmatch(data) else '"'
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Dumper.add_representer(str, _Dumper.text)


def _head(name: str, file: Path) -> str:
    return (
        f"# {name} as a Workflow of Argo 4, made of {harmless(file.name)} by `python -m pipelines argo`.\n"
        "#   argo submit FILE -p payload=FOLDER     FOLDER of the payload's volume; or: kubectl create -f FILE\n"
        "# The result is in the work volume, in WORKFLOW/result. docs/pipelines.md says more.\n"
    )


def _write(path: Path, text: str) -> None:
    """Write a file, whole or not at all."""
    with writing(path):
        if path.exists() and not path.is_file():
            raise OutputError(f"{path} is not a regular file; name one with -o, or omit -o for the standard output")
    path = Path(os.path.realpath(path))
    write_file(path, text.encode(), Path(os.path.realpath(path.parent), f".{uuid.uuid4().hex}.part"))
