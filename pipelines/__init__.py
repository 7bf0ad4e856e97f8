"""Pipeline definitions in the language of NVIDIA Clara Deploy: reads, checks and resolves them.

::

    definition = Definition(Path("pipelines/nuclei-segmentation.yaml"))
    report = definition.check()                        # every finding, with its place
    pipeline = definition.resolve({"WORKERS": "4"})    # raises DefinitionError
    for operator in pipeline.operators:                # in the order in which they can run
        print(operator.name, operator.container.reference, operator.upstream)
"""

from nuclei_segmentation.pipelines.language.findings import DefinitionError, Finding, Place
from nuclei_segmentation.pipelines.language.model import (
    DYNAMIC,
    Connection,
    Container,
    DataType,
    Import,
    Input,
    Model,
    Operator,
    Output,
    Parameter,
    Pipeline,
    Requests,
    Service,
)
from nuclei_segmentation.pipelines.language.reader import Definition, Report

__all__ = [
    "DYNAMIC",
    "Connection",
    "Container",
    "DataType",
    "Definition",
    "DefinitionError",
    "Finding",
    "Import",
    "Input",
    "Model",
    "Operator",
    "Output",
    "Parameter",
    "Pipeline",
    "Place",
    "Report",
    "Requests",
    "Service",
]
