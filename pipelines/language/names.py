"""Names, paths, images: what a single text must look like."""

from __future__ import annotations

import re

NAME = re.compile(r"[A-Za-z0-9_-]{1,255}")
VARIABLE = re.compile(r"[A-Za-z_.-][A-Za-z0-9_.-]*")
CONNECTION = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_PART = r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*"
_LABELS = r"[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)"
_HOST = rf"(?:(?:{_LABELS}+|localhost)(?::[0-9]{{1,5}})?|{_LABELS}*:[0-9]{{1,5}})"
IMAGE = re.compile(rf"(?:{_HOST}/)?{_PART}(?:/{_PART})*")


def bad_name(text: str) -> str:
    """Return what is wrong with the name of an operator, output, service, model or parameter; '' if nothing.

    Source: reference page *names*: 1 to 255 of letters, digits, ``-``, ``_``; case does not matter.
    """
    return "" if NAME.fullmatch(text) else "1 to 255 letters, digits, '-' and '_'"


def no_text(text: str) -> str:
    """Return that a text is missing, where it is; '' if there is one."""
    return "" if text.strip() else "a word"


def bad_variable(text: str) -> str:
    """Return what is wrong with the name of an environment variable; '' if nothing. What Kubernetes takes."""
    return "" if VARIABLE.fullmatch(text) else "letters, digits, '_', '-' and '.', no digit first"


def bad_connection(text: str) -> str:
    """Return what is wrong with the name of a connection; '' if nothing.

    Source: pages *connections* and *names*: it becomes an environment variable, so it must be one that shells can read.
    """
    return "" if CONNECTION.fullmatch(text) else "letters, digits and '_', no digit first: it becomes a variable"


def bad_path(text: str) -> str:
    """Return what is wrong with a path in a container; '' if nothing.

    Source: pages *input* and *output*: rooted, local to the container. Parts ``..`` and colons are refused by us: the
    former lead elsewhere, the latter end a path in ``docker run -v``.
    """
    if not text.startswith("/"):
        return "a path from the container's root: it starts with '/'"
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if not parts:
        return "a folder below the container's root, not the root itself"
    if ".." in parts or ":" in text or not text.isprintable():
        return "a path without '..', ':' and control characters"
    return ""


def bad_image(text: str) -> str:
    """Return what is wrong with an image's name; '' if nothing.

    Source: page *container*: the name alone. That the registry may stand before it is what published definitions do.
    """
    if "@" in text:
        return "the image's name, with a tag under `tag`; digests have no place in a definition"
    _, _, last = text.rpartition("/")
    if ":" in last:
        return f"the image's name alone, and its tag as `tag: {last.partition(':')[2]}`"
    if len(text) > 255 or not IMAGE.fullmatch(text):
        return "a name such as nuclei/load or nvcr.io/nvidia/tritonserver: lower case, parts joined by '/'"
    return ""


def bad_tag(text: str) -> str:
    """Return what is wrong with an image's tag; '' if nothing."""
    return "" if TAG.fullmatch(text) else "up to 128 letters, digits, '_', '.' and '-'"
