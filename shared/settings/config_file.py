"""config.yaml: one table of keys, read whole, every error at once.

The table `KEYS` is the only place where a key, its type, its range, its default and its meaning stand. Reading, the
printed reference (``main.py config``) and the suggestion for a misspelt key all come from it.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from nuclei_segmentation.shared.errors import ConfigError
from nuclei_segmentation.shared.settings import (
    InferenceSettings,
    JpegSettings,
    MaskSettings,
    ModelSettings,
    OverlaySettings,
    Settings,
)
from nuclei_segmentation.shared.settings.shard import EXPECTS, VARIABLE, Shard

NAME = "config.yaml"
LARGEST = 1024 * 1024
"""Most bytes of a config.yaml; a real one has a few hundred."""


@dataclass(frozen=True, slots=True)
class Key:
    """One setting.

    Attributes
    ----------
    path
        Section and name, ``overlay.color``; without a dot at top level.
    expects
        What is accepted, in words.
    accept
        Returns the value to use, or None where the given one will not do.
    default
        As it would be written in the file.
    meaning
        One sentence.
    """

    path: str
    expects: str
    accept: Callable[[Any], Any]
    default: Any
    meaning: str


def _number(low: float, high: float) -> tuple[str, Callable[[Any], float | None]]:
    def accept(value: Any) -> float | None:  # noqa: ANN401 - YAML gives anything
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return None
        return float(value) if low <= value <= high else None

    return f"a number from {low:g} to {high:g}", accept


def _whole(low: int, high: int) -> tuple[str, Callable[[Any], int | None]]:
    def accept(value: Any) -> int | None:  # noqa: ANN401 - YAML gives anything
        if isinstance(value, bool) or not isinstance(value, int):
            return None
        return value if low <= value <= high else None

    return f"a whole number from {low} to {high}", accept


def _choice(*words: str) -> tuple[str, Callable[[Any], str | None]]:
    def accept(value: Any) -> str | None:  # noqa: ANN401 - YAML gives anything
        word = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
        return word if isinstance(word, str) and word in words else None

    return f"one of {', '.join(words)}", accept


def _color() -> tuple[str, Callable[[Any], tuple[int, int, int] | None]]:
    channel = _whole(0, 255)[1]

    def accept(value: Any) -> tuple[int, int, int] | None:  # noqa: ANN401 - YAML gives anything
        if not isinstance(value, list) or len(value) != 3 or any(channel(part) is None for part in value):
            return None
        return (value[0], value[1], value[2])

    return "red, green and blue as [0-255, 0-255, 0-255]", accept


def _switch() -> tuple[str, Callable[[Any], bool | None]]:
    return "true or false", lambda value: value if isinstance(value, bool) else None


def _folder() -> tuple[str, Callable[[Any], Path | None]]:
    return "the path of a folder", lambda value: Path(value) if isinstance(value, str) and value else None


def _shard() -> tuple[str, Callable[[Any], Shard | None]]:
    return EXPECTS, lambda value: Shard.parse(value) if isinstance(value, str) else None


_OVERLAY, _JPEG, _MASK = OverlaySettings(), JpegSettings(), MaskSettings()
_MODEL, _INFERENCE, _ALL = ModelSettings(), InferenceSettings(), Settings()

KEYS = (
    Key("overlay.style", *_choice("outline", "fill"), _OVERLAY.style, "How nuclei are drawn."),
    Key("overlay.color", *_color(), list(_OVERLAY.color), "Colour of the overlay."),
    Key("overlay.opacity", *_number(0, 1), _OVERLAY.opacity, "0 shows the slide only, 1 the colour only."),
    Key(
        "overlay.threshold",
        *_number(0, 1),
        _OVERLAY.threshold,
        "A pixel is nucleus where its probability is above this.",
    ),
    Key("jpeg.quality", *_whole(1, 100), _JPEG.quality, "JPEG quality of image.tif."),
    Key(
        "jpeg.subsampling",
        *_choice("444", "422", "420"),
        _JPEG.subsampling,
        "Chroma subsampling of image.tif; 420 is smallest, 444 sharpest.",
    ),
    Key(
        "mask.method",
        *_choice("tissue", "none"),
        _MASK.method,
        "Which tiles are inferred: those with tissue, or all (for fluorescence). `mask: none` is short for it.",
    ),
    Key(
        "models.repository",
        *_folder(),
        None,
        "Triton model repository for the embedded engine; by default the one that comes with the program.",
    ),
    Key(
        "models.input_scale",
        *_number(1e-6, 1e6),
        _MODEL.input_scale,
        "For models with float input: what a 0-255 pixel value is multiplied by.",
    ),
    Key(
        "models.output",
        *_choice("sigmoid", "logit"),
        _MODEL.output,
        "For models with float output: probabilities, or logits that need the logistic function yet.",
    ),
    Key(
        "inference.precision",
        *_choice("int8", "fp32"),
        _INFERENCE.precision,
        "Arithmetic of the embedded engine, on every machine; int8 for models that have an int8 sibling, else fp32.",
    ),
    Key(
        "inference.batch",
        *_whole(0, 1024),
        _INFERENCE.batch,
        "Tiles per request; 0 lets the engine choose. Does not change the result.",
    ),
    Key(
        "inference.deadline",
        *_number(0.1, 86400),
        _INFERENCE.deadline,
        "Seconds that one request to a server may take.",
    ),
    Key("inference.retries", *_whole(0, 1000), _INFERENCE.retries, "How often a failed request is repeated."),
    Key(
        "inference.in_flight",
        *_whole(1, 64),
        _INFERENCE.in_flight,
        "Requests under way at once to one server.",
    ),
    Key(
        "inference.shared_memory",
        *_switch(),
        _INFERENCE.shared_memory,
        "Give tiles to a server on this machine through shared memory, if it allows. Does not change the result.",
    ),
    Key(
        "store.shm",
        *_switch(),
        _ALL.shared_memory,
        "Put tiles and masks into shared memory (/dev/shm) where stages run in containers that share it.",
    ),
    Key(
        "wait.limit",
        *_number(1, 86400),
        _ALL.patience,
        "Seconds without progress after which filter and stitch stop waiting for the stage before them.",
    ),
    Key(
        "damaged.limit",
        *_number(0, 1),
        _ALL.damaged_limit,
        "Share of tiles that may be unreadable; they are hatched. More is an error.",
    ),
    Key(
        "overwrite",
        *_switch(),
        _ALL.overwrite,
        "Replace another result in the output folder; without it such a folder is refused.",
    ),
    Key(
        "shard",
        *_shard(),
        _ALL.shard,
        f"Which share of the tiles filter infers; all of them without it. The variable {VARIABLE} wins over it.",
    ),
)


def read_config(folder: Path, settings: Settings) -> Settings:
    """Return `settings` with what `folder`/config.yaml says; the folder or the file need not exist.

    Raises
    ------
    ConfigError
        With every problem of the file.
    """
    path = folder / NAME
    try:
        if not path.exists():
            return settings
        if not path.is_file():
            raise ConfigError([f"{path} is not a regular file"])
        if path.stat().st_size > LARGEST:
            raise ConfigError([f"{path} has more than {LARGEST} bytes; a configuration has a few hundred"])
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path} cannot be read: {error}"]) from error
    return apply(_parse(text, path), settings)


def apply(document: Mapping[Any, Any], settings: Settings) -> Settings:
    """Return `settings` with the values of a parsed config.yaml.

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
        value = key.accept(given)
        if value is None:
            problems.append(f"{path}: {given!r} is not {key.expects}")
        else:
            values[path] = value
    if problems:
        raise ConfigError(problems)
    return _settings(values, settings)


def reference() -> str:
    """Return a config.yaml that holds every key with its default and meaning."""
    lines = [
        "# Every setting that has no command line option, with its default. All are optional.",
        "# Put those you want to change into config.yaml in the folder that --config-path names.",
    ]
    section = ""
    for key in KEYS:
        head, _, name = key.path.rpartition(".")
        if head != section:
            section = head
            lines += ["", f"{head}:"] if head else [""]
        indent = "  " if head else ""
        lines.append(f"{indent}# {key.meaning} ({key.expects})")
        default = yaml.safe_dump(key.default, default_flow_style=True).removesuffix("\n").removesuffix("\n...")
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


def _settings(values: Mapping[str, Any], settings: Settings) -> Settings:
    def section(name: str) -> dict[str, Any]:
        return {path.split(".")[1]: value for path, value in values.items() if path.startswith(f"{name}.")}

    return replace(
        settings,
        overlay=replace(settings.overlay, **section("overlay")),
        jpeg=replace(settings.jpeg, **section("jpeg")),
        mask=replace(settings.mask, **section("mask")),
        model=replace(settings.model, **section("models")),
        inference=replace(settings.inference, **section("inference")),
        damaged_limit=values.get("damaged.limit", settings.damaged_limit),
        overwrite=values.get("overwrite", settings.overwrite),
        shared_memory=values.get("store.shm", settings.shared_memory),
        patience=values.get("wait.limit", settings.patience),
        shard=values.get("shard", settings.shard),
    )
