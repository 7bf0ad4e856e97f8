"""What a user sees of a run: on a terminal, and in a log."""

from __future__ import annotations

import io
import os
import pty
import termios
from contextlib import suppress
from pathlib import Path

import pytest

from nuclei_segmentation.pipelines.runner import view
from nuclei_segmentation.pipelines.runner.view import View, last_line


@pytest.mark.parametrize(
    ("text", "last"),
    [
        (b"", ""),
        (b"one\ntwo\n\n", "two"),
        (b"10%\r20%\r30%", "30%"),
        (b"x" * 10_000 + b"\nend", "end"),
        (b"\x1b[31mred\n", "\\x1b[31mred"),
        (b"2026-01-02 03:04:05,678 INFO  55%  47 of 85 tiles done\n", "55%  47 of 85 tiles done"),
        (b"2026-01-02 03:04:05,678 WARNING no tissue\n", "2026-01-02 03:04:05,678 WARNING no tissue"),
        (b"\xff\n", "\N{REPLACEMENT CHARACTER}"),
    ],
)
def test_the_last_line(text: bytes, last: str, tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(text)
    assert last_line(tmp_path / "log") == last
    assert not last_line(tmp_path / "none")


def test_in_a_log_a_line_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view, "LINE_SECONDS", 0.0)
    shown = io.StringIO()
    made = View(["load", "filter"], shown)
    log = tmp_path / "log"
    made.started("load", log)
    made.tick()
    log.write_text("1%\n2%\n")
    made.tick()
    made.tick()
    made.show("load: done")
    made.ended("load", "done")
    log.write_text("3%\n")
    made.tick()
    made.close()
    assert shown.getvalue() == "load: 2%\nload: done\n"


def test_on_a_terminal_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view, "DRAW_SECONDS", 0.0)
    monkeypatch.setenv("COLUMNS", "40")
    log = tmp_path / "log"
    log.write_text("50 of 100 tiles " + "x" * 80)
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as stream:
        made = View(["load", "filter"], stream)
        made.started("load", log)
        made.show("load: starts")
        made.tick()
        made.ended("load", "exit code 0")
        made.tick()
        made.close()
        made.show("done")
    rows = screen(ours)
    assert rows == ["load: starts", "done"], "the table is gone in the end"


def test_what_the_table_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    log = tmp_path / "log"
    log.write_text("50 of 100 tiles " + "x" * 80)
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as stream:
        made = View(["load", "filter", "stitch"], stream)
        made.ended("load", "exit code 0")
        made.started("filter", log)
        made.show("filter: starts")
    rows = screen(ours)
    assert rows[0] == "filter: starts"
    assert rows[1].split() == ["load", "exit", "code", "0"]
    assert rows[2].split()[:7] == ["filter", "0.0", "s", "50", "of", "100", "tiles"]
    assert len(rows[2]) == 39, "a row must not break"
    assert rows[3].split() == ["stitch", "waits"]


def screen(terminal: int) -> list[str]:
    """Return what a terminal shows after all that was written to it, as far as the table needs one."""
    data = b""
    with os.fdopen(terminal, "rb", buffering=0) as reader, suppress(OSError):  # which is how it says that nobody writes
        while more := reader.read(65536):
            data += more
    text = data.decode()
    rows = [""]
    while text:
        if text.startswith("\x1b["):
            number, _, text = text[2:].partition("F\x1b[J")
            del rows[len(rows) - 1 - int(number) :]
            rows.append("")
        elif text.startswith("\r\n"):
            rows.append("")
            text = text[2:]
        else:
            rows[-1] += text[0]
            text = text[1:]
    return rows[:-1] if not rows[-1] else rows


def test_a_terminal_that_is_gone() -> None:
    ours, theirs = pty.openpty()
    stream = os.fdopen(theirs, "w")
    made = View(["load"], stream)
    made.show("load: starts")
    os.close(ours)
    made.show("load: exit code 0")
    made.close()
    with suppress(OSError):  # what it has not got rid of
        stream.close()


def test_the_size_is_that_of_the_terminal_with_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(ours, (10, 20))
    with os.fdopen(theirs, "w") as stream:
        made = View(["a-long-name-of-an-operator"], stream)
        made.show("starts")
    assert len(screen(ours)[1]) == 19
