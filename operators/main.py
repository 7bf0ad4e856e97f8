"""The launcher: /app/main.py in every image."""

import os
import signal
import sys

# Until the program handles it, Ctrl-C simply ends the process, without a traceback through half-loaded libraries.
signal.signal(signal.SIGINT, signal.SIG_DFL)
for number, name in enumerate(("stdin", "stdout", "stderr")):
    if getattr(sys, name) is None:  # it was closed; a file opened later must not get its number
        stream = open(os.devnull, "r" if number == 0 else "w")  # noqa: PTH123, SIM115 - stays open to the end
        setattr(sys, name, stream)

from operators.commands import run  # noqa: E402 - the streams must be there first

if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
