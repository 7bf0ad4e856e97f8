"""The launcher: /app/main.py in every image."""

import sys

from operators.commands import run

if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
