"""The folders of a run: the payload, the result, and the folder ``.job`` for what passes between operators."""

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
        The folder that the pipeline reads.
    output : pathlib.Path
        The folder that receives the result.
    """

    payload: Path
    output: Path

    @property
    def job(self) -> Path:
        """The folder for everything but the result."""
        return self.output / NAME

    @property
    def data(self) -> Path:
        """The folder for what operators write."""
        return self.job / "data"

    @property
    def config(self) -> Path:
        """An empty folder, for operators without a config.yaml."""
        return self.job / "config"

    def log(self, name: str) -> Path:
        """Return the log file of an operator or service."""
        return self.job / "logs" / f"{name}.log"

    def written(self, operator: str, output: str) -> Path:
        """Return the folder of an output.

        Parameters
        ----------
        operator : str
            Name of the operator that writes it.
        output : str
            Name of the output; '' for an unnamed one, which has the operator's own folder.
        """
        return self.data / operator / output if output else self.data / operator

    def reads(self, operator: Operator) -> Iterator[tuple[Path, Input]]:
        """Yield the folders that an operator reads, each with its input."""
        for item in operator.inputs:
            if item.path is not None:
                yield self.payload if item.source is None else self.written(item.source, item.output), item

    def writes(self, operator: Operator) -> Iterator[tuple[Path, Output]]:
        """Yield the folders that an operator writes to, each with its output."""
        for item in operator.outputs:
            if item.path is not None:
                yield self.written(operator.name, item.name), item

    def results(self, pipeline: Pipeline) -> tuple[tuple[str, str], ...]:
        """Return the folders that hold the result of a run, each with the folder to which its contents go.

        An output is a result if no operator reads it, or only operators that write nothing. A single result goes into
        the output folder itself. Of several, each goes into a folder with the name of its operator, and in there, if
        the output has a name, into a folder with that.
        """
        silent = {operator.name for operator in pipeline.operators if not any(True for _ in self.writes(operator))}
        read = {
            (item.source, item.output)
            for operator in pipeline.operators
            if operator.name not in silent
            for item in operator.inputs
        }
        results = [
            (folder, operator.name, output.name)
            for operator in pipeline.operators
            for folder, output in self.writes(operator)
            if (operator.name, output.name) not in read
        ]
        if len(results) == 1:
            return ((str(results[0][0]), str(self.output)),)
        return tuple((str(folder), str(self.output / name / output)) for folder, name, output in results)
