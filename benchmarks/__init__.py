"""Measures speed and memory beside the peers and the physical limits; ``python -m benchmarks`` prints one table."""

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # ONNX Runtime tells its maker about model and machine otherwise
