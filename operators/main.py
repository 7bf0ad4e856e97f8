"""The launcher: the command ``nuclei``, and /app/main.py in every image."""

from __future__ import annotations

import os
import signal
import sys


def main() -> int:
    """Run the command line of this process and return the exit code."""
    # Until the program handles it, Ctrl-C simply ends the process, without a traceback through half-loaded libraries.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:  # it was closed; a file opened later must not get its number
            stream = open(os.devnull, "r" if number == 0 else "w")  # noqa: PTH123, SIM115 - stays open to the end
            setattr(sys, name, stream)
    # NumPy's BLAS would start a thread for each processor, and where a limit forbids that it sends this process SIGINT.
    # The matrices here are small, and no result depends on it.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from nuclei_segmentation.operators.commands import run  # the streams must be there first

    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
