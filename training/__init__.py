"""Trains and evaluates the nucleus segmentation model ``segmentation_unet_nuclei``, reproducibly.

Run ``python -m training --data DIR --output models`` from the repository root.
"""

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # otherwise ONNX Runtime reports model and machine to its maker
