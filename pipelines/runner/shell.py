"""Commands as text for bash."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence


def quoted(words: Sequence[str]) -> str:
    """Return a command as one printable line that bash reads as these words."""
    return " ".join(shlex.quote(word) if word.isprintable() else _escaped(word) for word in words)


def _escaped(word: str) -> str:
    """Return a word as ``$'...'``. It is escaped byte by byte: other escapes would depend on the locale."""
    return "$'{}'".format("".join(
        f"\\x{byte:02x}" if not 32 <= byte < 127 or byte in b"'\\" else chr(byte) for byte in os.fsencode(word)
    ))  # fmt: skip
