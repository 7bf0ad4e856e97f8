"""Every failure that a user can meet, one class each, one exit code each.

::

    NucleiError                 70  anything unexpected; also the base of all below
    ├── UsageError               2  the command line is wrong
    │   ├── ConfigError          2  config.yaml is wrong (all its errors at once)
    │   └── DefinitionError      2  a pipeline definition is wrong (of the package `pipelines`)
    ├── InputError              10  the input holds no slide, or more than one
    ├── UnreadableSlide         11  the file is not a slide, or is broken
    ├── TooMuchDamage           12  more tiles are unreadable than `damaged.limit` allows
    ├── OutputError             13  the output folder holds another result, is locked or not writable
    ├── NoSpace                 14  the result does not fit on the disk
    ├── ModelError              15  the model is missing, or does not fit the task
    │   └── WrongSize           15  a tensor has another size than the tile (of the package `operators`)
    ├── InferenceUnavailable    16  the inference server does not answer (worth a retry)
    │   └── Unanswered          16  a service does not answer in time (of the package `pipelines`)
    ├── WaitedTooLong           17  the stage before this one made no progress (worth a retry)
    ├── StoreError              18  a store is corrupt, or belongs to another slide or run
    └── LockLost                19  another run took the output folder over (worth a retry)

    Interrupted         130 or 143  stopped by Ctrl-C or SIGTERM; the next run resumes

`Interrupted` stands apart, as KeyboardInterrupt does in Python: code that handles errors must not swallow it.

Each message is one line that says what is wrong and what to do. Code that raises one of these leaves nothing
half-written under a final name.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence


class NucleiError(Exception):
    """Base of all errors of this program.

    `passing` says that the cause may go away by itself: the same command, run again unchanged, may succeed.
    """

    exit_code = 70
    passing = False


class UsageError(NucleiError):
    """The command line is wrong."""

    exit_code = 2


class ConfigError(UsageError):
    """The configuration file is wrong.

    Parameters
    ----------
    problems : Sequence of str
        One line each: everything that is wrong, not only the first thing.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems))


class InputError(NucleiError):
    """The input folder holds no slide, or more than one."""

    exit_code = 10


class UnreadableSlide(NucleiError):
    """The file is not a slide that can be read."""

    exit_code = 11


class TooMuchDamage(NucleiError):
    """More tiles are unreadable than the limit allows."""

    exit_code = 12


class OutputError(NucleiError):
    """The output folder holds another result, is in use, or cannot be written."""

    exit_code = 13


class NoSpace(NucleiError):
    """The result does not fit on the disk."""

    exit_code = 14


class ModelError(NucleiError):
    """The model is missing, or does not turn an image into maps of the same size."""

    exit_code = 15


class InferenceUnavailable(NucleiError):
    """The inference server does not answer in time. A later run resumes where this one ended."""

    exit_code = 16
    passing = True


class WaitedTooLong(NucleiError):
    """The stage before this one made no progress for `wait.limit` seconds. Work done so far is kept."""

    exit_code = 17
    passing = True


class StoreError(NucleiError):
    """A store is corrupt, has a newer format, or belongs to another slide, run or tile store than its neighbour."""

    exit_code = 18


class LockLost(NucleiError):
    """Another run took the output folder over while this one, or its machine, stood still."""

    exit_code = 19
    passing = True


class Interrupted(BaseException):
    """Stopped by a signal; work done so far is kept.

    Parameters
    ----------
    number : int
        The signal's number.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.exit_code = 128 + number
        super().__init__(f"stopped by {signal.Signals(number).name}; run the same command again to resume")


def retryable() -> tuple[int, ...]:
    """Return the exit codes after which it is worth running the same command again; docs/errors.md says why."""
    kinds = (kind for kind in globals().values() if isinstance(kind, type) and issubclass(kind, NucleiError))
    stopped = (Interrupted(number).exit_code for number in (signal.SIGINT, signal.SIGTERM))
    return tuple(sorted({kind.exit_code for kind in kinds if kind.passing} | set(stopped)))
