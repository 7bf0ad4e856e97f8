"""Starts a stage: alone, under NVIDIA's driver, or waiting for the stage before it.

``NVIDIA_CLARA_NOSYNCLOCK`` decides. If it is 1, true, yes or on, the stage runs alone, and its input must be complete.
Otherwise NVIDIA's driver, the Python module ``clara``, starts the stage if it is installed. If it is not, the stage
waits for the one before it.

Known, from NVIDIA's public texts: the class ``Driver`` with ``execute_handler``, ``start`` and ``wait_for_completion``,
the payload, and the meaning of ``NVIDIA_CLARA_NOSYNCLOCK=TRUE`` and ``=1``. Not known: what the driver does after a
handler has failed, and in which thread it calls the handler; all cases are handled. Our choice: the other values that
count as true, and the exit codes. docs/clara.md has the list.
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

log = logging.getLogger(__name__)

Stage = Callable[[Settings], None]

MODULE = "clara"
_WAY_OUT = f"set {NO_SYNC_LOCK}=TRUE to run without NVIDIA's driver"


def run_stage(settings: Settings, stage: Stage) -> None:
    """Run a stage in the way that the environment asks for.

    Parameters
    ----------
    settings : Settings
        Settings of the stage. Paths on the command line win over those of the driver.
    stage : Stage
        The function that does the work.

    Raises
    ------
    NucleiError
        The stage raised it, also if the driver called the stage.
    UsageError
        The driver is installed, but cannot be used.
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
    return found is not None and found.origin is not None  # a folder of that name, without a module, has no origin


def _under_driver(settings: Settings, stage: Stage) -> None:
    make = _driver_class()
    started = False
    failure: list[BaseException] = []

    def execute(driver: object, payload: Any) -> bool:  # noqa: ANN401 - the module has no types
        """Run the stage; the driver calls this when the stage's inputs are complete."""
        nonlocal started
        started = True
        try:
            stage(_as_driven(settings, payload))
        # The exception is raised again below, outside the driver: its library in C would drop it, or print it with its
        # traceback. Returning False is the documented way to say that the stage failed.
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
    except Exception as error:  # NVIDIA's module may raise anything
        problem = error
    if failure:
        raise failure[0]
    if problem is not None:
        text = f"{type(problem).__name__}: {problem}"
        if started:
            raise NucleiError(
                f"the stage is done and its result complete, but NVIDIA's driver failed afterwards ({text})"
            ) from problem
        raise UsageError(
            f"NVIDIA's driver failed before the stage began ({text}); outside a Clara job {_WAY_OUT}"
        ) from problem
    if not started:
        raise WaitedTooLong(
            "NVIDIA's driver ended without starting this stage: an earlier stage failed, or the job was stopped (see "
            f"the log of clara-pod-manager); outside a Clara job {_WAY_OUT}"
        )


def _driver_class() -> Any:  # noqa: ANN401 - the module has no types
    try:
        return importlib.import_module(MODULE).Driver
    except AttributeError:
        raise UsageError(f"the Python module {MODULE} that is installed here has no class Driver; {_WAY_OUT}") from None
    except Exception as error:  # also OSError, if its library in C does not load
        raise UsageError(
            f"the Python module {MODULE} cannot be imported ({type(error).__name__}: {error}); {_WAY_OUT}"
        ) from error


def _as_driven(settings: Settings, payload: Any) -> Settings:  # noqa: ANN401 - the module has no types
    """Return the settings with the payload's FastIO context, and its folders unless the command line names some."""
    settings = replace(settings, wait=WaitSettings(None), fastio=_context(payload))
    if settings.store.shm and settings.fastio is None:
        log.warning("the driver has no FastIO context; /dev/shm is used instead")
    if "input_path" not in settings.named_paths:
        # Clara chooses the folders, and their names may be empty: a slide or a store is found by its content.
        first, *more = _folders(payload.input_entries) or settings.inputs
        settings = replace(settings, input_path=first, more_inputs=tuple(more))
    if "output_path" not in settings.named_paths:
        first, *more = _folders(payload.output_entries) or [settings.output_path]
        if more:
            log.warning("the stage has %d output folders and writes to the first, %s", len(more) + 1, first)
        settings = replace(settings, output_path=first)
    log.info("input %s, output %s", ", ".join(map(str, settings.inputs)), settings.output_path)
    return settings


def _context(payload: Any) -> Any:  # noqa: ANN401 - the module has no types
    try:
        return payload.fastio_context
    except Exception as error:  # it may not be needed; if it is, a warning follows
        log.debug("the driver has no FastIO context (%s: %s)", type(error).__name__, error)
        return None


def _folders(entries: Any) -> list[Path]:  # noqa: ANN401 - the module has no types
    return [Path(entry.path) for entry in entries if entry.path]
