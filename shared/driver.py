"""How a stage is brought together with its neighbours: alone, under NVIDIA's driver, or by waiting for them.

``NVIDIA_CLARA_NOSYNCLOCK`` decides. Set to 1, true, yes or on, the stage runs alone: what it reads must be complete.
Otherwise NVIDIA's driver, the Python module ``clara``, synchronises the stages where it is installed; where it is not,
they wait for one another by themselves.
"""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from shared.settings import Settings
from shared.waiting import VARIABLE

log = logging.getLogger("nuclei")

Stage = Callable[[Settings], None]

MODULE = "clara"
_YES = {"1", "true", "yes", "on"}


def run_stage(settings: Settings, stage: Stage) -> None:
    """Run a stage in the way that the environment asks for.

    Parameters
    ----------
    settings
        Of the stage; paths that were given win over those of the driver.
    stage
        Does the work.

    Raises
    ------
    NucleiError
        As the stage raises it, also through the driver.
    """
    if os.environ.get(VARIABLE, "").strip().lower() in _YES:
        log.debug("%s is set: no waiting", VARIABLE)
        stage(replace(settings, patience=None))
    elif importlib.util.find_spec(MODULE) is not None:
        _under_driver(settings, stage)
    else:
        stage(settings)


def _under_driver(settings: Settings, stage: Stage) -> None:
    from clara import Driver

    failure: list[BaseException] = []

    def execute(driver: object, payload: Any) -> bool:  # noqa: ANN401 - the module has no types
        try:
            # the driver calls this when the stage's inputs are complete
            stage(replace(_with_paths(settings, payload), patience=None))
        except BaseException as error:
            failure.append(error)
            raise
        return True

    log.debug("NVIDIA's driver synchronises the stages")
    driver = Driver(execute_handler=execute)
    driver.start()
    driver.wait_for_completion()
    if failure:
        raise failure[0]


def _with_paths(settings: Settings, payload: Any) -> Settings:  # noqa: ANN401 - the module has no types
    """Return the settings with the payload's folders, where the command line names none."""
    default = Settings()
    if settings.input_path == default.input_path:
        folders = [Path(entry.path) for entry in payload.input_entries]
        if folders:
            settings = replace(settings, input_path=folders[0], more_inputs=tuple(folders[1:]))
    if settings.output_path == default.output_path:
        for entry in payload.output_entries:
            settings = replace(settings, output_path=Path(entry.path))
            break
    return settings
