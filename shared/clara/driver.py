"""How a stage is brought together with its neighbours: alone, under NVIDIA's driver, or by waiting for them.

``NVIDIA_CLARA_NOSYNCLOCK`` decides. Set to 1, true, yes or on, the stage runs alone: what it reads must be complete.
Otherwise NVIDIA's driver, the Python module ``clara``, synchronises the stages where it is installed; where it is not,
they wait for one another by themselves. What is known of that module, and what is not: docs/clara.md.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from nuclei_segmentation.shared.errors import NucleiError, UsageError, WaitedTooLong
from nuclei_segmentation.shared.settings import Settings, WaitSettings
from nuclei_segmentation.shared.settings.environment import NO_SYNC_LOCK, runs_alone

log = logging.getLogger("nuclei")

Stage = Callable[[Settings], None]

MODULE = "clara"
_WAY_OUT = f"set {NO_SYNC_LOCK}=TRUE to run without NVIDIA's driver"


def run_stage(settings: Settings, stage: Stage) -> None:
    """Run a stage in the way that the environment asks for.

    Parameters
    ----------
    settings : Settings
        Of the stage; paths that were given win over those of the driver.
    stage : Stage
        Does the work.

    Raises
    ------
    NucleiError
        As the stage raises it, also through the driver.
    UsageError
        There is a driver that cannot be used.
    WaitedTooLong
        The driver ended without starting the stage.
    """
    if runs_alone(os.environ):
        log.debug("%s is set: no waiting", NO_SYNC_LOCK)
        stage(replace(settings, wait=WaitSettings(None)))
    elif _driver_installed():
        _under_driver(settings, stage)
    else:
        stage(settings)


def _driver_installed() -> bool:
    found = importlib.util.find_spec(MODULE)
    return found is not None and found.origin is not None  # a mere folder of that name has no origin


def _under_driver(settings: Settings, stage: Stage) -> None:
    make = _driver_class()
    started = False
    failure: list[BaseException] = []

    def execute(driver: object, payload: Any) -> bool:  # noqa: ANN401 - the module has no types
        """Do the work; the driver calls this when the stage's inputs are complete."""
        nonlocal started
        started = True
        try:
            stage(_as_driven(settings, payload))
        # Whatever it is, it goes on below, on this side of the driver: a library in C between here and there would
        # drop an exception, or print it with its traceback. False is the documented way to say that the stage failed.
        except BaseException as error:
            failure.append(error)
            return False
        return True

    log.info("NVIDIA's driver starts this stage when its inputs are complete (%s=TRUE turns that off)", NO_SYNC_LOCK)
    problem: Exception | None = None
    try:
        driver = make(execute_handler=execute)
        driver.start()
        driver.wait_for_completion()
    except Exception as error:  # it may raise anything
        problem = error
    if failure:
        raise failure[0]
    if problem is not None:
        told = f"{type(problem).__name__}: {problem}"
        if started:
            raise NucleiError(f"the stage is done, but NVIDIA's driver failed after it ({told})") from problem
        raise UsageError(
            f"NVIDIA's driver failed before the stage began ({told}); outside a Clara job {_WAY_OUT}"
        ) from problem
    if not started:
        raise WaitedTooLong(
            "NVIDIA's driver ended without starting this stage: a stage before it failed, or the job was stopped (the "
            f"log of clara-pod-manager says more); outside a Clara job {_WAY_OUT}"
        )


def _driver_class() -> Any:  # noqa: ANN401 - the module has no types
    try:
        return importlib.import_module(MODULE).Driver
    except AttributeError:
        raise UsageError(f"the Python module {MODULE} that is installed here has no Driver; {_WAY_OUT}") from None
    except Exception as error:  # also OSError, where its library in C does not load
        raise UsageError(
            f"the Python module {MODULE} cannot be imported ({type(error).__name__}: {error}); {_WAY_OUT}"
        ) from error


def _as_driven(settings: Settings, payload: Any) -> Settings:  # noqa: ANN401 - the module has no types
    """Return the settings with the payload's folders, where the command line names none, and its FastIO context."""
    settings = replace(settings, wait=WaitSettings(None), fastio=_context(payload))
    if settings.store.shm and settings.fastio is None:
        log.warning("the driver has no FastIO context: /dev/shm is used instead")
    if "input_path" not in settings.named_paths:
        # Clara maps folders as it likes, and a name may be empty: what lies in each is found by its kind.
        first, *more = _folders(payload.input_entries) or settings.inputs
        settings = replace(settings, input_path=first, more_inputs=tuple(more))
    if "output_path" not in settings.named_paths:
        first, *more = _folders(payload.output_entries) or [settings.output_path]
        if more:
            log.warning("the stage has %d output folders; it writes to the first, %s", len(more) + 1, first)
        settings = replace(settings, output_path=first)
    log.info("input %s, output %s", ", ".join(map(str, settings.inputs)), settings.output_path)
    return settings


def _context(payload: Any) -> Any:  # noqa: ANN401 - the module has no types
    try:
        return payload.fastio_context
    except Exception as error:  # nobody may need it; who does says that there is none
        log.debug("the driver has no FastIO context (%s: %s)", type(error).__name__, error)
        return None


def _folders(entries: Any) -> list[Path]:  # noqa: ANN401 - the module has no types
    return [Path(entry.path) for entry in entries if entry.path]
