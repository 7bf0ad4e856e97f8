"""A command from its start to its exit code: one place where errors become exit codes, and signals end a run."""

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
from nuclei_segmentation.shared.settings.command_line import parser, settings_from
from nuclei_segmentation.shared.settings.values import Settings

log = logging.getLogger("nuclei")

VERSION = "--version"
"""Not in the usage line, which is the original's."""
GRACE_SECONDS = 8.0
"""After a signal, the process ends at the latest after so long."""

_heard: list[int] = []
"""Signals that `_interrupt` was called for."""

Command = Callable[[Callable[[], Settings]], None]
"""Takes a function that reads the settings, since not every command wants any."""


def main(arguments: Sequence[str], commands: Mapping[str, tuple[str, Command]], version: Command) -> int:
    """Run a command and return the exit code.

    Parameters
    ----------
    arguments : Sequence of str
        The command line without the program's name.
    commands : Mapping of str to tuple
        Description and function of each command.
    version : callable
        The function of ``--version``.

    Returns
    -------
    int
        The exit code; docs/errors.md lists them.
    """
    wants_version = VERSION in arguments
    reader = parser({name: text for name, (text, _) in commands.items()}, command_required=not wants_version)
    parsed = reader.parse_args([word for word in arguments if word != VERSION])
    if parsed.command not in (*commands, *([None] if wants_version else [])):
        reader.error(f"unknown command {parsed.command!r}; there are: {', '.join(commands)}")
    if parsed.overlap >= parsed.tile_size:
        reader.error(f"argument -o/--overlap: {parsed.overlap} must be below the tile size, {parsed.tile_size}")
    command = version if wants_version else commands[parsed.command][1]
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # µ and × must not fail on a terminal that knows ASCII only
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s", force=True)
    log.setLevel(parsed.debug_level)
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
