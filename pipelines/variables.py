"""Variables that operators are given, and what stands for a folder in commands of services."""

from __future__ import annotations

from nuclei_segmentation.shared.runtime.cli import RUN_VARIABLE, SHM_VARIABLE, TRITON_VARIABLES
from nuclei_segmentation.shared.runtime.waiting import VARIABLE as ALONE
from nuclei_segmentation.shared.settings.shard import VARIABLE as SHARD_VARIABLE

__all__ = [
    "ALONE", "DATA", "OURS", "RUN_VARIABLE", "SHARD_VARIABLE", "SHM_VARIABLE", "TRITON", "TRITON_GRPC", "TRITON_HTTP",
    "TRITON_VARIABLES",
]  # fmt: skip

TRITON_HTTP = ("NVIDIA_TRITON_HTTPURI", "CLARA_TRITON_URI", "NVIDIA_CLARA_TRTISURI")
"""Under which names an operator that lists `models` finds Triton's HTTP address, as NVIDIA's sizing tool has them."""
TRITON_GRPC = "NVIDIA_TRITON_GRPCURI"
TRITON = (*TRITON_HTTP, TRITON_GRPC)

OURS = (ALONE, RUN_VARIABLE, SHM_VARIABLE, SHARD_VARIABLE)
"""What the caller's environment has of these must not reach operators by chance."""

DATA = "$(NVIDIA_CLARA_SERVICE_DATA_PATH)"
"""Where Clara mounts the folder of models in services; here that is the root."""
