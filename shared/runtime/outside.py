"""What comes from outside, and must do no harm: JSON of other programs, and texts that are shown on a terminal."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from typing import Any

DEEPEST = 50
"""Levels of lists and dictionaries; what this program reads has five. Writing or showing a value recurses, too."""
_TOO_DEEP = "it is nested too deeply"


def parse_json(content: str | bytes) -> Any:  # noqa: ANN401 - JSON is anything
    """Return what JSON from outside says.

    Parameters
    ----------
    content : str or bytes
        The text.

    Returns
    -------
    object
        Dictionaries, lists, texts, numbers.

    Raises
    ------
    ValueError
        It is not JSON, or is nested more deeply than anything that this program reads.
    """
    try:
        found = json.loads(content)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    level, depth = [found], 0
    while level := [item for value in level if isinstance(value, dict | list) for item in _items(value)]:
        depth += 1
        if depth > DEEPEST:
            raise ValueError(_TOO_DEEP)
    return found


def _items(value: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


def harmless(text: str) -> str:
    """Return a text on one line, with characters that control a terminal written as escapes."""
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text
    )


class HarmlessFormatter(logging.Formatter):
    """Formats log records, one line each, and a traceback after it if there is one.

    Names of slides and hosts, and what servers answer, may hold line breaks, which would forge lines of the log, and
    sequences that make a terminal do things. Here they are written as escapes, whoever logs them.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Return the line of a record."""
        record.message = harmless(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: ANN401, N802 - as logging has it
        """Return the traceback."""
        return "\n".join(map(harmless, super().formatException(ei).split("\n")))
