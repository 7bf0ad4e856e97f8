"""The option ``--triton-image``: a Triton server for operators that list `models`."""

from __future__ import annotations

from dataclasses import replace

from nuclei_segmentation.pipelines.language.model import Connection, Container, Pipeline, Requests, Service
from nuclei_segmentation.pipelines.language.names import bad_image, bad_tag
from nuclei_segmentation.shared.clara.sizing_tool import (
    SERVICE_DATA,
    TRITON_GRPC_PORT,
    TRITON_GRPC_VARIABLE,
    TRITON_HTTP_PORT,
    TRITON_HTTP_VARIABLES,
    serve_models,
)
from nuclei_segmentation.shared.errors import UsageError


def with_triton_service(pipeline: Pipeline, image: str) -> Pipeline:
    """Return a pipeline in which the operators that list `models` use a Triton server of their own.

    Parameters
    ----------
    pipeline : Pipeline
        The pipeline.
    image : str
        Name and tag of the server's image.

    Raises
    ------
    UsageError
        `image` is not a name with a tag, or no operator lists models.
    """
    name, _, tag = image.rpartition(":")
    if bad_image(name) or bad_tag(tag):
        raise UsageError(f"--triton-image {image!r} is not an image's NAME:TAG")
    models = list(dict.fromkeys(one.name for operator in pipeline.operators for one in operator.models))
    if not models:
        raise UsageError("--triton-image needs operators that list `models`; this definition has none")
    container = Container(name, tag, serve_models(models, f"{SERVICE_DATA}/models"))
    http = tuple(Connection("http", variable, TRITON_HTTP_PORT) for variable in TRITON_HTTP_VARIABLES)
    grpc = Connection("http", TRITON_GRPC_VARIABLE, TRITON_GRPC_PORT)
    triton = Service("triton", container, (*http, grpc), requests=Requests(gpu=1))
    operators = (
        replace(operator, services=(*operator.services, triton)) if operator.models else operator
        for operator in pipeline.operators
    )
    return replace(pipeline, operators=tuple(operators))
