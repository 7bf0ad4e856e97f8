"""The errors of training and evaluation. The message of each is one line that says what is wrong."""

from __future__ import annotations


class TrainingError(Exception):
    """Base of the errors of this package."""


class DataError(TrainingError):
    """A data directory does not hold what its index says."""


class CheckpointError(TrainingError):
    """A checkpoint cannot be read, or belongs to a run with other settings."""


class WeightsError(TrainingError):
    """The weights of an exported model do not fit the network."""


class ExportError(TrainingError):
    """An exported model does not pass its checks."""
