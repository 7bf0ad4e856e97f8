"""Measures speed and memory against other programs and against baselines: ``python -m benchmarks`` prints one table."""

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # otherwise ONNX Runtime reports model and machine to its maker
