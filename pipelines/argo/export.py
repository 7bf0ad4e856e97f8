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

from nuclei_segmentation.pipelines.argo.exportoptions import Export
from nuclei_segmentation.pipelines.argo.keep import keep
from nuclei_segmentation.pipelines.argo.workflow import remarks, workflow
from nuclei_segmentation.pipelines.language.check import ERRORS, USAGE
from nuclei_segmentation.pipelines.language.findings import DefinitionError, harmless
from nuclei_segmentation.pipelines.language.reader import Definition
from nuclei_segmentation.pipelines.runner.plan import served
from nuclei_segmentation.shared.errors import NucleiError, OutputError
from nuclei_segmentation.shared.runtime.disk import writing
from nuclei_segmentation.shared.runtime.files import write_file

_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9 ./:=_-]{2,}")
"""Texts that every reader of YAML takes for text without quotes, if they are no words of its own."""


def export(asked: Export) -> int:
    """Write the workflow, say on the standard error what the user should know, and return the exit code."""
    definition = Definition(asked.file, asked.lenient)
    try:
        kept = keep(definition, asked.values)
        if asked.triton_image:
            kept = replace(kept, pipeline=served(kept.pipeline, asked.triton_image))
        text = f"{_head(kept.pipeline.name, asked.file)}{dumped(workflow(kept, asked.cluster))}"
        if asked.output is None:
            sys.stdout.write(text)
        else:
            _write(asked.output, text)
    except DefinitionError as error:
        for finding in error.findings:
            _say(str(finding))
        return USAGE if definition.check().unreadable else ERRORS
    except NucleiError as error:
        _say(str(error))
        return error.exit_code
    for line in dict.fromkeys(remarks(kept.pipeline, asked.cluster)):  # operators may have a service in common
        _say(line)
    return 0


def dumped(document: Any) -> str:  # noqa: ANN401 - anything that YAML has
    """Return a document as YAML that other readers than ours understand in the same way."""
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=4096)


class _Dumper(yaml.SafeDumper):
    """Writes YAML without aliases, and with quotes around whatever might be taken for a number."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ANN401 - of any type
        return True

    def text(self, data: str) -> yaml.ScalarNode:
        """Return a text."""
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
            raise OutputError(f"{path} is no regular file; -o names one, or is left away for the standard output")
    path = Path(os.path.realpath(path))
    write_file(path, text.encode(), path.with_name(f".{uuid.uuid4().hex}.part"))


def _say(text: str) -> None:
    print(harmless(text), file=sys.stderr, flush=True)  # noqa: T201 - what the user should know
