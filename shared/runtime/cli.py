"""Runs a command: the one place where errors become exit codes and signals end a run."""

from __future__ import annotations

import io
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from nuclei_segmentation.shared.errors import ConfigError, Interrupted, NucleiError
from nuclei_segmentation.shared.runtime.outside import HarmlessFormatter
from nuclei_segmentation.shared.runtime.progress import Progress
from nuclei_segmentation.shared.runtime.recorder import LOGGER
from nuclei_segmentation.shared.runtime.threads import start
from nuclei_segmentation.shared.settings.command_line import parser, settings_from
from nuclei_segmentation.shared.settings.values import Settings

log = logging.getLogger(__name__)

VERSION = "--version"
"""Not in the usage line, which is the original's."""
GRACE_SECONDS = 8.0
"""A process ends this many seconds after a signal at the latest."""

_heard: list[int] = []
"""Signals that `_interrupt` has handled."""

Command = Callable[[Callable[[], Settings]], None]
"""Takes a function that reads the settings, since not every command needs them."""


def main(arguments: Sequence[str], commands: Mapping[str, tuple[str, Command]], version: Command | None = None) -> int:
    """Run a command and return the exit code.

    Parameters
    ----------
    arguments : Sequence of str
        The command line without the program's name.
    commands : Mapping of str to tuple
        Description and function of each command.
    version : callable, optional
        The function of ``--version``; without it there is no such option.

    Returns
    -------
    int
        The exit code; docs/errors.md lists them.
    """
    wants_version = version is not None and VERSION in arguments
    reader = parser({name: text for name, (text, _) in commands.items()}, command_required=not wants_version)
    parsed = reader.parse_args([word for word in arguments if not (wants_version and word == VERSION)])
    if parsed.command not in (*commands, *([None] if wants_version else [])):
        reader.error(f"unknown command {parsed.command!r}; there are: {', '.join(commands)}")
    if parsed.overlap >= parsed.tile_size:
        reader.error(f"argument -o/--overlap: {parsed.overlap} must be below the tile size, {parsed.tile_size}")
    command = version if version is not None and wants_version else commands[parsed.command][1]
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # µ and × must not fail on a terminal that knows ASCII only
    shown = logging.StreamHandler()
    shown.setFormatter(HarmlessFormatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[shown], force=True)
    logging.getLogger(LOGGER).setLevel(parsed.debug_level)
    Progress.bars = True
    try:
        with _signals_end_the_run():
            command(lambda: settings_from(parsed, os.environ))
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
        log.error("out of memory: use fewer workers (-w) or a smaller tile size (-t)")
        log.debug("where it was raised", exc_info=True)
        return NucleiError.exit_code
    except ImportError as error:
        if "failed to map segment" not in str(error):
            raise
        log.error("out of memory: the libraries themselves do not fit (%s)", error)
        return NucleiError.exit_code
    except Exception as error:
        _leave_if_heard()
        # nothing is hidden: the user gets one line and a code, a developer the traceback
        log.error("internal error, please report it: %s: %s (-d DEBUG shows where)", type(error).__name__, error)
        log.debug("where it was raised", exc_info=True)
        return NucleiError.exit_code
    return 0


@contextmanager
def _signals_end_the_run() -> Iterator[None]:
    """Let SIGINT and SIGTERM raise `Interrupted`, and make sure that the process ends.

    Python runs a signal handler only between two steps of the main thread, and one call into a library may take longer
    than the grace period. A watching thread therefore learns of the signal at once and ends the process when the time
    is up. Nothing is lost: a run may be killed at any instant.
    """
    before = {number: signal.signal(number, _interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    hears, tells = socket.socketpair()
    tells.setblocking(False)
    other = signal.set_wakeup_fd(tells.fileno(), warn_on_full_buffer=False)

    def watch() -> None:
        with hears:
            if heard := hears.recv(1):
                time.sleep(GRACE_SECONDS)
                # The main thread is in a call that does not return, so it has logged nothing. Logging may hang, too.
                say = threading.Thread(target=log.error, args=("%s", Interrupted(heard[0])), daemon=True)
                say.start()
                say.join(0.5)
                os._exit(128 + heard[0])

    watcher = threading.Thread(target=watch, name="signals", daemon=True)
    start(watcher)
    try:
        yield
    finally:
        signal.set_wakeup_fd(other)
        tells.close()
        watcher.join(0.2)
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    signal.signal(number, signal.SIG_IGN)  # a second signal must not interrupt the clean-up
    _heard.append(number)
    raise Interrupted(number)


def _leave_if_heard() -> None:
    """End as interrupted if a library mistook the signal's exception for a failure of its own."""
    if _heard:
        log.error("%s", Interrupted(_heard[0]))
        _leave(128 + _heard[0])


def _leave(code: int) -> NoReturn:
    """End now, without waiting for threads that wait for a silent server."""
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)
