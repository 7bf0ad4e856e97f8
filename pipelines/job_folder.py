"""Where a run keeps what passes between operators: the folder ``.job`` in its output folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nuclei_segmentation.pipelines.language.model import Input, Operator, Output, Pipeline

NAME = ".job"


@dataclass(frozen=True, slots=True)
class Folders:
    """The folders of a run.

    Attributes
    ----------
    payload : pathlib.Path
        What the pipeline is given.
    output : pathlib.Path
        Where the result goes.
    """

    payload: Path
    output: Path

    @property
    def job(self) -> Path:
        """Everything else lies here."""
        return self.output / NAME

    @property
    def data(self) -> Path:
        """What operators write."""
        return self.job / "data"

    @property
    def config(self) -> Path:
        """An empty folder, for who is given no config.yaml."""
        return self.job / "config"

    def log(self, operator: str) -> Path:
        """Return the file that takes what an operator prints."""
        return self.job / "logs" / f"{operator}.log"

    def written(self, operator: str, output: str) -> Path:
        """Return the folder of an output: that of its operator if it has no name, else one in there."""
        return self.data / operator / output if output else self.data / operator

    def reads(self, operator: Operator) -> Iterator[tuple[Path, Input]]:
        """Yield the folder here of each input that has one in the container."""
        for one in operator.inputs:
            if one.path is not None:
                yield self.payload if one.source is None else self.written(one.source, one.output), one

    def writes(self, operator: Operator) -> Iterator[tuple[Path, Output]]:
        """Yield the folder here of each output that has one in the container."""
        for one in operator.outputs:
            if one.path is not None:
                yield self.written(operator.name, one.name), one

    def results(self, pipeline: Pipeline) -> tuple[tuple[str, str], ...]:
        """Return the folders that hold the run's result, and where their contents go.

        These are the outputs that nobody reads, or only operators that write nothing. A single one goes into the output
        folder itself; of several, each into a folder named for its operator, and its output if that has a name.
        """
        ends = {one.name for one in pipeline.operators if not any(True for _ in self.writes(one))}
        read = {(item.source, item.output) for one in pipeline.operators if one.name not in ends for item in one.inputs}
        found = [
            (folder, one.name, output.name)
            for one in pipeline.operators
            for folder, output in self.writes(one)
            if (one.name, output.name) not in read
        ]
        if len(found) == 1:
            return ((str(found[0][0]), str(self.output)),)
        return tuple((str(folder), str(self.output / name / output)) for folder, name, output in found)
