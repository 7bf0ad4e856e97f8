"""JSON and texts from outside: deep nesting is a broken file, and nothing moves the cursor of a terminal."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import pytest

from nuclei_segmentation.pipelines.runner import job_state
from nuclei_segmentation.shared.clara.config_meta import read_config_meta
from nuclei_segmentation.shared.errors import StoreError
from nuclei_segmentation.shared.result import read_document
from nuclei_segmentation.shared.runtime.lock import FolderLock
from nuclei_segmentation.shared.runtime.outside import DEEPEST, HarmlessFormatter, harmless, parse_json
from nuclei_segmentation.shared.runtime.summary import print_summary
from nuclei_segmentation.shared.store.manifest import Manifest

ROOT = Path(__file__).parents[2]
DEEP = [
    pytest.param("[" * 100_000, id="lists that do not end"),
    pytest.param("[" * 900 + "]" * 900, id="lists that the parser takes"),
    pytest.param('{"a":' * 100_000, id="dictionaries that do not end"),
    pytest.param('{"key": ' * 300 + "1" + "}" * 300, id="dictionaries that the parser takes"),
]


@pytest.mark.parametrize("text", DEEP)
def test_what_is_nested_too_deeply_is_no_json(text: str) -> None:
    with pytest.raises(ValueError, match=r"nested too deeply|Expecting"):
        parse_json(text)


def test_what_is_not_nested_deeply_is_as_it_was() -> None:
    content = {"a": [1, {"b": [None, "x"]}], "c": 1.5}
    assert parse_json(json.dumps(content)) == content
    nested = "[" * DEEPEST + "]" * DEEPEST
    assert parse_json(nested) == json.loads(nested)


@pytest.mark.parametrize("text", DEEP)
def test_files_that_are_nested_too_deeply_are_broken_files(tmp_path: Path, text: str) -> None:
    for name in ("summary.json", "config.meta", "state.json"):
        (tmp_path / name).write_text(text)
    assert read_document(tmp_path) is None
    assert read_config_meta(tmp_path / "config.meta") == {}
    assert job_state.load(tmp_path) is None
    with pytest.raises(StoreError, match="is not JSON"):
        Manifest.from_json(text.encode(), tmp_path / "manifest.json")
    (tmp_path / ".run").mkdir()
    (tmp_path / ".run" / "lock").write_text(text)
    FolderLock(tmp_path / ".run", tmp_path).close()


def test_nothing_else_parses_json() -> None:
    """So that whatever comes from outside goes through `parse_json`."""
    found = [
        path.relative_to(ROOT)
        for folder in ("operators", "shared", "pipelines", "package")
        for path in (ROOT / folder).rglob("*.py")
        if re.search(r"\bjson\.loads?\(", path.read_text())
    ]
    assert found == [Path("shared/runtime/outside.py")]


HOSTILE = [
    ("slide\x1b[2J\x1b]0;owned\x07.svs", r"slide\x1b[2J\x1b]0;owned\x07.svs"),
    ("a\n2026-01-01 00:00:00,000 INFO forged", r"a\n2026-01-01 00:00:00,000 INFO forged"),
    ("a\rb\tc\x9bd", r"a\rb\tc\x9bd"),
    ("gpj\u202egnp.exe", r"gpj\u202egnp.exe"),
    ("\udcff", r"\udcff"),
    ("0.25 µm × 40, Gewebe 組織", "0.25 µm × 40, Gewebe 組織"),
]


@pytest.mark.parametrize(("text", "shown"), HOSTILE)
def test_a_log_line_is_one_line_without_escapes(text: str, shown: str) -> None:
    record = logging.LogRecord("nuclei_segmentation", logging.ERROR, __file__, 1, "cannot read %s", (text,), None)
    assert HarmlessFormatter("%(levelname)s %(message)s").format(record) == f"ERROR cannot read {shown}"


def test_a_traceback_keeps_its_lines() -> None:
    try:
        raise ValueError("\x1b[31mred\nnext")
    except ValueError as error:
        record = logging.LogRecord(
            "x", logging.ERROR, __file__, 1, "failed", (), (ValueError, error, error.__traceback__)
        )
    lines = HarmlessFormatter("%(message)s").format(record).split("\n")
    assert lines[:2] == ["failed", "Traceback (most recent call last):"]
    assert lines[-2:] == [r"ValueError: \x1b[31mred", "next"]
    assert all(harmless(line) == line for line in lines)


def test_the_summary_shows_names_harmlessly(capsys: pytest.CaptureFixture[str]) -> None:
    print_summary(["slide       a\x1b[2J\nb.svs"])
    assert capsys.readouterr().out == "\nslide       a\\x1b[2J\\nb.svs\n"
