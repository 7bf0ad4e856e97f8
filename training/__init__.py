"""Reproducible training of the nucleus segmentation model ``segmentation_unet_nuclei``.

Run ``python -m training --data DIR --output models`` from the repository root.
"""

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # ONNX Runtime tells its maker about model and machine otherwise
