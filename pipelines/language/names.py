"""Rules for single texts: names, paths, images.

Each function returns what would be right if the text is wrong, and '' if it is right.
"""

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
    """Check the name of an operator, output, service, model or parameter.

    Source: reference page *names*: 1 to 255 of letters, digits, ``-``, ``_``; case does not matter.
    """
    return "" if NAME.fullmatch(text) else "use 1 to 255 letters, digits, '-' and '_'"


def blank(text: str) -> str:
    """Check that a text is more than spaces."""
    return "" if text.strip() else "give a text that is not blank"


def bad_variable(text: str) -> str:
    """Check the name of an environment variable, by the rule of Kubernetes."""
    return "" if VARIABLE.fullmatch(text) else "use letters, digits, '_', '-' and '.', with no digit first"


def bad_connection(text: str) -> str:
    """Check the name of a connection.

    Source: pages *connections* and *names*: it becomes an environment variable, so it must be one that shells can read.
    """
    if CONNECTION.fullmatch(text):
        return ""
    return "use letters, digits and '_', with no digit first: it becomes the name of an environment variable"


def bad_path(text: str) -> str:
    """Check a path in a container.

    Source: pages *input* and *output*: rooted, local to the container. Ours: no part ``..``, which leads elsewhere, and
    no colon, which ends a path in ``docker run -v``.
    """
    if not text.startswith("/"):
        return "use an absolute path: it must start with '/'"
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if not parts:
        return "use a folder below the container's root, not the root itself"
    if ".." in parts or ":" in text or not text.isprintable():
        return "use a path without '..', ':' and control characters"
    return ""


def bad_image(text: str) -> str:
    """Check the name of an image.

    Source: page *container*: the name alone. Published definitions put the registry in front of it.
    """
    if "@" in text:
        return "give the image's name without a digest, and a tag under `tag`"
    _, _, last = text.rpartition("/")
    if ":" in last:
        return f"give the image's name alone, and its tag as `tag: {last.partition(':')[2]}`"
    if len(text) > 255 or not IMAGE.fullmatch(text):
        return "use a name such as nuclei/load or nvcr.io/nvidia/tritonserver: lower case, parts separated by '/'"
    return ""


def bad_tag(text: str) -> str:
    """Check the tag of an image."""
    return "" if TAG.fullmatch(text) else "use 1 to 128 letters, digits, '_', '.' and '-', with no '.' or '-' first"
