"""Variables that operators are given, and what stands for a folder in commands of services."""

from __future__ import annotations

from nuclei_segmentation.shared.settings.environment import (
    NO_SYNC_LOCK,
    RUN_ID,
    SHARD,
    STORE_SHM,
)

TRITON_HTTP = ("NVIDIA_TRITON_HTTPURI", "CLARA_TRITON_URI", "NVIDIA_CLARA_TRTISURI")
"""Under which names an operator that lists `models` finds Triton's HTTP address, as NVIDIA's sizing tool has them."""
TRITON_GRPC = "NVIDIA_TRITON_GRPCURI"
TRITON = (*TRITON_HTTP, TRITON_GRPC)

OURS = (NO_SYNC_LOCK, RUN_ID, STORE_SHM, SHARD)
"""What the caller's environment has of these must not reach operators by chance."""

DATA = "$(NVIDIA_CLARA_SERVICE_DATA_PATH)"
"""Where Clara mounts the folder of models in services; here that is the root."""
