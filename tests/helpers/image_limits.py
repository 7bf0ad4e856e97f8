"""How large the images may be, the base image included, in MB of 10^6 bytes."""

MOST_MB = {"load": 800, "filter": 700, "stitch": 720, "segmentation": 950}
