"""Trains, exports and evaluates the model: ``python -m training --data DIR [--data DIR2] --output models``.

Exit code 0: done; 1: an error, which one line describes; 2: wrong options.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from training.command_line import EXPECTED, describe, integer_from, positive_number
from training.settings import TrainingSettings

log = logging.getLogger("training")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line.

    Parameters
    ----------
    arguments : Sequence of str, optional
        Default: the arguments of the process.

    Returns
    -------
    argparse.Namespace
        The options.
    """
    default = TrainingSettings()
    parser = argparse.ArgumentParser(
        prog="python -m training", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, action="append", required=True, help="data directory; repeatable")
    parser.add_argument("--slides", type=Path, help="folder of H&E slides without annotation, to train on as well")
    parser.add_argument("--output", type=Path, required=True, help="model repository to write the models to")
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("training/runs/default"),
        help="folder of the checkpoint and the log (%(default)s); a run that was killed is resumed from it",
    )
    parser.add_argument("--steps", type=integer_from(1), default=default.steps, help="optimiser steps (%(default)s)")
    parser.add_argument(
        "--rate", type=positive_number, default=default.rate, help="highest learning rate (%(default)s)"
    )
    parser.add_argument(
        "--start",
        type=Path,
        metavar="ONNX",
        help="exported model.onnx with the initial weights; usually with a lower --rate",
    )
    parser.add_argument("--seed", type=integer_from(0), default=default.seed, help="seed (%(default)s)")
    parser.add_argument(
        "--threads", type=integer_from(1), default=default.threads, help="threads of PyTorch (%(default)s)"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, export and evaluate; return the exit code.

    Parameters
    ----------
    arguments : Sequence of str, optional
        Default: the arguments of the process.
    """
    options = parse(arguments)
    try:
        from training.run import run  # it needs PyTorch; the help and the errors above do not

        options.work.mkdir(parents=True, exist_ok=True)
        handlers: list[logging.Handler] = [
            logging.StreamHandler(sys.stdout),
            logging.FileHandler(options.work / "train.log"),
        ]
    except (ModuleNotFoundError, OSError) as error:
        print(describe(error), file=sys.stderr)
        return 1
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", handlers=handlers)
    try:
        run(options)
    except EXPECTED as error:
        log.error("%s", describe(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
