"""The command line: its options, and the settings that come of them."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from nuclei_segmentation.shared.runtime.resources import usable_cpus
from nuclei_segmentation.shared.settings import environment as variables
from nuclei_segmentation.shared.settings.config_file import read_config, read_outputs
from nuclei_segmentation.shared.settings.values import Settings, StoreSettings

USAGE = """\
main.py [-h] [-d DEBUG_LEVEL] [--input-path INPUT_PATH] [--output-path OUTPUT_PATH]
               [--config-path CONFIG_PATH] [-w NUM_WORKERS]
               [--mask-pixel-count-limit MASK_PIXEL_COUNT_LIMIT] [-t TILE_SIZE] [-m MODEL_NAME] [-o OVERLAP]
               command"""

MOST_WORKERS = 1024


def parser(commands: Mapping[str, str], *, command_required: bool = True) -> argparse.ArgumentParser:
    """Return the parser.

    Parameters
    ----------
    commands : Mapping of str to str
        One-line description of each command, by its name.
    command_required : bool, optional
        Whether a command must be named; with ``--version`` none is needed.

    Returns
    -------
    argparse.ArgumentParser
        Its usage line is the original operator's, word for word.
    """
    listed = "\n".join(f"  {name:<14} {text}" for name, text in commands.items())
    result = argparse.ArgumentParser(
        prog="main.py",
        usage=USAGE,
        description="Finds the cell nuclei in a whole-slide image. For research use only.",
        epilog=f"commands:\n{listed}\n\n--version prints the versions of program, model and libraries.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = result.add_argument
    add("-d", "--debug-level", default="INFO", type=_level, help="logging level name (default: INFO)")
    add("--input-path", type=_path, help="folder with the slide (default: /input)")
    add("--output-path", type=_path, help="folder for the result (default: /output)")
    add(
        "--config-path", default=None, type=_path, help="config.yaml, or its folder (default: /config, if there is one)"
    )
    add("-w", "--num-workers", default=None, type=_workers, help="threads (default: the usable processors)")
    add(
        "--mask-pixel-count-limit",
        default=1024 * 1024,
        type=_positive,
        help="most pixels of the image that the tissue mask is made from (default: 1024 * 1024)",
    )
    add("-t", "--tile-size", default=256, type=_tile, help="pixels, a multiple of 16 (default: 256)")
    add("-m", "--model-name", default="segmentation_unet_nuclei", type=_name, help="(default: %(default)s)")
    add("-o", "--overlap", default=0, type=_overlap, help="pixels that tiles share, a multiple of 16 (default: 0)")
    add("command", nargs=None if command_required else "?", help="what to do; see below")
    return result


def settings_from(arguments: argparse.Namespace, environment: Mapping[str, str]) -> Settings:
    """Return the settings of a command line, its config.yaml and its environment.

    Parameters
    ----------
    arguments : argparse.Namespace
        As `parser` made it.
    environment : Mapping of str to str
        As `os.environ`.

    Returns
    -------
    Settings
        config.yaml wins over the environment, but for ``NUCLEI_SHARD`` and ``NUCLEI_OUTPUTS``.

    Raises
    ------
    ConfigError
        config.yaml is wrong, or what ``--config-path`` names does not exist.
    UsageError
        An environment variable is wrong.
    """
    paths = {name: getattr(arguments, name) for name in ("input_path", "output_path") if getattr(arguments, name)}
    servers = variables.triton_servers(environment)
    settings = Settings(
        **paths,
        named_paths=frozenset(paths),
        config_path=arguments.config_path or Settings().config_path,
        num_workers=arguments.num_workers or usable_cpus(),
        mask_pixel_count_limit=arguments.mask_pixel_count_limit,
        tile_size=arguments.tile_size,
        model_name=arguments.model_name,
        overlap=arguments.overlap,
        triton_servers=servers.addresses,
        triton_variable=servers.variable,
        run_id=variables.run_id(environment),
        store=StoreSettings(shm=variables.is_true(environment, variables.STORE_SHM)),
    )
    settings = read_config(arguments.config_path, settings)
    settings = read_outputs(environment, settings)
    return replace(settings, shard=variables.shard(environment) or settings.shard)


def _path(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("a path is missing; the current folder is '.'")
    return Path(text)


def _level(text: str) -> str:
    name = text.upper()
    if name not in ("CRITICAL", "ERROR", "WARNING", "INFO", "DEBUG"):
        raise argparse.ArgumentTypeError(f"{text!r} is not one of DEBUG, INFO, WARNING, ERROR, CRITICAL")
    return name


def _positive(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,12}", text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def _workers(text: str) -> int:
    if _positive(text) > MOST_WORKERS:
        raise argparse.ArgumentTypeError(f"{text!r} is more than {MOST_WORKERS}")
    return int(text)


def _tile(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or int(text) % 16 or not 16 <= int(text) <= 8192:
        raise argparse.ArgumentTypeError(f"{text!r} is not a multiple of 16 from 16 to 8192")
    return int(text)


def _overlap(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or int(text) % 16:
        raise argparse.ArgumentTypeError(f"{text!r} is not a multiple of 16")
    return int(text)


def _name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a model's name (letters, digits, '_', '-', '.')")
    return text
