"""Reproducible training of the nucleus segmentation model ``segmentation_unet_nuclei``.

Run ``python -m training --data DIR --output models`` from the repository root.
"""
