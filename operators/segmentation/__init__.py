"""segmentation: load, filter and stitch in one process."""
