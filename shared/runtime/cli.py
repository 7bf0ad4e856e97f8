"""The command line: one parser, one place where errors become exit codes."""

from __future__ import annotations

import argparse
import io
import logging
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import NoReturn

from nuclei_segmentation.shared.errors import ConfigError, Interrupted, NucleiError, UsageError
from nuclei_segmentation.shared.runtime.resources import usable_cpus
from nuclei_segmentation.shared.settings import Settings
from nuclei_segmentation.shared.settings import config_file as config
from nuclei_segmentation.shared.settings.address import Address
from nuclei_segmentation.shared.settings.shard import EXPECTS, VARIABLE, Shard

log = logging.getLogger("nuclei")

USAGE = """\
main.py [-h] [-d DEBUG_LEVEL] [--input-path INPUT_PATH] [--output-path OUTPUT_PATH]
               [--config-path CONFIG_PATH] [-w NUM_WORKERS]
               [--mask-pixel-count-limit MASK_PIXEL_COUNT_LIMIT] [-t TILE_SIZE] [-m MODEL_NAME] [-o OVERLAP]
               command"""

RUN_VARIABLE = "NUCLEI_RUN_ID"
"""Names the run that a stage belongs to."""
SHM_VARIABLE = "NUCLEI_STORE_SHM"
"""As `store.shm` of config.yaml, which wins: for who starts containers that share memory and have no file to give."""

TRITON_VARIABLES = ("NVIDIA_CLARA_TRTISURI", "NVIDIA_TRITON_HTTPURI", "CLARA_TRITON_URI")

GRACE_SECONDS = 8.0
"""After a signal, the process ends at the latest after so long."""

MOST_WORKERS = 1024

_ON, _OFF = ("1", "true", "yes", "on"), ("0", "false", "no", "off")

_heard: list[int] = []
"""Signals that `_interrupt` was called for."""

Command = Callable[[Callable[[], Settings]], None]
"""Takes a function that reads the settings, since not every command wants any."""


def parser(commands: Mapping[str, str]) -> argparse.ArgumentParser:
    """Return the parser.

    Parameters
    ----------
    commands
        Name and one-line description of each command.
    """
    listed = "\n".join(f"  {name:<14} {text}" for name, text in commands.items())
    result = argparse.ArgumentParser(
        prog="main.py",
        usage=USAGE,
        description="Finds the cell nuclei in a whole-slide image. For research use only.",
        epilog=f"commands:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = result.add_argument
    add("-d", "--debug-level", default="INFO", type=_level, help="logging level name (default: INFO)")
    add("--input-path", type=_path, help="folder with the slide (default: /input)")
    add("--output-path", type=_path, help="folder for the result (default: /output)")
    add("--config-path", default=Path("/config"), type=_path, help="folder with config.yaml, if any (default: /config)")
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
    add("command", help="what to do; see below")
    return result


def settings_from(arguments: argparse.Namespace, environment: Mapping[str, str]) -> Settings:
    """Return the settings of a command line, its config.yaml and its environment.

    Raises
    ------
    ConfigError
        config.yaml is wrong.
    UsageError
        A variable of the environment is wrong.
    """
    paths = {name: getattr(arguments, name) for name in ("input_path", "output_path") if getattr(arguments, name)}
    settings = Settings(
        **paths,
        named_paths=frozenset(paths),
        config_path=arguments.config_path,
        workers=arguments.num_workers or usable_cpus(),
        tile=arguments.tile_size,
        overlap=arguments.overlap,
        triton=_servers(environment),
        run=environment.get(RUN_VARIABLE, "").strip(),
        shared_memory=_switch(environment, SHM_VARIABLE),
    )
    settings = replace(
        settings,
        mask=replace(settings.mask, pixel_limit=arguments.mask_pixel_count_limit),
        model=replace(settings.model, name=arguments.model_name),
    )
    settings = config.read_config(arguments.config_path, settings)
    return replace(settings, shard=_shard(environment) or settings.shard)


def main(arguments: Sequence[str], commands: Mapping[str, tuple[str, Command]]) -> int:
    """Run a command and return the exit code.

    Parameters
    ----------
    arguments
        The command line without the program's name.
    commands
        Description and function of each command.
    """
    reader = parser({name: text for name, (text, _) in commands.items()})
    parsed = reader.parse_args(arguments)
    if parsed.command not in commands:
        reader.error(f"unknown command {parsed.command!r}; there are: {', '.join(commands)}")
    if parsed.overlap >= parsed.tile_size:
        reader.error(f"argument -o/--overlap: {parsed.overlap} must be below the tile size, {parsed.tile_size}")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # µ and × must not fail on a terminal that knows ASCII only
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s", force=True)
    log.setLevel(parsed.debug_level)
    try:
        with _signals_end_the_run():
            commands[parsed.command][1](lambda: settings_from(parsed, os.environ))
    except Interrupted as stop:
        log.error("%s", stop)
        _leave(stop.exit_code)
    except ConfigError as error:
        for problem in error.problems:
            log.error("%s", problem)
        return error.exit_code
    except NucleiError as error:
        _leave_if_heard()
        log.error("%s", error)
        log.debug("where it was raised", exc_info=True)
        return error.exit_code
    except MemoryError:
        log.error("out of memory: use fewer workers (-w) or a smaller tile (-t)")
        log.debug("where it was raised", exc_info=True)
        return NucleiError.exit_code
    except ImportError as error:
        if "failed to map segment" not in str(error):
            raise
        log.error("out of memory: not even the libraries fit (%s)", error)
        return NucleiError.exit_code
    except Exception as error:
        _leave_if_heard()
        # nothing is hidden: the user gets one line and a code, the developer the traceback
        log.error("internal error, please report it: %s: %s (-d DEBUG shows where)", type(error).__name__, error)
        log.debug("where it was raised", exc_info=True)
        return NucleiError.exit_code
    return 0


@contextmanager
def _signals_end_the_run() -> Iterator[None]:
    """Let SIGINT and SIGTERM raise `Interrupted`, and see to it that the process ends whatever it is at.

    Python runs a handler only between two steps of the main thread; one call into a library may take longer than the
    grace period. So a thread of its own hears of the signal at once and ends the process when the time is up. Nothing
    is lost by that: a run may be killed at any instant.
    """
    before = {number: signal.signal(number, _interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    hears, tells = socket.socketpair()
    tells.setblocking(False)
    other = signal.set_wakeup_fd(tells.fileno(), warn_on_full_buffer=False)

    def watch() -> None:
        with hears:
            if heard := hears.recv(1):
                time.sleep(GRACE_SECONDS)
                # The main thread is in a call that does not return: nobody has said it. Who reads it may be stuck too.
                say = threading.Thread(target=log.error, args=("%s", Interrupted(heard[0])), daemon=True)
                say.start()
                say.join(0.5)
                os._exit(128 + heard[0])

    watcher = threading.Thread(target=watch, name="signals", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(other)
        tells.close()
        watcher.join(0.2)
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    signal.signal(number, signal.SIG_IGN)  # one is enough; a second must not break the tidying up
    _heard.append(number)
    raise Interrupted(number)


def _leave_if_heard() -> None:
    """End as interrupted, where a library took the signal's exception for a failure of its own."""
    if _heard:
        log.error("%s", Interrupted(_heard[0]))
        _leave(128 + _heard[0])


def _leave(code: int) -> NoReturn:
    """End now: threads that wait for a silent server need not be waited for."""
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)


def _servers(environment: Mapping[str, str]) -> tuple[str, ...]:
    for variable in TRITON_VARIABLES:
        text = environment.get(variable, "").strip()
        if not text:
            continue
        try:
            servers = tuple(str(Address.parse(part.strip())) for part in text.split(",") if part.strip())
        except UsageError as error:
            raise UsageError(f"{variable}: {error}") from None
        if servers:
            return servers
    return ()


def _shard(environment: Mapping[str, str]) -> Shard | None:
    text = environment.get(VARIABLE, "").strip()
    shard = Shard.parse(text)
    if text and shard is None:
        raise UsageError(f"{VARIABLE}: {text!r:.60} is not {EXPECTS}")
    return shard


def _switch(environment: Mapping[str, str], variable: str) -> bool:
    text = environment.get(variable, "").strip()
    if text.lower() not in (*_ON, *_OFF, ""):
        raise UsageError(f"{variable}: {text!r} is neither TRUE nor FALSE (nor 1, 0, yes, no, on, off)")
    return text.lower() in _ON


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
