"""Stands in for NVIDIA's compiler `clarac`, which cannot be had: clarac -p FILE -o RESULT --resolve-imports.

It does what the sizing tool needs of it: parameters' defaults are put in place, and a tag that is left out is named. It
shares nothing with `pipelines`, so that the two can be compared.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import yaml


def filled(part: object, values: dict[str, str]) -> object:
    """Return a part of a document with the values of its placeholders."""
    if isinstance(part, dict):
        return {name: filled(one, values) for name, one in part.items()}
    if isinstance(part, list):
        return [filled(one, values) for one in part]
    return re.sub(r"\$\{\{\s*(\w+)\s*\}\}", lambda found: values[found[1]], str(part))


parser = argparse.ArgumentParser()
parser.add_argument("-p", type=Path, required=True, dest="source")
parser.add_argument("-o", type=Path, required=True, dest="result")
parser.add_argument("--resolve-imports", action="store_true")
given = parser.parse_args()

document = yaml.load(given.source.read_text(), yaml.BaseLoader)  # each value the text that it is
document = filled(document, document.get("parameters", {}))
for operator in document["operators"]:
    for one in (operator, *operator.get("services", [])):
        one["container"].setdefault("tag", "latest")
given.result.write_text(yaml.safe_dump(document))
