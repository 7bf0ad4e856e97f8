"""Messages to the user, on the standard error."""

from __future__ import annotations

import sys

from nuclei_segmentation.pipelines.language.findings import DefinitionError
from nuclei_segmentation.shared.errors import NucleiError
from nuclei_segmentation.shared.runtime.outside import harmless


def show(text: str) -> None:
    """Print one line."""
    print(harmless(text), file=sys.stderr, flush=True)  # noqa: T201 - messages to the user


def show_error(error: NucleiError) -> None:
    """Print an error; of a wrong definition, each finding on a line of its own."""
    for line in error.findings if isinstance(error, DefinitionError) else (error,):
        show(str(line))
