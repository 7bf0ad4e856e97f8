"""``config.yaml``: read whole, all its errors at once; and its printed reference.

Which keys there are stands in `shared.settings.values`.
"""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from nuclei_segmentation.shared.errors import ConfigError, UsageError
from nuclei_segmentation.shared.runtime.files import read_regular
from nuclei_segmentation.shared.settings.declaration import Key, keys_of
from nuclei_segmentation.shared.settings.environment import OUTPUTS
from nuclei_segmentation.shared.settings.values import Settings

NAME = "config.yaml"
LARGEST = 1024 * 1024
"""Most bytes of a config.yaml; a real one has a few hundred."""

_ALIKE = 0.8
"""From this likeness on a name is taken for a mistyped `NAME`: config.yml, Config.yaml, config.yaml.txt, conf.yaml."""

_SAME_STAIN = 0.01
"""Sine of the angle between two stains below which they are the same colour."""

KEYS = tuple(keys_of(Settings))


def read_config(named: Path | None, settings: Settings) -> Settings:
    """Return settings with what a config.yaml says.

    Parameters
    ----------
    named : pathlib.Path or None
        The file, whatever its name; or the folder that may hold it. None if the user names neither: then
        `Settings.config_path` is that folder, and need not exist.
    settings : Settings
        The settings without the file.

    Raises
    ------
    ConfigError
        With every problem of the file. What was named does not exist; or the folder has no config.yaml, but a file
        whose name is nearly the same.
    """
    place = settings.config_path if named is None else named
    try:
        path = _find(place, required=named is not None)
        if path is None:
            return settings
        content = read_regular(path, LARGEST + 1)
        if content is None:
            raise ConfigError([f"{path} is not a regular file"])
        if len(content) > LARGEST:
            raise ConfigError([f"{path} has more than {LARGEST} bytes; a configuration has a few hundred"])
        text = content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{place}: the configuration cannot be read: {error}"]) from error
    return apply(_parse(text, path), settings)


def read_outputs(environment: Mapping[str, str], settings: Settings) -> Settings:
    """Return settings with the outputs that the environment names.

    Parameters
    ----------
    environment : Mapping of str to str
        As `os.environ`.
    settings : Settings
        The settings without it.

    Raises
    ------
    UsageError
        It names something that is no output.
    """
    text = environment.get(OUTPUTS, "").strip()
    if not text:
        return settings
    accepts = next(key.accepts for key in KEYS if key.path == "outputs")
    outputs = accepts.take(text)
    if outputs is None:
        raise UsageError(f"{OUTPUTS}: {text!r:.60} is not {accepts.words}, with commas or spaces between them, or none")
    return replace(settings, outputs=outputs)


def apply(document: Mapping[Any, Any], settings: Settings) -> Settings:
    """Return settings with the values of a parsed config.yaml.

    Parameters
    ----------
    document : Mapping
        What YAML has read.
    settings : Settings
        The settings without the document.

    Raises
    ------
    ConfigError
        With every problem of the document.
    """
    known = {key.path: key for key in KEYS}
    values: dict[str, Any] = {}
    problems: list[str] = []
    for path, given in _flatten(document):
        key = known.get(path)
        if key is None:
            problems.append(f"{path}: unknown key{_suggest(path, known)}")
            continue
        value = key.accepts.take(given)
        if value is None:
            problems.append(f"{path}: {given!r} is not {key.accepts.words}")
        else:
            values[path] = value
    if problems:
        raise ConfigError(problems)
    return _together(_with(settings, values))


def check(settings: Settings) -> Settings:
    """Return settings that come from Python as config.yaml would give them.

    Parameters
    ----------
    settings : Settings
        With values of any kind.

    Raises
    ------
    ConfigError
        With every value that its key does not accept.
    """
    values: dict[str, Any] = {}
    problems: list[str] = []
    for key in KEYS:
        section, _, name = key.path.rpartition(".")
        given = getattr(getattr(settings, section) if section else settings, name)
        value = key.accepts.take(given)
        if value is not None:
            values[key.path] = value
        elif given is not None or key.default is not None:
            problems.append(f"{key.path}: {given!r} is not {key.accepts.words}")
    if problems:
        raise ConfigError(problems)
    return _together(_with(settings, values))


def reference() -> str:
    """Return a config.yaml that holds every key with its default and meaning."""
    lines = [
        "# Every setting that has no command line option, with its default. All are optional.",
        "# Put those you want to change into a config.yaml; --config-path names the file, or the folder that holds it.",
    ]
    section = ""
    for key in KEYS:
        head, _, name = key.path.rpartition(".")
        if head != section:
            section = head
            lines += ["", f"{head}:"] if head else [""]
        indent = "  " if head else ""
        lines.append(f"{indent}# {key.meaning} ({key.accepts.words})")
        plain = list(key.default) if isinstance(key.default, tuple) else key.default
        default = yaml.safe_dump(plain, default_flow_style=True).removesuffix("\n").removesuffix("\n...")
        # a key without a fixed default is shown, but commented out: null is not one of its values
        lines.append(f"{indent}{'# ' if key.default is None else ''}{name}: {default}")
    return "\n".join(lines) + "\n"


class _Loader(yaml.SafeLoader):
    """YAML without aliases (whose bombs grow a few bytes to gigabytes) and without duplicate keys."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]  # its stub has no types
            raise yaml.composer.ComposerError(None, None, "aliases are not allowed", mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a word", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} stands twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _find(place: Path, *, required: bool) -> Path | None:
    """Return the configuration that a path names; None if it is a folder without one, or nothing that is required."""
    if not os.path.lexists(place):
        if required:
            raise ConfigError(
                [f"--config-path {place} does not exist; name the folder with {NAME}, or the file itself"]
            )
        return None
    if not place.is_dir():
        return place
    path = place / NAME
    if os.path.lexists(path):
        return path
    # A name that is nearly right is a mistake that would otherwise show in the result only.
    for entry in sorted(place.iterdir()):
        alike = difflib.SequenceMatcher(None, NAME, entry.name.casefold()).ratio() >= _ALIKE
        if alike and not entry.is_dir():
            raise ConfigError(
                [f"{place} holds {entry.name}, but no {NAME}: rename it to {NAME}, or give --config-path {entry}"]
            )
    return None


def _parse(text: str, path: Path) -> Mapping[Any, Any]:
    try:
        # _Loader is a SafeLoader, which constructs plain values only
        document = yaml.load(text, Loader=_Loader)  # noqa: S506
    except (yaml.YAMLError, ValueError, RecursionError, LookupError, AttributeError, TypeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        what = getattr(error, "problem", None) or type(error).__name__
        raise ConfigError([f"{path}{where}: {what}"]) from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ConfigError([f"{path}: expected `key: value` lines, found {type(document).__name__}"])
    return document


def _flatten(document: Mapping[Any, Any]) -> list[tuple[str, Any]]:
    sections = {key.path.split(".")[0] for key in KEYS if "." in key.path}
    pairs: list[tuple[str, Any]] = []
    for name, value in document.items():
        if name == "mask" and isinstance(value, str):
            pairs.append(("mask.method", value))
        elif name in sections and isinstance(value, dict):
            pairs += [(f"{name}.{inner}", part) for inner, part in value.items()]
        else:
            pairs.append((str(name), value))
    return pairs


def _suggest(path: str, known: Mapping[str, Key]) -> str:
    if any(name.startswith(f"{path}.") for name in known):
        names = ", ".join(name.split(".")[1] for name in known if name.startswith(f"{path}."))
        return f" without a name below it; it holds {names}"
    near = difflib.get_close_matches(path, known, n=1)
    near = near or [name for name in known if name.split(".")[-1] == path.split(".")[-1]][:1]
    return f"; did you mean {near[0]}?" if near else "; `main.py config` prints all keys"


def _together(settings: Settings) -> Settings:
    """Refuse values that are right alone and wrong together."""
    (a, b, c), (d, e, f) = settings.nuclei.hematoxylin, settings.nuclei.eosin
    across = math.hypot(b * f - c * e, c * d - a * f, a * e - b * d)
    if across < _SAME_STAIN * math.hypot(a, b, c) * math.hypot(d, e, f):
        raise ConfigError(["nuclei.hematoxylin and nuclei.eosin are the same colour; they must differ"])
    return settings


def _with(settings: Settings, values: Mapping[str, Any]) -> Settings:
    """Return `settings` with the values of some keys, by path."""
    for path, value in values.items():
        section, _, name = path.rpartition(".")
        if section:
            settings = replace(settings, **{section: replace(getattr(settings, section), **{name: value})})
        else:
            settings = replace(settings, **{name: value})
    return settings
