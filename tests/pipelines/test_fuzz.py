"""Any change of a definition gives findings with places inside the file, or a pipeline; never a traceback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from nuclei_segmentation.pipelines import Definition
from nuclei_segmentation.pipelines.language.check import described

DEFINITIONS = sorted((Path(__file__).parents[2] / "pipelines").glob("*.yaml"))
TEXTS = [path.read_text() for path in DEFINITIONS]

PIECES = st.sampled_from([
    "", " ", "\n", "\t", ":", ": ", "- ", "[", "]", "{", "}", ",", "#", "&a ", "*a", "!!str ", "!", "|\n", ">-\n", "'",
    '"', "\\", "%", "---\n", "...\n", "? ", "<<: ", "~", "null", "${{", "}}", "${{A}}", "${{ WORKERS }}", "0", "-1",
    "1e9", "yes", "/", "..", "\0", "\x85", "\u2028", "\ufeff", "\ud800", "ä", "𝄞", "from: load\n", "name: load\n",
    "import: {path: p.yaml}\n", "api-version: 0.5.0\n", "api-version: 0.4.0\n", "type: array\n", "x" * 300, "\r",
    "\r\n", "@", "`",
])  # fmt: skip
WORDS = st.sampled_from([
    "load", "filter", "stream", "array", "uint8", "/input", "${{WORKERS}}", "${{X}}", "0.4.0", "0.7.0", "p.yaml", "a/b",
])  # fmt: skip
LEAVES = st.none() | st.booleans() | st.integers(-2, 70000) | st.floats() | st.text(max_size=8) | WORDS
KEYS = st.sampled_from([
    "api-version", "name", "description", "orchestrator", "parameters", "pull-secrets", "operators", "container",
    "requests", "input", "output", "variables", "models", "services", "import", "path", "args", "from", "type",
    "element-type", "shape", "image", "tag", "command", "cpu", "gpu", "memory", "connections", "http", "volume", "port",
]) | st.text(max_size=3)  # fmt: skip
ANYTHING = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5),
                        max_leaves=25)  # fmt: skip


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "p.yaml"


def check_sanely(file: Path, content: bytes) -> None:
    """Check a definition and assert what holds for any report."""
    file.write_bytes(content)
    for lenient in (False, True):
        report = Definition(file, lenient).check()
        lines = content.decode("utf-8-sig", "replace").replace("\r\n", "\n").replace("\r", "\n").split("\n")
        for finding in report.findings:
            assert finding.place.file == str(file)
            assert 1 <= finding.place.line <= len(lines), finding
            assert 1 <= finding.place.column <= len(lines[finding.place.line - 1]) + 1, finding
            assert str(finding).isprintable()
            assert finding.place.path
            assert finding.message
            assert finding.expected
        described(report)
        if report.pipeline is None:
            assert report.errors or any(parameter.default is None for parameter in report.parameters)
        else:
            earlier: set[str] = set()
            for operator in report.pipeline.operators:
                assert set(operator.upstream) <= earlier
                earlier.add(operator.name)


@given(data=st.data())
def test_edited_text_end_in_findings_or_a_pipeline(file: Path, data: st.DataObject) -> None:
    text = data.draw(st.sampled_from(TEXTS))
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        end = min(len(text), start + data.draw(st.sampled_from([0, 0, 1, 2, 5, 30, 200])))
        text = text[:start] + data.draw(PIECES) + text[end:]
    check_sanely(file, text.encode("utf-8", "surrogatepass"))


@given(data=st.data())
def test_moved_and_indented_lines_end_in_findings_or_a_pipeline(file: Path, data: st.DataObject) -> None:
    lines = data.draw(st.sampled_from(TEXTS)).split("\n")
    for _ in range(data.draw(st.integers(1, 5))):
        first, second = (data.draw(st.integers(0, len(lines) - 1)) for _ in range(2))
        change = data.draw(st.sampled_from(["swap", "drop", "copy", "indent", "outdent"]))
        if change == "swap":
            lines[first], lines[second] = lines[second], lines[first]
        elif change == "drop" and len(lines) > 1:
            del lines[first]
        elif change == "copy":
            lines.insert(second, lines[first])
        else:
            lines[first] = f"  {lines[first]}" if change == "indent" else lines[first].removeprefix("  ")
    check_sanely(file, "\n".join(lines).encode())


def _places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        found += _places(value, (*path, key))
    return found


@given(data=st.data())
def test_replaced_values_end_in_findings_or_a_pipeline(file: Path, data: st.DataObject) -> None:
    document = yaml.safe_load(data.draw(st.sampled_from(TEXTS)))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.sampled_from(_places(document)))
        parent = document
        for key in place[:-1]:
            parent = parent[key]
        change = data.draw(st.sampled_from(["replace", "remove", "add"]))
        if change == "replace":
            parent[place[-1]] = data.draw(ANYTHING)
        elif change == "remove" and len(parent) > 1:
            del parent[place[-1]]
        elif isinstance(parent, dict):
            parent[data.draw(KEYS)] = data.draw(ANYTHING)
        else:
            parent.append(data.draw(ANYTHING))
        if not _places(document):
            break
    check_sanely(
        file, yaml.safe_dump(document, allow_unicode=data.draw(st.booleans())).encode("utf-8", "surrogatepass")
    )


@given(document=ANYTHING)
def test_arbitrary_documents_end_in_findings_or_a_pipeline(file: Path, document: object) -> None:
    check_sanely(file, yaml.safe_dump(document).encode("utf-8", "surrogatepass"))


@given(content=st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_arbitrary_bytes_end_in_findings_or_a_pipeline(file: Path, content: bytes) -> None:
    check_sanely(file, content)
